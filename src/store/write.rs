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
    Agreement, Head, Identity, Placed, Placement, RecordRow, history_from_bytes, history_to_bytes,
};
use crate::store::tables::{
    Changes, Deadlines, History, Ids, Meta, Nodes, Peers, Records, Table, meta_names,
};
use crate::store::tree::{tree_leaves, tree_row, tree_top_rows};
use crate::types::binary::{decode, encode};
use crate::types::cursor::Epoch;
use crate::types::hash::StateKey;
use crate::types::id::ReplicaId;
use crate::types::leaf::Leaf;
use crate::types::lineage::{Provenance, Sighting};
use crate::types::seen::Seen;

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
        self.move_deadline(row, previous);
    }

    fn move_deadline(&mut self, row: &RecordRow, previous: Option<&RecordRow>) {
        let (key, due) = (row.leaf.key.0, row.due());
        let was = previous.and_then(RecordRow::due);
        if due == was {
            return;
        }
        if let Some(was) = was {
            self.remove::<Deadlines>((was, key));
        }
        if let Some(due) = due {
            self.set::<Deadlines>((due, key), ());
        }
    }

    /// Removes everything there is of a state.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn remove_record(&mut self, row: &RecordRow) -> Result<(), StoreError> {
        let key = row.leaf.key;
        self.trim_history(&key, u64::MAX)?;
        for (version, placement) in row.placed() {
            self.release(&version.content, placement)?;
        }
        self.remove::<Records>(key.0);
        self.remove::<Ids>(row.record.id.as_str().to_owned());
        self.remove::<Changes>(row.seq);
        if let Some(due) = row.due() {
            self.remove::<Deadlines>((due, key.0));
        }
        Ok(())
    }

    /// Gives up the bytes of a state's versions that expired at `by` or before, and forgets the
    /// oldest part of its history as far as it is of such versions. Those behind another one stay:
    /// without them that one would seem to have been shown at their time.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn strip(&mut self, row: &RecordRow, by: u64) -> Result<RecordRow, StoreError> {
        let mut stripped = row.clone();
        for (version, place) in row.record.versions().iter().zip(&mut stripped.placements) {
            if version.has_expired(by) {
                self.release(&version.content, place)?;
                *place = Placement::Nothing;
            }
        }
        let key = row.leaf.key;
        self.set::<Records>(key.0, stripped.to_bytes().into());
        self.move_deadline(&stripped, Some(row));
        for (seq, entries) in self.history(&key, u64::MAX)? {
            if !entries.iter().all(|entry| entry.version.has_expired(by)) {
                break;
            }
            self.remove::<History>((key.0, seq));
            self.release_all(&entries)?;
        }
        Ok(stripped)
    }

    /// Forgets what the changes of a state up to `through` superseded.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn trim_history(&mut self, key: &StateKey, through: u64) -> Result<(), StoreError> {
        for (seq, entries) in self.history(key, through)? {
            self.remove::<History>((key.0, seq));
            self.release_all(&entries)?;
        }
        Ok(())
    }

    fn release_all(&mut self, entries: &[Placed]) -> Result<(), StoreError> {
        let mut entries = entries.iter();
        entries.try_for_each(|entry| self.release(&entry.version.content, &entry.placement))
    }

    /// What each change of a state up to `through` superseded, oldest first.
    fn history(&self, key: &StateKey, through: u64) -> Result<Vec<(u64, Vec<Placed>)>, StoreError> {
        let (first, last) = ((key.0, 0), (key.0, through));
        let range = (Bound::Included(first), Bound::Included(last));
        self.rows
            .collect::<History, _>(range, usize::MAX, |(_, seq), row| {
                Ok((seq, history_from_bytes(row)?))
            })
    }

    /// What was taken in from others, as this commit sees it.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn seen(&self) -> Result<Seen, StoreError> {
        let name = meta_names::TAKEN_IN.to_owned();
        let found = self.rows.get::<Meta, _>(&name, decode)?;
        Ok(found.transpose()?.unwrap_or_default())
    }

    /// Says what was taken in from others.
    pub fn set_seen(&mut self, seen: &Seen) {
        self.set::<Meta>(meta_names::TAKEN_IN.to_owned(), encode(seen).into());
    }

    /// Remembers what the change at `seq` superseded, and forgets the oldest beyond the bounds.
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
            return self.release_all(superseded);
        }
        self.set::<History>((key.0, seq), history_to_bytes(superseded).into());
        self.forget_oldest(key)
    }

    fn forget_oldest(&mut self, key: &StateKey) -> Result<(), StoreError> {
        let (first, last) = ((key.0, 0), (key.0, u64::MAX));
        let range = (Bound::Included(first), Bound::Included(last));
        let (mut changes, mut bytes) = (0, 0u64);
        let bound = self.options.history_bytes;
        let sizes: Vec<(u64, u64)> =
            self.rows
                .collect::<History, _>(range, usize::MAX, |(_, seq), row| {
                    // Rows need not be read to be counted.
                    let entries = bound.map(|_| history_from_bytes(row)).transpose()?;
                    let sizes = entries.iter().flatten().map(|entry| entry.version.size);
                    Ok((seq, sizes.fold(0, u64::saturating_add)))
                })?;
        let surplus = sizes.iter().rev().find(|(_, size)| {
            changes += 1;
            bytes = bytes.saturating_add(*size);
            changes > self.options.history_versions || bound.is_some_and(|bound| bytes > bound)
        });
        match surplus {
            Some((through, _)) => self.trim_history(key, *through),
            None => Ok(()),
        }
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
