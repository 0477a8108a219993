//! Which code stands behind which strategy's name. A new strategy is one arm in each function.

use crate::reconcile::bloom::{self, Bloom};
use crate::reconcile::budget::Budget;
use crate::reconcile::cursor::{self, CursorWalk};
use crate::reconcile::error::ReconcileError;
use crate::reconcile::sketch::SketchWalk;
use crate::reconcile::strategy::{Context, Strategy, StrategyName};
use crate::reconcile::view::SetView;
use crate::reconcile::{list, merkle, sketch_answer, subtrees};

/// The initiator's side; `None` for [`StrategyName::Full`], which compares nothing.
pub fn strategy(name: StrategyName, context: &Context) -> Option<Box<dyn Strategy + Send>> {
    match name {
        StrategyName::Cursor => Some(Box::new(CursorWalk::new(context))),
        StrategyName::Bloom => Some(Box::new(Bloom::new(context))),
        StrategyName::Merkle => Some(Box::new(merkle::strategy(context))),
        StrategyName::List => Some(Box::new(list::strategy(context))),
        StrategyName::Sketch => Some(Box::new(SketchWalk::new(context))),
        StrategyName::Full => None,
    }
}

/// The responder's side: answers one question of a strategy. It keeps nothing between questions,
/// so all questions of a session must be answered from the same snapshot.
///
/// # Errors
/// [`ReconcileError`] when the question is malformed, over the budget, or of a strategy that asks
/// none, and when the view fails.
pub fn answer(
    name: StrategyName,
    view: &dyn SetView,
    question: &[u8],
    budget: &Budget,
) -> Result<Vec<u8>, ReconcileError> {
    if question.len() > budget.message_bytes {
        return Err(ReconcileError::OverBudget {
            what: "bytes of a question",
            limit: budget.message_bytes,
        });
    }
    match name {
        StrategyName::Cursor => cursor::answer(view, question, budget),
        StrategyName::Bloom => bloom::answer(view, question, budget),
        StrategyName::Merkle | StrategyName::List => subtrees::answer(view, question, budget),
        StrategyName::Sketch => sketch_answer::answer(view, question, budget),
        StrategyName::Full => Err(ReconcileError::NoExchange(name.as_str())),
    }
}
