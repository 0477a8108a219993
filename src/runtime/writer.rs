//! The writer thread of a namespace: takes whatever waits in a bounded queue, decides it as one
//! batch and carries it out while the log thread makes it durable.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tracing::{error, warn};

use crate::replica::command::{Accepted, Command};
use crate::replica::engine::{Decided, Engine, Opened};
use crate::replica::renew::Evidence;
use crate::replica::view::View;
use crate::runtime::checkpoints::{Checkpoints, Upkeep};
use crate::runtime::cold_rows::ColdRows;
use crate::runtime::handle::WriterHandle;
use crate::runtime::lock::lock;
use crate::runtime::log_thread::LogThread;
use crate::runtime::orders::{Order, Patience};
use crate::runtime::queue::{Answer, Job, SubmitError, refuse};
use crate::runtime::sightings::SharedSightings;
use crate::store::directory::fresh_epoch;
use crate::store::error::StoreError;
use crate::store::options::StoreOptions;
use crate::store::rows::Agreement;
use crate::types::id::ReplicaId;

/// Commands that may wait; more are refused, so that a burst costs memory only up to here.
const QUEUE_COMMANDS: usize = 4096;
/// Commands that one commit takes together.
const BATCH_COMMANDS: usize = 1024;
/// State bytes that one commit takes together.
const BATCH_BYTES: usize = 32 << 20;

/// Longest time for which one batch waits so that checkpoints keep up.
const HOLD_BACK_MAX: Duration = Duration::from_millis(25);
/// How many times what makes a checkpoint worthwhile may pile up behind one that is on its way,
/// until writers are slowed down, and at most.
const LOAD_FREE: f64 = 1.0;
const LOAD_MAX: f64 = 2.0;
/// Time after which what has piled up is moved into the file, however little it is.
const CHECKPOINT_IDLE: Duration = Duration::from_secs(2);

/// Agreements with peers that the next commit takes along.
pub type Agreements = Arc<Mutex<BTreeMap<ReplicaId, Agreement>>>;

/// What commits take along about peers, and what peers are to know of the writer.
#[derive(Debug, Clone, Default)]
pub struct PeerNotes {
    /// What was agreed.
    pub agreements: Agreements,
    /// What was seen of their feeds.
    pub sightings: SharedSightings,
    /// Set when writes count under a new epoch because there is a copy.
    pub has_renewed: Arc<AtomicBool>,
}

