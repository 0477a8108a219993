//! A peer that lies, or a wire that spoils: every strategy ends within its limits.

use crate::reconcile::budget::Budget;
use crate::reconcile::conformance::dialogue::{
    assert_exact, assert_well_formed, context, dialogue, exchanging, oracle,
};
use crate::reconcile::error::ReconcileError;
use crate::reconcile::memory::{Pair, Random, Shape};
use crate::reconcile::registry::{answer, strategy};
use crate::reconcile::strategy::{SessionLimits, Step, StrategyName};

#[test]
fn steps_out_of_turn_are_refused() {
    let mut random = Random(6);
    let shape = Shape {
        common: 10,
        only_ours: 1,
        only_theirs: 1,
        updated: 1,
    };
    let pair = Pair::new(shape, &mut random);
    let context = context(&pair, &mut random);
    for name in exchanging() {
        let mut early = strategy(name, &context).unwrap();
        let refused = Err(ReconcileError::OutOfTurn);
        assert_eq!(early.advance(&pair.ours, Some(&[])), refused, "{name}");
        let mut twice = strategy(name, &context).unwrap();
        let first = twice.advance(&pair.ours, None);
        assert!(matches!(first, Ok(Step::Ask(_))), "{name}");
        assert_eq!(twice.advance(&pair.ours, None), refused, "{name}");
    }
    assert!(strategy(StrategyName::Full, &context).is_none());
    let budget = Budget::default();
    assert!(answer(StrategyName::Full, &pair.theirs, &[], &budget).is_err());
}

/// Ways in which a message can be wrong.
fn spoil(message: &mut Vec<u8>, earlier: &[u8], random: &mut Random) {
    match random.below(6) {
        0 => message.truncate(random.below(message.len())),
        1 => {
            for _ in 0..=random.below(4) {
                let at = random.below(message.len());
                if let Some(byte) = message.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        2 => {
            let length = random.below(600);
            *message = (0..length).map(|_| random.number() as u8).collect();
        }
        3 => *message = earlier.to_vec(),
        4 => {
            // A count of 2^63 or so, wherever it lands.
            let at = random.below(message.len());
            let end = message.len().min(at + 10);
            message.splice(
                at..end,
                [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            );
        }
        _ => message.extend(random.bytes::<16>()),
    }
}

#[test]
fn spoiled_answers_end_within_the_limits() {
    let mut random = Random(7);
    let shape = Shape {
        common: 900,
        only_ours: 30,
        only_theirs: 30,
        updated: 60,
    };
    let pair = Pair::new(shape, &mut random);
    let mut context = context(&pair, &mut random);
    context.limits = SessionLimits {
        differing: 1000,
        rounds: 12,
        message_bytes: 1 << 20,
    };
    let sides = (&pair.ours, &pair.theirs);
    let budget = Budget::default();
    let (expected, _) = oracle(&pair.ours, &pair.theirs);
    for name in exchanging() {
        let (mut errors, mut wrong) = (0, 0);
        for run in 0..300 {
            let seed = random.0;
            let from = 1 + run % 3;
            let mut earlier = Vec::new();
            let outcome = dialogue(name, sides, &context, &budget, |round, mut message| {
                let honest = message.clone();
                if round >= from {
                    spoil(&mut message, &earlier, &mut random);
                }
                earlier = honest;
                message
            });
            match outcome.result {
                Ok(Step::Found(found)) => {
                    assert_well_formed(&found);
                    let entries = found.differing.len() + found.absent.len();
                    assert!(entries <= 3 * context.limits.differing, "seed {seed:#x}");
                    wrong += u32::from(found.differing != expected);
                }
                Ok(_) => {}
                Err(_) => errors += 1,
            }
        }
        assert!(errors + wrong > 0, "{name}: nothing was spoiled");
    }
}

#[test]
fn spoiled_questions_are_answered_within_the_budget_or_refused() {
    let mut random = Random(8);
    let shape = Shape {
        common: 900,
        only_ours: 30,
        only_theirs: 30,
        updated: 60,
    };
    let pair = Pair::new(shape, &mut random);
    let context = context(&pair, &mut random);
    let budget = Budget {
        nodes: 1024,
        leaves: 5000,
        message_bytes: 32 << 10,
    };
    for name in exchanging() {
        let first = strategy(name, &context).unwrap().advance(&pair.ours, None);
        let Ok(Step::Ask(first)) = first else {
            panic!("{name}: {first:?}");
        };
        let mut refused = 0;
        for _ in 0..500 {
            let seed = random.0;
            let mut question = first.clone();
            spoil(&mut question, &[], &mut random);
            match answer(name, &pair.theirs, &question, &budget) {
                Ok(answer) => assert!(answer.len() <= budget.message_bytes, "seed {seed:#x}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0, "{name}: nothing was refused");
        let large = vec![0; budget.message_bytes + 1];
        assert!(answer(name, &pair.theirs, &large, &budget).is_err());
    }
}

#[test]
fn absurd_claims_about_the_peer_cost_no_more_than_the_limits() {
    let mut random = Random(9);
    let shape = Shape {
        common: 300,
        only_ours: 3,
        only_theirs: 3,
        updated: 3,
    };
    let pair = Pair::new(shape, &mut random);
    let mut context = context(&pair, &mut random);
    for leaves in [0, u64::MAX] {
        let claimed = context.theirs.as_mut().unwrap();
        claimed.leaves = leaves;
        for name in exchanging() {
            let budget = Budget::default();
            let sides = (&pair.ours, &pair.theirs);
            let outcome = dialogue(name, sides, &context, &budget, |_, answer| answer);
            match outcome.result {
                Ok(Step::Found(found)) => assert_exact(name, &pair, &found, "claim"),
                Ok(Step::CannotDecide(_)) => {}
                other => panic!("{name} at {leaves}: {other:?}"),
            }
            let bytes = outcome.up + outcome.down;
            assert!(bytes < 200_000, "{name} at {leaves}: {bytes} bytes");
        }
    }
}
