//! The checkpoint thread of a namespace: moves rows that are in the log and in memory into the
//! engine's file while writes go on, opens the file again when that failed, compacts it, and
//! watches the space on the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::WeakSender;
use tracing::{debug, error, info, warn};

use crate::runtime::compacting::Compacting;
use crate::runtime::lock::lock;
use crate::runtime::queue::Job;
use crate::store::checkpoint::{Flushed, Frozen};
use crate::store::compaction::CompactionProgress;
use crate::store::engine_files::EngineFiles;
use crate::store::error::StoreError;
use crate::store::log::shelf::Shelf;
use crate::store::options::StoreOptions;

/// How often the writer is asked whether a checkpoint is due, the space on the disk is looked at,
/// and what failed is tried again.
const WAKE_EVERY: Duration = Duration::from_secs(1);
/// Time without a checkpoint after which the file is looked at for waste.
const IDLE: Duration = Duration::from_secs(15);
/// Changes of one checkpoint for which a compaction that nobody asked for makes way.
const BUSY: u64 = 512;
/// Changes after which the file is worth a look for waste.
const LOOK_AFTER: u64 = 10_000;

/// What the writer has to know of the file.
#[derive(Default)]
pub struct Report {
    /// The file's tables after the newest checkpoint, or after it was opened again.
    pub flushed: Option<Flushed>,
    /// Why the newest checkpoint has not succeeded yet.
    pub failing: Option<Arc<StoreError>>,
}

#[derive(Default)]
struct Slot {
    report: Mutex<Option<Report>>,
    filled: Condvar,
}

/// What others may know and ask of the checkpoint thread.
#[derive(Clone, Default)]
pub struct Upkeep {
    /// True when there is less space on the disk than is kept in reserve.
    pub is_low: Arc<AtomicBool>,
    /// True while the newest checkpoint fails and is tried again.
    pub is_stalled: Arc<AtomicBool>,
    /// The compaction that goes on, if any.
    pub compacting: Arc<Compacting>,
}

