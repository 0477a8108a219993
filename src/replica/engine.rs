//! The writer's engine: owns a namespace's store, decides batches of commands, applies them, and
//! hands out views. One thread owns it; there is no locking inside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::clock::{HybridClock, WallClock};
use crate::merkle::top::Top;
use crate::merkle::update::Work;
use crate::replica::apply::{Batch, apply};
use crate::replica::command::{Accepted, Command, Refused};
use crate::replica::decide::Decider;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::options::StoreOptions;
use crate::store::rows::Agreement;
use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;

/// What became of each command of a batch.
pub type Outcomes = Vec<Result<Accepted, Refused>>;

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
        // The commit stands: without a view of it nothing more can be decided.
        let snapshot = self.store.snapshot().map_err(StoreError::commit_failed)?;
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
            outcomes.push(decider.decide(command)?.map(|decision| {
                batch.mutations.extend(decision.mutations);
                decision.accepted
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::SystemClock;
    use crate::replica::command::{Change, Content, Incoming, Precondition, Write};
    use crate::types::hash::ContentHash;
    use crate::types::id::GameId;

    fn open(folder: &Path, name: &str, replica: u64, epoch: u64) -> Engine {
        let (path, wall) = (folder.join(name), Arc::new(SystemClock));
        let options = StoreOptions::default();
        Engine::open(&path, ReplicaId(replica), Epoch(epoch), options, wall).unwrap()
    }

    fn put(engine: &mut Engine, bytes: &'static [u8]) {
        let content = Content {
            bytes: Bytes::from_static(bytes),
            hash: ContentHash::of(bytes),
            content_type: None,
        };
        let write = Command::Write(vec![Write {
            id: GameId::new("match").unwrap(),
            precondition: Precondition::None,
            change: Change::Put(content),
        }]);
        assert!(engine.commit(vec![write], BTreeMap::new()).unwrap()[0].is_ok());
    }

    /// Everything that `from` shows of the state, as it would come out of a session.
    fn hand_over(from: &Engine, to: &mut Engine) {
        let view = from.view();
        let row = view.row(&GameId::new("match").unwrap()).unwrap().unwrap();
        let (version, bytes) = view.shown_content(&row).unwrap().unwrap();
        let incoming = Incoming {
            record: row.record,
            bodies: vec![(version.content, Bytes::from(bytes))],
        };
        let merge = Command::Merge(vec![incoming]);
        assert!(to.commit(vec![merge], BTreeMap::new()).unwrap()[0].is_ok());
    }

    #[test]
    fn a_namespace_made_anew_does_not_repeat_what_its_peers_remember() {
        let folder = tempfile::tempdir().unwrap();
        let mut peer = open(folder.path(), "peer.redb", 2, 20);
        let mut before = open(folder.path(), "before.redb", 1, 10);
        for bytes in [b"one", b"two"] {
            put(&mut before, bytes);
        }
        hand_over(&before, &mut peer);
        let mut anew = open(folder.path(), "anew.redb", 1, 11);
        put(&mut anew, b"new");
        hand_over(&anew, &mut peer);
        hand_over(&before, &mut anew);
        for engine in [&peer, &anew] {
            let row = engine.view().row(&GameId::new("match").unwrap());
            let record = row.unwrap().unwrap().record;
            assert_eq!((record.versions().len(), record.conflicts()), (2, 1));
        }
        assert_eq!(peer.view().head().root, anew.view().head().root);
    }

    #[test]
    fn one_put_among_many_touches_few_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = open(folder.path(), "one.redb", 1, 1);
        put(&mut engine, b"one");
        let before = engine.work();
        put(&mut engine, b"two");
        let work = engine.work();
        assert!(work.hashes - before.hashes <= 20, "{work:?}");
        assert_eq!(work.rows_written - before.rows_written, 1);
    }
}
