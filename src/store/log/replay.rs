//! Reading the log back when a namespace is opened.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use crate::store::directory::unusable;
use crate::store::error::StoreError;
use crate::store::log::group::{ALIGNMENT, EntryKind, ReadGroup, SegmentKey, lengths, open};
use crate::store::log::place::{LogPlace, LogPosition};
use crate::store::log::segment::{Header, SEGMENT_HEADER, is_cut_off, is_unfinished, read_header};

/// Commits behind the newest one that a group is expected to begin at, when intact groups are
/// searched behind a broken one.
const NEAR: u64 = 1 << 20;

/// Times as many bytes as a segment has are hashed at most when intact groups are searched behind a
/// broken one. The states of clients stand in the log, and may be made to look like groups that each
/// reach to its end.
const SEARCH_FACTOR: usize = 64;

/// What the log holds that the engine's file does not.
#[derive(Debug, Default)]
pub struct Replay {
    /// Changes of each commit, in order, without those that were not carried out.
    pub commits: BTreeMap<u64, Bytes>,
    /// The newest commit of file and log.
    pub newest: u64,
    /// Number of each segment and the newest commit up to its end.
    pub segments: Vec<(u64, u64)>,
    /// The last segment that says anything new, and its groups as they stand behind its header.
    pub last: Option<(u64, Bytes)>,
}

/// Reads all segments in order.
///
/// # Errors
/// [`StoreError::Damaged`] when something that was acknowledged is missing; a group that was not
/// written to its end at the very end of the log is the trace of a crash, and not an error.
pub fn read_segments(place: &LogPlace, from: LogPosition) -> Result<Replay, StoreError> {
    let numbers = place.numbers();
    let numbers = numbers.map_err(|source| unusable(&place.folder, source))?;
    let mut reader = Reader {
        place,
        from,
        replay: Replay {
            newest: from.commit,
            ..Replay::default()
        },
        news: 0,
    };
    let mut found = from.segment == 0;
    for number in numbers {
        found |= reader.segment(number)? && number >= from.segment;
        reader.replay.segments.push((number, reader.replay.newest));
    }
    if !found {
        return Err(StoreError::damaged(format!(
            "the log of {} is missing: there is no {}; put it back, or the newest writes are lost",
            place.folder.join(&place.stem).display(),
            place.path(from.segment).display()
        )));
    }
    Ok(reader.replay)
}

/// What stands in a segment behind a place where no group is.
enum Behind {
    /// No group that was written to its end.
    Nothing,
    /// At least one.
    Intact,
    /// More that looks like groups than is worth hashing.
    Unknown,
}

struct Reader<'p> {
    place: &'p LogPlace,
    from: LogPosition,
    replay: Replay,
    /// Entries so far about what the engine's file does not hold.
    news: usize,
}

