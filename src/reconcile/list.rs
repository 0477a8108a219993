//! `list`: short ids of all leaves, page by page, for sets that have drifted far apart.
//!
//! Each bit of an id costs an eighth of a byte for every state we hold, and halves the differences
//! that are hidden because two ids are equal by chance. Where what was found is taken into account and
//! the rest is looked for by another strategy, a few bits are enough: 0.6 to 1.1 bytes for each state
//! instead of 3.5.

use std::ops::RangeInclusive;

use crate::reconcile::descent::{Descent, Policy, expected_below, id_bits};
use crate::reconcile::strategy::{Context, Rest};
use crate::reconcile::subtrees::Ask;

/// Leaves of one page, about.
const PAGE_LEAVES: u64 = 1 << 16;
/// Deepest page, so that an absurd claim about the peer's leaves costs no more than 4096 pages.
const PAGE_DEPTH_MAX: u8 = 12;
/// Differences that a session may find: as many leaves can be taken for others.
const DIFFERING_MAX: u64 = (1 << 17) - 1;
/// A session in `2^9` misses a difference when nobody looks for the rest, and `merkle` has to begin
/// anew.
const CERTAINTY: u32 = 9;
/// Bits of an id beyond those that number the leaves of a page, when somebody does.
const SPARE_BITS: RangeInclusive<u32> = 2..=20;
/// Bytes of the question that looks for the rest.
const QUESTION: f64 = 380.0;
/// Bytes that are rather sent than one more round trip taken: a millisecond at 100 Mbit/s.
const TRIP: f64 = 12_500.0;

/// Not started.
pub fn strategy(context: &Context) -> Descent {
    let policy = Policy {
        start: page_depth,
        ask: |depth, _, leaves, rest| {
            let page = expected_below(leaves, depth).max(1);
            let bits = match rest {
                Some(rest) => id_bits(0, page, spare_bits(leaves, &rest)),
                None => id_bits(leaves.min(DIFFERING_MAX), page, CERTAINTY),
            };
            Ask::Leaves { bits }
        },
    };
    Descent::new(policy, context)
}

/// Bytes of the ids of so many leaves, of the answer, and of looking for what is hidden; and the chance
/// that something is.
pub fn expected(leaves: u64, rest: &Rest) -> (f64, f64) {
    // A Rice coded gap takes a bit and a half more than its share of the range.
    let spare = spare_bits(leaves, rest);
    let ids = leaves as f64 * (f64::from(spare) + 1.6) / 8.0;
    let named = named_each(leaves, rest.differing) * rest.differing as f64;
    let hidden = hidden(spare, rest);
    (40.0 + ids + named + cost(hidden, rest), hidden.min(1.0))
}

/// The number of spare bits that costs least, a round trip more included.
fn spare_bits(leaves: u64, rest: &Rest) -> u32 {
    let bytes = |spare: &u32| {
        let hidden = hidden(*spare, rest);
        leaves as f64 * f64::from(*spare) / 8.0 + cost(hidden, rest) + TRIP * hidden.min(1.0)
    };
    let cheapest = SPARE_BITS.min_by(|a, b| bytes(a).total_cmp(&bytes(b)));
    cheapest.unwrap_or(*SPARE_BITS.end())
}

/// Differences that so many spare bits hide.
fn hidden(spare: u32, rest: &Rest) -> f64 {
    rest.differing as f64 / f64::from(1u32 << spare)
}

/// Bytes of finding so many afterwards.
fn cost(hidden: f64, rest: &Rest) -> f64 {
    QUESTION * hidden.min(1.0) + f64::from(rest.bytes_each) * hidden
}

/// Bytes of a difference in the answer: three of four are named by nine bits more than number all
/// leaves, as many by their rank among ours, sorted and Rice coded.
fn named_each(leaves: u64, differing: u64) -> f64 {
    let apart = (leaves.max(2) as f64 / differing.max(1) as f64)
        .log2()
        .max(0.0);
    0.75 * ((9.0 + apart + 1.5) + (apart + 1.5)) / 8.0
}

fn page_depth(leaves: u64) -> u8 {
    let pages = leaves.div_ceil(PAGE_LEAVES).max(1);
    let depth = u64::BITS - (pages - 1).leading_zeros();
    (depth as u8).min(PAGE_DEPTH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_large_as_said() {
        let depths = [0, 1, 65_536, 65_537, 131_072, 131_073, u64::MAX].map(page_depth);
        assert_eq!(depths, [0, 0, 0, 1, 1, 2, 12]);
    }

    #[test]
    fn more_differences_are_worth_more_bits() {
        let spare = |differing, bytes_each| {
            let rest = Rest {
                differing,
                bytes_each,
            };
            spare_bits(1_000_000, &rest)
        };
        assert_eq!(spare(0, 17), 2);
        assert_eq!(spare(100_000, 17), 3);
        assert_eq!(spare(1_000_000, 17), 7);
        assert!((10..=12).contains(&spare(1_000_000, 300)));
        assert_eq!(spare(u64::MAX, 300), 20);
    }

    #[test]
    fn it_never_costs_more_than_was_promised() {
        for leaves in [10_000u64, 100_000, 1_000_000, 100_000_000] {
            for share in [20, 10, 4, 2, 1] {
                for bytes_each in [17, 300] {
                    let rest = Rest {
                        differing: leaves / share,
                        bytes_each,
                    };
                    let each = expected(leaves, &rest).0 / leaves as f64;
                    assert!(each < 3.6, "one in {share} of {leaves}: {each}");
                }
            }
        }
    }
}
