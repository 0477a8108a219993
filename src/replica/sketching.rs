//! The sketch of a namespace's newest commit, and the way back from it to commits that are a little
//! older: what sessions with a pinned view work on.
//!
//! The writer only notes what a commit changes; whoever finds the sketch free takes the notes in.
//! Notes of the last changes are kept after that. To answer from an older commit, the cells that
//! are asked for are read from the newest sketch, and the few later changes are taken out of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::merkle::prefix::Prefix;
use crate::reconcile::view::SketchView;
use crate::replica::view::View;
use crate::sketch::cell::Cell;
use crate::sketch::estimator::Estimator;
use crate::sketch::key::{Secret, SketchKey};
use crate::sketch::table::{Change, PARTITION_CELLS, Sketch, apply_to_fold, levels_for};
use crate::store::error::StoreError;
use crate::types::hash::{LeafDigest, StateKey};

/// Changes that can be taken back: the way to a commit so many changes ago. 1.5 MiB.
const RECENT_MAX: usize = 1 << 16;
/// Changes that wait for a sketch to be built: 100 MiB. With more it begins anew.
const WAITING_MAX: usize = 1 << 22;
/// Leaves that are read at once while building.
const PAGE_LEAVES: usize = 4096;
/// A sketch is built anew with more partitions once there are so many times as many states as it
/// was built for.
const GROWTH: u64 = 2;
/// Fewest states that a sketch is built for.
const STATES_MIN: u64 = 1 << 12;
/// What stands in place of the number of partitions while there is no sketch.
const NONE: u8 = u8::MAX;

/// What a commit did to a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Which one.
    pub key: StateKey,
    /// Its digest before; `None` when it was not there.
    pub before: Option<LeafDigest>,
    /// Its digest afterwards.
    pub after: Option<LeafDigest>,
}

#[derive(Debug, Clone, Copy)]
struct Noted {
    commit: u64,
    change: Change,
}

/// A sketch, and how to go back.
struct Kept {
    sketch: Sketch,
    /// States that it has room for.
    states: u64,
    /// Changes that were taken in last, oldest first.
    recent: VecDeque<Noted>,
    /// Newest commit of which a change is not in `recent` any more.
    floor: u64,
}

#[derive(Default)]
struct Waiting {
    notes: Vec<Noted>,
    /// True when there were too many to keep.
    lost: bool,
}

/// Keeps the sketch of one namespace.
pub struct Keeper {
    key: SketchKey,
    kept: Mutex<Option<Kept>>,
    /// Locked after `kept`, if both are, and only for a moment.
    waiting: Mutex<Waiting>,
    levels: AtomicU8,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Nothing is kept before [`Keeper::build`].
    pub fn new(secret: &Secret) -> Self {
        Self {
            key: SketchKey::new(secret),
            kept: Mutex::default(),
            waiting: Mutex::default(),
            levels: AtomicU8::new(NONE),
        }
    }

    /// True when there is a sketch.
    pub fn is_ready(&self) -> bool {
        self.levels.load(Ordering::Acquire) != NONE
    }

    /// Notes what a commit changes, before anybody sees it.
    pub fn note(&self, commit: u64, moved: &[Moved]) {
        if moved.is_empty() {
            return;
        }
        let changes = moved.iter().map(|moved| {
            let (before, after) = (moved.before.as_ref(), moved.after.as_ref());
            let change = Change::of(&self.key, &moved.key, before, after);
            Noted { commit, change }
        });
        let notes: Vec<Noted> = changes.collect();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.notes.len() + notes.len() > WAITING_MAX {
                waiting.notes = Vec::new();
                waiting.lost = true;
            }
            if !waiting.lost {
                waiting.notes.extend(notes);
            }
        }
        // Whoever has it now takes the notes in before reading.
        if let Ok(mut kept) = self.kept.try_lock() {
            self.take_in(&mut kept);
        }
    }

    fn take_in(&self, kept: &mut Option<Kept>) {
        let Some(sketch) = kept.as_mut() else {
            return;
        };
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        if waiting.lost {
            *kept = None;
            self.levels.store(NONE, Ordering::Release);
            return;
        }
        for noted in waiting.notes {
            sketch.take_in(noted);
        }
    }

    /// Goes back to a commit: what was noted of later ones has not happened.
    pub fn go_back_to(&self, commit: u64) {
        let mut kept = lock(&self.kept);
        lock(&self.waiting)
            .notes
            .retain(|noted| noted.commit <= commit);
        let Some(sketch) = kept.as_mut() else {
            return;
        };
        while let Some(noted) = sketch.recent.pop_back_if(|noted| noted.commit > commit) {
            sketch.sketch.apply(&noted.change.reversed());
        }
        if sketch.floor > commit {
            *kept = None;
            self.levels.store(NONE, Ordering::Release);
        }
    }

    /// True when a sketch has to be built: there is none, or it has become too small.
    pub fn wants_building(&self, states: u64) -> bool {
        let kept = lock(&self.kept);
        kept.as_ref().is_none_or(|kept| states > kept.states)
    }

    /// Builds the sketch of a view, and takes in what was noted meanwhile. Blocks for as long as it
    /// takes to read all leaves, unless `go_on` says to stop; until it is done there may be none.
    ///
    /// # Errors
    /// [`StoreError`] when the leaves cannot be read.
    pub fn build(&self, view: &View, go_on: &dyn Fn() -> bool) -> Result<(), StoreError> {
        let (states, commit) = (view.head().root.leaves, view.commit());
        {
            let mut kept = lock(&self.kept);
            self.levels.store(NONE, Ordering::Release);
            let recent = kept.take().map(|kept| kept.recent).unwrap_or_default();
            let mut waiting = lock(&self.waiting);
            let notes = recent.into_iter().chain(std::mem::take(&mut waiting.notes));
            waiting.notes = notes.filter(|noted| noted.commit > commit).collect();
            waiting.lost = false;
        }
        let room = states.saturating_mul(GROWTH).max(STATES_MIN);
        let Some(sketch) = sketch_of(&self.key, levels_for(room), view, go_on)? else {
            return Ok(());
        };
        let levels = sketch.levels();
        let mut kept = lock(&self.kept);
        *kept = Some(Kept {
            sketch,
            states: room,
            recent: VecDeque::new(),
            floor: commit,
        });
        self.levels.store(levels, Ordering::Release);
        self.take_in(&mut kept);
        Ok(())
    }

    /// Compares the sketch with one built from a view. `None` when there is none that goes back so
    /// far, or `go_on` said to stop.
    ///
    /// # Errors
    /// [`StoreError`] when the leaves cannot be read.
    pub fn is_right(
        &self,
        view: &View,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<bool>, StoreError> {
        let levels = self.levels.load(Ordering::Acquire);
        if levels == NONE {
            return Ok(None);
        }
        let slots: Vec<u32> = (0..1 << levels).collect();
        let range = 0..PARTITION_CELLS;
        let read = |kept: &Kept, commit| {
            let cells = kept.fold(&self.key, commit, (levels, &slots, &range));
            cells.zip(kept.estimator(&self.key, commit))
        };
        let Some(kept) = self.at(view.commit(), read) else {
            return Ok(None);
        };
        let built = sketch_of(&self.key, levels, view, go_on)?;
        Ok(built.map(|built| {
            let cells = built.fold(levels, &slots, &range);
            cells.is_some_and(|cells| kept == (cells, built.estimator().clone()))
        }))
    }

    /// Reads from the sketch, if it goes back to a commit.
    fn at<R>(&self, commit: u64, read: impl FnOnce(&Kept, u64) -> Option<R>) -> Option<R> {
        let mut kept = lock(&self.kept);
        self.take_in(&mut kept);
        let kept = kept.as_ref().filter(|kept| kept.floor <= commit)?;
        read(kept, commit)
    }
}

