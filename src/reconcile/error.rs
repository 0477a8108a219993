//! Why a comparison ends without a result.

use thiserror::Error;

use crate::reconcile::view::ViewError;

/// A comparison failed. Everything but [`ReconcileError::View`] is the other side's doing.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ReconcileError {
    /// Our own storage failed.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Bytes that no replica of this protocol version writes.
    #[error(
        "malformed reconciliation message ({0}); check that the peer runs a compatible version"
    )]
    Malformed(&'static str),
    /// A list longer than what was asked for or is allowed.
    #[error("a list of {got} entries where at most {limit} are accepted; ask for less at a time")]
    TooMany {
        /// What the message claims.
        got: u64,
        /// What is accepted here.
        limit: usize,
    },
    /// A message or the work behind it is over a limit.
    #[error("over the limit for {what}: {limit}; ask for less at a time or raise the limit")]
    OverBudget {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Well-formed answers that no set of leaves can give.
    #[error("the peer's answers contradict each other: {0}")]
    Inconsistent(&'static str),
    /// A reply without a question, a second start, or a step behind the end.
    #[error(
        "a strategy was advanced out of turn: start without a reply, then give every reply once"
    )]
    OutOfTurn,
    /// The strategy exchanges no messages of this layer.
    #[error("strategy `{0}` asks no questions: it copies in key order")]
    NoExchange(&'static str),
}
