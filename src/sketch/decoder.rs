//! Takes the difference of two sketches apart, place by place.
//!
//! A cell in which one place differs is recognized by its third sum, and what that place adds to
//! its other cells is taken away, which leaves further cells with one place ("peeling"). Cells are
//! tested in waves, so that one inversion modulo the prime serves a whole wave. The first cells hold
//! most places and are left with one last of all, so they are tested when the others are done with.
//!
//! Only a few bits of the other side's third sums are known, so now and then a cell seems to have one
//! place that is none. What was taken away wrongly comes out of another of its cells again, with
//! the other sign: then it is put back, and that place is not believed any more. Until then it is one
//! place more that differs, and the cell that it came from is not looked at.
//!
//! When no cell with one place is left, a pair of cells may help that share all their places but one:
//! their difference has that one alone. With few cells all pairs are tried. Ten places then take 14
//! cells on average instead of 18, a hundred hardly fewer.

use std::collections::{HashMap, HashSet};

use thiserror::Error;

use crate::sketch::cell::{Cell, Told, low_bits};
use crate::sketch::field::{add, invert_all, mul, sub};
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

/// Places that may be put back without being taken for a lie, and for how many cells there may be one more. Honest
/// cells make one mistake for about 2,000 of them.
const MISTAKES: usize = 8;
const CELLS_PER_MISTAKE: usize = 512;

/// No two sets have sketches with such a difference.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum BadCells {
    /// Too many places came out again after they had been taken away.
    #[error("cells of a sketch give the same places twice")]
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

/// The peer's cells of a partition, from the first on.
#[derive(Debug, Clone, Copy)]
pub struct Theirs<'c> {
    /// As they were told.
    pub cells: &'c [Told],
    /// How often the lowest bits of third sums were subtracted from each other, each time not knowing whether
    /// the sums were, too, or the modulus had to be added.
    pub borrows: u8,
}

impl Theirs<'_> {
    /// True when the third sum of the peer's cell may be so much.
    fn may_be(&self, at: usize, sum: u32) -> bool {
        let low = self.cells.get(at).map(|cell| cell.low);
        low.is_some_and(|low| matches(sum, low, at, self.borrows))
    }
}

/// True when a sum has these lowest bits, or has them after up to so many times 3 were added, which is what
/// taking the modulus away does to the lowest bits.
fn matches(sum: u32, low: u32, at: usize, borrows: u8) -> bool {
    (0..=u32::from(borrows)).any(|times| low_bits(sum + 3 * times, at) == low)
}

/// What has come out so far.
struct Solved {
    found: Vec<Found>,
    /// Where in `found` each place is, and of which cell it was the only one.
    places: HashMap<u32, (usize, Option<usize>)>,
    /// Cells of which a place was the only one.
    done: Vec<bool>,
    /// Places that were put back: they are not believed again.
    banned: HashSet<u32>,
    tests_left: usize,
    mistakes_max: usize,
}

impl Solved {
    fn new(cells: usize, borrows: u8) -> Self {
        let readings = usize::from(borrows) + 1;
        Self {
            found: Vec::new(),
            places: HashMap::new(),
            done: vec![false; cells],
            banned: HashSet::new(),
            tests_left: cells.saturating_mul(TESTS_PER_CELL),
            mistakes_max: (MISTAKES + cells / CELLS_PER_MISTAKE) * readings,
        }
    }

    /// True when a place belongs to the partition, and was not put back before.
    fn may_be(&self, one: &Found, spot: &Spot, partition: Partition) -> bool {
        partition_of(spot, partition.levels) == partition.slot as usize
            && (self.banned.is_empty() || !self.banned.contains(&one.place))
    }

    /// Notes that a place is to be taken away, or put back, as the only one of a cell.
    fn note(&mut self, one: &Found, at: Option<usize>) -> Result<(), BadCells> {
        if let Some((before, from)) = self.places.get(&one.place) {
            if let Some(before) = self.found.get_mut(*before) {
                before.amount = add(before.amount, one.amount);
            }
            if let Some(from) = from {
                self.done[*from] = false;
            }
            self.banned.insert(one.place);
            if self.banned.len() > self.mistakes_max {
                return Err(BadCells::Repeats);
            }
            return Ok(());
        }
        // Each place found leaves one cell empty, for good unless it was a mistake.
        if self.found.len() >= self.done.len() + self.mistakes_max {
            return Err(BadCells::Endless);
        }
        if let Some(at) = at {
            self.done[at] = true;
        }
        self.places.insert(one.place, (self.found.len(), at));
        self.found.push(*one);
        Ok(())
    }
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

