//! Takes the difference of two sketches apart, place by place.
//!
//! A cell in which one place differs is recognized by its third sum, and what that place adds to
//! its other cells is taken away, which leaves further cells with one place ("peeling"). Cells are
//! tested in waves, so that one inversion modulo the prime serves a whole wave. The first cells hold
//! most places and are left with one last of all, so they are tested when the others are done with.
//!
//! When no cell with one place is left, a pair of cells may help that share all their places but one:
//! their difference has that one alone. With few cells all pairs are tried. Ten places then take 14
//! cells on average instead of 18, a hundred hardly fewer.

use std::collections::HashSet;

use thiserror::Error;

use crate::sketch::cell::Cell;
use crate::sketch::field::{invert_all, mul, sub};
use crate::sketch::key::{SketchKey, Spot};
use crate::sketch::mapping::Walk;
use crate::sketch::table::partition_of;

/// Tests for each cell. Honest differences take 11 to 19 for each place.
const TESTS_PER_CELL: usize = 40;

/// Cells wait for those behind this share of them.
const STRIDE: usize = 4;

/// Most cells of which pairs are tried.
const PAIRED_CELLS: usize = 256;
/// How often all pairs are tried at most. Honest differences that can be solved take one to three.
const PAIR_ROUNDS: usize = 8;

/// No two sets have sketches with such a difference.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum BadCells {
    /// A place came out again after it had been taken away.
    #[error("cells of a sketch give the same place twice")]
    Repeats,
    /// It went on for longer than honest cells can.
    #[error("cells of a sketch come to no end")]
    Endless,
}

/// A place where two sets differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The place.
    pub place: u32,
    /// The difference of its values; never 0.
    pub amount: u32,
}

/// Tests that decoding so many cells takes at most.
pub fn tests_max(cells: usize) -> usize {
    let peeled = cells.saturating_mul(TESTS_PER_CELL);
    if cells > PAIRED_CELLS {
        return peeled;
    }
    peeled * (PAIR_ROUNDS + 1) + PAIR_ROUNDS * cells * cells / 2
}

/// What decoding has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Cells looked at.
    pub tests: usize,
    /// Places taken away.
    pub peels: usize,
}

/// Which cells are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// There are `2^levels`.
    pub levels: u8,
    /// Which of them.
    pub slot: u32,
}

impl Partition {
    /// The only one there is when the set is not parted.
    pub const WHOLE: Self = Self { levels: 0, slot: 0 };
}

/// What has come out so far.
struct Solved {
    found: Vec<Found>,
    places: HashSet<u32>,
    tests_left: usize,
}

/// Decodes, with memory that is used again from one partition to the next.
#[derive(Debug)]
pub struct Decoder {
    key: SketchKey,
    effort: Effort,
    wave: Vec<u32>,
    pending: Vec<u32>,
    queued: Vec<bool>,
    inverses: Vec<u32>,
    scratch: Vec<u32>,
    tested: Vec<u32>,
}

impl Decoder {
    /// For sketches under a key.
    pub fn new(key: &SketchKey) -> Self {
        Self {
            key: *key,
            effort: Effort::default(),
            wave: Vec::new(),
            pending: Vec::new(),
            queued: Vec::new(),
            inverses: Vec::new(),
            scratch: Vec::new(),
            tested: Vec::new(),
        }
    }

    /// What all decoding has cost so far.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// All differing places of a partition, out of the first cells of the difference of two
    /// sketches, which are changed; `None` when they are too few to tell.
    ///
    /// # Errors
    /// [`BadCells`] when the cells are not the difference of two sketches.
    pub fn decode(
        &mut self,
        partition: Partition,
        cells: &mut [Cell],
    ) -> Result<Option<Vec<Found>>, BadCells> {
        let mut solved = Solved {
            found: Vec::new(),
            places: HashSet::new(),
            tests_left: cells.len().saturating_mul(TESTS_PER_CELL),
        };
        self.pending.clear();
        self.pending.extend(0..cells.len() as u32);
        self.queued.clear();
        self.queued.resize(cells.len(), true);
        self.peel(partition, cells, &mut solved)?;
        let mut rounds = if cells.len() <= PAIRED_CELLS {
            PAIR_ROUNDS
        } else {
            0
        };
        while rounds > 0 && !cells.iter().all(Cell::is_empty) {
            rounds -= 1;
            let paired = self.single_in_pairs(partition, cells);
            let Some((one, spot)) = paired.filter(|(one, _)| solved.places.insert(one.place))
            else {
                break;
            };
            self.effort.peels += 1;
            self.take_away(cells, &one, &spot);
            solved.found.push(one);
            solved.tests_left = cells.len().saturating_mul(TESTS_PER_CELL);
            // So many pairs are tried that chance may find a place where there is none: then the
            // cells are too few, and nobody has lied.
            if self.peel(partition, cells, &mut solved).is_err() {
                return Ok(None);
            }
        }
        Ok(cells.iter().all(Cell::is_empty).then_some(solved.found))
    }

