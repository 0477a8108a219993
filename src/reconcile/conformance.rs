//! What every strategy must keep, run for every name in the registry: it finds every difference,
//! against an honest peer exactly, and against a hostile one it ends within its limits.

mod costs;
mod dialogue;
mod hostile;
mod lies;

use std::collections::BTreeMap;

use crate::reconcile::budget::Budget;
use crate::reconcile::conformance::dialogue::{
    assert_exact, context, dialogue, exchanging, honest, oracle,
};
use crate::reconcile::memory::{Pair, Random, Set, Shape};
use crate::reconcile::sketch::TOO_MANY_FOR_SKETCHES;
use crate::reconcile::strategy::{AgreementMark, Context, SessionLimits, Step, StrategyName};
use crate::types::hash::StateKey;

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for common in [0, 1, 2, 3, 16, 255, 256, 257, 512, 1024, 5000] {
        for (only_ours, only_theirs, updated) in [
            (0, 0, 0),
            (1, 0, 0),
            (0, 1, 0),
            (0, 0, 1),
            (1, 1, 1),
            (20, 30, 40),
            (0, 0, common),
            (common, 0, 0),
            (0, 2 * common, common),
        ] {
            shapes.push(Shape {
                common,
                only_ours,
                only_theirs,
                updated,
            });
        }
    }
    for (only_ours, only_theirs) in [(3000, 0), (0, 3000), (2000, 2000)] {
        shapes.push(Shape {
            common: 0,
            only_ours,
            only_theirs,
            updated: 0,
        });
    }
    shapes
}

#[test]
fn every_difference_is_found() {
    let mut random = Random(1);
    for shape in shapes() {
        let seed = random.0;
        let pair = Pair::new(shape, &mut random);
        let context = context(&pair, &mut random);
        for name in exchanging() {
            let case = format!("seed {seed:#x}, {shape:?}");
            if name == StrategyName::Sketch && is_beyond_sketches(&pair, &context) {
                continue;
            }
            let (found, _) = honest(name, &pair, &context);
            assert_exact(name, &pair, &found, &case);
        }
    }
}

/// True when a sketch gives up, which it may where more than a tenth of the states differ.
fn is_beyond_sketches(pair: &Pair, context: &Context) -> bool {
    let (sides, budget) = ((&pair.ours, &pair.theirs), Budget::default());
    let outcome = dialogue(StrategyName::Sketch, sides, context, &budget, |_, a| a);
    if outcome.result != Ok(Step::CannotDecide(TOO_MANY_FOR_SKETCHES)) {
        return false;
    }
    let (differing, absent) = oracle(&pair.ours, &pair.theirs);
    let states = pair.ours.all().len().min(pair.theirs.all().len());
    assert!((differing.len() + absent.len()) * 10 > states);
    true
}

#[test]
fn small_budgets_and_messages_only_take_more_trips() {
    let mut random = Random(2);
    let shape = Shape {
        common: 20_000,
        only_ours: 200,
        only_theirs: 300,
        updated: 400,
    };
    let pair = Pair::new(shape, &mut random);
    let mut context = context(&pair, &mut random);
    context.limits.rounds = 500;
    for (leaves, responder, initiator) in [
        (600, 4 << 10, 4 << 10),
        (600, 40 << 10, 40 << 10),
        (600, 1 << 20, 1 << 20),
        (1 << 19, 8 << 10, 4 << 10),
        (1 << 19, 1 << 20, 8 << 10),
    ] {
        let budget = Budget {
            nodes: 512,
            leaves,
            message_bytes: responder,
        };
        context.limits.message_bytes = initiator;
        for name in exchanging() {
            let outcome = dialogue(
                name,
                (&pair.ours, &pair.theirs),
                &context,
                &budget,
                |_, answer| answer,
            );
            match outcome.result {
                Ok(Step::Found(found)) => assert_exact(name, &pair, &found, "small budget"),
                other => {
                    panic!("{name}: {leaves} leaves, {responder} and {initiator} bytes: {other:?}")
                }
            }
        }
    }
}

