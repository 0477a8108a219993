//! An open namespace: its writer, its newest view, its sessions.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::clock::WallClock;
use crate::replica::collect::let_go;
use crate::replica::command::{Command, Meeting, Refused};
use crate::replica::engine::Opened;
use crate::replica::renew::Evidence;
use crate::replica::sketching::Keeper;
use crate::replica::staging::{Stager, StagingError};
use crate::replica::view::View;
use crate::runtime::checkpoints::Upkeep;
use crate::runtime::collector::{CollectError, Collected, Pass, Site, collect};
use crate::runtime::compacting::Ending;
use crate::runtime::damage::DamageBook;
use crate::runtime::handle::{Queued, WriterHandle};
use crate::runtime::lock::lock;
use crate::runtime::orders::Order;
use crate::runtime::pins::Pins;
use crate::runtime::queue::{Committed, Held, SubmitError};
use crate::runtime::sightings::Sightings;
use crate::runtime::training::Training;
use crate::runtime::writer::{PeerNotes, spawn};
use crate::sketch::key::Secret;
use crate::store::compaction::CompactionProgress;
use crate::store::error::StoreError;
use crate::store::options::StoreOptions;
use crate::store::rows::Agreement;
use crate::sync::dictionaries::Dictionaries;
use crate::types::id::{Namespace, ReplicaId};
use crate::types::lineage::{Lineage, Sighting};
use crate::types::seen::Seen;

/// How long a session of another replica may stay silent before its view is given up.
const SESSION_IDLE: Duration = Duration::from_secs(30);

/// How often those who wait for a compaction are told how far it is.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// An open namespace. Dropping the last handle commits what is queued and closes the file.
pub struct OpenNamespace {
    name: Namespace,
    writer: Mutex<Option<WriterHandle>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    views: watch::Receiver<Arc<View>>,
    peers: PeerNotes,
    upkeep: Upkeep,
    damage: DamageBook,
    readers: Arc<Semaphore>,
    pins: Pins,
    wall: Arc<dyn WallClock>,
    history_age: Option<u64>,
    /// What was taken in of peers and is not noted in the store yet.
    learned: Mutex<Seen>,
    collecting: Mutex<Pass>,
    dictionaries: Arc<Dictionaries>,
    training: Mutex<Training>,
    closed: CancellationToken,
}

impl OpenNamespace {
    /// Starts the writer of an engine. `readers` bounds how many reads run at once.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread.
    pub fn start(
        name: Namespace,
        mut opened: Opened,
        readers: Arc<Semaphore>,
        sessions_max: usize,
        options: &StoreOptions,
        secret: &Secret,
    ) -> std::io::Result<Self> {
        opened.engine.keep_sketch(Arc::new(Keeper::new(secret)));
        let wall = opened.engine.wall();
        let (sender, views) = watch::channel(opened.engine.view());
        let (peers, upkeep) = (PeerNotes::default(), Upkeep::default());
        // What cannot be read is not remembered, and no reason not to start.
        let seen = opened.engine.view().snapshot().sightings();
        *lock(&peers.sightings) = Sightings::new(seen.unwrap_or_default());
        let (writer, thread) = spawn(
            name.as_str(),
            opened,
            options,
            upkeep.clone(),
            sender,
            peers.clone(),
        )?;
        Ok(Self {
            name,
            writer: Mutex::new(Some(writer)),
            thread: Mutex::new(Some(thread)),
            views,
            peers,
            upkeep,
            damage: DamageBook::default(),
            readers,
            pins: Pins::new(sessions_max, SESSION_IDLE),
            wall,
            history_age: options.history_age,
            learned: Mutex::default(),
            collecting: Mutex::default(),
            dictionaries: Arc::default(),
            training: Mutex::default(),
            closed: CancellationToken::new(),
        })
    }

    /// The namespace's name.
    pub fn name(&self) -> &Namespace {
        &self.name
    }

    /// The newest commit. Never waits.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// What the clock on the wall says, in milliseconds since 1970-01-01 UTC.
    pub fn now(&self) -> u64 {
        self.wall.now_millis()
    }