    /// Takes places away for as long as there are cells with one.
    fn peel(
        &mut self,
        partition: Partition,
        cells: &mut [Cell],
        solved: &mut Solved,
    ) -> Result<(), BadCells> {
        let mut first = cells.len() / STRIDE;
        while !self.pending.is_empty() {
            if !self.choose(first) {
                first /= STRIDE;
                continue;
            }
            let before = solved.found.len();
            self.prepare(cells);
            let tests = self.tested.len();
            self.effort.tests += tests;
            let left = solved.tests_left.checked_sub(tests);
            solved.tests_left = left.ok_or(BadCells::Endless)?;
            for test in 0..tests {
                let at = self.tested[test] as usize;
                let Some((one, spot)) = self.single(partition, cells, at, self.inverses[test])
                else {
                    continue;
                };
                if !solved.places.insert(one.place) {
                    return Err(BadCells::Repeats);
                }
                // Each place found leaves one cell empty for good.
                if solved.places.len() > cells.len() {
                    return Err(BadCells::Endless);
                }
                self.effort.peels += 1;
                self.take_away(cells, &one, &spot);
                solved.found.push(one);
            }
            if solved.found.len() > before {
                first = cells.len() / STRIDE;
            }
        }
        Ok(())
    }

    /// A place that one of two cells has and the other has not, while they have all others in common.
    fn single_in_pairs(&mut self, partition: Partition, cells: &[Cell]) -> Option<(Found, Spot)> {
        let filled = |at: &usize| !cells[*at].is_empty();
        let filled: Vec<usize> = (0..cells.len()).filter(filled).collect();
        let mut row: Vec<(usize, Cell)> = Vec::with_capacity(filled.len());
        // The last cells have the fewest places.
        for (before, at) in filled.iter().enumerate().rev() {
            row.clear();
            for other in filled[..before].iter().rev() {
                let mut difference = cells[*at];
                difference.subtract(&cells[*other]);
                if difference.0[0] != 0 {
                    row.push((*other, difference));
                }
            }
            self.inverses.clear();
            self.inverses.extend(row.iter().map(|(_, cell)| cell.0[0]));
            invert_all(&mut self.inverses, &mut self.scratch);
            self.effort.tests += row.len();
            let tested = row.iter().zip(&self.inverses);
            let single = tested
                .filter_map(|((other, cell), inverse)| {
                    let (one, spot) = self.only_place(partition, cell, *inverse)?;
                    let holds =
                        |cell: usize| Walk::new(spot.seed).below(cell + 1).last() == Some(cell);
                    let amount = match (holds(*at), holds(*other)) {
                        (true, false) => one.amount,
                        (false, true) => sub(0, one.amount),
                        _ => return None,
                    };
                    Some((Found { amount, ..one }, spot))
                })
                .next();
            if single.is_some() {
                return single;
            }
        }
        None
    }

    /// Moves the pending cells from `first` on into the wave; false when there are none.
    fn choose(&mut self, first: usize) -> bool {
        self.wave.clear();
        let wave = &mut self.wave;
        self.pending.retain(|at| {
            let waits = (*at as usize) < first;
            if !waits {
                wave.push(*at);
            }
            waits
        });
        !self.wave.is_empty()
    }

    /// Inverts the first sums of the cells to be tested. A cell whose first sum is 0 holds nothing,
    /// or more than one place.
    fn prepare(&mut self, cells: &[Cell]) {
        self.tested.clear();
        self.inverses.clear();
        for at in &self.wave {
            let index = *at as usize;
            self.queued[index] = false;
            let [sum, ..] = cells[index].0;
            if sum != 0 {
                self.tested.push(*at);
                self.inverses.push(sum);
            }
        }
        invert_all(&mut self.inverses, &mut self.scratch);
    }

    /// The one place in a cell, if there is one. `inverse` is that of its first sum at the
    /// beginning of the wave.
    fn single(
        &self,
        partition: Partition,
        cells: &[Cell],
        at: usize,
        inverse: u32,
    ) -> Option<(Found, Spot)> {
        // Something was taken out of it since: it is tested in the next wave.
        if self.queued[at] {
            return None;
        }
        let (one, spot) = self.only_place(partition, &cells[at], inverse)?;
        let is_here = Walk::new(spot.seed).below(at + 1).last() == Some(at);
        is_here.then_some((one, spot))
    }

    /// The place that a cell has, if it has only one and that belongs to the partition. `inverse` is
    /// that of its first sum.
    fn only_place(&self, partition: Partition, cell: &Cell, inverse: u32) -> Option<(Found, Spot)> {
        let [amount, place, check] = cell.0;
        let place = mul(place, inverse);
        let spot = self.key.spot(place);
        let is_one = amount != 0
            && mul(amount, spot.check) == check
            && partition_of(&spot, partition.levels) == partition.slot as usize;
        is_one.then_some((Found { place, amount }, spot))
    }

    fn take_away(&mut self, cells: &mut [Cell], one: &Found, spot: &Spot) {
        let part = Cell::of(one.place, spot.check, one.amount);
        for at in Walk::new(spot.seed).below(cells.len()) {
            cells[at].subtract(&part);
            if !self.queued[at] && !cells[at].is_empty() {
                self.queued[at] = true;
                self.pending.push(at as u32);
            }
        }
    }
}
