//! A cell: three sums over the places that are mapped to it, of the third of which only the lowest bits
//! travel.
//!
//! Whoever takes two sketches apart has all of its own third sums. A place that may be the only one in
//! a cell says what the third sum of the difference has to be, so it says what that of the other side
//! is, and a few bits of it tell whether that is so: it has to be mapped to the cell, too, which few are.

use std::ops::Range;

use crate::sketch::field::{BITS, P, add, mul, sub};

/// Lowest bits of the third sum of cell 0 that travel; see [`check_bits`].
const CHECK_BITS: u32 = 14;
/// Fewest that do.
const CHECK_BITS_MIN: u32 = 4;
/// Most bits of a cell on the wire.
pub const CELL_BITS_MAX: usize = (2 * BITS + CHECK_BITS) as usize;

/// The sums of `v`, `v * place` and `v * check` over all places mapped here, `v` their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell(pub [u32; 3]);

impl Cell {
    /// What a place with this value adds to each of its cells.
    pub fn of(place: u32, check: u32, value: u32) -> Self {
        Self([value, mul(value, place), mul(value, check)])
    }

    /// True when nothing, or nothing but what cancels out, is in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another cell.
    pub fn add(&mut self, other: &Self) {
        for (lane, theirs) in self.0.iter_mut().zip(other.0) {
            *lane = add(*lane, theirs);
        }
    }

    /// Takes another cell away.
    pub fn subtract(&mut self, other: &Self) {
        for (lane, theirs) in self.0.iter_mut().zip(other.0) {
            *lane = sub(*lane, theirs);
        }
    }

    /// What travels of it as a partition's cell `index`.
    pub fn told(&self, index: usize) -> Told {
        let [values, places, checks] = self.0;
        Told {
            sums: [values, places],
            low: low_bits(checks, index),
        }
    }
}

/// A cell as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// The first two sums.
    pub sums: [u32; 2],
    /// The lowest bits of the third, [`check_bits`] of them.
    pub low: u32,
}

impl Told {
    /// Takes another cell `index` away. Whether the third sums wrapped around the modulus is not known
    /// afterwards.
    pub fn subtract(&mut self, other: &Self, index: usize) {
        for (sum, theirs) in self.sums.iter_mut().zip(other.sums) {
            *sum = sub(*sum, theirs);
        }
        self.low = low_bits(self.low.wrapping_sub(other.low), index);
    }
}

/// Bits of the third sum that travel of a partition's cell `index`. A place is mapped to it with a chance of
/// `2 / (index + 2)`, so of the first cells more bits are needed to be as sure.
pub fn check_bits(index: usize) -> u32 {
    let places = index.saturating_add(2).ilog2() - 1;
    CHECK_BITS.saturating_sub(places).max(CHECK_BITS_MIN)
}

/// As many of the lowest bits of a number as travel of cell `index`.
pub fn low_bits(number: u32, index: usize) -> u32 {
    number & ((1 << check_bits(index)) - 1)
}

/// Subtracts cells from as many others.
pub fn subtract_all(cells: &mut [Cell], others: &[Cell]) {
    for (cell, other) in cells.iter_mut().zip(others) {
        cell.subtract(other);
    }
}

/// Bits that the cells `range` of a partition take.
fn bits_for(range: &Range<usize>) -> usize {
    let checks: usize = range.clone().map(|index| check_bits(index) as usize).sum();
    checks.saturating_add(range.len().saturating_mul(2 * BITS as usize))
}

/// Bytes that the cells `range` of so many partitions take.
pub fn bytes_for(partitions: usize, range: &Range<usize>) -> usize {
    bits_for(range).saturating_mul(partitions).div_ceil(8)
}

