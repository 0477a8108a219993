//! Bytes and round trips of every strategy on fixed sets.

use crate::merkle::node::Summary;
use crate::reconcile::amended::{Amended, changes, join};
use crate::reconcile::budget::Budget;
use crate::reconcile::conformance::dialogue::{assert_exact, context, dialogue, honest};
use crate::reconcile::memory::{Pair, Random, Shape, told};
use crate::reconcile::planner::{Facts, after_failure, expected_rest, plan};
use crate::reconcile::sizing::{Precision, size_for};
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

fn facts(pair: &Pair, ours: Summary) -> Facts {
    Facts {
        ours,
        theirs: pair.theirs.root().unwrap(),
        our_seq: pair.ours.seq(),
        their_seq: pair.theirs.seq(),
        mark: None,
        has_sketch: true,
        link: Link::default(),
    }
}

/// What the planner chooses, and goes on with, comes to, as in a session: bytes and names.
fn auto(pair: &Pair, random: &mut Random) -> (usize, Vec<StrategyName>) {
    let mut context = context(pair, random);
    // Nothing is to be given up for its size here.
    context.limits.differing = pair.ours.all().len() * 2;
    let mut facts = facts(pair, pair.ours.root().unwrap());
    let (mut bytes, mut tried, mut named) = (0, Vec::new(), Vec::new());
    let (mut known, mut taken) = (None, Vec::new());
    let mut next = Some(plan(&facts).strategy);
    while let Some(name) = next {
        tried.push(name);
        named.push(name);
        context.rest = Some(expected_rest(&facts, known));
        let amended = Amended::new(&pair.ours, &taken).unwrap();
        let (sides, budget) = ((&amended, &pair.theirs), Budget::default());
        let outcome = dialogue(name, sides, &context, &budget, |_, answer| answer);
        bytes += outcome.up + outcome.down;
        match outcome.result {
            Ok(Step::Found(found)) => {
                let leaves = told(&pair.theirs, &found);
                let changes = changes(&amended, &found, leaves).unwrap();
                taken = join(taken, changes);
                facts.ours = Amended::new(&pair.ours, &taken).unwrap().root().unwrap();
                if facts.ours == facts.theirs {
                    return (bytes, named);
                }
                known = None;
                tried.retain(|tried| *tried != StrategyName::Sketch || name == *tried);
                next = after_failure(&facts, &tried, None);
            }
            Ok(Step::CannotDecide(_)) => {
                known = outcome.estimate.or(known);
                next = after_failure(&facts, &tried, known);
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    panic!("{named:?} did not decide")
}

/// Compares what the planner does with the best strategy alone.
fn the_planner_keeps_up(states: usize, all_differing: &[usize], random: &mut Random) {
    use StrategyName::{List, Merkle, Sketch};
    for differing in all_differing {
        let pair = Pair::new(mixed(states - differing / 4, *differing), random);
        let mut context = context(&pair, random);
        context.limits.differing = states * 2;
        let of = |name| {
            let (sides, budget) = ((&pair.ours, &pair.theirs), Budget::default());
            let outcome = dialogue(name, sides, &context, &budget, |_, answer| answer);
            let is_found = matches!(outcome.result, Ok(Step::Found(_)));
            is_found.then_some(outcome.up + outcome.down)
        };
        let best = [Sketch, Merkle, List].into_iter().filter_map(of).min();
        let (bytes, names) = auto(&pair, random);
        let bound = best.unwrap() as f64 * 1.2;
        assert!(
            bytes as f64 <= bound && bytes as f64 <= 3.6 * states as f64 + 3000.0,
            "{differing} of {states}: {bytes} bytes by {names:?}, at best {best:?}"
        );
    }
}

#[test]
fn the_planner_is_never_much_dearer_than_the_best_strategy() {
    let mut random = Random(12);
    the_planner_keeps_up(1_000, &[1, 10, 100, 300, 1_000], &mut random);
    the_planner_keeps_up(10_000, &[1, 10, 100, 1_000, 3_000, 10_000], &mut random);
    the_planner_keeps_up(100_000, &[1, 100, 1_000, 10_000, 50_000], &mut random);
}

#[test]
fn much_that_differs_among_many_is_listed_before_a_sketch_finds_the_rest() {
    use StrategyName::{List, Sketch};
    let mut random = Random(15);
    for (differing, expected, at_most) in [
        (5_000, &[Sketch][..], 70_000),
        (20_000, &[Sketch, List, Sketch], 150_000),
    ] {
        let pair = Pair::new(mixed(100_000, differing), &mut random);
        let (bytes, names) = auto(&pair, &mut random);
        assert_eq!(names, expected, "{differing}: {bytes} bytes");
        assert!(bytes <= at_most, "{differing}: {bytes} bytes");
        let cells = size_for(differing as u64, Precision::Good, 7)
            .unwrap()
            .bytes();
        assert!(
            names == [Sketch] || bytes * 4 < cells * 3,
            "{bytes}, {cells} of cells"
        );
    }
}

#[test]
#[ignore = "a million states take a minute, in a release build: cargo test --release --lib -- --ignored million"]
fn nor_is_it_among_a_million() {
    let mut random = Random(13);
    let differing = [1, 10, 100, 1_000, 10_000, 100_000, 300_000, 1_000_000];
    the_planner_keeps_up(1_000_000, &differing, &mut random);
}

#[test]
fn what_a_list_hides_a_sketch_of_the_rest_finds() {
    let mut random = Random(14);
    let pair = Pair::new(mixed(20_000, 8_000), &mut random);
    let mut context = context(&pair, &mut random);
    let (all, exact) = honest(StrategyName::List, &pair, &context);
    let facts = facts(&pair, pair.ours.root().unwrap());
    context.rest = Some(expected_rest(&facts, Some(8_000)));
    let (found, short) = honest(StrategyName::List, &pair, &context);
    let (all_bytes, bytes) = (exact.up + exact.down, short.up + short.down);
    assert!(bytes * 2 < all_bytes, "{bytes} and {all_bytes} bytes");
    let changed = changes(&pair.ours, &found, told(&pair.theirs, &found)).unwrap();
    let amended = Amended::new(&pair.ours, &changed).unwrap();
    assert_ne!(amended.root(), pair.theirs.root(), "nothing was hidden");
    let sides = (&amended, &pair.theirs);
    let rest = dialogue(
        StrategyName::Sketch,
        sides,
        &context,
        &Budget::default(),
        |_, a| a,
    );
    let Ok(Step::Found(rest_found)) = rest.result else {
        panic!("{:?}", rest.result);
    };
    // Some hundred of 8,000, at a sketch's price.
    let named = rest_found.differing.len() + rest_found.absent.len();
    assert!(
        (50..1000).contains(&named),
        "{named} of {}",
        all.differing.len()
    );
    let leaves = told(&pair.theirs, &rest_found);
    let later = changes(&amended, &rest_found, leaves).unwrap();
    let whole = join(changed.clone(), later);
    let root = Amended::new(&pair.ours, &whole).unwrap().root();
    assert_eq!(root, pair.theirs.root());
    assert!(bytes + rest.up + rest.down < all_bytes * 3 / 4);
}
