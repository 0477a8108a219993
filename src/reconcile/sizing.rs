//! How many cells a difference takes, from an estimate of it.

use crate::sketch::cell::bytes_for;
use crate::sketch::table::PARTITION_CELLS;

/// Cells that a side sends before anything is known: they decode 8 differences nearly always, 10 in
/// nineteen of twenty cases.
pub const FIRST_CELLS: usize = 32;
/// Fewest cells that are sent for an estimate.
const CELLS_MIN: usize = 24;
/// Share of a partition's cells that an expected difference may take; the rest is for the partition
/// that happens to hold most.
const FILL: f64 = 0.95;

/// What is sent of a sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// There are `2^levels` partitions.
    pub levels: u8,
    /// First cells of each.
    pub cells: usize,
}

impl Size {
    /// Bytes of all the cells.
    pub fn bytes(&self) -> usize {
        bytes_for(self.cells << self.levels)
    }
}

/// How good an estimate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Of the short form of the counters.
    Rough,
    /// Of all counters.
    Good,
}

/// Cells for each of so many differences, to be enough in 19 of 20 cases: a fit of what decoding
/// took in 300 trials each.
fn cells_each(differing: f64) -> f64 {
    1.355 + 1.25 / differing.sqrt() + 0.2 / (1.0 + differing / 200.0)
}

/// Cells for a difference that was estimated; `None` when it takes more than there are in
/// `2^levels_max` partitions.
pub fn size_for(estimate: u64, precision: Precision, levels_max: u8) -> Option<Size> {
    let estimate = estimate as f64;
    // Where all is in one partition, nearly always enough: nothing but a second trip helps. Where
    // there are many, those that fall short are asked for more.
    let (margin, deviations) = match precision {
        Precision::Rough if estimate < 2500.0 => (1.19, 1.6),
        Precision::Rough => (1.08, 1.6),
        // A trip has been taken already.
        Precision::Good => (1.07, 2.6),
    };
    (0..=levels_max).find_map(|levels| {
        let each = estimate * margin / f64::from(1u32 << levels);
        // Partitions vary like Poisson's numbers.
        let spread = if levels == 0 {
            0.0
        } else {
            deviations * each.sqrt()
        };
        let most = each + spread;
        let cells = (cells_each(most.max(1.0)) * most)
            .ceil()
            .max(CELLS_MIN as f64);
        let fits = cells <= PARTITION_CELLS as f64 * FILL;
        let cells = cells as usize;
        fits.then_some(Size { levels, cells })
    })
}

/// Cells to go on with when `have` of each partition were not enough for `failed` of `partitions`.
pub fn more_cells(have: usize, failed: usize, partitions: usize) -> usize {
    // When most fall short the estimate did.
    let factor = if partitions > 1 && failed * 2 < partitions {
        1.15
    } else {
        1.3
    };
    let more = (have as f64 * factor) as usize + 8;
    more.min(PARTITION_CELLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_with_the_difference_and_fit_the_partitions() {
        let mut before = 0;
        for estimate in [0, 1, 10, 100, 1000, 2000, 5000, 20_000, 100_000, 250_000] {
            let size = size_for(estimate, Precision::Rough, 8).unwrap();
            assert!(size.cells <= PARTITION_CELLS);
            assert!(size.bytes() >= before, "{estimate}");
            before = size.bytes();
            if estimate >= 1000 {
                let each = size.bytes() as f64 / estimate as f64;
                assert!((15.0..19.5).contains(&each), "{estimate}: {each}");
            }
        }
        assert_eq!(size_for(1_000_000, Precision::Good, 8), None);
        assert_eq!(size_for(u64::MAX, Precision::Good, 8), None);
        assert_eq!(size_for(5000, Precision::Good, 0), None);
    }

    #[test]
    fn going_on_ends_with_a_whole_partition() {
        let mut cells = 24;
        for _ in 0..30 {
            let more = more_cells(cells, 1, 1);
            assert!(more > cells || more == PARTITION_CELLS);
            cells = more;
        }
        assert_eq!(cells, PARTITION_CELLS);
    }
}