impl Kept {
    fn take_in(&mut self, noted: Noted) {
        self.sketch.apply(&noted.change);
        self.recent.push_back(noted);
        if self.recent.len() > RECENT_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.floor = self.floor.max(oldest.commit);
        }
    }

    /// Changes behind a commit.
    fn later(&self, commit: u64) -> impl Iterator<Item = &Change> {
        let later = self.recent.iter().rev();
        let later = later.take_while(move |noted| noted.commit > commit);
        later.map(|noted| &noted.change)
    }

    fn fold(
        &self,
        key: &SketchKey,
        commit: u64,
        which: (u8, &[u32], &Range<usize>),
    ) -> Option<Vec<Cell>> {
        let (levels, slots, range) = which;
        let mut cells = self.sketch.fold(levels, slots, range)?;
        for change in self.later(commit) {
            apply_to_fold(&mut cells, key, &change.reversed(), which);
        }
        Some(cells)
    }

    fn estimator(&self, key: &SketchKey, commit: u64) -> Option<Estimator> {
        let mut estimator = self.sketch.estimator().clone();
        for change in self.later(commit) {
            estimator.count(&key.spot(change.place), -i32::from(change.step));
        }
        Some(estimator)
    }
}

/// Reads all leaves. `None` when `go_on` said to stop.
fn sketch_of(
    key: &SketchKey,
    levels: u8,
    view: &View,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Sketch>, StoreError> {
    let mut sketch = Sketch::new(*key, levels);
    // Twice as deep as pages of the expected size, so that few have to be parted.
    let depth = (view.head().root.leaves / (PAGE_LEAVES as u64 / 2))
        .max(1)
        .ilog2() as u8;
    let mut pages: Vec<Prefix> = (0..1u64 << depth)
        .rev()
        .filter_map(|slot| Prefix::ROOT.child(slot, depth))
        .collect();
    while let Some(page) = pages.pop() {
        if !go_on() {
            return Ok(None);
        }
        let leaves = view.snapshot().leaves_below(page, PAGE_LEAVES)?;
        let halves = [1, 0].map(|half| page.child(half, 1));
        if leaves.len() == PAGE_LEAVES && halves.iter().all(Option::is_some) {
            pages.extend(halves.into_iter().flatten());
            continue;
        }
        for leaf in leaves {
            sketch.apply(&Change::of(key, &leaf.key, None, Some(&leaf.digest)));
        }
    }
    Ok(Some(sketch))
}

/// The sketch as it was at a commit.
pub struct SketchAt {
    keeper: Arc<Keeper>,
    commit: u64,
}

impl SketchAt {
    /// Of `keeper`, at `commit`.
    pub fn new(keeper: Arc<Keeper>, commit: u64) -> Self {
        Self { keeper, commit }
    }

    /// True when there may be one.
    pub fn is_ready(&self) -> bool {
        self.keeper.is_ready()
    }

    /// Who keeps it.
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }
}

impl SketchView for SketchAt {
    fn key(&self) -> &SketchKey {
        &self.keeper.key
    }

    fn levels(&self) -> u8 {
        match self.keeper.levels.load(Ordering::Acquire) {
            NONE => 0,
            levels => levels,
        }
    }

    fn estimator(&self) -> Option<Estimator> {
        let keeper = &self.keeper;
        keeper.at(self.commit, |kept, commit| {
            kept.estimator(&keeper.key, commit)
        })
    }

    fn fold(&self, levels: u8, slots: &[u32], range: &Range<usize>) -> Option<Vec<Cell>> {
        let keeper = &self.keeper;
        keeper.at(self.commit, |kept, commit| {
            kept.fold(&keeper.key, commit, (levels, slots, range))
        })
    }
}
