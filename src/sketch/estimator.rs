//! How many places differ, roughly: signed sums that two replicas subtract.
//!
//! Every leaf is counted in two of [`COUNTERS`] counters, one in each half of them, with signs that
//! its place decides: in the first when the lowest bit of its value is set, in the second when the
//! next one is. A place that was updated and one that is missing both change each of their counters
//! by one with a chance of one half, so the sum of the squared differences is an unbiased estimate
//! (Alon, Matias and Szegedy, 1996; one counter for each item and half as in Thorup and Zhang,
//! 2004). Its relative variance is `2 / counters` and, because of the bits, `1 / (2 d)` for `d` places.
//!
//! The short form sums up counters by four, and has of each sum the three lowest bits. Those of a
//! difference are small, so few bits tell them from each other; three further bits of the sum of four
//! such sums tell where that is no longer so.

use crate::sketch::key::{COUNTERS, Spot};

/// Counters that are summed up for the short form.
const GROUP: usize = 4;
/// Sums of the short form whose own sum has further bits.
const QUAD: usize = 4;
/// Such sums of sums.
const QUADS: usize = COUNTERS / GROUP / QUAD;
/// Lowest bits of a sum that travel.
const SUM_BITS: u32 = 3;
/// Lowest bits of a sum of four sums that are known then: [`SUM_BITS`] by the sums themselves.
const QUAD_BITS: u32 = 6;
/// Bits of a sum of four sums with all that belongs to it.
const ENTRY_BITS: usize = QUAD * SUM_BITS as usize + (QUAD_BITS - SUM_BITS) as usize;
/// Bytes of the short form.
pub const SHORT_BYTES: usize = QUADS * ENTRY_BITS / 8;
/// Bytes of the full form: the lowest eight bits of each counter.
pub const FULL_BYTES: usize = COUNTERS;
/// Estimates out of a short form from here on may be anything: differences wrap around.
pub const SATURATED: u64 = 3000;
/// How many places differ, and what is read out of a short form then: wrapped differences are taken
/// for smaller ones. Means of 1,500 trials each; between these points the curve is nearly straight.
const READINGS: [(u64, u64); 7] = [
    (600, 599),
    (1000, 988),
    (1500, 1436),
    (2000, 1815),
    (2500, 2122),
    (3000, 2383),
    (10_000, 4401),
];

/// The counters of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimator([i32; COUNTERS]);

impl Default for Estimator {
    fn default() -> Self {
        Self([0; COUNTERS])
    }
}

impl Estimator {
    /// Counts a place's values: `steps` is how many of them have their lowest bit set, and how many
    /// the next one.
    pub fn count(&mut self, spot: &Spot, steps: [i8; 2]) {
        let halves = self.0.chunks_exact_mut(COUNTERS / 2);
        for ((half, tally), step) in halves.zip(spot.tallies).zip(steps) {
            let step = i32::from(if tally.negative { -step } else { step });
            if let Some(counter) = half.get_mut(usize::from(tally.counter)) {
                *counter = counter.wrapping_add(step);
            }
        }
    }

    /// Places that differ from the set with this full form.
    pub fn differing(&self, full: &[u8; FULL_BYTES]) -> u64 {
        let pairs = self.0.iter().zip(full);
        let differences = pairs.map(|(ours, theirs)| wrapped(*ours, i32::from(*theirs), u8::BITS));
        differences.map(square).sum()
    }

    /// Places that differ from the set with this short form. At least [`SATURATED`] when that many
    /// differ or more.
    pub fn differing_roughly(&self, short: &[u8; SHORT_BYTES]) -> u64 {
        let pairs = self.quads().zip(entries(short));
        let read = pairs.map(|(ours, theirs)| energy(&ours, theirs)).sum();
        corrected(read)
    }

    /// The lowest bits of sums of counters.
    pub fn to_short(&self) -> [u8; SHORT_BYTES] {
        let mut short = [0; SHORT_BYTES];
        let (mut pending, mut bits, mut bytes) = (0u32, 0, short.iter_mut());
        for sums in self.quads() {
            pending |= entry(&sums) << bits;
            bits += ENTRY_BITS;
            while bits >= 8 {
                if let Some(byte) = bytes.next() {
                    *byte = pending as u8;
                }
                pending >>= 8;
                bits -= 8;
            }
        }
        short
    }

    /// The lowest bits of all counters.
    pub fn to_full(&self) -> [u8; FULL_BYTES] {
        self.0.map(|counter| counter as u8)
    }

    fn quads(&self) -> impl Iterator<Item = [i32; QUAD]> {
        self.0.chunks_exact(GROUP * QUAD).map(|counters| {
            let mut sums = [0i32; QUAD];
            for (sum, group) in sums.iter_mut().zip(counters.chunks_exact(GROUP)) {
                let add = |sum: i32, counter: &i32| sum.wrapping_add(*counter);
                *sum = group.iter().fold(0, add);
            }
            sums
        })
    }
}

fn total(sums: &[i32; QUAD]) -> i32 {
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}

/// What the short form has of four sums.
fn entry(sums: &[i32; QUAD]) -> u32 {
    let low = |value: i32, bits: u32| value as u32 & ((1 << bits) - 1);
    let above = low(total(sums) >> SUM_BITS, QUAD_BITS - SUM_BITS);
    let joined = sums.iter().rev();
    joined.fold(above, |joined, sum| {
        joined << SUM_BITS | low(*sum, SUM_BITS)
    })
}

