//! The writer's engine: owns a namespace's store, decides batches of commands, carries them out,
//! and hands out views. One thread owns it; there is no locking inside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::clock::{HybridClock, WallClock};
use crate::merkle::top::Top;
use crate::merkle::update::Work;
use crate::replica::apply::{Batch, apply};
use crate::replica::command::{Accepted, Command, Effect, Refusal, Refused};
use crate::replica::decide::Decider;
use crate::replica::facts::Facts;
use crate::replica::journal;
use crate::replica::read_ahead::read_ahead_for;
use crate::replica::recover::{Recovered, recover};
use crate::replica::renew::{Evidence, Rewriting, part, rename};
use crate::replica::sketching::Keeper;
use crate::replica::source::Source;
use crate::replica::view::View;
use crate::roots::entry::RootEntry;
use crate::roots::mountains::{self, nodes_above};
use crate::store::checkpoint::{Flushed, Frozen};
use crate::store::claim::Claim;
use crate::store::disk::{Disk, MachineDisk};
use crate::store::engine_files::EngineFiles;
use crate::store::error::StoreError;
use crate::store::log::appender::Log;
use crate::store::log::group::{Entry, EntryKind};
use crate::store::open::Store;
use crate::store::options::StoreOptions;
use crate::store::rows::{Agreement, Head, Identity};
use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;
use crate::types::lineage::Provenance;

/// Changes after which a checkpoint is worth its price. A start has to carry out again as many, and
/// those of one checkpoint on its way.
pub const CHECKPOINT_CHANGES: usize = 8192;
/// Memory taken by changes after which a checkpoint is worth its price, in bytes.
pub const CHECKPOINT_BYTES: usize = 32 << 20;

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
    /// What was seen of peers, for the next commit to take along.
    seen: Facts,
    /// How far a renewal has come.
    rewriting: Option<Rewriting>,
    /// An entry of the log of roots for the next batch to take along.
    sealing: Option<RootEntry>,
    /// Who keeps the sketch, if somebody does.
    keeper: Option<Arc<Keeper>>,
}

/// A namespace that was opened for writing.
pub struct Opened {
    /// Decides and carries out.
    pub engine: Engine,
    /// Makes durable.
    pub log: Log,
    /// Takes checkpoints.
    pub file: EngineFiles,
    /// True when the file turned out to be a copy, and began a new life of its feed.
    pub is_copy: bool,
}

