//! Lies that only `sketch` can be told: cells of no set, cells without end, estimates from nowhere.

use crate::reconcile::budget::Budget;
use crate::reconcile::conformance::dialogue::{assert_exact, context, dialogue};
use crate::reconcile::error::ReconcileError;
use crate::reconcile::memory::{Pair, Random, Shape};
use crate::reconcile::registry::answer;
use crate::reconcile::sizing::Size;
use crate::reconcile::sketch_messages::{
    Answer, Question, read_answer, write_answer, write_question,
};
use crate::reconcile::strategy::{Step, StrategyName};
use crate::reconcile::view::SetView;
use crate::sketch::cell::{Cell, Told, told_all};
use crate::sketch::estimator::SHORT_BYTES;
use crate::sketch::field::P;
use crate::sketch::table::{LEVELS_MAX, PARTITION_CELLS};

const SKETCH: StrategyName = StrategyName::Sketch;

fn pair(random: &mut Random) -> Pair {
    let shape = Shape {
        common: 20_000,
        only_ours: 100,
        only_theirs: 100,
        updated: 200,
    };
    Pair::new(shape, random)
}

fn cell(random: &mut Random, at: usize) -> Told {
    let lanes = std::array::from_fn(|_| (random.number() % u64::from(P)) as u32);
    Cell(lanes).told(at)
}

#[test]
fn a_decode_bomb_ends_the_session_with_its_reason() {
    let mut random = Random(20);
    let pair = pair(&mut random);
    let context = context(&pair, &mut random);
    let sides = (&pair.ours, &pair.theirs);
    let outcome = dialogue(SKETCH, sides, &context, &Budget::default(), |_, honest| {
        // Every other cell is ours: what is taken away there comes up with the other sign.
        let Ok(Answer::Cells(size, mut cells)) = read_answer(&honest, 1000, u64::from(P)) else {
            panic!("cells were expected");
        };
        let slots: Vec<u32> = (0..1 << size.levels).collect();
        let sketch = pair.ours.sketch().unwrap();
        let range = 0..size.cells;
        let ours = sketch.fold(size.levels, &slots, &range).unwrap();
        let ours = told_all(&ours, &range);
        for (cell, own) in cells.iter_mut().zip(ours).step_by(2) {
            *cell = own;
        }
        write_answer(&Answer::Cells(size, cells))
    });
    let refused = matches!(
        outcome.result,
        Err(ReconcileError::Inconsistent("cells of no set"))
    );
    assert!(refused, "{:?}", outcome.result);
    assert_eq!(outcome.rounds, 1);
}

#[test]
fn cells_without_end_end() {
    let mut random = Random(21);
    let pair = pair(&mut random);
    let context = context(&pair, &mut random);
    let sides = (&pair.ours, &pair.theirs);
    let mut lies = Random(22);
    let outcome = dialogue(
        SKETCH,
        sides,
        &context,
        &Budget::default(),
        |round, honest| {
            if round > 1 {
                // Cells of any content, as many as were asked for, up to the last.
                let mut lie = honest;
                let all = lie.len().saturating_sub(8);
                lie[..all].fill_with(|| lies.number() as u8);
                return lie;
            }
            let size = Size {
                levels: 0,
                cells: 600,
            };
            let cells = (0..size.cells).map(|at| cell(&mut lies, at)).collect();
            write_answer(&Answer::Cells(size, cells))
        },
    );
    assert!(
        matches!(outcome.result, Ok(Step::CannotDecide(_))),
        "{:?}",
        outcome.result
    );
    // All that a sketch of so many states has, each level once.
    let most = (PARTITION_CELLS << 3) * 11 * 2;
    assert!(
        outcome.rounds <= 16 && outcome.down <= most,
        "{} rounds",
        outcome.rounds
    );
}

#[test]
fn lowest_bits_that_lie_tell_nothing_and_end() {
    let mut random = Random(25);
    let pair = pair(&mut random);
    let context = context(&pair, &mut random);
    let sides = (&pair.ours, &pair.theirs);
    // All of them, or those of one cell: it is never explained, whatever else comes.
    for lies in [1, 1 << 20] {
        let outcome = dialogue(
            SKETCH,
            sides,
            &context,
            &Budget::default(),
            |round, honest| {
                if round > 1 {
                    return honest;
                }
                let Ok(Answer::Cells(size, mut cells)) = read_answer(&honest, 1000, u64::from(P))
                else {
                    panic!("cells were expected");
                };
                for cell in cells.iter_mut().step_by(lies) {
                    cell.low ^= 1;
                }
                write_answer(&Answer::Cells(size, cells))
            },
        );
        let is_over = matches!(
            outcome.result,
            Ok(Step::CannotDecide(_)) | Err(ReconcileError::Inconsistent("cells of no set"))
        );
        assert!(is_over, "one in {lies}: {:?}", outcome.result);
        let most = (PARTITION_CELLS << 3) * 9 * 2;
        assert!(
            outcome.rounds <= 16 && outcome.down <= most,
            "one in {lies}: {} bytes in {} rounds",
            outcome.down,
            outcome.rounds
        );
    }
}

#[test]
fn an_estimate_from_nowhere_costs_no_more_than_the_sketch_holds() {
    let mut random = Random(23);
    let pair = pair(&mut random);
    let sketch = pair.theirs.sketch().unwrap();
    let fingerprint = sketch.key().fingerprint();
    let most = (PARTITION_CELLS << sketch.levels()) * 11 + 100;
    for _ in 0..200 {
        let short: [u8; SHORT_BYTES] = std::array::from_fn(|_| random.number() as u8);
        let far = 1 << random.below(9);
        let counters = std::array::from_fn(|_| (random.number() % far) as u8);
        for question in [
            Question::First {
                fingerprint,
                levels: LEVELS_MAX,
                room: 24,
                counters: short,
                cells: Vec::new(),
            },
            Question::Counted {
                fingerprint,
                levels: LEVELS_MAX,
                room: 24,
                counters: Box::new(counters),
            },
        ] {
            let budget = Budget::default();
            let told = answer(SKETCH, &pair.theirs, &write_question(&question), &budget);
            assert!(told.unwrap().len() <= most);
        }
    }
}

#[test]
fn a_peer_that_says_other_places_is_found_out_by_the_root_alone() {
    // Nothing contradicts it before the records come: they do not add up to the root.
    let mut random = Random(24);
    let shape = Shape {
        common: 1000,
        only_ours: 2,
        only_theirs: 1,
        updated: 2,
    };
    let pair = Pair::new(shape, &mut random);
    let context = context(&pair, &mut random);
    let sides = (&pair.ours, &pair.theirs);
    let lie = write_answer(&Answer::Decoded(vec![(7, true), (99, false)]));
    let outcome = dialogue(SKETCH, sides, &context, &Budget::default(), |_, _| {
        lie.clone()
    });
    let Ok(Step::Found(found)) = outcome.result else {
        panic!("{:?}", outcome.result);
    };
    assert_eq!((found.differing, found.absent.len()), (vec![7 << 35], 0));
    let outcome = dialogue(SKETCH, sides, &context, &Budget::default(), |_, honest| {
        honest
    });
    let Ok(Step::Found(found)) = outcome.result else {
        panic!("{:?}", outcome.result);
    };
    assert_exact(SKETCH, &pair, &found, "honest");
}
