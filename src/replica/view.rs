//! A namespace as one commit left it: what reads, proofs and sync sessions work on.

use std::sync::Arc;

use crate::merkle::multiproof::MultiProof;
use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::proof::Proof;
use crate::merkle::range::{KeyRange, RangeProof};
use crate::merkle::top::Top;
use crate::merkle::view::TreeView;
use crate::reconcile::view::{SetView, SketchView, ViewError};
use crate::replica::sketch_history::Leaves;
use crate::replica::sketching::{Keeper, SketchAt};
use crate::roots::entry::log_name;
use crate::roots::head::LogHead;
use crate::roots::mountains;
use crate::store::error::StoreError;
use crate::store::read::Snapshot;
use crate::store::rows::{Head, Identity, Placed, RecordRow};
use crate::types::cursor::Cursor;
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::{GameId, WriterId};
use crate::types::leaf::Leaf;
use crate::types::lineage::Provenance;
use crate::types::seen::Seen;
use crate::types::version::Version;

/// A consistent view. Later commits do not change it; it never waits for the writer.
pub struct View {
    snapshot: Snapshot,
    top: Top,
    head: Head,
    identity: Identity,
    provenance: Arc<Provenance>,
    commit: u64,
    sketch: Option<SketchAt>,
}

/// A page of a listing.
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Where the next page starts, when there may be one.
    pub next: Option<String>,
}

impl View {
    /// Puts a view together; `top` must be that of the snapshot's commit.
    pub fn new(
        snapshot: Snapshot,
        top: Top,
        head: Head,
        identity: Identity,
        provenance: Arc<Provenance>,
    ) -> Self {
        Self {
            snapshot,
            top,
            head,
            identity,
            provenance,
            commit: 0,
            sketch: None,
        }
    }

    /// The view shows this commit, of which `keeper` has the sketch, or had when it was newer.
    #[must_use]
    pub fn of_commit(mut self, commit: u64, keeper: Option<Arc<Keeper>>) -> Self {
        self.commit = commit;
        self.sketch = keeper.map(|keeper| SketchAt::new(keeper, commit));
        self
    }

    /// The number of the commit.
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// True when somebody keeps a sketch and it has to be built.
    pub fn wants_sketch(&self) -> bool {
        let keeper = self.sketch.as_ref().map(SketchAt::keeper);
        keeper.is_some_and(|keeper| keeper.wants_building(self.head.root.leaves))
    }

    /// Builds the sketch, as [`Keeper::build`] does, for whoever keeps it.
    ///
    /// # Errors
    /// [`StoreError`] when the leaves cannot be read.
    pub fn build_sketch(&self, go_on: &dyn Fn() -> bool) -> Result<(), StoreError> {
        let keeper = self.sketch.as_ref().map(SketchAt::keeper);
        keeper.map_or(Ok(()), |keeper| keeper.build(self.all_leaves(), go_on))
    }

    /// Compares the sketch with one that is built from the leaves, as [`Keeper::is_right`] does.
    ///
    /// # Errors
    /// [`StoreError`] when the leaves cannot be read.
    pub fn is_sketch_right(&self, go_on: &dyn Fn() -> bool) -> Result<Option<bool>, StoreError> {
        let keeper = self.sketch.as_ref().map(SketchAt::keeper);
        keeper.map_or(Ok(None), |keeper| keeper.is_right(self.all_leaves(), go_on))
    }

