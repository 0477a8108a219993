//! How many places differ, roughly: signed sums that two replicas subtract.
//!
//! Every leaf is counted in one of [`COUNTERS`] counters, with a sign that its place decides, when
//! the lowest bit of its value is set. A place that was updated and one that is missing both change
//! a counter by one with a chance of one half, so twice the sum of the squared differences is an
//! unbiased estimate (Alon, Matias and Szegedy, 1996; one counter for each item as in Thorup and
//! Zhang, 2004), whose standard deviation is `sqrt(2 / counters)`. Sums of counters are counters of
//! the same kind, so few of them travel at first.

use crate::sketch::key::{COUNTERS, Spot};

/// Counters that are summed up for the short form.
const GROUP: usize = 8;
/// Counters of the short form, for a standard deviation of 11%; that of all counters is 4%.
const GROUPS: usize = COUNTERS / GROUP;
/// Bits of a counter of the short form: differences of -32 to 31 survive.
const SHORT_BITS: usize = 6;
/// Bytes of the short form.
pub const SHORT_BYTES: usize = GROUPS * SHORT_BITS / 8;
/// Estimates out of a short form from here on may be anything: differences wrap around.
pub const SATURATED: u64 = 25_000;

/// The counters of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimator([i32; COUNTERS]);

impl Default for Estimator {
    fn default() -> Self {
        Self([0; COUNTERS])
    }
}

impl Estimator {
    /// Counts a place's values: `step` is how many of them have their lowest bit set.
    pub fn count(&mut self, spot: &Spot, step: i32) {
        let step = if spot.negative { -step } else { step };
        if let Some(counter) = self.0.get_mut(usize::from(spot.counter)) {
            *counter = counter.wrapping_add(step);
        }
    }

    /// Places that differ from another set.
    pub fn differing(&self, other: &Self) -> u64 {
        let pairs = self.0.iter().zip(&other.0);
        squares(pairs.map(|(ours, theirs)| i64::from(*ours) - i64::from(*theirs))).saturating_mul(2)
    }

    /// Places that differ from the set with this short form. At least [`SATURATED`] when that many
    /// differ or more.
    pub fn differing_roughly(&self, short: &[u8; SHORT_BYTES]) -> u64 {
        let half = 1 << (SHORT_BITS - 1);
        let wrapped = |difference: i64| (difference + half).rem_euclid(2 * half) - half;
        let pairs = self.groups().into_iter().zip(unpack(short));
        squares(pairs.map(|(ours, theirs)| wrapped(i64::from(ours) - i64::from(theirs))))
            .saturating_mul(2)
    }

    /// The lowest bits of the sums of groups of counters.
    pub fn to_short(&self) -> [u8; SHORT_BYTES] {
        let mut short = [0; SHORT_BYTES];
        for (four, bytes) in self.groups().chunks_exact(4).zip(short.chunks_exact_mut(3)) {
            let joined = four.iter().rev().fold(0u32, |joined, counter| {
                joined << SHORT_BITS | (*counter as u32 & ((1 << SHORT_BITS) - 1))
            });
            bytes.copy_from_slice(&joined.to_le_bytes()[..3]);
        }
        short
    }

    /// All counters.
    pub fn counters(&self) -> &[i32; COUNTERS] {
        &self.0
    }

    /// Of all counters.
    pub fn of_counters(counters: [i32; COUNTERS]) -> Self {
        Self(counters)
    }

    fn groups(&self) -> [i32; GROUPS] {
        let mut groups = [0; GROUPS];
        for (sum, counters) in groups.iter_mut().zip(self.0.chunks_exact(GROUP)) {
            *sum = counters
                .iter()
                .fold(0i32, |sum, counter| sum.wrapping_add(*counter));
        }
        groups
    }
}

fn squares(differences: impl Iterator<Item = i64>) -> u64 {
    differences.fold(0, |sum: u64, difference| {
        let size = difference.unsigned_abs();
        sum.saturating_add(size.saturating_mul(size))
    })
}

fn unpack(short: &[u8; SHORT_BYTES]) -> [u8; GROUPS] {
    let mut counters = [0; GROUPS];
    for (four, bytes) in counters.chunks_exact_mut(4).zip(short.chunks_exact(3)) {
        let joined = bytes.iter().rev();
        let joined = joined.fold(0u32, |joined, byte| joined << 8 | u32::from(*byte));
        for (at, counter) in four.iter_mut().enumerate() {
            *counter = (joined >> (SHORT_BITS * at)) as u8 & ((1 << SHORT_BITS) - 1);
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::key::{Secret, SketchKey};

    fn counted(places: std::ops::Range<u32>, value: impl Fn(u32) -> u32) -> Estimator {
        let key = SketchKey::new(&Secret::default());
        let mut estimator = Estimator::default();
        for place in places {
            estimator.count(&key.spot(place), (value(place) & 1) as i32);
        }
        estimator
    }

    fn mixed(place: u32) -> u32 {
        (u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32
    }

    #[test]
    fn missing_and_updated_places_are_estimated_alike() {
        let all = counted(0..40_000, mixed);
        for differing in [0u32, 50, 1000, 5000, 20_000] {
            let missing = counted(0..40_000 - differing, mixed);
            let updated = counted(0..40_000, |place| {
                mixed(if place < differing {
                    place + 1_000_000
                } else {
                    place
                })
            });
            for other in [missing, updated] {
                let exact = other.differing(&all);
                assert_eq!(exact, all.differing(&other));
                let expected = f64::from(differing);
                // Four standard deviations.
                let off = (exact as f64 - expected).abs();
                assert!(off <= 0.2 * expected, "{differing}: {exact}");
                let rough = other.differing_roughly(&all.to_short());
                if differing < 10_000 {
                    let off = (rough as f64 - expected).abs();
                    assert!(off <= 0.45 * expected, "{differing}: {rough} roughly");
                }
            }
        }
    }

    #[test]
    fn what_wraps_around_is_known_to_be_much() {
        let (few, many) = (counted(0..10, mixed), counted(0..3_000_000, mixed));
        assert!(few.differing_roughly(&many.to_short()) > SATURATED);
        assert!(many.differing(&few) > 2_000_000);
    }
}
