//! Writing: the tables as one commit in the making sees and changes them.

use std::ops::Bound;
use std::sync::Arc;

use crate::merkle::prefix::Prefix;
use crate::merkle::storage::{TreeStorage, TreeStorageMut};
use crate::store::error::StoreError;
use crate::store::layer::Known;
use crate::store::layered::Layered;
use crate::store::memtable::Memtable;
use crate::store::options::StoreOptions;
use crate::store::rows::{
    Agreement, Head, Identity, Placed, RecordRow, history_from_bytes, history_to_bytes,
};
use crate::store::tables::{Changes, History, Ids, Meta, Nodes, Peers, Records, Table, meta_names};
use crate::store::tree::{tree_leaves, tree_row, tree_top_rows};
use crate::types::binary::encode;
use crate::types::cursor::Epoch;
use crate::types::hash::StateKey;
use crate::types::id::ReplicaId;
use crate::types::leaf::Leaf;
use crate::types::lineage::{Provenance, Sighting};

/// All tables, with what the commit in the making has changed. Nobody else sees the changes before
/// the commit is published.
pub struct Tables<'m> {
    rows: Layered,
    memtable: &'m Arc<Memtable>,
    commit: u64,
    options: StoreOptions,
}

impl<'m> Tables<'m> {
    /// Tables whose changes go into `memtable`, the newest of `rows`, as part of `commit`.
    pub fn new(
        rows: Layered,
        memtable: &'m Arc<Memtable>,
        commit: u64,
        options: StoreOptions,
    ) -> Self {
        Self {
            rows,
            memtable,
            commit,
            options,
        }
    }

    pub(in crate::store) fn rows(&self) -> &Layered {
        &self.rows
    }

    pub(in crate::store) fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub(in crate::store) fn set<T: Table>(&mut self, key: T::Key, row: T::Row) {
        self.memtable.set::<T>(key, Known::Row(row), self.commit);
    }

    pub(in crate::store) fn remove<T: Table>(&mut self, key: T::Key) {
        self.memtable.set::<T>(key, Known::Removed, self.commit);
    }

    /// Says where the namespace stands after this commit.
    pub fn set_head(&mut self, head: &Head) {
        self.set::<Meta>(meta_names::HEAD.to_owned(), encode(head).into());
    }

    /// A state's row as this commit sees it.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn record(&self, key: &StateKey) -> Result<Option<RecordRow>, StoreError> {
        let row = |bytes: &[u8]| RecordRow::from_bytes(*key, bytes);
        self.rows.get::<Records, _>(&key.0, row)?.transpose()
    }

    /// Puts a state's row in place of `previous` and moves the state to the end of the feed.
    pub fn put_record(&mut self, row: &RecordRow, previous: Option<&RecordRow>) {
        let key = row.leaf.key.0;
        self.set::<Records>(key, row.to_bytes().into());
        match previous {
            Some(previous) => self.remove::<Changes>(previous.seq),
            None => self.set::<Ids>(row.record.id.as_str().to_owned(), ()),
        }
        self.set::<Changes>(row.seq, key);
    }

    /// Remembers what the change at `seq` superseded, and forgets the oldest beyond the limit.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn remember(
        &mut self,
        key: &StateKey,
        seq: u64,
        superseded: &[Placed],
    ) -> Result<(), StoreError> {
        if self.options.history_versions == 0 {
            return superseded
                .iter()
                .try_for_each(|entry| self.release(&entry.version.content, &entry.placement));
        }
        self.set::<History>((key.0, seq), history_to_bytes(superseded).into());
        self.forget_oldest(key)
    }

    fn forget_oldest(&mut self, key: &StateKey) -> Result<(), StoreError> {
        let (first, last) = ((key.0, 0), (key.0, u64::MAX));
        let range = (Bound::Included(first), Bound::Included(last));
        let kept: Vec<u64> =
            self.rows
                .collect::<History, _>(range, usize::MAX, |(_, seq), _| Ok(seq))?;
        let surplus = kept.len().saturating_sub(self.options.history_versions);
        for seq in &kept[..surplus] {
            let at = (key.0, *seq);
            let removed = self.rows.get::<History, _>(&at, history_from_bytes)?;
            self.remove::<History>(at);
            for entry in removed.transpose()?.into_iter().flatten() {
                self.release(&entry.version.content, &entry.placement)?;
            }
        }
        Ok(())
    }

    /// Says what the file is from this commit on.
    pub fn set_identity(&mut self, identity: &Identity, provenance: &Provenance) {
        self.set::<Meta>(meta_names::IDENTITY.to_owned(), encode(identity).into());
        self.set::<Meta>(meta_names::PROVENANCE.to_owned(), encode(provenance).into());
    }

    /// Remembers what was seen of a replica's feed.
    pub fn set_sighting(&mut self, seen: &Sighting) {
        let name = format!("{}{}", meta_names::SEEN, seen.epoch);
        self.set::<Meta>(name, encode(seen).into());
    }

    /// Forgets what was seen of a replica's feed.
    pub fn forget_sighting(&mut self, epoch: Epoch) {
        self.remove::<Meta>(format!("{}{epoch}", meta_names::SEEN));
    }

    /// Remembers a moment at which a peer and we agreed.
    pub fn set_agreement(&mut self, peer: ReplicaId, agreement: &Agreement) {
        self.set::<Peers>(peer.0, encode(agreement).into());
    }
}

impl TreeStorage for Tables<'_> {
    type Error = StoreError;

    fn row(&self, at: Prefix) -> Result<Option<Vec<u8>>, StoreError> {
        tree_row(&self.rows, at)
    }

    fn top_rows(&self, visit: &mut dyn FnMut(Prefix, &[u8])) -> Result<(), StoreError> {
        tree_top_rows(&self.rows, visit)
    }

    fn leaves(&self, within: Prefix) -> Result<Vec<Leaf>, StoreError> {
        tree_leaves(&self.rows, within, usize::MAX)
    }
}

impl TreeStorageMut for Tables<'_> {
    fn set_row(&mut self, at: Prefix, row: &[u8]) -> Result<(), StoreError> {
        self.set::<Nodes>((at.depth(), at.bits()), row.into());
        Ok(())
    }

    fn remove_row(&mut self, at: Prefix) -> Result<(), StoreError> {
        self.remove::<Nodes>((at.depth(), at.bits()));
        Ok(())
    }
}
