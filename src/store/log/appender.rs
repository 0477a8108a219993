//! The end of the log, to which entries are appended.

use std::io;
use std::sync::Arc;

use crate::store::directory::unusable;
use crate::store::error::{StoreError, is_full};
use crate::store::log::group::{Entry, seal};
use crate::store::log::place::{LogPlace, LogPosition};
use crate::store::log::replay::{Replay, read_segments};
use crate::store::log::segment::{SEGMENT_HEADER, Segment};
use crate::store::log::shelf::Shelf;

/// The end of the log, to which entries are appended.
#[derive(Debug)]
pub struct Log {
    shelf: Arc<Shelf>,
    segment: Segment,
    newest: u64,
    /// Set by a failure that leaves it unknown what the segment holds.
    is_in_doubt: bool,
}

impl Log {
    /// Reads the log and begins a new segment behind it. `from` says where the engine's file
    /// stands; what it holds already is left out of the replay.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails, or the log is damaged or lacks what must be there.
    pub fn open(place: LogPlace, from: LogPosition) -> Result<(Self, Replay), StoreError> {
        let folder = place.folder.clone();
        let failed = |source| unusable(&folder, source);
        let replay = read_segments(&place, from)?;
        write_again(&place, &replay)?;
        let last = replay.segments.last().map(|(number, _)| *number);
        let number = last.map_or(from.segment, |last| last + 1).max(1);
        let segment = Segment::create(&*place.disk, place.path(number), place.epoch, number);
        let segment = segment.map_err(failed)?;
        place.disk.sync_folder(&place.folder).map_err(failed)?;
        let newest = replay.newest;
        let shelf = Shelf::new(place, &replay.segments, number + 1);
        let log = Self {
            shelf: Arc::new(shelf),
            segment,
            newest,
            is_in_doubt: false,
        };
        Ok((log, replay))
    }

    /// Removes the segment that was begun, to which nothing has been appended.
    pub fn discard(&self) {
        // One that stays is taken for what it is by the next start.
        let _ = self.shelf.remove(self.segment.path());
    }

    /// Appends entries and waits until they are durable.
    ///
    /// # Errors
    /// [`StoreError::Full`] when there is no space; nothing was appended then. After any other
    /// error it is unknown what the log holds, and it takes nothing more until it is opened again.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let Some(last) = entries.last() else {
            return Ok(());
        };
        self.check_doubt()?;
        let bytes = seal(self.segment.key(), entries);
        if let Err(source) = self.segment.append(&bytes) {
            if is_full(source.kind()) {
                return Err(StoreError::Full);
            }
            self.is_in_doubt = true;
            let failed = unusable(self.segment.path(), source);
            return Err(StoreError::commit_failed(failed));
        }
        self.newest = self.newest.max(last.commit);
        Ok(())
    }

    /// What was appended last may be there, so nothing may take its number.
    fn check_doubt(&self) -> Result<(), StoreError> {
        if self.is_in_doubt {
            let doubt = io::Error::other("an earlier write to it failed; open the store again");
            return Err(unusable(self.segment.path(), doubt));
        }
        Ok(())
    }

    /// Closes the segment and goes on in the next one.
    ///
    /// # Errors
    /// [`StoreError`] when there is none ready and none can be made, or when it is unknown what
    /// this one holds; nothing has changed then.
    pub fn rotate(&mut self) -> Result<(), StoreError> {
        self.check_doubt()?;
        let next = self.shelf.take_next()?;
        let closed = std::mem::replace(&mut self.segment, next);
        self.shelf.put(closed.number(), self.newest);
        Ok(())
    }

    /// Gives back the space that is kept to be written over, for a time in which nothing is
    /// appended: the next entries get it anew, which takes some milliseconds.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails; nothing is lost then.
    pub fn shrink(&mut self) -> Result<(), StoreError> {
        self.check_doubt()?;
        let shrunk = self.shelf.shrink().and_then(|()| self.segment.shrink());
        shrunk.map_err(|source| unusable(self.segment.path(), source))
    }

    /// The number of the segment that entries go to now.
    pub fn segment(&self) -> u64 {
        self.segment.number()
    }

    /// What keeps the closed segments.
    pub fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf)
    }
}

/// Makes durable what is about to be built upon. The process before may have died in front of a
/// sync, or have been told that one failed: the operating system then takes what it could not write
/// for written, and only writing it again puts it on the disk.
fn write_again(place: &LogPlace, replay: &Replay) -> Result<(), StoreError> {
    let Some((number, groups)) = &replay.last else {
        return Ok(());
    };
    let path = place.path(*number);
    let file = place.disk.open(&path, false);
    let written = file.and_then(|file| {
        file.write_at(SEGMENT_HEADER, groups)?;
        file.sync()
    });
    written.map_err(|source| unusable(&path, source))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::disk::MachineDisk;
    use crate::store::log::group::EntryKind;
    use crate::types::cursor::Epoch;

    const STRETCH: u64 = 1 << 20;

    fn append(log: &mut Log, commit: u64, bytes: usize) {
        let kind = EntryKind::Changes(Bytes::from(vec![7; bytes]));
        log.append(&[Entry { commit, kind }]).unwrap();
    }

    fn sizes(place: &LogPlace) -> Vec<(u64, u64)> {
        let size = |number| {
            let file = place.disk.open(&place.path(number), false).unwrap();
            (number, file.size().unwrap())
        };
        place.numbers().unwrap().into_iter().map(size).collect()
    }

    #[test]
    fn a_log_that_was_shrunk_goes_on_and_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.redb");
        let place = LogPlace::beside(&file, Arc::new(MachineDisk), Epoch(5));
        let (mut log, _) = Log::open(place.clone(), LogPosition::default()).unwrap();
        for commit in 1..=2 {
            append(&mut log, commit, 3 * STRETCH as usize);
            log.rotate().unwrap();
            log.shelf().tidy(commit).unwrap();
        }
        // One that is used again, and one that is ready to be used again.
        assert_eq!(sizes(&place), [(3, 4 * STRETCH), (4, 4 * STRETCH)]);
        append(&mut log, 3, STRETCH as usize);
        log.shrink().unwrap();
        assert_eq!(sizes(&place), [(3, 2 * STRETCH)]);
        log.shrink().unwrap();
        append(&mut log, 4, 2 * STRETCH as usize);
        log.rotate().unwrap();
        append(&mut log, 5, 10);
        assert_eq!(sizes(&place), [(3, 4 * STRETCH), (4, STRETCH)]);
        drop(log);
        let from = LogPosition {
            commit: 2,
            segment: 3,
        };
        let (_, replay) = Log::open(place, from).unwrap();
        assert_eq!(replay.newest, 5);
        assert_eq!(replay.commits.len(), 3);
    }
}
