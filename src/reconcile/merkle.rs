//! `merkle`: descends both trees to where they differ. Exact, needs no history, and its cost
//! follows the number of differences: 1 to 2 KB for the first and then about 110 bytes each.

use crate::merkle::view::CHILD_LEVELS_MAX;
use crate::reconcile::descent::{Descent, Policy, expected_below, id_bits};
use crate::reconcile::strategy::Context;
use crate::reconcile::subtrees::Ask;

/// Up to so many leaves are compared without looking at nodes first: 2 to 4 KB save a trip.
const SMALL: u64 = 512;
/// Leaves that a subtree should hold when they are compared: where the bytes of leaf ids
/// (5 to 6 each) and of one more level of nodes (12 for each subtree that differs) balance.
const LEAVES_EACH: u64 = 16;
/// Levels a trip while many subtrees differ.
const LEVELS: u32 = 4;
/// Nodes that may be asked for at once while few subtrees differ: under 1 KB.
const NODES_AT_ONCE: u32 = 7;
/// A session in `2^24` misses a difference and has to be repeated under another key.
const CERTAINTY: u32 = 24;

/// Not started.
pub fn strategy(context: &Context) -> Descent {
    let policy = Policy {
        start: |_| 0,
        ask: |depth, subtrees, leaves, _| ask(depth, subtrees, leaves),
    };
    Descent::new(policy, context)
}

fn ask(depth: u8, subtrees: usize, leaves: u64) -> Ask {
    let each = expected_below(leaves, depth);
    let together = each.saturating_mul(subtrees as u64);
    let wanted = (each / LEAVES_EACH).max(1).ilog2() + 1;
    if together <= SMALL || each <= LEAVES_EACH + LEAVES_EACH / 4 || depth > 64 - CHILD_LEVELS_MAX {
        return Ask::Leaves {
            // Twice the expected number: subtrees vary.
            bits: id_bits(leaves, each.saturating_mul(2).max(LEAVES_EACH), CERTAINTY),
        };
    }
    let few = NODES_AT_ONCE.saturating_sub(subtrees.max(1).ilog2());
    Ask::Nodes {
        levels: wanted.min(few.max(LEVELS)).min(u32::from(CHILD_LEVELS_MAX)) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_subtrees_are_left_in_bigger_jumps_than_many() {
        assert_eq!(ask(0, 1, 1_000_000), Ask::Nodes { levels: 7 });
        assert_eq!(ask(7, 128, 1_000_000), Ask::Nodes { levels: 4 });
        assert!(matches!(ask(14, 1, 1_000_000), Ask::Leaves { .. }));
        assert!(matches!(ask(0, 1, 500), Ask::Leaves { .. }));
    }

    #[test]
    fn an_absurd_count_stays_inside_the_tree() {
        for depth in 0..=64 {
            if let Ask::Nodes { levels } = ask(depth, 1000, u64::MAX) {
                assert!((1..=CHILD_LEVELS_MAX).contains(&levels) && depth + levels <= 64);
            }
        }
    }
}