fn entries(short: &[u8; SHORT_BYTES]) -> impl Iterator<Item = u32> {
    let (mut pending, mut bits, mut bytes) = (0u32, 0, short.iter());
    (0..QUADS).map(move |_| {
        while bits < ENTRY_BITS {
            pending |= u32::from(bytes.next().copied().unwrap_or_default()) << bits;
            bits += 8;
        }
        let entry = pending & ((1 << ENTRY_BITS) - 1);
        pending >>= ENTRY_BITS;
        bits -= ENTRY_BITS;
        entry
    })
}

/// The difference of two numbers of which the lowest bits are known: the smallest that it can be.
fn wrapped(ours: i32, theirs: i32, bits: u32) -> i64 {
    let half = 1i64 << (bits - 1);
    (i64::from(ours) - i64::from(theirs) + half).rem_euclid(2 * half) - half
}

fn square(difference: i64) -> u64 {
    difference.unsigned_abs().pow(2)
}

/// The sum of the squared differences between four sums and those of an entry. Their total is
/// known to six bits; from a total, the difference of its two parts is known to one bit more than
/// the parts are, and so down. Of two readings the smaller one is taken.
fn energy(ours: &[i32; QUAD], theirs: u32) -> u64 {
    let mask = (1 << SUM_BITS) - 1;
    let their_sum = |at: u32| (theirs >> (SUM_BITS * at) & mask) as i32;
    let low = [0, 1, 2, 3].map(their_sum);
    let above = (theirs >> (SUM_BITS * QUAD as u32)) as i32;
    let their_total = above << SUM_BITS | total(&low) & mask as i32;
    let all = wrapped(total(ours), their_total, QUAD_BITS);
    let [first, second, third, _] =
        [0, 1, 2, 3].map(|at| i64::from(ours[at].wrapping_sub(low[at])).rem_euclid(1 << SUM_BITS));
    // The first of two numbers, known to three bits, and their sum give their difference to four.
    let apart = |part: i64, sum: i64| {
        let whole = 1i64 << (SUM_BITS + 1);
        (2 * part - sum + whole / 2).rem_euclid(whole) - whole / 2
    };
    let of = |difference: i64| {
        let halves = [(all + difference) / 2, (all - difference) / 2];
        let parts = [apart(first, halves[0]), apart(third, halves[1])];
        let squares = halves.into_iter().chain(parts).map(square);
        squares.sum::<u64>() / 2
    };
    let difference = apart((first + second) & i64::from(mask), all);
    let whole = 1i64 << (SUM_BITS + 1);
    let other = difference - difference.signum() * whole;
    of(difference).min(of(other))
}

/// How many places differ when so many seem to.
fn corrected(read: u64) -> u64 {
    let mut before = (0, 0);
    for point in READINGS {
        if read <= point.1 {
            return before.0
                + (read - before.1) * (point.0 - before.0) / (point.1 - before.1).max(1);
        }
        before = point;
    }
    before.0.max(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::key::{Secret, SketchKey};

    fn counted(places: std::ops::Range<u32>, value: impl Fn(u32) -> u32) -> Estimator {
        let key = SketchKey::new(&Secret::default());
        let mut estimator = Estimator::default();
        for place in places {
            let value = value(place);
            let steps = [value & 1, value >> 1 & 1].map(|bit| bit as i8);
            estimator.count(&key.spot(place), steps);
        }
        estimator
    }

    /// SplitMix64's last step (Steele, Lea and Flood, 2014).
    fn mixed(place: u32) -> u32 {
        let mut mixed = u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as u32
    }

    #[test]
    fn missing_and_updated_places_are_estimated_alike() {
        let all = counted(0..40_000, mixed);
        for differing in [0u32, 50, 1000, 4000, 20_000] {
            let missing = counted(0..40_000 - differing, mixed);
            let updated = counted(0..40_000, |place| {
                mixed(if place < differing {
                    place + 1_000_000
                } else {
                    place
                })
            });
            for other in [missing, updated] {
                let exact = other.differing(&all.to_full());
                assert_eq!(exact, all.differing(&other.to_full()));
                let expected = f64::from(differing);
                // Four standard deviations, and a little for those below one.
                let slack = |counters: f64| {
                    1.0 + 4.0 * (0.5 * expected + 2.0 / counters * expected.powi(2)).sqrt()
                };
                let off = (exact as f64 - expected).abs();
                assert!(off <= slack(COUNTERS as f64), "{differing}: {exact}");
                let rough = other.differing_roughly(&all.to_short());
                if u64::from(differing) < SATURATED {
                    let off = (rough as f64 - expected).abs();
                    assert!(off <= slack(200.0), "{differing}: {rough} roughly");
                } else {
                    assert!(rough >= SATURATED, "{differing}: {rough} roughly");
                }
            }
        }
    }

    #[test]
    fn what_wraps_around_is_known_to_be_much() {
        let (few, many) = (counted(0..10, mixed), counted(0..3_000_000, mixed));
        assert!(few.differing_roughly(&many.to_short()) > SATURATED);
        assert!(many.differing(&few.to_full()) > 1_000_000);
    }
}
