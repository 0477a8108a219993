//! Bytes and round trips of every strategy on fixed sets.

use crate::reconcile::budget::Budget;
use crate::reconcile::conformance::dialogue::{assert_exact, context, dialogue, honest};
use crate::reconcile::memory::{Pair, Random, Shape};
use crate::reconcile::planner::{Facts, after_failure, plan};
use crate::reconcile::strategy::{Link, Step, StrategyName};
use crate::reconcile::view::SetView;

/// Half of the differences are updates, a quarter each exists on one side only.
fn mixed(common: usize, differing: usize) -> Shape {
    Shape {
        common,
        only_ours: differing / 4,
        only_theirs: differing / 4,
        updated: differing - 2 * (differing / 4),
    }
}

/// Of a strategy the most bytes and round trips.
type Bound = (StrategyName, usize, u32);

/// Common and differing states, and the most bytes and round trips of each strategy.
fn measured() -> [(usize, usize, [Bound; 5]); 4] {
    use StrategyName::{Bloom, Cursor, List, Merkle, Sketch};
    [
        (
            100,
            1,
            [
                (Merkle, 600, 1),
                (List, 500, 1),
                (Cursor, 60, 1),
                (Bloom, 18_300, 1),
                (Sketch, 500, 1),
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
                (Sketch, 1_200, 1),
            ],
        ),
        (
            100_000,
            1,
            [
                (Merkle, 1_500, 3),
                (List, 380_000, 1),
                (Cursor, 60, 1),
                (Bloom, 370_000, 1),
                (Sketch, 500, 1),
            ],
        ),
        (
            100_000,
            1000,
            [
                (Merkle, 120_000, 4),
                (List, 380_000, 1),
                (Cursor, 13_000, 1),
                (Bloom, 370_000, 1),
                (Sketch, 25_000, 2),
            ],
        ),
    ]
}

#[test]
fn costs_stay_where_they_were_measured() {
    let mut random = Random(10);
    for (common, differing, bounds) in measured() {
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

/// What the planner chooses, and goes on with, comes to: bytes and names.
fn auto(pair: &Pair, random: &mut Random) -> (usize, Vec<StrategyName>) {
    let context = context(pair, random);
    let facts = Facts {
        ours: pair.ours.root().unwrap(),
        theirs: pair.theirs.root().unwrap(),
        our_seq: pair.ours.seq(),
        their_seq: pair.theirs.seq(),
        mark: None,
        has_sketch: true,
        link: Link::default(),
    };
    let (mut bytes, mut tried) = (0, Vec::new());
    let mut next = Some(plan(&facts).strategy);
    while let Some(name) = next {
        tried.push(name);
        let (sides, budget) = ((&pair.ours, &pair.theirs), Budget::default());
        let outcome = dialogue(name, sides, &context, &budget, |_, answer| answer);
        bytes += outcome.up + outcome.down;
        match outcome.result {
            Ok(Step::Found(found)) => {
                assert_exact(name, pair, &found, "auto");
                return (bytes, tried);
            }
            Ok(Step::CannotDecide(_)) => next = after_failure(&facts, &tried, outcome.estimate),
            other => panic!("{name}: {other:?}"),
        }
    }
    panic!("{tried:?} did not decide")
}

#[test]
fn the_planner_is_never_much_dearer_than_the_best_strategy() {
    use StrategyName::{List, Merkle, Sketch};
    let mut random = Random(12);
    for (states, all_differing) in [
        (1_000, &[1, 10, 100, 1_000][..]),
        (10_000, &[1, 10, 100, 1_000, 3_000, 10_000]),
        (100_000, &[1, 10, 100, 1_000, 10_000, 50_000]),
    ] {
        for differing in all_differing {
            let pair = Pair::new(mixed(states - differing / 4, *differing), &mut random);
            let context = context(&pair, &mut random);
            let of = |name| {
                let (sides, budget) = ((&pair.ours, &pair.theirs), Budget::default());
                let outcome = dialogue(name, sides, &context, &budget, |_, answer| answer);
                let is_found = matches!(outcome.result, Ok(Step::Found(_)));
                is_found.then_some(outcome.up + outcome.down)
            };
            let best = [Sketch, Merkle, List].into_iter().filter_map(of).min();
            let (bytes, names) = auto(&pair, &mut random);
            let bound = best.unwrap() as f64 * 1.2;
            assert!(
                bytes as f64 <= bound,
                "{differing} of {states}: {bytes} bytes by {names:?}, at best {best:?}"
            );
        }
    }
}
