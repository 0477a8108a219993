//! What everybody has of a writer: a place to hand commands to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::replica::command::Command;
use crate::runtime::orders::Order;
use crate::runtime::queue::{Answer, Committed, Held, Job, Reply, SubmitError};
use crate::store::error::StoreError;

/// A command on its way.
pub struct Queued {
    answer: oneshot::Receiver<Reply>,
}

impl Queued {
    /// Waits, blocking the thread, until the command is durable or refused.
    ///
    /// # Errors
    /// [`SubmitError`] when it was not carried out.
    pub fn wait(self) -> Reply {
        let answer = self.answer.blocking_recv();
        answer.unwrap_or(Err(SubmitError::ShuttingDown))
    }
}

/// Hands commands to a writer thread.
#[derive(Clone)]
pub struct WriterHandle {
    queue: mpsc::Sender<Job>,
    failed: Arc<AtomicBool>,
    is_low: Arc<AtomicBool>,
}

impl WriterHandle {
    /// A handle on the other end of `queue`. The flags say that the store has failed, and that the
    /// disk is nearly full.
    pub fn new(queue: mpsc::Sender<Job>, failed: Arc<AtomicBool>, is_low: Arc<AtomicBool>) -> Self {
        Self {
            queue,
            failed,
            is_low,
        }
    }

    /// True when the store takes no writes until it is opened again.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Commands that wait, and how many may.
    pub fn waiting(&self) -> (usize, usize) {
        let max = self.queue.max_capacity();
        (max - self.queue.capacity(), max)
    }

    /// Queues a command and waits until it is durable or refused.
    ///
    /// # Errors
    /// [`SubmitError`]; unless it is [`SubmitError::Storage`], nothing of the command happened.
    pub async fn submit(&self, command: Command) -> Result<Committed, SubmitError> {
        self.submit_holding(command, None).await
    }

    /// As [`WriterHandle::submit`]. What is `held` is dropped when the command is done, even when
    /// nobody waits for that any more.
    ///
    /// # Errors
    /// As [`WriterHandle::submit`].
    pub async fn submit_holding(
        &self,
        command: Command,
        held: Held,
    ) -> Result<Committed, SubmitError> {
        let answer = self.enqueue(command, held)?;
        answer.await.unwrap_or(Err(SubmitError::ShuttingDown))
    }

    /// Queues a command from a thread that may block, waiting for a place in the queue.
    ///
    /// # Errors
    /// [`SubmitError::ShuttingDown`].
    pub fn queue_blocking(&self, command: Command) -> Result<Queued, SubmitError> {
        self.check_space(&command)?;
        let (reply, answer) = Answer::new(None);
        let sent = self.queue.blocking_send(Job::Command(command, reply));
        sent.map_err(|_| SubmitError::ShuttingDown)?;
        Ok(Queued { answer })
    }

    /// What is left of a disk that is nearly full is for deletions.
    fn check_space(&self, command: &Command) -> Result<(), SubmitError> {
        if self.is_low.load(Ordering::Relaxed) && !command.only_deletes() {
            return Err(SubmitError::Storage(Arc::new(StoreError::Full)));
        }
        Ok(())
    }

    fn enqueue(
        &self,
        command: Command,
        held: Held,
    ) -> Result<oneshot::Receiver<Reply>, SubmitError> {
        self.check_space(&command)?;
        let (reply, answer) = Answer::new(held);
        self.send(Job::Command(command, reply))?;
        Ok(answer)
    }

    /// Queues an order and waits until it is carried out, or why not.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn order(&self, order: Order) -> Result<Committed, SubmitError> {
        let (reply, answer) = Answer::new(None);
        self.send(Job::Order(order, reply))?;
        answer.await.unwrap_or(Err(SubmitError::ShuttingDown))
    }

    /// As [`WriterHandle::order`], from a thread that may block.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn order_blocking(&self, order: Order) -> Result<Committed, SubmitError> {
        let (reply, answer) = Answer::new(None);
        let sent = self.queue.blocking_send(Job::Order(order, reply));
        sent.map_err(|_| SubmitError::ShuttingDown)?;
        Queued { answer }.wait()
    }

    fn send(&self, job: Job) -> Result<(), SubmitError> {
        match self.queue.try_send(job) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(SubmitError::QueueFull),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SubmitError::ShuttingDown),
        }
    }
}