    /// What short states have in common here.
    pub fn dictionaries(&self) -> &Arc<Dictionaries> {
        &self.dictionaries
    }

    /// Trains a dictionary when it is time to; takes up to a second.
    ///
    /// # Errors
    /// [`StoreError`] when states cannot be read.
    pub fn keep_dictionary(&self) -> Result<(), StoreError> {
        let mut training = lock(&self.training);
        training.round(&self.view(), &self.dictionaries)
    }

    /// Follows commits: the receiver wakes after each one.
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Views pinned for other replicas.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The damage that is known.
    pub fn damage(&self) -> &DamageBook {
        &self.damage
    }

    /// Runs a command; answers when its effects are durable.
    ///
    /// # Errors
    /// [`SubmitError`] when it was not carried out.
    pub async fn submit(&self, command: Command) -> Result<Committed, SubmitError> {
        self.writer()?.submit(command).await
    }

    /// As [`OpenNamespace::submit`]. What is `held` is dropped when the command is done, even when
    /// nobody waits for that any more.
    ///
    /// # Errors
    /// As [`OpenNamespace::submit`].
    pub async fn submit_holding(
        &self,
        command: Command,
        held: Held,
    ) -> Result<Committed, SubmitError> {
        self.writer()?.submit_holding(command, held).await
    }

    /// Queues a command from a thread that may block.
    ///
    /// # Errors
    /// [`SubmitError::ShuttingDown`].
    pub fn queue_blocking(&self, command: Command) -> Result<Queued, SubmitError> {
        self.writer()?.queue_blocking(command)
    }

    /// True when writes are refused until the replica is started again: the store failed.
    pub fn has_failed(&self) -> bool {
        lock(&self.writer)
            .as_ref()
            .is_some_and(WriterHandle::has_failed)
    }

    /// Writes that wait for the writer, and how many may.
    pub fn waiting(&self) -> (usize, usize) {
        let writer = lock(&self.writer);
        writer.as_ref().map_or((0, 0), WriterHandle::waiting)
    }

    /// True when there is less space on the disk than is kept in reserve: only deletions are taken.
    pub fn is_low_on_space(&self) -> bool {
        self.upkeep.is_low.load(Ordering::Relaxed)
    }

    /// True while the newest checkpoint fails and is tried again. Writes go on into the log for
    /// as long as it takes them.
    pub fn is_stalled(&self) -> bool {
        self.upkeep.is_stalled.load(Ordering::Relaxed)
    }

    /// Copies the live rows into a new file, which takes the place of the old one, while reads and
    /// writes go on. Blocks until that is done; `follow` is told how far it has come now and then.
    ///
    /// # Errors
    /// What was in the way, in words; the store is as it was then.
    pub fn compact(&self, follow: &mut dyn FnMut(CompactionProgress)) -> Ending {
        self.upkeep.compacting.want();
        loop {
            let (progress, ending) = self.upkeep.compacting.follow(FOLLOW_EVERY);
            follow(progress);
            if let Some(ending) = ending {
                return ending;
            }
            if self.closed.is_cancelled() {
                return Err("the namespace is closing".to_owned());
            }
        }
    }

    /// Builds the sketch when there is none or the states have become too many for it. Blocks.
    /// Until it is done, sessions find differences in other ways.
    ///
    /// # Errors
    /// [`StoreError`] when the states cannot be read.
    pub fn keep_sketch(&self) -> Result<(), StoreError> {
        let view = self.view();
        if view.wants_sketch() {
            view.build_sketch(&|| !self.closed.is_cancelled())?;
        }
        Ok(())
    }

    /// Compares the sketch with one that is built from the states as they are now. `None` when there
    /// is none to compare.
    ///
    /// # Errors
    /// [`StoreError`] when the states cannot be read.
    pub fn is_sketch_right(&self, go_on: &dyn Fn() -> bool) -> Result<Option<bool>, StoreError> {
        self.view().is_sketch_right(go_on)
    }