#[test]
fn what_a_filter_hides_is_found_by_the_next_strategy() {
    let mut random = Random(3);
    let shape = Shape {
        common: 2000,
        only_ours: 0,
        only_theirs: 500,
        updated: 0,
    };
    let pair = Pair::new(shape, &mut random);
    let mut context = context(&pair, &mut random);
    context.bloom.fpr = 0.25;
    let (all, _) = oracle(&pair.ours, &pair.theirs);
    // A filter made for five times as many leaves is emptier, and so hides less than it may.
    let (spacious, _) = honest(StrategyName::Bloom, &pair, &context);
    let hidden = all.len() - spacious.differing.len();
    assert!(hidden < 25, "{hidden} of 500 hidden");
    context.bloom.items = 1;
    let (found, _) = honest(StrategyName::Bloom, &pair, &context);
    let hidden = all.len() - found.differing.len();
    assert!((80..170).contains(&hidden), "{hidden} of 500 hidden at 25%");

    // The session takes what was found, sees that the roots differ still, and goes on.
    let mut merged = BTreeMap::new();
    let (mut seq, bits) = (0, &found.differing);
    let arrived = |key: &StateKey| bits.binary_search(&key.prefix64()).is_ok();
    let news = pair.theirs.all().iter().filter(|leaf| arrived(&leaf.key));
    for leaf in pair.ours.all().iter().chain(news) {
        seq += 1;
        merged.insert(leaf.key, (seq, *leaf));
    }
    let pair = Pair {
        ours: Set::new(merged),
        ..pair
    };
    let (rest, _) = honest(StrategyName::Merkle, &pair, &context);
    assert_eq!(rest.differing.len(), hidden);
    assert_exact(StrategyName::Merkle, &pair, &rest, "the rest");
}

#[test]
fn too_many_differences_or_rounds_are_not_decided() {
    let mut random = Random(4);
    let shape = Shape {
        common: 3000,
        only_ours: 100,
        only_theirs: 100,
        updated: 1000,
    };
    let pair = Pair::new(shape, &mut random);
    let mut context = context(&pair, &mut random);
    let sides = (&pair.ours, &pair.theirs);
    let budget = Budget::default();
    context.limits.differing = 500;
    for name in exchanging() {
        let outcome = dialogue(name, sides, &context, &budget, |_, answer| answer);
        assert!(
            matches!(outcome.result, Ok(Step::CannotDecide(_))),
            "{name}: {:?}",
            outcome.result
        );
    }
    context.limits = SessionLimits {
        rounds: 0,
        ..SessionLimits::default()
    };
    for name in exchanging() {
        let outcome = dialogue(name, sides, &context, &budget, |_, answer| answer);
        assert!(
            matches!(outcome.result, Ok(Step::CannotDecide(_))),
            "{name}"
        );
        assert_eq!(outcome.rounds, 0);
    }
}

#[test]
fn a_cursor_without_a_usable_mark_is_not_decided() {
    let mut random = Random(5);
    let shape = Shape {
        common: 10,
        only_ours: 5,
        only_theirs: 5,
        updated: 0,
    };
    let pair = Pair::new(shape, &mut random);
    let mut context = context(&pair, &mut random);
    // When the peer has nothing new, no question is needed.
    let unchanged = Context {
        their_seq: pair.their_mark,
        ..context
    };
    let (found, outcome) = honest(StrategyName::Cursor, &pair, &unchanged);
    assert_eq!((found.differing.len(), outcome.rounds), (5, 0));
    let mut ends = |mark| {
        context.mark = mark;
        let sides = (&pair.ours, &pair.theirs);
        let budget = Budget::default();
        dialogue(StrategyName::Cursor, sides, &context, &budget, |_, a| a).result
    };
    assert!(matches!(ends(None), Ok(Step::CannotDecide(_))));
    let ahead = AgreementMark {
        their_seq: pair.theirs.seq() + 1,
        our_seq: 0,
    };
    assert!(matches!(ends(Some(ahead)), Ok(Step::CannotDecide(_))));
}
