//! How many cells a difference takes, from an estimate of it.

use crate::sketch::cell::bytes_for;
use crate::sketch::table::PARTITION_CELLS;

/// Cells that a side sends before anything is known: they decode 10 differences in 97 of 100 cases.
pub const FIRST_CELLS: usize = 24;
/// Most cells of a first question: those of [`FIRST_CELLS`] by builds to come.
pub const FIRST_CELLS_MAX: usize = 256;
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
        bytes_for(1 << self.levels, &(0..self.cells))
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

/// Cells for each of so many differences that decoding takes on average: a fit of 1,500 trials each.
fn cells_each(differing: f64) -> f64 {
    let many = 1.358 + 0.75 / differing.sqrt() + 2.5 / differing;
    // Where pairs of cells help it is the same for any number.
    many.min(1.44)
}

/// The relative variance of an estimate, from the true number that it is near.
fn variance(estimate: f64, precision: Precision) -> f64 {
    let halves = 0.5 / estimate;
    match precision {
        // Of 320 sums, and of what is lost where they wrap around.
        Precision::Rough => halves + 2.0 / 320.0 + (estimate / 35_000.0).powi(2),
        Precision::Good => halves + 2.0 / 1280.0,
    }
}

/// Standard deviations that are added to what is expected: one trip is enough in 98 of 100 cases.
const DEVIATIONS: f64 = 2.2;

/// Cells for a difference that was estimated; `None` when it takes more than there are in
/// `2^levels_max` partitions.
pub fn size_for(estimate: u64, precision: Precision, levels_max: u8) -> Option<Size> {
    let estimate = estimate.max(1) as f64;
    // Relative variance of what decoding takes, measured: 0.64 / n.
    let common = variance(estimate, precision);
    (0..=levels_max).find_map(|levels| {
        let share = estimate / f64::from(1u32 << levels);
        let alone = 0.64 / share;
        let margin = if levels == 0 {
            DEVIATIONS * (common + alone).sqrt()
        } else {
            // Partitions vary like Poisson's numbers, and the largest of them counts.
            let most = 1.5 + 0.25 * f64::from(levels);
            DEVIATIONS * common.sqrt() + most * (alone + 1.0 / share).sqrt()
        };
        let cells = cells_each(share) * share * (1.0 + margin);
        let cells = cells.ceil().max(CELLS_MIN as f64);
        let fits = cells <= PARTITION_CELLS as f64 * FILL;
        let cells = cells as usize;
        fits.then_some(Size { levels, cells })
    })
}

/// Cells to go on with when `have` of each partition were not enough for `failed` of `partitions`, for
/// the `time`-th time. They were sized to be, so little is missing at first.
pub fn more_cells(have: usize, (failed, partitions): (usize, usize), time: u32) -> usize {
    // When most of several fall short the estimate did, and by far.
    let missing = if partitions > 1 && failed * 2 >= partitions {
        0.2
    } else {
        0.08 + 1.2 / (have.max(1) as f64).sqrt()
    };
    let more = have as f64 * (1.0 + missing * f64::from(time.min(8)));
    (more as usize + 8).min(PARTITION_CELLS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::estimator::SATURATED;

    #[test]
    fn sizes_grow_with_the_difference_and_fit_the_partitions() {
        let mut before = 0;
        for estimate in [0, 1, 10, 100, 1000, 2000, 5000, 20_000, 100_000, 250_000] {
            let precision = if estimate < SATURATED {
                Precision::Rough
            } else {
                Precision::Good
            };
            let size = size_for(estimate, precision, 6).unwrap();
            assert!(size.cells <= PARTITION_CELLS);
            assert!(size.bytes() >= before, "{estimate}");
            before = size.bytes();
            if estimate >= 1000 {
                let each = size.bytes() as f64 / estimate as f64;
                assert!((11.0..15.0).contains(&each), "{estimate}: {each}");
            }
        }
        assert_eq!(size_for(1_000_000, Precision::Good, 6), None);
        assert_eq!(size_for(u64::MAX, Precision::Good, 6), None);
        assert_eq!(size_for(6000, Precision::Good, 0), None);
    }

    #[test]
    fn going_on_ends_with_a_whole_partition() {
        let mut cells = 24;
        for time in 1..15 {
            let more = more_cells(cells, (1, 1), time);
            assert!(more > cells || more == PARTITION_CELLS);
            cells = more;
        }
        assert_eq!(cells, PARTITION_CELLS);
    }
}