    /// Is cancelled when the namespace closes.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Reads from the newest view on the blocking pool.
    ///
    /// # Errors
    /// Whatever `work` returns; [`StoreError::Unexpected`] when it panicked.
    pub async fn read<R, E, F>(&self, work: F) -> Result<R, E>
    where
        F: FnOnce(&View) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.read_view(self.view(), work).await
    }

    /// Reads from a given view on the blocking pool.
    ///
    /// # Errors
    /// Whatever `work` returns; [`StoreError::Unexpected`] when it panicked.
    pub async fn read_view<R, E, F>(&self, view: Arc<View>, work: F) -> Result<R, E>
    where
        F: FnOnce(&View) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        // The semaphore is never closed; without a permit the read merely is not counted.
        let permit = Arc::clone(&self.readers).acquire_owned().await.ok();
        let reading = task::spawn_blocking(move || {
            // Given back when the read has ended, whether somebody still waits for it or not.
            let _permit = permit;
            work(&view)
        });
        reading
            .await
            .unwrap_or_else(|_| Err(StoreError::Unexpected("a read").into()))
    }

    /// What was last agreed with a peer.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn agreement(&self, peer: ReplicaId) -> Result<Option<Agreement>, StoreError> {
        if let Some(agreement) = lock(&self.peers.agreements).get(&peer) {
            return Ok(Some(*agreement));
        }
        self.view().snapshot().agreement(peer)
    }

    /// Notes a moment of agreement with a peer. The next commit makes it durable; when it is lost
    /// the next session merely costs a little more.
    pub fn agree(&self, peer: ReplicaId, agreement: Agreement) {
        lock(&self.peers.agreements).insert(peer, agreement);
    }

    /// A peer tells of itself, see [`Sightings::meet`]. The next commit makes it durable.
    pub fn meet(&self, told: &Lineage, seq: u64) -> Option<Sighting> {
        lock(&self.peers.sightings).meet(told, seq)
    }

    /// Takes what a peer says of itself for true, see [`Sightings::trust`].
    pub fn trust(&self, told: &Lineage, seq: u64) {
        lock(&self.peers.sightings).trust(told, seq);
    }

    /// True when what a peer has seen of this namespace shows that there is a copy of it, which is
    /// not seen to yet.
    pub fn is_copied(&self, seen: &Sighting) -> bool {
        let (view, evidence) = (self.view(), Evidence::Seen(seen.clone()));
        let parting = evidence.parting(view.provenance(), view.head().seq);
        parting.is_some()
    }

    /// Takes another name. Answers when it is durable and everything is written again that has to
    /// be.
    ///
    /// # Errors
    /// [`SubmitError`] when it does not.
    pub async fn order(&self, order: Order) -> Result<(), SubmitError> {
        self.writer()?.order(order).await.map(|_| ())
    }

    /// As [`OpenNamespace::order`], from a thread that may block.
    ///
    /// # Errors
    /// [`SubmitError`] when it does not.
    pub fn order_blocking(&self, order: Order) -> Result<(), SubmitError> {
        self.writer()?.order_blocking(order).map(|_| ())
    }

    /// True when writes count under a new epoch because there is a copy.
    pub fn has_renewed(&self) -> bool {
        self.peers.has_renewed.load(Ordering::Relaxed)
    }

    /// Takes note that everything that a peer had seen was taken in here. It is kept with the next
    /// round of [`OpenNamespace::collect`]; when it is lost, what is over is remembered for longer.
    pub fn learn(&self, seen: &Seen) {
        lock(&self.learned).join(seen);
    }

    /// Keeps what was learned, without waiting: whatever is queued later sees it.
    ///
    /// # Errors
    /// [`SubmitError::ShuttingDown`].
    pub fn keep_learned(&self) -> Result<Option<Queued>, SubmitError> {
        let learned = std::mem::take(&mut *lock(&self.learned));
        if learned == Seen::default() {
            return Ok(None);
        }
        let learn = Command::Learn(Arc::new(learned));
        self.queue_blocking(learn).map(Some)
    }

    /// As [`OpenNamespace::keep_learned`], from async code; waits until it is kept.
    ///
    /// # Errors
    /// [`SubmitError`]; then it is for later.
    pub async fn keep_learned_now(&self) -> Result<(), SubmitError> {
        let learned = std::mem::take(&mut *lock(&self.learned));
        if learned == Seen::default() {
            return Ok(());
        }
        let kept = self.submit(Command::Learn(Arc::new(learned.clone()))).await;
        if kept.is_err() {
            self.learn(&learned);
        }
        kept.map(|_| ())
    }

    /// Carries out what a meeting comes to, one command after the other, so that writes go on in
    /// between. Blocks. Returns what was left out.
    ///
    /// # Errors
    /// [`SubmitError`]; what was carried out before stays so.
    pub fn meet_blocking(&self, meeting: Meeting) -> Result<Vec<Refused>, SubmitError> {
        let view = self.view();
        let commands = view
            .seen()
            .and_then(|seen| let_go(&view, &seen, meeting))
            .map_err(|error| SubmitError::Storage(Arc::new(error)))?;
        let mut refused = Vec::new();
        for command in commands {
            let committed = self.queue_blocking(command)?.wait()?;
            refused.extend(committed.accepted.refused);
        }
        Ok(refused)
    }

    /// Collects what is over: bytes of expired versions, records that have departed, history that
    /// is too old. Blocks.
    ///
    /// # Errors
    /// [`CollectError`]; the next round does the rest.
    pub fn collect(&self) -> Result<Collected, CollectError> {
        let mut pass = lock(&self.collecting);
        if let Some(learned) = self.keep_learned()? {
            learned.wait()?;
        }
        let site = Site {
            views: &self.views,
            writer: self.writer()?,
            history_age: self.history_age,
            closed: &self.closed,
        };
        let collected = collect(site, self.now(), &mut pass)?;
        if collected.steps > 0 {
            debug!(namespace = %self.name, ?collected, "collected");
        }
        Ok(collected)
    }

    /// Takes no more commands, commits those that are queued and closes the file.
    pub fn stop(&self) {
        self.closed.cancel();
        drop(lock(&self.writer).take());
        if let Some(thread) = lock(&self.thread).take() {
            // However it ended, there is nothing left to wait for.
            let _ = thread.join();
        }
    }

    fn writer(&self) -> Result<WriterHandle, SubmitError> {
        lock(&self.writer).clone().ok_or(SubmitError::ShuttingDown)
    }
}