/// The end of the longest range from `range`'s start on, no further than its end, of which the cells of so many
/// partitions fit into so many bytes.
pub fn fitting(bytes: usize, partitions: usize, range: &Range<usize>) -> usize {
    let mut left = bytes.saturating_mul(8) / partitions.max(1);
    let fits = |index: &usize| {
        let rest = left.checked_sub((2 * BITS + check_bits(*index)) as usize);
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    range.start + range.clone().take_while(fits).count()
}

/// The cells `range` of partitions, one partition behind the other, as bytes: 29 bits each of the first
/// two sums and [`check_bits`] of the third, lowest bit first, zeros up to a whole byte.
pub fn to_bytes(cells: &[Told], range: &Range<usize>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(cells.len() * CELL_BITS_MAX / 8 + 1);
    let (mut pending, mut bits) = (0u64, 0);
    for (cell, index) in cells.iter().zip(range.clone().cycle()) {
        let [values, places] = cell.sums;
        let checks = (low_bits(cell.low, index), check_bits(index));
        for (lane, width) in [(values, BITS), (places, BITS), checks] {
            pending |= u64::from(lane) << bits;
            bits += width;
            while bits >= 8 {
                bytes.push(pending as u8);
                pending >>= 8;
                bits -= 8;
            }
        }
    }
    if bits > 0 {
        bytes.push(pending as u8);
    }
    bytes
}

/// Reads what [`to_bytes`] wrote of the cells `range` of so many partitions. `None` when there are more or fewer
/// bytes, when a sum is no residue, or for bits behind the last cell.
pub fn from_bytes(bytes: &[u8], partitions: usize, range: &Range<usize>) -> Option<Vec<Told>> {
    // Checked before memory is taken.
    if bytes_for(partitions, range) != bytes.len() {
        return None;
    }
    let count = partitions * range.len();
    let mut cells = Vec::with_capacity(count);
    let (mut pending, mut bits, mut rest) = (0u64, 0, bytes.iter());
    for index in range.clone().cycle().take(count) {
        let mut lanes = [0; 3];
        for (lane, width) in lanes.iter_mut().zip([BITS, BITS, check_bits(index)]) {
            while bits < width {
                pending |= u64::from(*rest.next()?) << bits;
                bits += 8;
            }
            *lane = pending as u32 & ((1 << width) - 1);
            pending >>= width;
            bits -= width;
        }
        let [values, places, low] = lanes;
        if values >= P || places >= P {
            return None;
        }
        let sums = [values, places];
        cells.push(Told { sums, low });
    }
    (pending == 0).then_some(cells)
}

/// What travels of the cells `range` of partitions.
pub fn told_all(cells: &[Cell], range: &Range<usize>) -> Vec<Told> {
    let indexed = cells.iter().zip(range.clone().cycle());
    indexed.map(|(cell, index)| cell.told(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cells_round_trip(
            lanes in prop::collection::vec([0..P, 0..P, 0..P], 0..120),
            partitions in 1usize..4,
            start in 0usize..9000,
        ) {
            let count = lanes.len() / partitions * partitions;
            let cells: Vec<Cell> = lanes.into_iter().take(count).map(Cell).collect();
            let range = start..start + count / partitions;
            let told = told_all(&cells, &range);
            let bytes = to_bytes(&told, &range);
            prop_assert_eq!(bytes.len(), bytes_for(partitions, &range));
            prop_assert!(bytes.len() <= (count * CELL_BITS_MAX).div_ceil(8));
            prop_assert_eq!(from_bytes(&bytes, partitions, &range), Some(told));
            prop_assert_eq!(fitting(bytes.len(), partitions, &range), range.end);
            prop_assert_eq!(from_bytes(&bytes, partitions, &(start..range.end + 1)), None);
            if count > 0 {
                prop_assert_eq!(from_bytes(&bytes[1..], partitions, &range), None);
                let fewer = fitting(bytes.len() - 1, partitions, &range);
                prop_assert!(fewer < range.end);
                prop_assert!(bytes_for(partitions, &(start..fewer)) < bytes.len());
            }
        }

        #[test]
        fn garbage_is_refused_or_read_as_residues(garbage in prop::collection::vec(any::<u8>(), 0..100)) {
            let range = 0..fitting(garbage.len(), 1, &(0..100));
            if let Some(cells) = from_bytes(&garbage, 1, &range) {
                prop_assert!(cells.iter().all(|cell| cell.sums.iter().all(|lane| *lane < P)));
                prop_assert_eq!(to_bytes(&cells, &range), garbage);
            }
        }

        #[test]
        fn what_is_added_can_be_taken_away(one in [0..P, 0..P, 0..P], other in [0..P, 0..P, 0..P]) {
            let (mut sum, before) = (Cell(one), Cell(one));
            sum.add(&Cell(other));
            sum.subtract(&Cell(other));
            prop_assert_eq!(sum, before);
            sum.subtract(&before);
            prop_assert!(sum.is_empty());
        }
    }

    #[test]
    fn a_claimed_count_takes_no_memory() {
        assert_eq!(from_bytes(&[], usize::MAX, &(0..100)), None);
        assert_eq!(from_bytes(&[0; 11], 1 << 40, &(0..8192)), None);
    }
}
