//! The writer thread of a namespace: takes whatever waits in a bounded queue, commits it as one
//! batch, publishes the new view, and only then answers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error};

use crate::replica::command::{Accepted, Command, Refused};
use crate::replica::engine::Engine;
use crate::replica::view::View;
use crate::runtime::lock::lock;
use crate::store::error::StoreError;
use crate::store::rows::Agreement;
use crate::types::id::ReplicaId;

/// Commands that may wait; more are refused, so that a burst costs memory only up to here.
const QUEUE_COMMANDS: usize = 4096;
/// Commands that one commit takes together.
const BATCH_COMMANDS: usize = 1024;
/// State bytes that one commit takes together.
const BATCH_BYTES: usize = 32 << 20;

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
    /// The store failed, see [`StoreError::needs_reopening`].
    #[error("{0}")]
    Storage(Arc<StoreError>),
}

/// Agreements with peers that the next commit takes along.
pub type Agreements = Arc<Mutex<BTreeMap<ReplicaId, Agreement>>>;

/// What becomes of a command.
pub type Reply = Result<Committed, SubmitError>;

struct Job {
    command: Command,
    reply: oneshot::Sender<Reply>,
}

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
}

impl WriterHandle {
    /// True when the store takes no writes until it is opened again.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Queues a command and waits until it is durable or refused.
    ///
    /// # Errors
    /// [`SubmitError`]; unless it is [`SubmitError::Storage`], nothing of the command happened.
    pub async fn submit(&self, command: Command) -> Result<Committed, SubmitError> {
        let answer = self.enqueue(command)?;
        answer.await.unwrap_or(Err(SubmitError::ShuttingDown))
    }

    /// Queues a command from a thread that may block, waiting for a place in the queue.
    ///
    /// # Errors
    /// [`SubmitError::ShuttingDown`].
    pub fn queue_blocking(&self, command: Command) -> Result<Queued, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.queue.blocking_send(Job { command, reply });
        sent.map_err(|_| SubmitError::ShuttingDown)?;
        Ok(Queued { answer })
    }

    fn enqueue(&self, command: Command) -> Result<oneshot::Receiver<Reply>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Job { command, reply }) {
            Ok(()) => Ok(answer),
            Err(mpsc::error::TrySendError::Full(_)) => Err(SubmitError::QueueFull),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SubmitError::ShuttingDown),
        }
    }
}

/// Starts the writer thread of an engine. It ends, with everything queued committed, when all
/// handles are dropped.
///
/// # Errors
/// The operating system's, when it gives no thread.
pub fn spawn(
    name: &str,
    engine: Engine,
    views: watch::Sender<Arc<View>>,
    agreements: Agreements,
) -> std::io::Result<(WriterHandle, JoinHandle<()>)> {
    let (queue, jobs) = mpsc::channel(QUEUE_COMMANDS);
    let failed = Arc::<AtomicBool>::default();
    let handle = WriterHandle {
        queue,
        failed: Arc::clone(&failed),
    };
    let writer = Writer {
        failed,
        engine,
        jobs,
        views,
        agreements,
        failure: None,
    };
    let thread = std::thread::Builder::new()
        .name(format!("writer-{name}"))
        .spawn(move || writer.run())?;
    Ok((handle, thread))
}

struct Writer {
    engine: Engine,
    jobs: mpsc::Receiver<Job>,
    views: watch::Sender<Arc<View>>,
    agreements: Agreements,
    /// Set when a commit's outcome is unknown: from then on every command is refused.
    failure: Option<Arc<StoreError>>,
    /// Tells others of the failure.
    failed: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let (commands, replies) = self.gather(first);
            self.commit(commands, replies);
        }
        // Agreements that no write took along save the next start a tree descent.
        if self.failure.is_none() {
            self.commit(Vec::new(), Vec::new());
        }
    }

    /// Takes what waits already: under load many writers share one commit, without load nobody
    /// waits for company.
    fn gather(&mut self, first: Job) -> (Vec<Command>, Vec<oneshot::Sender<Reply>>) {
        let mut bytes = first.command.weight();
        let (mut commands, mut replies) = (vec![first.command], vec![first.reply]);
        while commands.len() < BATCH_COMMANDS && bytes < BATCH_BYTES {
            let Ok(job) = self.jobs.try_recv() else {
                break;
            };
            bytes += job.command.weight();
            commands.push(job.command);
            replies.push(job.reply);
        }
        (commands, replies)
    }

    fn commit(&mut self, commands: Vec<Command>, replies: Vec<oneshot::Sender<Reply>>) {
        let outcome = match &self.failure {
            Some(failure) => Err(Arc::clone(failure)),
            None => {
                let agreements = std::mem::take(&mut *lock(&self.agreements));
                let count = commands.len();
                // After a panic the engine may be half-changed: like after a failed commit,
                // nothing but opening the store again helps.
                let commit = AssertUnwindSafe(|| self.engine.commit(commands, agreements));
                let outcome = catch_unwind(commit)
                    .unwrap_or(Err(StoreError::Unexpected("the writer")))
                    .map_err(Arc::new);
                debug!(commands = count, ok = outcome.is_ok(), "commit");
                outcome
            }
        };
        match outcome {
            Ok(outcomes) => {
                let view = self.engine.view();
                self.views.send_replace(Arc::clone(&view));
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    let committed = outcome.map_err(SubmitError::Refused);
                    let committed = committed.map(|accepted| Committed {
                        accepted,
                        view: Arc::clone(&view),
                    });
                    // Nobody waits any more when the client hung up; the write stands.
                    let _ = reply.send(committed);
                }
            }
            Err(failure) => {
                error!(%failure, "a batch of writes failed");
                if failure.needs_reopening() {
                    error!("writes are refused until the store is opened again");
                    self.failure = Some(Arc::clone(&failure));
                    self.failed.store(true, Ordering::Relaxed);
                }
                for reply in replies {
                    let _ = reply.send(Err(SubmitError::Storage(Arc::clone(&failure))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallClock;
    use crate::replica::command::{Change, Precondition, Write};
    use crate::store::options::StoreOptions;
    use crate::types::cursor::Epoch;
    use crate::types::id::GameId;

    struct Stopped;

    impl WallClock for Stopped {
        fn now_millis(&self) -> u64 {
            panic!("the clock has stopped")
        }
    }

    #[tokio::test]
    async fn a_writer_that_panics_counts_as_a_failed_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.redb");
        let options = StoreOptions::default();
        let engine = Engine::open(&path, ReplicaId(1), Epoch(1), options, Arc::new(Stopped));
        let engine = engine.unwrap();
        let (views, _) = watch::channel(engine.view());
        let (writer, thread) = spawn("t", engine, views, Agreements::default()).unwrap();
        assert!(!writer.has_failed());
        for _ in 0..2 {
            let delete = Write {
                id: GameId::new("a").unwrap(),
                precondition: Precondition::None,
                change: Change::Delete,
            };
            let refused = writer.submit(Command::Write(vec![delete])).await;
            assert!(matches!(refused, Err(SubmitError::Storage(_))));
        }
        assert!(writer.has_failed());
        drop(writer);
        thread.join().unwrap();
    }
}