/// The writer's side of the checkpoint thread.
pub struct Checkpoints {
    inbox: Option<Sender<Frozen>>,
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread. It wakes the writer when there is something to report, and now and then.
    /// With less free space than the reserve the disk counts as full.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread.
    pub fn start(
        name: &str,
        file: EngineFiles,
        shelf: Arc<Shelf>,
        options: &StoreOptions,
        upkeep: Upkeep,
        writer: WeakSender<Job>,
    ) -> std::io::Result<Self> {
        let (inbox, frozen) = channel();
        let slot = Arc::<Slot>::default();
        let worker = Worker {
            file,
            shelf,
            reserve: options.reserve_bytes,
            upkeep,
            writer,
            slot: Arc::clone(&slot),
            unfinished: None,
            looked: None,
            compact_when_idle: options.compact_when_idle,
            flushed: Instant::now(),
            changes: 0,
            survey: None,
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

    /// What there is to know, if that was not asked yet.
    pub fn take_report(&self) -> Option<Report> {
        lock(&self.slot.report).take()
    }

    /// Waits until there is something to know, for a limited time.
    pub fn wait_report(&self, limit: Duration) {
        let report = lock(&self.slot.report);
        let waited = self
            .slot
            .filled
            .wait_timeout_while(report, limit, |report| report.is_none());
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
    file: EngineFiles,
    shelf: Arc<Shelf>,
    reserve: u64,
    upkeep: Upkeep,
    writer: WeakSender<Job>,
    slot: Arc<Slot>,
    /// Rows whose checkpoint failed and is tried again.
    unfinished: Option<Frozen>,
    /// When the space on the disk was last looked at.
    looked: Option<Instant>,
    /// Compact when that is worthwhile and nobody writes.
    compact_when_idle: bool,
    /// When the newest checkpoint ended.
    flushed: Instant,
    /// Changes that went into the file since it was last looked at for waste.
    changes: u64,
    /// Tells whether there is waste, while that is looked at.
    survey: Option<Receiver<bool>>,
}

impl Worker {
    fn run(mut self, inbox: &Receiver<Frozen>) {
        loop {
            let patience = if self.file.is_compacting() {
                Duration::ZERO
            } else {
                WAKE_EVERY
            };
            match inbox.recv_timeout(patience) {
                Ok(frozen) => self.flush(frozen),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(frozen) = self.unfinished.take() {
                        self.flush(frozen);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            self.look_at_space();
            self.look_for_waste();
            self.compact();
            self.reopen_if_closed();
            self.file.close_unread();
            if patience > Duration::ZERO {
                self.wake();
            }
        }
    }

    fn end(&mut self) {
        self.file.give_up_compaction();
        self.upkeep
            .compacting
            .ended(Err("the namespace is closing".to_owned()));
    }

    /// Wakes the writer. One whose queue is full is awake.
    fn wake(&self) {
        if let Some(writer) = self.writer.upgrade() {
            let _ = writer.try_send(Job::Wake);
        }
    }

    fn report(&self, flushed: Option<Flushed>, failing: Option<Arc<StoreError>>) {
        let is_stalled = failing.is_some();
        self.upkeep.is_stalled.store(is_stalled, Ordering::Relaxed);
        *lock(&self.slot.report) = Some(Report { flushed, failing });
        self.slot.filled.notify_all();
        self.wake();
    }

    fn flush(&mut self, frozen: Frozen) {
        self.make_way(&frozen);
        match self.file.flush(&frozen) {
            Ok(flushed) => {
                debug!(commit = frozen.commit(), "checkpoint");
                self.flushed = Instant::now();
                self.changes += frozen.changes();
                self.report(Some(flushed), None);
                if let Err(error) = self.shelf.tidy(frozen.commit()) {
                    warn!(%error, "segments of the log that are not needed any more stay");
                }
            }
            Err(error) => {
                warn!(%error, "a checkpoint failed and will be tried again; the log has the rows");
                self.unfinished = Some(frozen);
                // Reads go on from the file as it was.
                let reopened = self.file.reopen();
                let reopened =
                    reopened.inspect_err(|error| error!(%error, "the file stays closed"));
                self.report(reopened.ok(), Some(Arc::new(error)));
            }
        }
    }

    /// A compaction that failed at its end has closed the file, and after a read that failed the
    /// engine refuses all others. (A checkpoint that fails opens it again by itself.)
    fn reopen_if_closed(&mut self) {
        if self.unfinished.is_some() || !self.file.is_closed() {
            return;
        }
        match self.file.reopen() {
            Ok(reopened) => {
                warn!("the disk has failed; the file was opened again");
                self.report(Some(reopened), None);
            }
            Err(error) => error!(%error, "the file stays closed"),
        }
    }

    fn look_at_space(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < WAKE_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let Ok(free) = self.file.free_bytes() else {
            return;
        };
        let was_low = self.upkeep.is_low.load(Ordering::Relaxed);
        // Coming back takes a little more than the reserve, so that it does not flicker.
        let needed = if was_low {
            self.reserve + self.reserve / 8
        } else {
            self.reserve
        };
        let is_low = free < needed;
        self.upkeep.is_low.store(is_low, Ordering::Relaxed);
        match (was_low, is_low) {
            (false, true) => warn!(free, "the disk is nearly full: only deletions are taken"),
            (true, false) => info!(free, "there is space again: writes are taken"),
            _ => {}
        }
    }

    /// Asks for a compaction when much was written, nothing is now, and it would give much back.
    fn look_for_waste(&mut self) {
        if let Some(survey) = &self.survey {
            match survey.try_recv() {
                Ok(true) if self.flushed.elapsed() >= IDLE => self.upkeep.compacting.suggest(),
                Err(TryRecvError::Empty) => return,
                // Written to meanwhile, not wasteful, or not to be told.
                Ok(_) | Err(TryRecvError::Disconnected) => {}
            }
            self.survey = None;
        }
        let is_due = self.compact_when_idle
            && self.changes >= LOOK_AFTER
            && self.flushed.elapsed() >= IDLE
            && self.unfinished.is_none();
        if is_due {
            self.changes = 0;
            match self.begin_survey() {
                Ok(survey) => self.survey = Some(survey),
                Err(error) => warn!(%error, "the file could not be looked at for waste"),
            }
        }
    }

    /// Looks at the file from another thread: checkpoints must not wait for that.
    fn begin_survey(&self) -> Result<Receiver<bool>, StoreError> {
        let survey = self.file.survey()?;
        let (tell, told) = channel();
        let look = move || match survey.is_wasteful() {
            // Nobody wants to know any more when the namespace has closed.
            Ok(is_wasteful) => drop(tell.send(is_wasteful)),
            Err(error) => warn!(%error, "the file could not be looked at for waste"),
        };
        let thread = std::thread::Builder::new().name("survey".to_owned());
        if let Err(error) = thread.spawn(look) {
            warn!(%error, "no thread to look at the file for waste");
        }
        Ok(told)
    }

    /// Gives up a compaction that nobody asked for once there is something else to do.
    fn make_way(&mut self, frozen: &Frozen) {
        if frozen.changes() >= BUSY && self.upkeep.compacting.makes_way() {
            debug!("a compaction makes way for writes");
            self.file.give_up_compaction();
            let busy = "it made way for writes".to_owned();
            self.upkeep.compacting.ended(Err(busy));
            // It is still worthwhile.
            self.changes = LOOK_AFTER;
        }
    }

    fn compact(&mut self) {
        if self.upkeep.compacting.is_wanted() && !self.file.is_compacting() {
            let begun = self.begin_compaction();
            if let Err(error) = begun {
                self.upkeep.compacting.ended(Err(error.to_string()));
            }
        }
        if !self.file.is_compacting() {
            return;
        }
        let mut progress = CompactionProgress::default();
        match self.file.compact_slice(&mut progress) {
            Ok(None) => self.upkeep.compacting.progress(progress),
            Ok(Some(flushed)) => {
                self.report(Some(flushed), None);
                if self.file.is_compacting() {
                    return self.upkeep.compacting.progress(progress);
                }
                info!(
                    before = progress.bytes_before,
                    after = progress.bytes_after,
                    "compacted"
                );
                self.upkeep.compacting.ended(Ok(progress));
            }
            Err(error) => {
                warn!(%error, "compaction is given up");
                self.upkeep.compacting.ended(Err(error.to_string()));
            }
        }
        if !self.file.is_compacting() {
            // A failing checkpoint gives it up as well.
            let given_up = "the store failed meanwhile; its log says more".to_owned();
            self.upkeep.compacting.ended(Err(given_up));
        }
    }

    fn begin_compaction(&mut self) -> Result<(), StoreError> {
        let (bytes, free) = (self.file.largest_bytes()?, self.file.free_bytes()?);
        if free < bytes.saturating_add(self.reserve) {
            return Err(StoreError::Full);
        }
        self.file.begin_compaction()
    }
}
