//! A cell: three sums over the places that are mapped to it.

use crate::sketch::field::{BITS, P, add, mul, sub};

/// Bits of a cell on the wire.
pub const CELL_BITS: usize = 3 * BITS as usize;

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
}

/// Subtracts cells from as many others.
pub fn subtract_all(cells: &mut [Cell], others: &[Cell]) {
    for (cell, other) in cells.iter_mut().zip(others) {
        cell.subtract(other);
    }
}

/// Bytes that so many cells take.
pub fn bytes_for(cells: usize) -> usize {
    (cells * CELL_BITS).div_ceil(8)
}

/// Cells as bytes: 29 bits a sum, lowest bit first, zeros up to a whole byte.
pub fn to_bytes(cells: &[Cell]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bytes_for(cells.len()));
    let (mut pending, mut bits) = (0u64, 0);
    for lane in cells.iter().flat_map(|cell| cell.0) {
        pending |= u64::from(lane) << bits;
        bits += BITS;
        while bits >= 8 {
            bytes.push(pending as u8);
            pending >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        bytes.push(pending as u8);
    }
    bytes
}

/// Reads what [`to_bytes`] wrote: as many cells as there are bytes for. `None` when a sum is no
/// residue, or for bits behind the last cell.
pub fn from_bytes(bytes: &[u8], count: usize) -> Option<Vec<Cell>> {
    if count.checked_mul(CELL_BITS)?.div_ceil(8) != bytes.len() {
        return None;
    }
    let mut cells = Vec::with_capacity(count);
    let (mut pending, mut bits, mut rest) = (0u64, 0, bytes.iter());
    for _ in 0..count {
        let mut cell = Cell::default();
        for lane in &mut cell.0 {
            while bits < BITS {
                pending |= u64::from(*rest.next()?) << bits;
                bits += 8;
            }
            *lane = pending as u32 & ((1 << BITS) - 1);
            pending >>= BITS;
            bits -= BITS;
        }
        if cell.0.iter().any(|lane| *lane >= P) {
            return None;
        }
        cells.push(cell);
    }
    (pending == 0).then_some(cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cells_round_trip(lanes in prop::collection::vec([0..P, 0..P, 0..P], 0..40)) {
            let cells: Vec<Cell> = lanes.into_iter().map(Cell).collect();
            let bytes = to_bytes(&cells);
            prop_assert_eq!(bytes.len(), bytes_for(cells.len()));
            prop_assert_eq!(from_bytes(&bytes, cells.len()), Some(cells.clone()));
            prop_assert_eq!(from_bytes(&bytes, cells.len() + 1), None);
            if !cells.is_empty() {
                prop_assert_eq!(from_bytes(&bytes[1..], cells.len()), None);
            }
        }

        #[test]
        fn garbage_is_refused_or_read_as_residues(garbage in prop::collection::vec(any::<u8>(), 0..100)) {
            let count = garbage.len() * 8 / CELL_BITS;
            if let Some(cells) = from_bytes(&garbage, count) {
                prop_assert!(cells.iter().all(|cell| cell.0.iter().all(|lane| *lane < P)));
                prop_assert_eq!(to_bytes(&cells), garbage);
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
        assert_eq!(from_bytes(&[], usize::MAX), None);
        assert_eq!(from_bytes(&[0; 11], 1 << 40), None);
    }
}
