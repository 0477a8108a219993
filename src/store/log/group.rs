//! Groups: what one sync makes durable. Layouts are prose in docs/reference/file-format.md.

use std::hash::Hasher;

use bytes::Bytes;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::types::cursor::Epoch;

/// Bytes in front of a group's entries: length, zeros, first commit, checksum.
pub const GROUP_HEADER: usize = 4 + 4 + 8 + 16;
/// Groups begin at multiples of this many bytes.
pub const ALIGNMENT: u64 = 8;
/// Bytes in front of an entry: commit, kind, length.
const ENTRY_HEADER: usize = 8 + 1 + 4;

/// What groups of one segment are checked with, so that those of another one, whose file was used
/// before, do not pass for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentKey {
    /// The life of the namespace's feed.
    pub epoch: Epoch,
    /// The segment's number.
    pub number: u64,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The commit it is about; commits are numbered without gaps.
    pub commit: u64,
    /// What it says.
    pub kind: EntryKind,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// The commit makes these changes (as the replica layer encodes them).
    Changes(Bytes),
    /// The commit, whose changes stand further in front, could not be carried out.
    Void,
}

/// A group that was read, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadGroup {
    /// Its entries, and the bytes it takes in the segment.
    Intact(Vec<Entry>, usize),
    /// Not a group, or one that was not written to its end.
    None,
}

/// A group as it stands in the segment with this key.
pub fn seal(key: SegmentKey, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![0; GROUP_HEADER];
    for entry in entries {
        let (kind, changes) = match &entry.kind {
            EntryKind::Changes(changes) => (0, &changes[..]),
            EntryKind::Void => (1, &[][..]),
        };
        bytes.extend_from_slice(&entry.commit.to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(&(changes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(changes);
    }
    let length = (bytes.len() - GROUP_HEADER) as u32;
    let first = entries.first().map_or(0, |entry| entry.commit);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    let sum = checksum(key, first, &bytes[GROUP_HEADER..]);
    bytes[16..GROUP_HEADER].copy_from_slice(&sum);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    bytes
}

/// The group at the front of `bytes`, if there is an intact one.
pub fn open(key: SegmentKey, bytes: &Bytes) -> ReadGroup {
    read(key, bytes).map_or(ReadGroup::None, |(entries, used)| {
        ReadGroup::Intact(entries, used)
    })
}

fn read(key: SegmentKey, bytes: &Bytes) -> Option<(Vec<Entry>, usize)> {
    let (length, first) = lengths(bytes)?;
    let sum = bytes.get(16..GROUP_HEADER)?;
    let end = GROUP_HEADER.checked_add(length)?;
    let payload = bytes.get(GROUP_HEADER..end)?;
    if checksum(key, first, payload) != *sum {
        return None;
    }
    let mut rest = bytes.slice(GROUP_HEADER..end);
    let mut entries = Vec::new();
    while !rest.is_empty() {
        if rest.len() < ENTRY_HEADER {
            return None;
        }
        let head = rest.split_to(ENTRY_HEADER);
        let commit = u64::from_le_bytes(head[..8].try_into().ok()?);
        let length = u32::from_le_bytes(head[9..].try_into().ok()?) as usize;
        if length > rest.len() {
            return None;
        }
        let changes = rest.split_to(length);
        let kind = match head[8] {
            0 => EntryKind::Changes(changes),
            1 => EntryKind::Void,
            _ => return None,
        };
        entries.push(Entry { commit, kind });
    }
    Some((entries, end.next_multiple_of(ALIGNMENT as usize)))
}

/// Length and first commit of what may be a group.
pub fn lengths(bytes: &[u8]) -> Option<(usize, u64)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let zeros = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let first = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    (length > 0 && zeros == 0).then_some((length as usize, first))
}

/// SipHash-1-3 with 128 bits (Aumasson and Bernstein, 2012): guards against damage and against
/// taking old bytes for new ones, not against forgers, who could write to the file as well.
fn checksum(key: SegmentKey, first: u64, payload: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher13::new_with_keys(key.epoch.0, key.number);
    hasher.write_u64(first);
    hasher.write_u64(payload.len() as u64);
    hasher.write(payload);
    hasher.finish128().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> SegmentKey {
        SegmentKey {
            epoch: Epoch(7),
            number,
        }
    }

    #[test]
    fn a_group_is_read_whole_or_not_at_all() {
        let entries = [
            Entry {
                commit: 5,
                kind: EntryKind::Changes(Bytes::from_static(b"changes")),
            },
            Entry {
                commit: 4,
                kind: EntryKind::Void,
            },
        ];
        let sealed = Bytes::from(seal(key(1), &entries));
        let used = sealed.len();
        assert_eq!(used % ALIGNMENT as usize, 0);
        let read = open(key(1), &sealed);
        assert_eq!(read, ReadGroup::Intact(entries.to_vec(), used));
        assert_eq!(open(key(2), &sealed), ReadGroup::None, "another segment");
        let payload = 7 + 2 * ENTRY_HEADER;
        for cut in 0..GROUP_HEADER + payload {
            assert_eq!(open(key(1), &sealed.slice(..cut)), ReadGroup::None);
        }
        for byte in 0..GROUP_HEADER + payload {
            for bit in 0..8 {
                let mut flipped = sealed.to_vec();
                flipped[byte] ^= 1 << bit;
                assert_eq!(
                    open(key(1), &flipped.into()),
                    ReadGroup::None,
                    "byte {byte}"
                );
            }
        }
    }
}