    fn all_leaves(&self) -> Leaves<'_> {
        Leaves {
            snapshot: &self.snapshot,
            states: self.head.root.leaves,
            commit: self.commit,
        }
    }

    /// Where the namespace stood.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Which replica, feed and opening this is a view of.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the namespace comes from.
    pub fn provenance(&self) -> &Arc<Provenance> {
        &self.provenance
    }

    /// The position in the change feed.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.identity.epoch,
            seq: self.head.seq,
        }
    }

    /// The stored tables.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The head of the log of roots, not signed; `None` before the first entry. Whoever signs one
    /// must have the view from the writer's channel, where it is once it is durable.
    ///
    /// # Errors
    /// [`StoreError`] when the log cannot be read.
    pub fn log_head(&self) -> Result<Option<LogHead>, StoreError> {
        let size = self.snapshot.root_log_size()?;
        let Some(last) = size.checked_sub(1) else {
            return Ok(None);
        };
        let (first, newest) = (
            self.snapshot.root_entry(0)?,
            self.snapshot.root_entry(last)?,
        );
        let hash = mountains::root(&self.snapshot, size)?;
        let (Some(first), Some(newest), Some(hash)) = (first, newest, hash) else {
            return Err(StoreError::damaged("the log of roots lacks entries"));
        };
        Ok(Some(LogHead {
            replica: self.identity.replica,
            log: log_name(self.identity.epoch, &first.leaf()),
            size,
            hash,
            newest,
        }))
    }

    /// The tree.
    pub fn tree(&self) -> TreeView<'_, Snapshot> {
        TreeView {
            top: &self.top,
            storage: &self.snapshot,
        }
    }

    /// The levels of the tree that are kept in memory.
    pub fn top(&self) -> &Top {
        &self.top
    }

    /// A state's row, deleted or not.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn row(&self, id: &GameId) -> Result<Option<RecordRow>, StoreError> {
        let row = self.snapshot.record(&StateKey::of(id))?;
        // A damaged page can hide a row. It hardly hides both.
        if row.is_none() && self.snapshot.has_id(id)? {
            return Err(StoreError::damaged(format!("{id:?} has no record")));
        }
        Ok(row)
    }

    /// What was taken in, own writes among it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn seen(&self) -> Result<Seen, StoreError> {
        let mut seen = self.snapshot.seen()?;
        seen.raise(self.identity.writer(), self.head.seq);
        for (epoch, seq) in self.provenance.lineage.past_lives() {
            seen.raise(WriterId(epoch.0), seq);
        }
        Ok(seen)
    }

    /// States that are there at `now`, in order of id, behind `after`.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now: u64,
    ) -> Result<Page<RecordRow>, StoreError> {
        let found = self.snapshot.ids_after(prefix, after, limit)?;
        let next = (found.len() == limit)
            .then(|| found.last().map(|(id, _)| id.clone()))
            .flatten();
        let mut items = Vec::with_capacity(found.len());
        for (id, key) in found {
            let row = self.snapshot.record(&key)?;
            let row = row.ok_or_else(|| StoreError::damaged(format!("{id:?} has no record")))?;
            if row.is_shown(now) {
                items.push(row);
            }
        }
        Ok(Page { items, next })
    }

    /// Changed states behind feed position `seq`, oldest change first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn changes(&self, seq: u64, limit: usize) -> Result<Vec<RecordRow>, StoreError> {
        let found = self.snapshot.changes_after(seq, limit)?;
        found
            .into_iter()
            .map(|(seq, key)| {
                let row = self.snapshot.record(&key)?;
                row.ok_or_else(|| StoreError::damaged(format!("change {seq} has no record")))
            })
            .collect()
    }

    /// The version of a state that has this content and has not expired: a current one or one in
    /// history.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn version(
        &self,
        key: &StateKey,
        content: &ContentHash,
        now: u64,
    ) -> Result<Option<Placed>, StoreError> {
        let held = self.versions(key)?;
        Ok(held
            .into_iter()
            .find(|placed| placed.version.content == *content && placed.is_readable(now)))
    }

    /// The version of a state that was shown at a moment, as far as versions of that time are kept.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn at(&self, key: &StateKey, moment: u64) -> Result<Option<Placed>, StoreError> {
        let held = self.versions(key)?.into_iter();
        let earlier = held.filter(|placed| placed.version.stamp.millis <= moment);
        Ok(earlier.max_by(|a, b| a.version.precedence(&b.version)))
    }

    /// Every version of a state that is still held, current ones first, then newest first.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn versions(&self, key: &StateKey) -> Result<Vec<Placed>, StoreError> {
        let Some(row) = self.snapshot.record(key)? else {
            return Ok(Vec::new());
        };
        let mut held: Vec<Placed> = row.placed().map(Placed::of).collect();
        held.extend(self.snapshot.history(key)?);
        Ok(held)
    }

    /// The bytes of a version, checked. `None` for a tombstone.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they are missing or wrong.
    pub fn content(&self, placed: &Placed) -> Result<Option<Vec<u8>>, StoreError> {
        self.snapshot.content(&placed.version, &placed.placement)
    }

    /// The bytes of the shown version of a row, checked.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they are missing or wrong.
    pub fn shown_content(&self, row: &RecordRow) -> Result<Option<(Version, Vec<u8>)>, StoreError> {
        let Some((version, placement)) = row.placed().next() else {
            return Ok(None);
        };
        let bytes = self.snapshot.content(version, placement)?;
        Ok(bytes.map(|bytes| (version.clone(), bytes)))
    }

    /// A proof that a state is, or is not, in the tree.
    ///
    /// # Errors
    /// [`StoreError`] when the tree cannot be read.
    pub fn prove(&self, key: &StateKey) -> Result<Proof, StoreError> {
        Ok(self.tree().prove(key)?)
    }

    /// One proof for several states, their keys sorted and unique.
    ///
    /// # Errors
    /// [`StoreError`] when the tree cannot be read or the keys are not in order.
    pub fn prove_all(&self, keys: &[StateKey]) -> Result<MultiProof, StoreError> {
        Ok(self.tree().prove_all(keys)?)
    }

    /// The proof of what the records in a range of keys add up to.
    ///
    /// # Errors
    /// [`StoreError`] when the tree cannot be read.
    pub fn prove_range(&self, range: &KeyRange) -> Result<RangeProof, StoreError> {
        Ok(self.tree().prove_range(range)?)
    }

    /// The subtree at a place.
    ///
    /// # Errors
    /// [`StoreError`] when the tree cannot be read.
    pub fn subtree(&self, at: Prefix) -> Result<Summary, StoreError> {
        Ok(self.tree().subtree(at)?)
    }
}

fn failed<E: std::fmt::Display>(error: E) -> ViewError {
    ViewError(error.to_string())
}

impl SetView for View {
    fn root(&self) -> Result<Summary, ViewError> {
        Ok(self.head.root)
    }

    fn children(&self, at: Prefix, levels: u8) -> Result<Vec<Summary>, ViewError> {
        self.tree().children(at, levels).map_err(failed)
    }

    fn leaves(&self, within: Prefix, limit: usize) -> Result<Vec<Leaf>, ViewError> {
        self.snapshot.leaves_below(within, limit).map_err(failed)
    }

    fn changes_after(&self, seq: u64, limit: usize) -> Result<Vec<(u64, Leaf)>, ViewError> {
        let found = self.snapshot.changes_after(seq, limit).map_err(failed)?;
        found
            .into_iter()
            .filter_map(|(seq, key)| match self.snapshot.leaf(&key) {
                Ok(found) => found.map(|(leaf, _)| Ok((seq, leaf))),
                Err(error) => Some(Err(failed(error))),
            })
            .collect()
    }

    fn sketch(&self) -> Option<&dyn SketchView> {
        let sketch = self.sketch.as_ref().filter(|sketch| sketch.is_ready())?;
        Some(sketch)
    }
}
