//! What goes into a writer's queue, and what comes back.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::oneshot;

use crate::replica::command::{Accepted, Command, Refused};
use crate::replica::view::View;
use crate::runtime::orders::Order;
use crate::store::error::StoreError;

/// A command whose effects are durable.
#[derive(Clone)]
pub struct Committed {
    /// What became of its parts.
    pub accepted: Accepted,
    /// The namespace right after the commit.
    pub view: Arc<View>,
}

/// Why a command was not carried out.
#[derive(Debug, Error, Clone)]
pub enum SubmitError {
    /// The writer cannot keep up.
    #[error("too many writes are waiting; try again in a moment")]
    QueueFull,
    /// The replica is stopping.
    #[error("the replica is shutting down")]
    ShuttingDown,
    /// A rule or a condition of the command forbids it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A peer's word was taken for it a short while ago.
    #[error(
        "this replica has taken another name a short while ago, and does not do so again yet; the \
         log says more"
    )]
    RenewedLately,
    /// The store failed, see [`StoreError::needs_reopening`].
    #[error("{0}")]
    Storage(Arc<StoreError>),
}

/// What becomes of a command.
pub type Reply = Result<Committed, SubmitError>;

/// What a command needs for as long as it is on its way, whoever still waits for it.
pub type Held = Option<Box<dyn Send>>;

/// Where a command's reply goes.
pub struct Answer {
    reply: oneshot::Sender<Reply>,
    held: Held,
}

impl Answer {
    /// An answer, and where it comes out.
    pub fn new(held: Held) -> (Self, oneshot::Receiver<Reply>) {
        let (reply, receiver) = oneshot::channel();
        (Self { reply, held }, receiver)
    }

    /// Answers. Nobody waits any more when a client hung up; what was done stands.
    pub fn send(self, reply: Reply) {
        drop(self.held);
        let _ = self.reply.send(reply);
    }
}

/// What the writer thread is asked for.
pub enum Job {
    /// To carry out a command.
    Command(Command, Answer),
    /// To take another name.
    Order(Order, Answer),
    /// To look whether a checkpoint has ended or is due.
    Wake,
}

/// Tells everybody that their command was not carried out.
pub fn refuse(answers: Vec<Answer>, failure: &Arc<StoreError>) {
    for answer in answers {
        answer.send(Err(SubmitError::Storage(Arc::clone(failure))));
    }
}
