//! An entry of the log of roots, and its hash.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::types::cursor::Epoch;
use crate::types::hash::{LogHash, NodeHash};

/// First byte of what a leaf of the log is the hash of. No other hash of ours begins so.
pub const LEAF_TAG: u8 = 0x20;
/// First byte of what an inner node of the log is the hash of.
pub const NODE_TAG: u8 = 0x21;
/// First byte of what a log's name is the hash of.
pub const NAME_TAG: u8 = 0x22;

/// Bytes of an encoded [`RootEntry`].
pub const ENTRY_BYTES: usize = 64;

/// What a replica says of itself: at this moment it held this root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootEntry {
    /// The root of the tree of states.
    pub root: NodeHash,
    /// The newest position of the change feed then.
    pub seq: u64,
    /// Which life of the feed.
    pub epoch: Epoch,
    /// How often the namespace's file had been opened for writing.
    pub incarnation: u64,
    /// When the entry was made, in milliseconds since 1970-01-01 UTC; never before that of the
    /// entry in front of it.
    pub time: u64,
}

impl RootEntry {
    /// The root, then the four numbers, little endian.
    pub fn to_bytes(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..32].copy_from_slice(&self.root.0);
        let numbers = [self.seq, self.epoch.0, self.incarnation, self.time];
        for (number, place) in numbers.iter().zip(bytes[32..].chunks_exact_mut(8)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`RootEntry::to_bytes`] wrote; `None` unless there are exactly as many bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENTRY_BYTES] = bytes.try_into().ok()?;
        let (root, numbers) = bytes.split_first_chunk::<32>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
        Some(Self {
            root: NodeHash(*root),
            seq: numbers.next()?,
            epoch: Epoch(numbers.next()?),
            incarnation: numbers.next()?,
            time: numbers.next()?,
        })
    }

    /// Why this entry cannot stand behind the one before, if it cannot: time does not go back, nor does
    /// anything else within one life of the feed.
    pub fn cannot_follow(&self, before: &Self) -> Option<&'static str> {
        if self.time < before.time {
            return Some("its time is before that of the entry in front");
        }
        if self.epoch != before.epoch {
            return None;
        }
        if self.seq < before.seq {
            return Some("its position in the feed is before that of the entry in front");
        }
        let goes_back = self.incarnation < before.incarnation;
        goes_back.then_some("its incarnation is before that of the entry in front")
    }

    /// The entry as a leaf of the log: `SHA-256(0x20 || entry)`.
    pub fn leaf(&self) -> LogHash {
        let mut preimage = [LEAF_TAG; 1 + ENTRY_BYTES];
        preimage[1..].copy_from_slice(&self.to_bytes());
        LogHash(Sha256::digest(preimage).into())
    }
}

/// The parent of two nodes of the log: `SHA-256(0x21 || left || right)`.
pub fn parent(left: &LogHash, right: &LogHash) -> LogHash {
    let mut preimage = [NODE_TAG; 1 + 32 + 32];
    preimage[1..33].copy_from_slice(&left.0);
    preimage[33..].copy_from_slice(&right.0);
    LogHash(Sha256::digest(preimage).into())
}

/// The name of a log: `SHA-256(0x22 || epoch || first leaf)`. A log that begins anew, or goes on in
/// an older copy of its file, is another one: the first has another first entry, the second
/// another epoch.
pub fn log_name(epoch: Epoch, first: &LogHash) -> LogHash {
    let mut preimage = [NAME_TAG; 1 + 8 + 32];
    preimage[1..9].copy_from_slice(&epoch.0.to_le_bytes());
    preimage[9..].copy_from_slice(&first.0);
    LogHash(Sha256::digest(preimage).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_from_exactly_their_bytes() {
        let entry = RootEntry {
            root: NodeHash([7; 32]),
            seq: 1,
            epoch: Epoch(u64::MAX),
            incarnation: 3,
            time: 1_700_000_000_000,
        };
        let bytes = entry.to_bytes();
        assert_eq!(RootEntry::from_bytes(&bytes), Some(entry));
        assert_eq!(RootEntry::from_bytes(&bytes[1..]), None);
        assert_eq!(RootEntry::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn an_entry_goes_back_in_nothing_but_with_its_epoch() {
        let before = RootEntry {
            root: NodeHash([7; 32]),
            seq: 10,
            epoch: Epoch(1),
            incarnation: 3,
            time: 1000,
        };
        assert_eq!(before.cannot_follow(&before), None);
        let goes_back: [fn(&mut RootEntry); 3] = [
            |entry| entry.time -= 1,
            |entry| entry.seq -= 1,
            |entry| entry.incarnation -= 1,
        ];
        for (what, change) in goes_back.into_iter().enumerate() {
            let mut next = before;
            change(&mut next);
            assert!(next.cannot_follow(&before).is_some(), "{what}");
            next.epoch = Epoch(2);
            assert_eq!(next.cannot_follow(&before).is_some(), what == 0, "{what}");
        }
    }
}
