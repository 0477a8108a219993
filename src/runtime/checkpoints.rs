//! The checkpoint thread of a namespace: moves rows that are in the log and in memory into the
//! engine's file, while writes go on.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::WeakSender;
use tracing::{debug, error, warn};

use crate::runtime::lock::lock;
use crate::runtime::queue::Job;
use crate::store::checkpoint::{Flushed, Frozen};
use crate::store::error::StoreError;
use crate::store::log::shelf::Shelf;

/// How often the writer is asked whether a checkpoint is due.
const WAKE_EVERY: Duration = Duration::from_secs(1);

/// How a checkpoint ended.
pub type Outcome = Result<Flushed, Arc<StoreError>>;

#[derive(Default)]
struct Slot {
    outcome: Mutex<Option<Outcome>>,
    filled: Condvar,
}

/// The writer's side of the checkpoint thread.
pub struct Checkpoints {
    inbox: Option<Sender<Frozen>>,
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread. It wakes the writer when a checkpoint has ended, and now and then.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread.
    pub fn start(name: &str, shelf: Arc<Shelf>, writer: WeakSender<Job>) -> std::io::Result<Self> {
        let (inbox, frozen) = channel();
        let slot = Arc::<Slot>::default();
        let worker = Worker {
            shelf,
            writer,
            slot: Arc::clone(&slot),
        };
        let thread = std::thread::Builder::new()
            .name(format!("checkpoint-{name}"))
            .spawn(move || worker.run(&frozen))?;
        Ok(Self {
            inbox: Some(inbox),
            slot,
            thread: Some(thread),
        })
    }

    /// Where memtables to be flushed go.
    pub fn inbox(&self) -> Option<Sender<Frozen>> {
        self.inbox.clone()
    }

    /// How the last checkpoint ended, if that was not asked yet.
    pub fn take_flushed(&self) -> Option<Outcome> {
        lock(&self.slot.outcome).take()
    }

    /// Waits until a checkpoint has ended, for a limited time.
    pub fn wait_flushed(&self, limit: Duration) {
        let outcome = lock(&self.slot.outcome);
        let waited = self
            .slot
            .filled
            .wait_timeout_while(outcome, limit, |outcome| outcome.is_none());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the thread; the log thread must have ended before.
    pub fn stop(&mut self) {
        drop(self.inbox.take());
        if let Some(thread) = self.thread.take() {
            // However it ended, there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

struct Worker {
    shelf: Arc<Shelf>,
    writer: WeakSender<Job>,
    slot: Arc<Slot>,
}

impl Worker {
    fn run(&self, inbox: &Receiver<Frozen>) {
        loop {
            match inbox.recv_timeout(WAKE_EVERY) {
                Ok(frozen) => self.flush(&frozen),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(writer) = self.writer.upgrade() {
                // A writer whose queue is full is awake.
                let _ = writer.try_send(Job::Wake);
            }
        }
    }

    fn flush(&self, frozen: &Frozen) {
        let outcome = frozen.flush();
        match &outcome {
            Ok(_) => {
                debug!(commit = frozen.commit(), "checkpoint");
                if let Err(error) = self.shelf.tidy(frozen.commit()) {
                    warn!(%error, "segments of the log that are not needed any more stay");
                }
            }
            Err(error) => error!(%error, "a checkpoint failed"),
        }
        *lock(&self.slot.outcome) = Some(outcome.map_err(Arc::new));
        self.slot.filled.notify_all();
    }
}