impl Opened {
    /// Writes again what a renewal that broke off has left.
    fn finish_renewal(&mut self) -> Result<(), StoreError> {
        while let Some(decided) = self.engine.decide_rewrites()? {
            self.engine.apply(&decided)?;
            let entries: Vec<Entry> = decided.entry.into_iter().collect();
            self.log.append(&entries)?;
        }
        Ok(())
    }
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
    /// True when a record was refused because it counts writes under our name that were not made
    /// here.
    pub fn names_foreign_history(&self) -> bool {
        let accepted = self.outcomes.iter().flatten();
        let mut refused = accepted.flat_map(|accepted| &accepted.refused);
        refused.any(|refused| matches!(refused.refusal, Refusal::ForeignHistory { .. }))
    }

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
        Self::open_as(disk, path, &Claim::plain(replica, epoch), options, wall)
    }

    /// As [`Engine::open_on`], for a file that may be a copy.
    ///
    /// # Errors
    /// As for [`Engine::open_on`].
    pub fn open_as(
        disk: Arc<dyn Disk>,
        path: &Path,
        claim: &Claim,
        options: StoreOptions,
        wall: Arc<dyn WallClock>,
    ) -> Result<Opened, StoreError> {
        let opened = Store::open_as(disk, path, claim, options);
        let opened = opened.and_then(|opened| Self::open_store(opened, claim, wall));
        opened.map_err(|error| error.of_file(path))
    }

    fn open_store(
        (mut store, mut file): (Store, EngineFiles),
        claim: &Claim,
        wall: Arc<dyn WallClock>,
    ) -> Result<Opened, StoreError> {
        store.check_counts()?;
        let from = store.snapshot().head()?.log;
        let (log, replay) = Log::open(store.log_place(), from)?;
        let pending = replay.commits.len();
        // A namespace that cannot be opened must not grow with each start.
        let recovered =
            recover(&mut store, replay, wall.now_millis()).inspect_err(|_| log.discard())?;
        let Recovered { top, head, work } = recovered;
        let is_copy = store.begin_incarnation(&mut file, claim, head.seq)?;
        // The commit above has made durable what the file was found to hold; before, segments that
        // it seems not to need might still have been needed after a power cut.
        if let Err(error) = log.shelf().tidy(from.commit) {
            tracing::warn!(%error, "segments of the log that are not needed any more stay");
        }
        let view = View::new(
            store.snapshot(),
            top.clone(),
            head,
            store.identity(),
            Arc::clone(store.provenance()),
        );
        let view = Arc::new(view.of_commit(store.next_commit() - 1, None));
        let engine = Self {
            clock: HybridClock::new(claim.replica, head.clock),
            store,
            top,
            head,
            wall,
            view,
            work,
            pending,
            seen: Facts::default(),
            rewriting: None,
            sealing: None,
            keeper: None,
        };
        let mut opened = Opened {
            engine,
            log,
            file,
            is_copy,
        };
        opened.finish_renewal()?;
        Ok(opened)
    }

    /// The newest commit, durable or not.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// The clock on the wall that decides about times.
    pub fn wall(&self) -> Arc<dyn WallClock> {
        Arc::clone(&self.wall)
    }

    /// How the namespace keeps its data.
    pub fn options(&self) -> StoreOptions {
        self.store.options()
    }

    /// Reads of the store's files by anybody that had to wait for the disk since they were opened,
    /// about.
    pub fn slow_reads(&self) -> u64 {
        self.view.snapshot().slow_reads()
    }

    /// Brings the rows that commands need into memory, many at a time.
    pub fn read_ahead(&self, commands: &[Command]) {
        read_ahead_for(self.view.snapshot(), commands);
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
        let source = Source::new(&view);
        let mut decider = Decider::new(&source, &mut self.clock, writer, now, self.head.seq);
        let mut outcomes = Vec::with_capacity(commands.len());
        let mut effects = Vec::with_capacity(commands.len() + 1);
        effects.extend(self.sealing.take().map(Effect::Seal));
        for command in commands {
            outcomes.push(decider.decide(command)?.map(|decision| {
                effects.extend(decision.effects);
                decision.accepted
            }));
        }
        let batch = Batch {
            effects,
            agreements,
            facts: std::mem::take(&mut self.seen),
            clock: self.clock.millis(),
            read: source.into_read(),
        };
        Ok(self.decided(outcomes, batch))
    }

    fn decided(&self, outcomes: Outcomes, batch: Batch) -> Decided {
        // Commits are numbered without gaps in the log, so this one has its entry even if that is empty.
        let changes = !batch.effects.is_empty() || !batch.agreements.is_empty();
        let entry = (changes || !batch.facts.is_empty()).then(|| Entry {
            commit: self.store.next_commit(),
            kind: EntryKind::Changes(journal::to_bytes(&batch.facts, &batch.effects)),
        });
        Decided {
            outcomes,
            entry,
            batch,
        }
    }

    /// Lets the next batch take an entry of the log of roots along, which says where the namespace
    /// stands now. False when the log says so already.
    ///
    /// # Errors
    /// [`StoreError`] when the log of roots cannot be read.
    pub fn seal(&mut self) -> Result<bool, StoreError> {
        let snapshot = self.view.snapshot();
        let size = snapshot.root_log_size()?;
        let newest = match size.checked_sub(1) {
            Some(place) => snapshot.root_entry(place)?,
            None => None,
        };
        let root = self.head.root.hash;
        if newest.map_or(self.head.root.leaves == 0, |newest| newest.root == root) {
            return Ok(false);
        }
        let identity = self.store.identity();
        let entry = RootEntry {
            root,
            seq: self.head.seq,
            epoch: identity.epoch,
            incarnation: identity.incarnation,
            time: newest
                .map_or(0, |newest| newest.time)
                .max(self.wall.now_millis()),
        };
        // Damage there must not make the writes fail that the entry travels with.
        nodes_above(snapshot, size, entry.leaf())?;
        mountains::root(snapshot, size)?;
        self.sealing = Some(entry);
        Ok(true)
    }

    /// Lets the next batch that is decided remember what was seen of peers.
    pub fn remember(&mut self, seen: Facts) {
        self.seen.seen.extend(seen.seen);
        self.seen.forgotten.extend(seen.forgotten);
    }

    /// Decides what the namespace becomes when a copy of it writes under the same name: if it is
    /// `fresh`, writes count under a new one from then on. [`Engine::decide_rewrites`] goes on.
    /// `None` when the evidence shows nothing that has not been seen to.
    pub fn decide_renewal(&mut self, evidence: &Evidence, fresh: Epoch) -> Option<Decided> {
        let parting = evidence.parting(self.store.provenance(), self.head.seq)?;
        let (identity, provenance) = (self.store.identity(), self.store.provenance());
        Some(self.decide_identity(part((&identity, provenance), parting, fresh)))
    }

    /// Decides that the namespace belongs to its replica under another id.
    pub fn decide_name(&mut self, replica: ReplicaId) -> Decided {
        let (identity, provenance) = (self.store.identity(), self.store.provenance());
        self.clock = HybridClock::new(replica, self.clock.millis());
        self.decide_identity(rename((&identity, provenance), replica))
    }

    fn decide_identity(&self, identity: (Identity, Provenance)) -> Decided {
        let batch = Batch {
            facts: Facts {
                identity: Some(identity),
                ..Facts::default()
            },
            clock: self.clock.millis(),
            ..Batch::default()
        };
        self.decided(Vec::new(), batch)
    }

    /// True while states are still to be written again under a new name.
    pub fn is_renewing(&self) -> bool {
        self.store.provenance().pending.is_some()
    }

    /// Decides which states are written again next under the new name. `None` when a renewal has
    /// come to its end, or there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the states cannot be read.
    pub fn decide_rewrites(&mut self) -> Result<Option<Decided>, StoreError> {
        let Some(parting) = self.store.provenance().pending else {
            self.rewriting = None;
            return Ok(None);
        };
        let begin = || Rewriting::begin(parting, self.head.seq);
        let mut rewriting = self.rewriting.take().unwrap_or_else(begin);
        let mutations = rewriting.next(&self.view)?;
        if mutations.is_empty() {
            let mut provenance = (**self.store.provenance()).clone();
            provenance.pending = None;
            let identity = self.store.identity();
            return Ok(Some(self.decide_identity((identity, provenance))));
        }
        self.rewriting = Some(rewriting);
        let batch = Batch {
            effects: mutations.into_iter().map(Effect::Change).collect(),
            clock: self.clock.millis(),
            ..Batch::default()
        };
        Ok(Some(self.decided(Vec::new(), batch)))
    }

    /// Carries out a batch that was just decided, in memory.
    ///
    /// # Errors
    /// [`StoreError`] when a row that is needed cannot be read: nothing has changed then, and the
    /// log must hold [`Engine::void`] behind the batch's entry.
    pub fn apply(&mut self, decided: &Decided) -> Result<Arc<View>, StoreError> {
        let batch = &decided.batch;
        let applied = apply(&mut self.store, &mut self.top, &mut self.head, batch)?;
        self.work.add(&applied.work);
        if let Some(keeper) = &self.keeper {
            keeper.note(self.store.next_commit() - 1, &applied.moved);
        }
        self.pending += batch.effects.len();
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
        self.store
            .adopt(*view.identity(), Arc::clone(view.provenance()));
        self.rewriting = None;
        self.sealing = None;
        if let Some(keeper) = &self.keeper {
            keeper.go_back_to(commit);
        }
        self.look();
    }

    /// Lets `keeper` follow every commit from now on.
    pub fn keep_sketch(&mut self, keeper: Arc<Keeper>) {
        self.keeper = Some(keeper);
        self.look();
    }

    fn look(&mut self) {
        let view = View::new(
            self.store.snapshot(),
            self.top.clone(),
            self.head,
            self.store.identity(),
            Arc::clone(self.store.provenance()),
        );
        self.view = Arc::new(view.of_commit(self.commit_number(), self.keeper.clone()));
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
