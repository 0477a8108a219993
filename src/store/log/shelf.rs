//! Segments of the log that are not appended to.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::directory::unusable;
use crate::store::error::StoreError;
use crate::store::log::place::LogPlace;
use crate::store::log::segment::Segment;

/// Segments larger than this are removed and not used again.
const REUSE_MAX: u64 = 32 << 20;

/// The segments that are not appended to: closed ones, and one that is ready to be next.
#[derive(Debug)]
pub struct Shelf {
    place: LogPlace,
    state: Mutex<ShelfState>,
}

#[derive(Debug)]
struct ShelfState {
    /// Numbers of closed segments, each with the newest commit up to its end.
    closed: VecDeque<(u64, u64)>,
    ready: Option<Segment>,
    next: u64,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, ShelfState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments that there are, with the newest commit up to the end of each; new ones are
    /// numbered from `next`.
    pub fn new(place: LogPlace, closed: &[(u64, u64)], next: u64) -> Self {
        Self {
            place,
            state: Mutex::new(ShelfState {
                closed: closed.iter().copied().collect(),
                ready: None,
                next,
            }),
        }
    }

    /// A segment to go on in: the one that is ready, or a new one.
    ///
    /// # Errors
    /// [`StoreError`] when none can be made.
    pub fn take_next(&self) -> Result<Segment, StoreError> {
        let mut state = self.lock();
        if let Some(ready) = state.ready.take() {
            return Ok(ready);
        }
        let made = self.create(state.next);
        let segment = made.map_err(|source| unusable(&self.place.folder, source))?;
        state.next += 1;
        Ok(segment)
    }

    /// Keeps a segment that is not appended to any more; `newest` is the newest commit up to its
    /// end.
    pub fn put(&self, number: u64, newest: u64) {
        self.lock().closed.push_back((number, newest));
    }

    /// Removes the file of a segment.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.place.disk.remove(path)
    }

    /// Gives the space of the segment that is ready to be next back.
    ///
    /// # Errors
    /// The disk's; the segment stays then.
    pub fn shrink(&self) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(ready) = &state.ready {
            missing_is_fine(self.place.disk.remove(ready.path()))?;
            // It was the last to be numbered, and nothing has been appended to it.
            state.next = ready.number();
            state.ready = None;
        }
        Ok(())
    }

    fn create(&self, number: u64) -> io::Result<Segment> {
        let (disk, path) = (&*self.place.disk, self.place.path(number));
        let segment = Segment::create(disk, path, self.place.epoch, number)?;
        disk.sync_folder(&self.place.folder)?;
        Ok(segment)
    }

    /// Gives up the segments that hold nothing behind `commit`, now that the engine's file holds
    /// everything up to it, and gets a segment ready to be next: writing over a file is faster
    /// than letting one grow.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails; nothing is lost then.
    pub fn tidy(&self, commit: u64) -> Result<(), StoreError> {
        let tidied = self.tidy_files(commit);
        tidied.map_err(|source| unusable(&self.place.folder, source))
    }

    fn tidy_files(&self, commit: u64) -> io::Result<()> {
        // Nobody may take the next number meanwhile: segments are read in order of number, and a
        // file renamed to one in use would take the place of what was acknowledged.
        let mut state = self.lock();
        while let Some((number, newest)) = state.closed.front().copied() {
            if newest > commit {
                break;
            }
            let old = self.place.path(number);
            if state.ready.is_none() && self.is_reusable(&old)? {
                self.reuse(&mut state, &old)?;
            } else {
                missing_is_fine(self.place.disk.remove(&old))?;
                state.closed.pop_front();
            }
        }
        Ok(())
    }

    fn is_reusable(&self, segment: &Path) -> io::Result<bool> {
        match self.place.disk.open(segment, false) {
            Ok(file) => Ok(file.size()? <= REUSE_MAX),
            // An attempt that failed had moved it all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the first of the closed segments the one that is ready.
    fn reuse(&self, state: &mut ShelfState, old: &Path) -> io::Result<()> {
        let next = state.next;
        self.place.disk.rename(old, &self.place.path(next))?;
        state.next += 1;
        if let Some((number, _)) = state.closed.front_mut() {
            *number = next;
        }
        // A header must not get to the disk before the name that it speaks of.
        self.place.disk.sync_folder(&self.place.folder)?;
        state.ready = Some(self.create(next)?);
        state.closed.pop_front();
        Ok(())
    }
}

fn missing_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
