//! The writer's engine: owns a namespace's store, decides batches of commands, carries them out,
//! and hands out views. One thread owns it; there is no locking inside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::clock::{HybridClock, WallClock};
use crate::merkle::top::Top;
use crate::merkle::update::Work;
use crate::replica::apply::{Batch, apply};
use crate::replica::command::{Accepted, Command, Refused};
use crate::replica::decide::Decider;
use crate::replica::journal;
use crate::replica::recover::{Recovered, recover};
use crate::replica::view::View;
use crate::store::checkpoint::{Flushed, Frozen};
use crate::store::disk::{Disk, MachineDisk};
use crate::store::engine_file::EngineFile;
use crate::store::error::StoreError;
use crate::store::log::appender::Log;
use crate::store::log::group::{Entry, EntryKind};
use crate::store::open::Store;
use crate::store::options::StoreOptions;
use crate::store::rows::{Agreement, Head};
use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;

/// Changes after which a checkpoint is worth its price. A start has to carry out again as many, and
/// those of one checkpoint on its way.
pub const CHECKPOINT_CHANGES: usize = 4096;
/// Memory taken by changes after which a checkpoint is worth its price, in bytes.
pub const CHECKPOINT_BYTES: usize = 16 << 20;

/// What became of each command of a batch.
pub type Outcomes = Vec<Result<Accepted, Refused>>;

/// A namespace open for writing, without its log.
///
/// A batch goes through three steps: [`Engine::decide`], making its entry durable in the [`Log`],
/// and [`Engine::apply`], the last two in any order or at once; it may be acknowledged and its view
/// shown after both.
pub struct Engine {
    store: Store,
    top: Top,
    head: Head,
    clock: HybridClock,
    wall: Arc<dyn WallClock>,
    view: Arc<View>,
    work: Work,
    /// Changes carried out since the last checkpoint began.
    pending: usize,
}

/// A namespace that was opened for writing.
pub struct Opened {
    /// Decides and carries out.
    pub engine: Engine,
    /// Makes durable.
    pub log: Log,
    /// Takes checkpoints.
    pub file: EngineFile,
}

/// A batch that has been decided.
pub struct Decided {
    /// What becomes of its commands, once it is durable and carried out.
    pub outcomes: Outcomes,
    /// What the log has to hold; `None` when the commands change nothing.
    pub entry: Option<Entry>,
    batch: Batch,
}

impl Decided {
    /// True when there is nothing to carry out.
    pub fn is_empty(&self) -> bool {
        self.entry.is_none()
    }
}

impl Engine {
    /// Opens a namespace's file on the machine's disk, see [`Engine::open_on`].
    ///
    /// # Errors
    /// As for [`Engine::open_on`].
    pub fn open(
        path: &Path,
        replica: ReplicaId,
        epoch: Epoch,
        options: StoreOptions,
        wall: Arc<dyn WallClock>,
    ) -> Result<Opened, StoreError> {
        Self::open_on(Arc::new(MachineDisk), path, replica, epoch, options, wall)
    }

