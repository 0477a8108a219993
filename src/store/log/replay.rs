//! Reading the log back when a namespace is opened.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use crate::store::directory::unusable;
use crate::store::error::StoreError;
use crate::store::log::group::{ALIGNMENT, EntryKind, ReadGroup, SegmentKey, lengths, open};
use crate::store::log::place::{LogPlace, LogPosition};
use crate::store::log::segment::{Header, SEGMENT_HEADER, is_cut_off, read_header};

/// Commits behind the newest one that a group is expected to begin at, when intact groups are
/// searched behind a broken one.
const NEAR: u64 = 1 << 20;

/// What the log holds that the engine's file does not.
#[derive(Debug, Default)]
pub struct Replay {
    /// Changes of each commit, in order, without those that were not carried out.
    pub commits: BTreeMap<u64, Bytes>,
    /// The newest commit of file and log.
    pub newest: u64,
    /// Number of each segment and the newest commit up to its end.
    pub segments: Vec<(u64, u64)>,
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

struct Reader<'p> {
    place: &'p LogPlace,
    from: LogPosition,
    replay: Replay,
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
            Header::Key(_) => {
                return Err(StoreError::damaged(format!(
                    "{} belongs to another file than the one beside it",
                    path.display()
                )));
            }
            Header::Blank if self.intact_behind(key, &bytes, 0).is_none() => return Ok(false),
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
        self.groups(key, &path, &bytes)?;
        Ok(true)
    }

    fn load(&self, path: &Path) -> Result<Bytes, StoreError> {
        let load = || {
            let file = self.place.disk.open(path, false)?;
            let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(usize::MAX)];
            file.read_at(0, &mut bytes)?;
            // After the death of a process alone some of it may never have been synced, and what
            // is read is about to be built upon.
            file.sync()?;
            Ok(Bytes::from(bytes))
        };
        load().map_err(|source| unusable(path, source))
    }

    fn groups(&mut self, key: SegmentKey, path: &Path, bytes: &Bytes) -> Result<(), StoreError> {
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
                    if self.intact_behind(key, bytes, at).is_some() {
                        return Err(StoreError::damaged(format!(
                            "the log is broken in {} at byte {at}, in front of writes that were \
                             acknowledged",
                            path.display()
                        )));
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, commit: u64, kind: EntryKind, path: &Path) -> Result<(), StoreError> {
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

    /// Where an intact group of the segment begins behind a place. A crash breaks off the last
    /// group only.
    fn intact_behind(&self, key: SegmentKey, bytes: &Bytes, at: usize) -> Option<usize> {
        let first = (at + ALIGNMENT as usize).next_multiple_of(ALIGNMENT as usize);
        let first = first.max(SEGMENT_HEADER as usize);
        (first..bytes.len()).step_by(ALIGNMENT as usize).find(|at| {
            let likely = lengths(&bytes[*at..]).is_some_and(|(_, first)| {
                first <= self.replay.newest + NEAR && first + NEAR >= self.replay.newest
            });
            likely && matches!(open(key, &bytes.slice(*at..)), ReadGroup::Intact(..))
        })
    }
}
