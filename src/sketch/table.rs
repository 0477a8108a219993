//! The sketch of a set: cells in partitions, kept up to date place by place.
//!
//! Partitions are chosen by a hash of the place, its upper bits first, so that summing neighbours
//! gives the sketch with half as many partitions, cell by cell: one structure serves every size of
//! difference, and two replicas with different numbers of partitions meet at the smaller one.

use std::ops::Range;

use crate::sketch::cell::Cell;
use crate::sketch::estimator::Estimator;
use crate::sketch::field::sub;
use crate::sketch::key::{SketchKey, Spot, place_of};
use crate::sketch::mapping::Walk;
use crate::types::hash::{LeafDigest, StateKey};
use crate::types::leaf::Leaf;

/// Cells of a partition.
pub const PARTITION_CELLS: usize = 8192;
/// Most halvings of the set: 512 partitions, 48 MiB.
pub const LEVELS_MAX: u8 = 9;
/// Partitions that are kept summed up, `2^2`: what small differences read.
const COARSE_LEVELS: u8 = 2;
/// Of a thousand states, as many may differ as the sketch is made for.
const CAPACITY_PERMILLE: u64 = 350;

/// A change of a set: a place's value before and after, as a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The place.
    pub place: u32,
    /// What its value changes by.
    pub amount: u32,
    /// How many values with the lowest bit set there are more, and how many with the next one.
    pub steps: [i8; 2],
}

impl Change {
    /// A state that had one digest and gets another; `None` is its absence.
    pub fn of(
        key: &SketchKey,
        state: &StateKey,
        before: Option<&LeafDigest>,
        after: Option<&LeafDigest>,
    ) -> Self {
        let value =
            |digest: Option<&LeafDigest>| digest.map_or(0, |digest| key.value(state, digest));
        let (before, after) = (value(before), value(after));
        Self {
            place: place_of(state),
            amount: sub(after, before),
            steps: [0, 1].map(|bit| (after >> bit & 1) as i8 - (before >> bit & 1) as i8),
        }
    }

    /// What takes it back.
    pub fn reversed(&self) -> Self {
        Self {
            place: self.place,
            amount: sub(0, self.amount),
            steps: self.steps.map(|step| -step),
        }
    }
}

/// Halvings of the set that a sketch of so many states has.
pub fn levels_for(states: u64) -> u8 {
    let capacity = states.saturating_mul(CAPACITY_PERMILLE) / 1000;
    let partitions = capacity.div_ceil(PARTITION_CELLS as u64).max(1);
    let levels = u64::BITS - (partitions - 1).leading_zeros();
    (levels as u8).min(LEVELS_MAX)
}

/// See the file's head.
#[derive(Debug, Clone)]
pub struct Sketch {
    key: SketchKey,
    levels: u8,
    cells: Vec<Cell>,
    /// The same with `2^COARSE_LEVELS` partitions, when that is fewer.
    coarse: Vec<Cell>,
    estimator: Estimator,
}

impl Sketch {
    /// The sketch of nothing, in `2^levels` partitions.
    pub fn new(key: SketchKey, levels: u8) -> Self {
        let levels = levels.min(LEVELS_MAX);
        let empty = |levels: u8| vec![Cell::default(); PARTITION_CELLS << levels];
        Self {
            key,
            levels,
            cells: empty(levels),
            coarse: if levels > COARSE_LEVELS {
                empty(COARSE_LEVELS)
            } else {
                Vec::new()
            },
            estimator: Estimator::default(),
        }
    }

    /// The sketch of leaves, in as many partitions as fit their number.
    pub fn of<'l>(key: SketchKey, leaves: impl ExactSizeIterator<Item = &'l Leaf>) -> Self {
        let mut sketch = Self::new(key, levels_for(leaves.len() as u64));
        for leaf in leaves {
            sketch.apply(&Change::of(&key, &leaf.key, None, Some(&leaf.digest)));
        }
        sketch
    }

    /// What places are hashed with.
    pub fn key(&self) -> &SketchKey {
        &self.key
    }

    /// Halvings of the set: there are `2^levels` partitions.
    pub fn levels(&self) -> u8 {
        self.levels
    }

    /// The counters.
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// Memory of the cells, in bytes.
    pub fn bytes(&self) -> usize {
        (self.cells.len() + self.coarse.len()) * size_of::<Cell>()
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: &Change) {
        let spot = self.key.spot(change.place);
        let part = Cell::of(change.place, spot.check, change.amount);
        add_to_partition(&mut self.cells, self.levels, &spot, &part);
        if !self.coarse.is_empty() {
            add_to_partition(&mut self.coarse, COARSE_LEVELS, &spot, &part);
        }
        self.estimator.count(&spot, change.steps);
    }

    /// The cells `range` of each of some partitions, were there `2^levels` of them; one partition
    /// behind the other. `None` when there are fewer, or no such cells.
    pub fn fold(&self, levels: u8, slots: &[u32], range: &Range<usize>) -> Option<Vec<Cell>> {
        let (from, of_levels) = if levels <= COARSE_LEVELS && !self.coarse.is_empty() {
            (&self.coarse, COARSE_LEVELS)
        } else {
            (&self.cells, self.levels)
        };
        let width = 1usize << of_levels.checked_sub(levels)?;
        let mut folded = Vec::with_capacity(slots.len() * range.len());
        for slot in slots {
            let first = usize::try_from(*slot).ok()?.checked_mul(width)?;
            let begin = folded.len();
            for partition in first..first + width {
                let at = partition.checked_mul(PARTITION_CELLS)?;
                let cells = from.get(at..at + PARTITION_CELLS)?.get(range.clone())?;
                if folded.len() == begin {
                    folded.extend_from_slice(cells);
                } else {
                    for (sum, cell) in folded[begin..].iter_mut().zip(cells) {
                        sum.add(cell);
                    }
                }
            }
        }
        Some(folded)
    }
}

/// Adds a change to cells that [`Sketch::fold`] gave for `slots` and `range`, as if it had been taken
/// in before.
pub fn apply_to_fold(
    cells: &mut [Cell],
    key: &SketchKey,
    change: &Change,
    (levels, slots, range): (u8, &[u32], &Range<usize>),
) {
    let spot = key.spot(change.place);
    let slot = partition_of(&spot, levels) as u32;
    let Some(at) = slots.iter().position(|held| *held == slot) else {
        return;
    };
    let part = Cell::of(change.place, spot.check, change.amount);
    let first = at * range.len();
    for cell in Walk::new(spot.seed).below(range.end) {
        let index = cell.checked_sub(range.start).map(|offset| first + offset);
        if let Some(cell) = index.and_then(|index| cells.get_mut(index)) {
            cell.add(&part);
        }
    }
}

/// The partition of a spot among `2^levels`.
pub fn partition_of(spot: &Spot, levels: u8) -> usize {
    usize::from(spot.partition) >> (16 - u32::from(levels.min(LEVELS_MAX)))
}

fn add_to_partition(cells: &mut [Cell], levels: u8, spot: &Spot, part: &Cell) {
    let first = partition_of(spot, levels) * PARTITION_CELLS;
    if let Some(partition) = cells.get_mut(first..first + PARTITION_CELLS) {
        for cell in Walk::new(spot.seed).below(PARTITION_CELLS) {
            partition[cell].add(part);
        }
    }
}