impl Stager for OpenNamespace {
    fn newest(&self) -> Arc<View> {
        self.view()
    }

    fn millis(&self) -> u64 {
        self.now()
    }

    fn carry_out(&self, command: Command) -> Result<(), StagingError> {
        let done = self.queue_blocking(command).and_then(Queued::wait);
        done.map(|_| ()).map_err(|error| match error {
            SubmitError::Storage(error) => StagingError::Store(error),
            other => StagingError::Unavailable(other.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::runtime::replica::{Replica, ReplicaOptions};

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_any_more_still_counts() {
        let folder = tempfile::tempdir().unwrap();
        let replica = Replica::open(folder.path(), ReplicaOptions::default()).unwrap();
        let namespace = replica.namespace(&Namespace::default_namespace()).unwrap();
        let free = namespace.readers.available_permits();
        let (begun, mut has_begun) = tokio::sync::mpsc::channel(1);
        let (go, wait) = mpsc::channel::<()>();
        let read = namespace.read(move |_| {
            begun.blocking_send(()).unwrap();
            wait.recv().unwrap();
            Ok::<_, StoreError>(())
        });
        tokio::select! {
            _ = read => panic!("the read goes on"),
            begun = has_begun.recv() => begun.unwrap(),
        }
        assert_eq!(namespace.readers.available_permits(), free - 1);
        go.send(()).unwrap();
        while namespace.readers.available_permits() < free {
            task::yield_now().await;
        }
    }
}