/// Starts the threads that write to a namespace. They end, with everything queued committed and
/// moved into the file, when all handles are dropped.
///
/// # Errors
/// The operating system's, when it gives no thread.
pub fn spawn(
    name: &str,
    opened: Opened,
    options: &StoreOptions,
    upkeep: Upkeep,
    views: watch::Sender<Arc<View>>,
    peers: PeerNotes,
) -> std::io::Result<(WriterHandle, JoinHandle<()>)> {
    let (queue, jobs) = mpsc::channel(QUEUE_COMMANDS);
    let failed = Arc::<AtomicBool>::default();
    let Opened {
        engine, log, file, ..
    } = opened;
    let wake = queue.downgrade();
    let checkpoints = Checkpoints::start(name, file, log.shelf(), options, upkeep.clone(), wake)?;
    let durable = (engine.view(), engine.commit_number());
    let log = LogThread::start(name, log, views, checkpoints.inbox(), durable)?;
    let handle = WriterHandle::new(queue, Arc::clone(&failed), Arc::clone(&upkeep.is_low));
    let writer = Writer {
        failed,
        engine,
        jobs,
        peers,
        orders: Vec::new(),
        patience: Patience::default(),
        log,
        checkpoints,
        checkpointed: Instant::now(),
        seal_every: options.root_log_interval,
        sealed: Instant::now(),
        is_low: upkeep.is_low,
        failing: None,
        cold_rows: ColdRows::default(),
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
    peers: PeerNotes,
    /// Orders to be carried out behind the commands at hand.
    orders: Vec<(Order, Option<Answer>)>,
    patience: Patience,
    log: LogThread,
    checkpoints: Checkpoints,
    /// When a checkpoint last began.
    checkpointed: Instant,
    /// Least time between two entries of the log of roots.
    seal_every: Option<Duration>,
    /// When the log of roots was last brought up to date.
    sealed: Instant,
    /// What is left of the disk is for deletions.
    is_low: Arc<AtomicBool>,
    /// Why checkpoints fail at present.
    failing: Option<Arc<StoreError>>,
    /// When to read ahead.
    cold_rows: ColdRows,
    /// Set when it is unknown what the store holds: from then on every command is refused.
    failure: Option<Arc<StoreError>>,
    /// Tells others of the failure.
    failed: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let (commands, answers) = self.gather(first);
            self.round(commands, answers);
        }
        self.finish();
        self.log.stop();
        self.checkpoints.stop();
    }

    /// Takes what waits already: under load many writers share one commit, without load nobody
    /// waits for company.
    fn gather(&mut self, first: Job) -> (Vec<Command>, Vec<Answer>) {
        let (mut commands, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Command(command, answer) => {
                    bytes += command.weight();
                    commands.push(command);
                    answers.push(answer);
                }
                Job::Order(order, answer) => self.orders.push((order, Some(answer))),
                Job::Wake => {}
            }
            let is_full = commands.len() >= BATCH_COMMANDS || bytes >= BATCH_BYTES;
            let is_full = is_full || !self.orders.is_empty();
            next = (!is_full).then(|| self.jobs.try_recv().ok()).flatten();
        }
        (commands, answers)
    }

    fn round(&mut self, commands: Vec<Command>, answers: Vec<Answer>) {
        self.recover_from_a_full_disk();
        self.take_report();
        self.hold_back();
        let is_due = |pause| self.sealed.elapsed() >= pause;
        let seals = self.seal_every.is_some_and(is_due) && self.seal();
        if seals || !commands.is_empty() {
            self.commit(commands, answers);
        }
        for (order, answer) in std::mem::take(&mut self.orders) {
            self.obey(order, answer.into_iter().collect());
        }
        // Broken off by a full disk.
        if self.engine.is_renewing() {
            self.rewrite();
        }
        self.begin_checkpoint_if_due();
    }

    /// Lets the next commit write down the root of now, if that is not the newest of the log of
    /// roots. What is written down with it rides along with the commands at hand, so that a writer
    /// that is busy pays no sync for it.
    fn seal(&mut self) -> bool {
        let is_stuck = self.is_stuck() || self.is_low.load(Ordering::Relaxed);
        if self.failure.is_some() || self.log.broken().is_some() || is_stuck {
            return false;
        }
        self.sealed = Instant::now();
        attempt(|| self.engine.seal()).unwrap_or_else(|error| {
            error!(
                %error,
                "the log of roots is damaged: no more is written down until the next start; run \
                 `samestate verify --data DIR --repair` with the server stopped"
            );
            self.seal_every = None;
            false
        })
    }

    fn commit(&mut self, commands: Vec<Command>, answers: Vec<Answer>) {
        if let Some(failure) = &self.failure {
            return refuse(answers, failure);
        }
        if let Some(failing) = self.failing.as_ref().filter(|_| self.is_stuck()) {
            return refuse(answers, failing);
        }
        let (slow_reads, now) = (self.engine.slow_reads(), Instant::now());
        let are_cold = self.cold_rows.are_expected(slow_reads, commands.len(), now);
        let agreements = std::mem::take(&mut *lock(&self.peers.agreements));
        self.engine
            .remember(lock(&self.peers.sightings).take_unsaved());
        let decide = || {
            if are_cold {
                self.engine.read_ahead(&commands);
            }
            self.engine.decide(commands, agreements)
        };
        let decided = match attempt(decide) {
            Ok(decided) => decided,
            Err(error) => return self.give_up(error, answers),
        };
        if decided.names_foreign_history() {
            self.orders
                .push((Order::Renew(Evidence::ForeignHistory), None));
        }
        self.carry_out(decided, answers);
    }

    /// Makes what was decided durable, and answers then.
    fn carry_out(&mut self, decided: Decided, answers: Vec<Answer>) {
        let Some(entry) = decided.entry.clone() else {
            // What was refused was refused because of what may not be durable yet.
            let (view, commit) = (self.engine.view(), self.engine.commit_number());
            return self.log.done(view, commit, decided.outcomes, answers);
        };
        // The log writes while this thread carries out.
        self.log.append(entry);
        match attempt(|| self.engine.apply(&decided)) {
            Ok(view) => {
                let commit = self.engine.commit_number();
                self.log.done(view, commit, decided.outcomes, answers);
            }
            Err(error) => {
                self.log.append(self.engine.void());
                self.give_up(error, answers);
            }
        }
    }

    /// Takes another name, and writes again under it what has to be, before anything else is done.
    fn obey(&mut self, order: Order, answers: Vec<Answer>) {
        if let Some(failure) = &self.failure {
            return refuse(answers, failure);
        }
        let renewal = match order {
            Order::Name(replica) => Some(self.engine.decide_name(replica)),
            Order::Renew(evidence) => {
                let fresh = match fresh_epoch() {
                    Ok(fresh) => fresh,
                    Err(error) => return self.give_up(error, answers),
                };
                let renewal = self.engine.decide_renewal(&evidence, fresh);
                if renewal.is_some() && !self.patience.allows(Instant::now()) {
                    warn!(
                        %evidence,
                        "said to have a copy again, which is not believed so soon"
                    );
                    for answer in answers {
                        answer.send(Err(SubmitError::RenewedLately));
                    }
                    return;
                }
                if renewal.is_some() {
                    warn!(
                        %evidence,
                        "a copy of this data directory has written under the same name, or this is \
                         an older copy of it: writes count under a new name from now on"
                    );
                    self.peers.has_renewed.store(true, Ordering::Relaxed);
                }
                renewal
            }
        };
        if let Some(renewal) = renewal {
            self.carry_out(renewal, Vec::new());
        }
        self.rewrite();
        let outcomes = answers.iter().map(|_| Ok(Accepted::default())).collect();
        let (view, commit) = (self.engine.view(), self.engine.commit_number());
        self.log.done(view, commit, outcomes, answers);
    }

    fn rewrite(&mut self) {
        while self.failure.is_none() && self.log.broken().is_none() {
            match attempt(|| self.engine.decide_rewrites()) {
                Ok(Some(decided)) => self.carry_out(decided, Vec::new()),
                Ok(None) => return,
                Err(error) => return self.give_up(error, Vec::new()),
            }
            self.take_report();
            self.begin_checkpoint_if_due();
            self.hold_back();
        }
    }

    /// Tells of a batch of which nothing has happened: a row that it needs cannot be read, which
    /// may pass (the checkpoint thread opens the file again), or a defect of ours, after which
    /// nothing in memory can be trusted.
    fn give_up(&mut self, error: StoreError, answers: Vec<Answer>) {
        let error = Arc::new(error);
        error!(%error, "a batch of writes failed");
        if matches!(*error, StoreError::Unexpected(_)) {
            self.fail(Arc::clone(&error));
        }
        self.log.failed(error, answers);
    }

    fn fail(&mut self, failure: Arc<StoreError>) {
        error!(%failure, "writes are refused until the store is opened again");
        self.failed.store(true, Ordering::Relaxed);
        self.failure = Some(failure);
    }

    /// Goes back to what is durable when the log could not be written for lack of space; whoever
    /// waited for more has been told. Other failures of the log are for good.
    fn recover_from_a_full_disk(&mut self) {
        let Some(broken) = self.log.broken() else {
            return;
        };
        if broken.error.needs_reopening() && !matches!(*broken.error, StoreError::Full) {
            if self.failure.is_none() {
                self.fail(broken.error);
            }
            return;
        }
        if let Some((view, commit)) = self.log.resume() {
            self.engine.go_back_to(&view, commit);
            if let Some(frozen) = self.engine.frozen() {
                self.log.checkpoint(frozen);
            }
        }
    }

    fn take_report(&mut self) {
        let Some(report) = self.checkpoints.take_report() else {
            return;
        };
        self.failing = report.failing;
        if let Some(flushed) = report.flushed {
            self.engine.flushed(&flushed);
            // Readers are to leave the tables of before, which may be closed.
            let (view, commit) = (self.engine.view(), self.engine.commit_number());
            self.log.done(view, commit, Vec::new(), Vec::new());
        }
    }

    /// True when no more may pile up: the file takes nothing for now.
    fn is_stuck(&self) -> bool {
        self.failing.is_some() && self.engine.checkpoint_load() > LOAD_MAX
    }

    /// Slows writers down when checkpoints cannot keep up, a little with each batch, so that
    /// nobody has to wait for a whole one. What piles up takes memory and has to be carried out
    /// again by a start.
    fn hold_back(&mut self) {
        let load = self.engine.checkpoint_load();
        if !self.engine.is_freezing() || load <= LOAD_FREE {
            return;
        }
        let excess = (load - LOAD_FREE) / (LOAD_MAX - LOAD_FREE);
        let wait = HOLD_BACK_MAX.mul_f64(excess.min(1.0));
        self.checkpoints.wait_report(wait);
        self.take_report();
        while self.engine.is_freezing() && self.engine.checkpoint_load() > LOAD_MAX {
            if self.failing.is_some() || self.failure.is_some() || self.log.broken().is_some() {
                return;
            }
            self.checkpoints.wait_report(HOLD_BACK_MAX);
            self.take_report();
        }
    }

    fn begin_checkpoint_if_due(&mut self) {
        let load = self.engine.checkpoint_load();
        let is_stale = load > 0.0 && self.checkpointed.elapsed() >= CHECKPOINT_IDLE;
        if load >= 1.0 || is_stale {
            self.begin_checkpoint();
        }
    }

    fn begin_checkpoint(&mut self) {
        if self.failure.is_some() || self.log.broken().is_some() {
            return;
        }
        if let Some(frozen) = self.engine.freeze() {
            self.checkpointed = Instant::now();
            self.log.checkpoint(frozen);
        }
    }

    /// Agreements that no write took along save the next start a tree descent, and a file that
    /// holds everything saves it the log.
    fn finish(&mut self) {
        self.recover_from_a_full_disk();
        if self.failure.is_none() {
            if self.seal_every.is_some() {
                self.seal();
            }
            self.commit(Vec::new(), Vec::new());
        }
        self.wait_for_checkpoint();
        if self.engine.checkpoint_load() > 0.0 {
            self.begin_checkpoint();
            self.wait_for_checkpoint();
        }
    }

    fn wait_for_checkpoint(&mut self) {
        let is_well = |writer: &Self| {
            let failed = writer.failure.is_some() || writer.failing.is_some();
            !failed && writer.log.broken().is_none()
        };
        while self.engine.is_freezing() && is_well(self) {
            self.checkpoints.wait_report(HOLD_BACK_MAX);
            self.take_report();
        }
    }
}

