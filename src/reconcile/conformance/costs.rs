//! Bytes and round trips of every strategy on fixed sets.

use crate::reconcile::conformance::dialogue::{assert_exact, context, honest};
use crate::reconcile::memory::{Pair, Random, Shape};
use crate::reconcile::strategy::StrategyName;

/// Half of the differences are updates, a quarter each exists on one side only.
fn mixed(common: usize, differing: usize) -> Shape {
    Shape {
        common,
        only_ours: differing / 4,
        only_theirs: differing / 4,
        updated: differing - 2 * (differing / 4),
    }
}

#[test]
fn costs_stay_where_they_were_measured() {
    use StrategyName::{Bloom, Cursor, List, Merkle};
    let mut random = Random(10);
    for (common, differing, bounds) in [
        (
            100,
            1,
            [
                (Merkle, 600, 1),
                (List, 500, 1),
                (Cursor, 60, 1),
                (Bloom, 18_300, 1),
            ],
        ),
        (
            10_000,
            10,
            [
                (Merkle, 3_500, 3),
                (List, 40_000, 1),
                (Cursor, 200, 1),
                (Bloom, 37_000, 1),
            ],
        ),
        (
            100_000,
            1,
            [
                (Merkle, 1_500, 3),
                (List, 450_000, 1),
                (Cursor, 60, 1),
                (Bloom, 370_000, 1),
            ],
        ),
        (
            100_000,
            1000,
            [
                (Merkle, 120_000, 4),
                (List, 450_000, 1),
                (Cursor, 13_000, 1),
                (Bloom, 370_000, 1),
            ],
        ),
    ] {
        let pair = Pair::new(mixed(common, differing), &mut random);
        let context = context(&pair, &mut random);
        for (name, bytes_max, rounds_max) in bounds {
            let (_, outcome) = honest(name, &pair, &context);
            let bytes = outcome.up + outcome.down;
            assert!(
                bytes <= bytes_max && outcome.rounds <= rounds_max,
                "{name}, {differing} of {common}: {} up, {} down, {} rounds",
                outcome.up,
                outcome.down,
                outcome.rounds
            );
        }
    }
}

#[test]
fn one_difference_among_many_is_cheap() {
    let mut random = Random(11);
    let pair = Pair::new(mixed(1 << 18, 1), &mut random);
    let context = context(&pair, &mut random);
    let (found, outcome) = honest(StrategyName::Merkle, &pair, &context);
    assert_exact(StrategyName::Merkle, &pair, &found, "one of many");
    let bytes = outcome.up + outcome.down;
    assert!(
        bytes <= 2_500 && outcome.rounds <= 3,
        "{bytes} bytes in {} rounds",
        outcome.rounds
    );
}