impl Reader<'_> {
    /// Reads one segment; false when it never was one.
    fn segment(&mut self, number: u64) -> Result<bool, StoreError> {
        let path = self.place.path(number);
        let bytes = self.load(&path)?;
        let key = SegmentKey {
            epoch: self.place.epoch,
            number,
        };
        match read_header(&bytes) {
            Header::Key(found) if found == key => {}
            // Renamed to be used again, and not begun: what it held, the file has.
            Header::Key(found) if found.epoch == key.epoch && found.number < number => {
                return Ok(false);
            }
            _ if is_unfinished(&bytes, key)
                && matches!(self.behind(key, &bytes, 0), Behind::Nothing) =>
            {
                return Ok(false);
            }
            Header::Key(_) => {
                return Err(StoreError::damaged(format!(
                    "{} belongs to another file than the one beside it",
                    path.display()
                )));
            }
            Header::Blank | Header::Damaged => {
                return Err(StoreError::damaged(format!(
                    "the header of {} is not what was written",
                    path.display()
                )));
            }
        }
        if is_cut_off(&bytes) {
            return Err(StoreError::damaged(format!(
                "{} was cut off after {} bytes",
                path.display(),
                bytes.len()
            )));
        }
        let before = self.news;
        let end = self.groups(key, &path, &bytes)?;
        if self.news > before {
            let groups = bytes.slice(SEGMENT_HEADER as usize..end);
            self.replay.last = Some((number, groups));
        }
        Ok(true)
    }

    fn load(&self, path: &Path) -> Result<Bytes, StoreError> {
        let load = || {
            let file = self.place.disk.open(path, false)?;
            let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(usize::MAX)];
            file.read_at(0, &mut bytes)?;
            Ok(Bytes::from(bytes))
        };
        load().map_err(|source| unusable(path, source))
    }

    /// Reads the groups of a segment, and returns where they end.
    fn groups(&mut self, key: SegmentKey, path: &Path, bytes: &Bytes) -> Result<usize, StoreError> {
        let mut at = SEGMENT_HEADER as usize;
        while at < bytes.len() {
            match open(key, &bytes.slice(at..)) {
                ReadGroup::Intact(entries, used) => {
                    for entry in entries {
                        self.entry(entry.commit, entry.kind, path)?;
                    }
                    at += used;
                }
                ReadGroup::None => {
                    let behind = match self.behind(key, bytes, at) {
                        Behind::Nothing => return Ok(at),
                        Behind::Intact => "in front of writes that were acknowledged",
                        Behind::Unknown => {
                            "and what stands behind it looks so much like writes that it cannot be \
                             told whether some were acknowledged"
                        }
                    };
                    return Err(StoreError::damaged(format!(
                        "the log is broken in {} at byte {at}, {behind}",
                        path.display()
                    )));
                }
            }
        }
        Ok(at.min(bytes.len()))
    }

    fn entry(&mut self, commit: u64, kind: EntryKind, path: &Path) -> Result<(), StoreError> {
        self.news += usize::from(commit > self.from.commit);
        match kind {
            EntryKind::Void => {
                self.replay.commits.remove(&commit);
            }
            EntryKind::Changes(_) if commit <= self.from.commit => {}
            EntryKind::Changes(changes) if commit == self.replay.newest + 1 => {
                self.replay.commits.insert(commit, changes);
                self.replay.newest = commit;
            }
            EntryKind::Changes(_) => {
                return Err(StoreError::damaged(format!(
                    "{} goes on at commit {commit}, but file and log before it end at {}; the \
                     file or a part of the log is older than the rest",
                    path.display(),
                    self.replay.newest
                )));
            }
        }
        Ok(())
    }

    /// What stands behind a place where no group is. A crash breaks off the last group only.
    fn behind(&self, key: SegmentKey, bytes: &Bytes, at: usize) -> Behind {
        let first = (at + ALIGNMENT as usize).next_multiple_of(ALIGNMENT as usize);
        let first = first.max(SEGMENT_HEADER as usize);
        let mut budget = bytes.len().saturating_mul(SEARCH_FACTOR);
        for at in (first..bytes.len()).step_by(ALIGNMENT as usize) {
            let likely = lengths(&bytes[at..]).filter(|(length, first)| {
                first.abs_diff(self.replay.newest) <= NEAR && *length <= bytes.len() - at
            });
            let Some((length, _)) = likely else { continue };
            let Some(left) = budget.checked_sub(length) else {
                return Behind::Unknown;
            };
            budget = left;
            if matches!(open(key, &bytes.slice(at..)), ReadGroup::Intact(..)) {
                return Behind::Intact;
            }
        }
        Behind::Nothing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::disk::MachineDisk;
    use crate::store::log::appender::Log;
    use crate::store::log::group::{Entry, GROUP_HEADER};
    use crate::store::log::salvage::salvage_log;
    use crate::types::cursor::Epoch;

    /// A log of one segment with so many commits, each a group of 48 bytes.
    fn log_of(commits: u64) -> (tempfile::TempDir, LogPlace) {
        let changes = (0..commits).map(|_| Bytes::from_static(b"abc"));
        log_with(changes)
    }

    /// A log of one segment with these commits, each a group.
    fn log_with(changes: impl IntoIterator<Item = Bytes>) -> (tempfile::TempDir, LogPlace) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.redb");
        let place = LogPlace::beside(&file, Arc::new(MachineDisk), Epoch(5));
        let (mut log, replay) = Log::open(place.clone(), LogPosition::default()).unwrap();
        assert_eq!(replay.newest, 0);
        for (commit, changes) in (1..).zip(changes) {
            let kind = EntryKind::Changes(changes);
            log.append(&[Entry { commit, kind }]).unwrap();
        }
        (folder, place)
    }

    fn read(place: &LogPlace) -> Result<u64, StoreError> {
        read_segments(place, LogPosition::default()).map(|replay| replay.newest)
    }

    fn tamper(place: &LogPlace, at: u64, bytes: &[u8]) {
        let file = place.disk.open(&place.path(1), false).unwrap();
        file.write_at(at, bytes).unwrap();
    }

    const GROUP: u64 = 48;

    #[test]
    fn a_broken_group_at_the_end_is_a_crash_and_in_front_of_others_damage() {
        let (_folder, place) = log_of(4);
        assert_eq!(read(&place).unwrap(), 4);
        let payload = SEGMENT_HEADER + GROUP_HEADER as u64;
        tamper(&place, payload + 3 * GROUP, b"torn");
        assert_eq!(read(&place).unwrap(), 3);
        tamper(&place, payload + GROUP, b"torn");
        let broken = read(&place).unwrap_err();
        assert!(broken.to_string().contains("byte 112"), "{broken}");
    }

    #[test]
    fn a_group_that_is_found_behind_states_which_look_like_groups_is_found() {
        let (_folder, place) = log_of(2);
        tamper(&place, SEGMENT_HEADER + GROUP_HEADER as u64, b"torn");
        // Behind the broken group, and in front of an intact one: what looks like a few.
        let mut likely = vec![0; 16];
        likely[..4].copy_from_slice(&1000u32.to_le_bytes());
        likely[8] = 1;
        tamper(&place, SEGMENT_HEADER + 8, &likely);
        assert!(read(&place).is_err());
    }

    #[test]
    fn what_cannot_be_told_from_a_lost_write_is_damage_and_not_the_end() {
        let long = Bytes::from(vec![7; 64 << 10]);
        let (_folder, place) = log_with([long, Bytes::from_static(b"abc")]);
        // A client's bytes that look like long groups, more than are worth hashing.
        let file = place.disk.open(&place.path(1), false).unwrap();
        let half = file.size().unwrap() / 2;
        let mut likely = Vec::new();
        for _ in 0..=2 * SEARCH_FACTOR {
            likely.extend_from_slice(&half.to_le_bytes());
            likely.extend_from_slice(&1_u64.to_le_bytes());
        }
        tamper(&place, SEGMENT_HEADER + GROUP_HEADER as u64 + 16, &likely);
        let broken = read(&place).unwrap_err().to_string();
        assert!(broken.contains("cannot be told"), "{broken}");
        let remains = salvage_log(&place, None, None).unwrap();
        assert_eq!((remains.commits.len(), remains.lost), (1, 0), "{remains:?}");
    }

    #[test]
    fn a_segment_of_another_file_is_damage_and_one_that_was_never_begun_is_none() {
        let (_folder, place) = log_of(2);
        let elsewhere = LogPlace {
            epoch: Epoch(6),
            ..place.clone()
        };
        assert!(matches!(read(&elsewhere), Err(StoreError::Damaged(_))));
        let blank = place.disk.open(&place.path(2), true).unwrap();
        blank.set_len(4096).unwrap();
        assert_eq!(read(&place).unwrap(), 2);
        let needed = LogPosition {
            commit: 2,
            segment: 2,
        };
        let lacking = read_segments(&place, needed).unwrap_err();
        assert!(lacking.to_string().contains("is missing"), "{lacking}");
    }
}
