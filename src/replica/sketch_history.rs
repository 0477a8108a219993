//! A sketch, the changes that it took in last, and the way back over them; and how it is built.

use std::collections::VecDeque;
use std::ops::Range;

use crate::merkle::prefix::Prefix;
use crate::sketch::cell::Cell;
use crate::sketch::estimator::Estimator;
use crate::sketch::key::SketchKey;
use crate::sketch::table::{Change, Sketch, apply_to_fold};
use crate::store::error::StoreError;
use crate::store::read::Snapshot;

/// Changes that can be taken back: the way to a commit so many changes ago. 1.5 MiB.
pub const RECENT_MAX: usize = 1 << 16;
/// Leaves that are read at once while building.
const PAGE_LEAVES: usize = 4096;

/// A commit's leaves.
#[derive(Clone, Copy)]
pub struct Leaves<'s> {
    /// Where they are.
    pub snapshot: &'s Snapshot,
    /// How many.
    pub states: u64,
    /// The commit's number.
    pub commit: u64,
}

/// A change, and the commit that made it.
#[derive(Debug, Clone, Copy)]
pub struct Noted {
    /// The commit that made it.
    pub commit: u64,
    /// What changed.
    pub change: Change,
}

/// A sketch, and how to go back.
pub struct Kept {
    sketch: Sketch,
    /// States that it has room for.
    states: u64,
    /// Changes that were taken in last, oldest first.
    recent: VecDeque<Noted>,
    /// Newest commit of which a change is not in `recent` any more.
    floor: u64,
}

impl Kept {
    /// A sketch that was built of a commit, with room for so many states.
    pub fn new(sketch: Sketch, states: u64, commit: u64) -> Self {
        Self {
            sketch,
            states,
            recent: VecDeque::new(),
            floor: commit,
        }
    }

    /// States that it has room for.
    pub fn states(&self) -> u64 {
        self.states
    }

    /// The changes that were taken in last.
    pub fn into_recent(self) -> VecDeque<Noted> {
        self.recent
    }

    /// True when it can tell what it was at a commit.
    pub fn reaches(&self, commit: u64) -> bool {
        self.floor <= commit
    }

    /// Takes back what was noted of later commits; false when it does not reach back so far.
    pub fn go_back_to(&mut self, commit: u64) -> bool {
        while let Some(noted) = self.recent.pop_back_if(|noted| noted.commit > commit) {
            self.sketch.apply(&noted.change.reversed());
        }
        self.reaches(commit)
    }

    /// Takes a change in.
    pub fn take_in(&mut self, noted: Noted) {
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

    /// Cells as they were at a commit; see [`Sketch::fold`].
    pub fn fold(
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

    /// The counters as they were at a commit.
    pub fn estimator(&self, key: &SketchKey, commit: u64) -> Option<Estimator> {
        let mut estimator = self.sketch.estimator().clone();
        for change in self.later(commit) {
            estimator.count(&key.spot(change.place), change.reversed().steps);
        }
        Some(estimator)
    }
}

/// Reads all leaves. `None` when `go_on` said to stop.
///
/// # Errors
/// [`StoreError`] when the leaves cannot be read.
pub fn sketch_of(
    key: &SketchKey,
    levels: u8,
    of: Leaves<'_>,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Sketch>, StoreError> {
    let mut sketch = Sketch::new(*key, levels);
    // Twice as deep as pages of the expected size, so that few have to be parted.
    let depth = (of.states / (PAGE_LEAVES as u64 / 2)).max(1).ilog2() as u8;
    let mut pages: Vec<Prefix> = (0..1u64 << depth)
        .rev()
        .filter_map(|slot| Prefix::ROOT.child(slot, depth))
        .collect();
    while let Some(page) = pages.pop() {
        if !go_on() {
            return Ok(None);
        }
        let leaves = of.snapshot.leaves_below(page, PAGE_LEAVES)?;
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
