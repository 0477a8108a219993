//! What strategies cost: bytes, round trips and work as functions of the sets' sizes and of how
//! much differs, fitted to what the conformance suite and the bench measure.

use crate::merkle::node::Summary;
use crate::reconcile::list;
use crate::reconcile::sizing::{Precision, size_for};
use crate::reconcile::strategy::{Link, Rest, StrategyName};
use crate::reconcile::subtrees::IDS_MAX;
use crate::sketch::estimator::{FULL_BYTES, SATURATED};
use crate::sketch::table::levels_for;

/// Bytes that a sketch takes to find one of some hundred differences.
const SKETCH_EACH: u32 = 13;
/// Bytes that a descent takes to find one of few among many.
const MERKLE_EACH: u32 = 300;

/// What it takes to find what a strategy misses of so many differences: by a sketch, if there is one.
pub fn rest(differing: u64, has_sketch: bool) -> Rest {
    Rest {
        differing,
        bytes_each: if has_sketch { SKETCH_EACH } else { MERKLE_EACH },
    }
}

/// What finding the difference is expected to take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Message bytes both ways.
    pub bytes: f64,
    /// Questions.
    pub trips: f64,
    /// Work of both sides, in microseconds.
    pub micros: f64,
}

impl Cost {
    /// Seconds that it takes over a link.
    pub fn seconds(&self, link: &Link) -> f64 {
        let wire = self.bytes / link.bytes_per_second.max(1) as f64;
        wire + self.trips * link.round_trip_micros as f64 / 1e6 + self.micros / 1e6
    }
}

/// The cost of a strategy over sets with these roots, of which so many states differ. `None` for
/// those that a planner does not weigh.
pub fn cost(
    name: StrategyName,
    (ours, theirs): (&Summary, &Summary),
    differing: u64,
    has_sketch: bool,
) -> Option<Cost> {
    let (held, larger) = (ours.leaves as f64, ours.leaves.max(theirs.leaves));
    let many = larger.max(1) as f64;
    let each = differing.max(1) as f64;
    match name {
        StrategyName::Sketch => sketch(larger, differing),
        StrategyName::Merkle => {
            // Levels that a subtree with a difference has above its 16 leaves.
            let levels = (many / each / 16.0).log2().max(0.0);
            Some(Cost {
                bytes: 500.0 + 50.0 * levels + each * (50.0 + 26.0 * levels),
                trips: 1.0 + (many / 16.0).log2().max(0.0) / 4.0,
                micros: 200.0 + 4.0 * each,
            })
        }
        StrategyName::List => {
            let (bytes, hidden) = list::expected(ours.leaves, &rest(differing, has_sketch));
            Some(Cost {
                bytes,
                // The last trip looks for what is hidden.
                trips: (held / IDS_MAX as f64).ceil().max(1.0) + hidden,
                micros: 0.3 * (held + theirs.leaves as f64),
            })
        }
        StrategyName::Cursor | StrategyName::Bloom | StrategyName::Full => None,
    }
}

fn sketch(states: u64, differing: u64) -> Option<Cost> {
    // Measured: the first question, and the answer that names places.
    let (first, named) = (367.0, 4.0 * differing.min(16) as f64);
    let work = 300.0 + 2.0 * differing as f64;
    let few = Cost {
        bytes: first + named,
        trips: 1.0,
        micros: work,
    };
    if differing <= 14 {
        return Some(few);
    }
    let (precision, trips) = if differing < SATURATED {
        (Precision::Rough, 1.0)
    } else {
        (Precision::Good, 2.0)
    };
    let size = size_for(differing, precision, levels_for(states))?;
    let counted = if differing < SATURATED { 0 } else { FULL_BYTES };
    Some(Cost {
        bytes: first + (counted + size.bytes()) as f64,
        trips,
        micros: work,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(leaves: u64) -> Summary {
        Summary {
            leaves,
            ..Summary::EMPTY
        }
    }

    #[test]
    fn costs_are_near_what_was_measured() {
        use StrategyName::{List, Merkle, Sketch};
        for (name, held, differing, bytes) in [
            (Merkle, 10_000, 1_000, 49e3),
            (Merkle, 100_000, 100, 18e3),
            (Merkle, 100_000, 10_000, 544e3),
            (Merkle, 1_000_000, 1_000, 207e3),
            (Merkle, 1_000_000, 10_000, 1.27e6),
            (Sketch, 1_000_000, 1, 375.0),
            (Sketch, 1_000_000, 1_000, 13.8e3),
            (Sketch, 1_000_000, 100_000, 1.25e6),
            (List, 1_000_000, 100_000, 1.0e6),
        ] {
            let root = states(held);
            let cost = cost(name, (&root, &root), differing, true).unwrap();
            let ratio = cost.bytes / bytes;
            assert!(
                (0.8..1.25).contains(&ratio),
                "{name}, {differing} of {held}: {cost:?}"
            );
        }
    }

    #[test]
    fn slow_links_make_bytes_dear_and_distant_ones_trips() {
        let cost = Cost {
            bytes: 1000.0,
            trips: 3.0,
            micros: 500.0,
        };
        let link = |bytes_per_second, round_trip_micros| Link {
            bytes_per_second,
            round_trip_micros,
        };
        assert!((cost.seconds(&link(1000, 0)) - 1.0005).abs() < 1e-9);
        assert!((cost.seconds(&link(u64::MAX, 1_000_000)) - 3.0005).abs() < 1e-9);
        assert!(cost.seconds(&link(0, 0)).is_finite());
    }
}
