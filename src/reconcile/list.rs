//! `list`: short ids of all leaves, page by page. About 4 bytes for each state we hold and 6 to 8
//! for each that differs, whatever the number of differences: for sets that have drifted far apart.

use crate::reconcile::descent::{Descent, Policy, expected_below, id_bits};
use crate::reconcile::strategy::Context;
use crate::reconcile::subtrees::Ask;

/// Leaves of one page, about: 250 KB of ids.
const PAGE_LEAVES: u64 = 1 << 16;
/// Deepest page, so that an absurd claim about the peer's leaves costs no more than 4096 pages.
const PAGE_DEPTH_MAX: u8 = 12;
/// Differences that a session may find: as many leaves can be taken for others.
const DIFFERING_MAX: u64 = (1 << 17) - 1;
/// A session in `2^9` misses a difference, and `merkle` has to find it. Every further bit would cost
/// one for each state.
const CERTAINTY: u32 = 9;

/// Not started.
pub fn strategy(context: &Context) -> Descent {
    let policy = Policy {
        start: page_depth,
        ask: |depth, _, leaves| Ask::Leaves {
            bits: id_bits(
                leaves.min(DIFFERING_MAX),
                expected_below(leaves, depth).max(1),
                CERTAINTY,
            ),
        },
    };
    Descent::new(policy, context)
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
}