/// Runs a step of the engine. After a panic it may be half-changed: like after a failed commit,
/// nothing but opening the store again helps.
fn attempt<R>(step: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
    let outcome = catch_unwind(AssertUnwindSafe(step));
    outcome.unwrap_or(Err(StoreError::Unexpected("the writer")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallClock;
    use crate::replica::command::{Change, Precondition, Write};
    use crate::types::cursor::Epoch;
    use crate::types::id::GameId;

    /// A clock until it is stopped.
    #[derive(Default)]
    struct Stopping(AtomicBool);

    impl WallClock for Stopping {
        fn now_millis(&self) -> u64 {
            assert!(!self.0.load(Ordering::Relaxed), "the clock has stopped");
            1
        }
    }

    #[tokio::test]
    async fn a_writer_that_panics_counts_as_a_failed_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.redb");
        let options = StoreOptions::default();
        let clock = Arc::<Stopping>::default();
        let wall = Arc::<Stopping>::clone(&clock);
        let opened = Engine::open(&path, ReplicaId(1), Epoch(1), options, wall).unwrap();
        clock.0.store(true, Ordering::Relaxed);
        let (views, _) = watch::channel(opened.engine.view());
        let (writer, thread) = spawn(
            "t",
            opened,
            &options,
            Upkeep::default(),
            views,
            PeerNotes::default(),
        )
        .unwrap();
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