    /// Opens a namespace's file, carries out what its log holds beyond it, and checks the root
    /// against the tree.
    ///
    /// # Errors
    /// [`StoreError`] as for [`Store::open_on`] and [`Log::open`], or when the root does not fit
    /// the tree.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        replica: ReplicaId,
        epoch: Epoch,
        options: StoreOptions,
        wall: Arc<dyn WallClock>,
    ) -> Result<Opened, StoreError> {
        let (mut store, mut file) = Store::open_on(disk, path, replica, epoch, options)?;
        store.check_counts()?;
        let from = store.snapshot().head()?.log;
        let (log, replay) = Log::open(store.log_place(), from)?;
        store.begin_incarnation(&mut file)?;
        let pending = replay.commits.len();
        let recovered = recover(&mut store, replay)?;
        let Recovered { top, head, work } = recovered;
        let view = Arc::new(View::new(
            store.snapshot(),
            top.clone(),
            head,
            store.identity(),
        ));
        let engine = Self {
            clock: HybridClock::new(replica, head.clock),
            store,
            top,
            head,
            wall,
            view,
            work,
            pending,
        };
        Ok(Opened { engine, log, file })
    }

    /// The newest commit, durable or not.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Tree work done since opening.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Decides the commands in order, on top of the newest commit. Nothing has happened yet.
    ///
    /// # Errors
    /// [`StoreError`] when nothing could be decided.
    pub fn decide(
        &mut self,
        commands: Vec<Command>,
        agreements: BTreeMap<ReplicaId, Agreement>,
    ) -> Result<Decided, StoreError> {
        let view = Arc::clone(&self.view);
        let (writer, now) = (self.store.identity().writer(), self.wall.now_millis());
        let mut decider = Decider::new(&*view, &mut self.clock, writer, now, self.head.seq);
        let mut outcomes = Vec::with_capacity(commands.len());
        let mut mutations = Vec::with_capacity(commands.len());
        let mut healings = Vec::new();
        for command in commands {
            outcomes.push(decider.decide(command)?.map(|decision| {
                mutations.extend(decision.mutations);
                healings.extend(decision.healings);
                decision.accepted
            }));
        }
        // Commits are numbered without gaps in the log, so this one has its entry even if that is empty.
        let changes = !mutations.is_empty() || !healings.is_empty();
        let entry = (changes || !agreements.is_empty()).then(|| Entry {
            commit: self.store.next_commit(),
            kind: EntryKind::Changes(journal::to_bytes(&mutations, &healings)),
        });
        Ok(Decided {
            outcomes,
            entry,
            batch: Batch {
                mutations,
                healings,
                agreements,
                clock: self.clock.millis(),
            },
        })
    }

    /// Carries out a batch that was just decided, in memory.
    ///
    /// # Errors
    /// [`StoreError`] when a row that is needed cannot be read: nothing has changed then, and the
    /// log must hold [`Engine::void`] behind the batch's entry.
    pub fn apply(&mut self, decided: &Decided) -> Result<Arc<View>, StoreError> {
        let batch = &decided.batch;
        let work = apply(&mut self.store, &mut self.top, &mut self.head, batch)?;
        self.work.add(&work);
        self.pending += batch.mutations.len();
        self.look();
        Ok(self.view())
    }

    /// What the log has to hold behind the entry of a batch that could not be carried out.
    pub fn void(&mut self) -> Entry {
        let commit = self.store.next_commit();
        self.store.skip_commit();
        Entry {
            commit,
            kind: EntryKind::Void,
        }
    }

    /// Goes back to a view whose commit was the newest one to become durable.
    pub fn go_back_to(&mut self, view: &Arc<View>, commit: u64) {
        self.store.roll_back_to(commit);
        self.top = view.top().clone();
        self.head = *view.head();
        self.look();
    }

    fn look(&mut self) {
        let (snapshot, identity) = (self.store.snapshot(), self.store.identity());
        self.view = Arc::new(View::new(snapshot, self.top.clone(), self.head, identity));
    }

    /// The number of the newest commit.
    pub fn commit_number(&self) -> u64 {
        self.store.next_commit() - 1
    }

    /// How much has piled up since the last checkpoint began; 1 is worth the price of one.
    pub fn checkpoint_load(&self) -> f64 {
        let changes = self.pending as f64 / CHECKPOINT_CHANGES as f64;
        let bytes = self.store.pending_bytes() as f64 / CHECKPOINT_BYTES as f64;
        changes.max(bytes)
    }

    /// True while a checkpoint is on its way.
    pub fn is_freezing(&self) -> bool {
        self.store.is_freezing()
    }

    /// Begins a checkpoint of everything up to now, see [`Store::freeze`].
    pub fn freeze(&mut self) -> Option<Frozen> {
        let frozen = self.store.freeze()?;
        self.pending = 0;
        Some(frozen)
    }

    /// The rows of the checkpoint that is on its way, to begin it anew.
    pub fn frozen(&self) -> Option<Frozen> {
        self.store.frozen()
    }

    /// Takes note that a checkpoint has ended. Views from now on do without the rows it took.
    pub fn flushed(&mut self, flushed: &Flushed) {
        self.store.flushed(flushed);
        self.look();
    }
}
