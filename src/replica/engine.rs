//! The writer's engine: owns a namespace's store, decides batches of commands, applies them, and
//! hands out views. One thread owns it; there is no locking inside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::clock::{HybridClock, WallClock};
use crate::merkle::top::Top;
use crate::merkle::update::Work;
use crate::replica::apply::{Batch, apply};
use crate::replica::command::{Command, Receipt, Refusal};
use crate::replica::decide::Decider;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::options::StoreOptions;
use crate::store::rows::Agreement;
use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;

/// What became of each command of a batch.
pub type Outcomes = Vec<Result<Vec<Receipt>, Refusal>>;

/// A namespace open for writing.
pub struct Engine {
    store: Store,
    top: Top,
    clock: HybridClock,
    wall: Arc<dyn WallClock>,
    view: Arc<View>,
    work: Work,
}

impl Engine {
    /// Opens a namespace's file and checks its root against the tree.
    ///
    /// # Errors
    /// [`StoreError`] as for [`Store::open`], or when the root does not fit the tree.
    pub fn open(
        path: &Path,
        replica: ReplicaId,
        epoch: Epoch,
        options: StoreOptions,
        wall: Arc<dyn WallClock>,
    ) -> Result<Self, StoreError> {
        let mut store = Store::open(path, replica, epoch, options)?;
        store.check_counts()?;
        store.begin_incarnation()?;
        let (top, view) = load_view(&store)?;
        let clock = HybridClock::new(replica, view.head().clock);
        Ok(Self {
            store,
            top,
            clock,
            wall,
            view: Arc::new(view),
            work: Work::default(),
        })
    }

    /// The newest commit.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Tree work done since opening.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Decides the commands in order and makes what they come to durable in one commit. When this
    /// returns, every accepted command is on disk and in [`Engine::view`].
    ///
    /// # Errors
    /// [`StoreError`] when nothing could be made durable, or its outcome is unknown.
    pub fn commit(
        &mut self,
        commands: Vec<Command>,
        agreements: BTreeMap<ReplicaId, Agreement>,
    ) -> Result<Outcomes, StoreError> {
        let mut batch = Batch {
            agreements,
            ..Batch::default()
        };
        let outcomes = self.decide(commands, &mut batch)?;
        if batch.mutations.is_empty() && batch.agreements.is_empty() {
            return Ok(outcomes);
        }
        batch.clock = self.clock.millis();
        let (head, work) = apply(&self.store, &mut self.top, &batch)?;
        self.work.add(&work);
        let snapshot = self.store.snapshot()?;
        let identity = self.store.identity();
        self.view = Arc::new(View::new(snapshot, self.top.clone(), head, identity));
        Ok(outcomes)
    }

    fn decide(
        &mut self,
        commands: Vec<Command>,
        batch: &mut Batch,
    ) -> Result<Outcomes, StoreError> {
        let view = Arc::clone(&self.view);
        let (writer, now) = (self.store.identity().writer(), self.wall.now_millis());
        let seq = view.head().seq;
        let mut decider = Decider::new(&*view, &mut self.clock, writer, now, seq);
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            let decided = match decider.decide(command) {
                // One damaged record must not fail the writes that share its batch.
                Err(StoreError::Damaged(what)) => Err(Refusal::Damaged { what }),
                decided => decided?,
            };
            outcomes.push(decided.map(|decision| {
                batch.mutations.extend(decision.mutations);
                decision.receipts
            }));
        }
        Ok(outcomes)
    }
}

/// A view of the newest commit of a store, with the top of its tree rebuilt from the rows.
///
/// # Errors
/// [`StoreError::Damaged`] when the rows do not add up to the root in the head.
pub fn load_view(store: &Store) -> Result<(Top, View), StoreError> {
    let snapshot = store.snapshot()?;
    let (head, top) = (snapshot.head()?, Top::load(&snapshot)?);
    if !top.root().hash.matches(&head.root.hash) || top.root() != head.root {
        return Err(StoreError::damaged(format!(
            "{}: the Merkle rows give root {}, the head says {}",
            store.path().display(),
            top.root().hash,
            head.root.hash
        )));
    }
    let view = View::new(snapshot, top.clone(), head, store.identity());
    Ok((top, view))
}