    /// All differing places of a partition, out of its first cells here, which are changed, and as many of the
    /// peer's; `None` when they are too few to tell.
    ///
    /// # Errors
    /// [`BadCells`] when the cells are not those of two sets.
    pub fn decode(
        &mut self,
        partition: Partition,
        cells: &mut [Cell],
        theirs: Theirs<'_>,
    ) -> Result<Option<Vec<Found>>, BadCells> {
        let count = cells.len().min(theirs.cells.len());
        let cells = cells.split_at_mut(count).0;
        for (cell, told) in cells.iter_mut().zip(theirs.cells) {
            let [values, places, _] = &mut cell.0;
            *values = sub(*values, told.sums[0]);
            *places = sub(*places, told.sums[1]);
        }
        let mut solved = Solved::new(count, theirs.borrows);
        self.pending.clear();
        self.pending.extend(0..count as u32);
        self.queued.clear();
        self.queued.resize(count, true);
        self.peel(partition, cells, theirs, &mut solved)?;
        let mut rounds = if count <= PAIRED_CELLS && theirs.borrows == 0 {
            PAIR_ROUNDS
        } else {
            0
        };
        while rounds > 0 && !is_solved(cells, theirs) {
            rounds -= 1;
            let paired = self.single_in_pairs(partition, cells, theirs, &solved);
            let Some((one, spot)) = paired else {
                break;
            };
            self.effort.peels += 1;
            let noted = solved.note(&one, None);
            self.take_away(cells, &one, &spot, &solved);
            solved.tests_left = count.saturating_mul(TESTS_PER_CELL);
            // So many pairs are tried that chance may find places where there are none: then the
            // cells are too few, and nobody has lied.
            if noted.is_err() || self.peel(partition, cells, theirs, &mut solved).is_err() {
                return Ok(None);
            }
        }
        let mut found = solved.found;
        found.retain(|one| one.amount != 0);
        Ok(is_solved(cells, theirs).then_some(found))
    }

    /// Takes places away for as long as there are cells with one.
    fn peel(
        &mut self,
        partition: Partition,
        cells: &mut [Cell],
        theirs: Theirs<'_>,
        solved: &mut Solved,
    ) -> Result<(), BadCells> {
        let mut first = cells.len() / STRIDE;
        while !self.pending.is_empty() {
            if !self.choose(first) {
                first /= STRIDE;
                continue;
            }
            let before = self.effort.peels;
            self.prepare(cells);
            let tests = self.tested.len();
            self.effort.tests += tests;
            let left = solved.tests_left.checked_sub(tests);
            solved.tests_left = left.ok_or(BadCells::Endless)?;
            for test in 0..tests {
                let at = self.tested[test] as usize;
                // Something was taken out of it since: it is tested in the next wave.
                if self.queued[at] {
                    continue;
                }
                let told = (cells[at], self.inverses[test], at);
                let Some((one, spot)) = self.single(partition, told, theirs, solved) else {
                    continue;
                };
                solved.note(&one, Some(at))?;
                self.effort.peels += 1;
                self.take_away(cells, &one, &spot, solved);
            }
            if self.effort.peels > before {
                first = cells.len() / STRIDE;
            }
        }
        Ok(())
    }

    /// A place that one of two cells has and the other has not, while they have all others in common.
    fn single_in_pairs(
        &mut self,
        partition: Partition,
        cells: &[Cell],
        theirs: Theirs<'_>,
        solved: &Solved,
    ) -> Option<(Found, Spot)> {
        let filled = |at: &usize| !has_no_sums(&cells[*at]);
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
            for ((other, cell), inverse) in row.iter().zip(&self.inverses) {
                let (one, spot, sum) = self.only_place(cell, *inverse);
                // The earlier of two cells has more bits, and their difference may have been negative.
                let lows = [at, other].map(|at| theirs.cells.get(*at).map_or(0, |cell| cell.low));
                let low = low_bits(lows[0].wrapping_sub(lows[1]), *at);
                if !matches(sum, low, *at, 1) || !solved.may_be(&one, &spot, partition) {
                    continue;
                }
                let holds = |cell: usize| Walk::new(spot.seed).below(cell + 1).last() == Some(cell);
                let amount = match (holds(*at), holds(*other)) {
                    (true, false) => one.amount,
                    (false, true) => sub(0, one.amount),
                    _ => continue,
                };
                return Some((Found { amount, ..one }, spot));
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

    /// The one place in a cell, if there is one. `inverse` is that of its first sum.
    fn single(
        &self,
        partition: Partition,
        (cell, inverse, at): (Cell, u32, usize),
        theirs: Theirs<'_>,
        solved: &Solved,
    ) -> Option<(Found, Spot)> {
        let (one, spot, sum) = self.only_place(&cell, inverse);
        let is_one = one.amount != 0
            && theirs.may_be(at, sum)
            && solved.may_be(&one, &spot, partition)
            && Walk::new(spot.seed).below(at + 1).last() == Some(at);
        is_one.then_some((one, spot))
    }

    /// The place that a cell has if it has only one, and the peer's third sum then. `inverse` is that of its
    /// first sum.
    fn only_place(&self, cell: &Cell, inverse: u32) -> (Found, Spot, u32) {
        let [amount, place, ours] = cell.0;
        let place = mul(place, inverse);
        let spot = self.key.spot(place);
        let theirs = sub(ours, mul(amount, spot.check));
        (Found { place, amount }, spot, theirs)
    }

    fn take_away(&mut self, cells: &mut [Cell], one: &Found, spot: &Spot, solved: &Solved) {
        let part = Cell::of(one.place, spot.check, one.amount);
        for at in Walk::new(spot.seed).below(cells.len()) {
            cells[at].subtract(&part);
            if !self.queued[at] && !solved.done[at] && !has_no_sums(&cells[at]) {
                self.queued[at] = true;
                self.pending.push(at as u32);
            }
        }
    }
}

/// True when the first two sums, which are differences, are nothing.
fn has_no_sums(cell: &Cell) -> bool {
    let [values, places, _] = cell.0;
    values == 0 && places == 0
}

/// True when nothing differs any more.
fn is_solved(cells: &[Cell], theirs: Theirs<'_>) -> bool {
    let mut cells = cells.iter().enumerate();
    cells.all(|(at, cell)| has_no_sums(cell) && theirs.may_be(at, cell.0[2]))
}
