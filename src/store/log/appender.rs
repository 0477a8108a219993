//! The end of the log, to which entries are appended.

use std::io;
use std::sync::Arc;

use crate::store::directory::unusable;
use crate::store::error::StoreError;
use crate::store::log::group::{Entry, seal};
use crate::store::log::place::{LogPlace, LogPosition};
use crate::store::log::replay::{Replay, read_segments};
use crate::store::log::segment::Segment;
use crate::store::log::shelf::Shelf;

/// The end of the log, to which entries are appended.
#[derive(Debug)]
pub struct Log {
    shelf: Arc<Shelf>,
    segment: Segment,
    newest: u64,
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
        };
        Ok((log, replay))
    }

    /// Appends entries and waits until they are durable.
    ///
    /// # Errors
    /// [`StoreError::Full`] when there is no space; nothing was appended then. After any other
    /// error it is unknown what the log holds.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let Some(last) = entries.last() else {
            return Ok(());
        };
        let bytes = seal(self.segment.key(), entries);
        self.segment.append(&bytes).map_err(|source| {
            if source.kind() == io::ErrorKind::StorageFull {
                return StoreError::Full;
            }
            StoreError::commit_failed(unusable(self.segment.path(), source))
        })?;
        self.newest = self.newest.max(last.commit);
        Ok(())
    }

    /// Closes the segment and goes on in the next one.
    ///
    /// # Errors
    /// [`StoreError`] when there is none ready and none can be made; nothing has changed then.
    pub fn rotate(&mut self) -> Result<(), StoreError> {
        let next = self.shelf.take_next()?;
        let closed = std::mem::replace(&mut self.segment, next);
        self.shelf.put(closed.number(), self.newest);
        Ok(())
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
