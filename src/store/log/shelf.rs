//! Segments of the log that are not appended to.

use std::collections::VecDeque;
use std::io;
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
        let disk = &*self.place.disk;
        loop {
            let (number, next) = {
                let state = self.lock();
                match state.closed.front() {
                    Some((number, newest)) if *newest <= commit => {
                        (*number, state.ready.is_none().then_some(state.next))
                    }
                    _ => return Ok(()),
                }
            };
            let old = self.place.path(number);
            let reusable = match next {
                Some(_) => disk.open(&old, false)?.size()? <= REUSE_MAX,
                None => false,
            };
            match next.filter(|_| reusable) {
                Some(next) => {
                    disk.rename(&old, &self.place.path(next))?;
                    let segment = self.create(next)?;
                    let mut state = self.lock();
                    state.closed.pop_front();
                    state.next = state.next.max(next + 1);
                    state.ready = Some(segment);
                }
                None => {
                    disk.remove(&old)?;
                    self.lock().closed.pop_front();
                }
            }
        }
    }
}
