//! Reading: everything a snapshot can answer. Snapshots never wait for the writer.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};

use crate::merkle::prefix::Prefix;
use crate::merkle::storage::TreeStorage;
use crate::store::content::load;
use crate::store::error::StoreError;
use crate::store::rows::{
    Agreement, ContentRow, Head, Placed, Placement, RecordRow, head_from_bytes, history_from_bytes,
    leaf_of_row, seq_of_row,
};
use crate::store::tables::{
    CHANGES, CHUNK_REFERENCES, CHUNKS, CONTENTS, HISTORY, IDS, META, NODES, PEERS, RECORDS,
    meta_names,
};
use crate::store::tree::{tree_leaves, tree_row, tree_top_rows};
use crate::types::binary::decode;
use crate::types::hash::{ChunkHash, ContentHash, StateKey};
use crate::types::id::{GameId, ReplicaId};
use crate::types::leaf::Leaf;
use crate::types::version::Version;

type HashTable = ReadOnlyTable<&'static [u8; 32], &'static [u8]>;

/// The namespace as one commit left it.
pub struct Snapshot {
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    records: HashTable,
    ids: ReadOnlyTable<&'static str, &'static [u8; 32]>,
    contents: HashTable,
    chunks: HashTable,
    chunk_references: ReadOnlyTable<&'static [u8; 32], u64>,
    history: ReadOnlyTable<(&'static [u8; 32], u64), &'static [u8]>,
    changes: ReadOnlyTable<u64, &'static [u8; 32]>,
    nodes: ReadOnlyTable<(u8, u64), &'static [u8]>,
    peers: ReadOnlyTable<u64, &'static [u8]>,
}

impl Snapshot {
    /// Opens all tables as of the transaction.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn open(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            records: transaction.open_table(RECORDS)?,
            ids: transaction.open_table(IDS)?,
            contents: transaction.open_table(CONTENTS)?,
            chunks: transaction.open_table(CHUNKS)?,
            chunk_references: transaction.open_table(CHUNK_REFERENCES)?,
            history: transaction.open_table(HISTORY)?,
            changes: transaction.open_table(CHANGES)?,
            nodes: transaction.open_table(NODES)?,
            peers: transaction.open_table(PEERS)?,
        })
    }

    /// Where the namespace stood.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn head(&self) -> Result<Head, StoreError> {
        let value = self.meta.get(meta_names::HEAD)?;
        head_from_bytes(value.as_ref().map(redb::AccessGuard::value))
    }

    /// A state's row.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn record(&self, key: &StateKey) -> Result<Option<RecordRow>, StoreError> {
        let value = self.records.get(&key.0)?;
        value
            .map(|row| RecordRow::from_bytes(*key, row.value()))
            .transpose()
    }

    /// Rows of the records below a prefix and behind `after`, in key order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn records_below(
        &self,
        at: Prefix,
        after: Option<StateKey>,
        limit: usize,
    ) -> Result<Vec<RecordRow>, StoreError> {
        let (first, last) = at.key_range();
        let from = match &after {
            Some(after) if *after >= last => return Ok(Vec::new()),
            Some(after) if *after >= first => Bound::Excluded(&after.0),
            _ => Bound::Included(&first.0),
        };
        let rows = self
            .records
            .range::<&[u8; 32]>((from, Bound::Included(&last.0)))?
            .take(limit);
        rows.map(|entry| {
            let (key, row) = entry?;
            RecordRow::from_bytes(StateKey(*key.value()), row.value())
        })
        .collect()
    }

    /// Leaves below a prefix, in key order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn leaves_below(&self, at: Prefix, limit: usize) -> Result<Vec<Leaf>, StoreError> {
        let (first, last) = at.key_range();
        let rows = self
            .records
            .range::<&[u8; 32]>(&first.0..=&last.0)?
            .take(limit);
        rows.map(|entry| {
            let (key, row) = entry?;
            leaf_of_row(StateKey(*key.value()), row.value())
        })
        .collect()
    }

    /// Keys of ids that start with `prefix`, behind `after`, in order of id, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn ids_after(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, StateKey)>, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = Vec::new();
        for entry in self
            .ids
            .range::<&str>((from, Bound::Unbounded))?
            .take(limit)
        {
            let (id, key) = entry?;
            if !id.value().starts_with(prefix) {
                break;
            }
            found.push((id.value().to_owned(), StateKey(*key.value())));
        }
        Ok(found)
    }

    /// The key of the nearest id in front of `id` within the same folder: in a series of saves,
    /// the one before.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn neighbour(&self, id: &GameId) -> Result<Option<StateKey>, StoreError> {
        let Some(entry) = self.ids.range(id.folder()..id.as_str())?.next_back() else {
            return Ok(None);
        };
        Ok(Some(StateKey(*entry?.1.value())))
    }

    /// Changes behind position `seq`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn changes_after(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, StateKey)>, StoreError> {
        let entries = self
            .changes
            .range((Bound::Excluded(seq), Bound::Unbounded))?
            .take(limit);
        entries
            .map(|entry| {
                let (seq, key) = entry?;
                Ok((seq.value(), StateKey(*key.value())))
            })
            .collect()
    }

    /// The leaf of a state, with its feed position.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn leaf(&self, key: &StateKey) -> Result<Option<(Leaf, u64)>, StoreError> {
        let Some(row) = self.records.get(&key.0)? else {
            return Ok(None);
        };
        Ok(Some((
            leaf_of_row(*key, row.value())?,
            seq_of_row(row.value())?,
        )))
    }

    /// Superseded versions that are still kept, newest change first.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn history(&self, key: &StateKey) -> Result<Vec<Placed>, StoreError> {
        let mut found = Vec::new();
        for entry in self.history.range((&key.0, 0)..=(&key.0, u64::MAX))?.rev() {
            found.extend(history_from_bytes(entry?.1.value())?);
        }
        Ok(found)
    }

    /// The bytes of a version, checked against its hash. `None` for a tombstone.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the bytes are missing or not those that were written: wrong
    /// bytes are never returned.
    pub fn content(
        &self,
        version: &Version,
        placement: &Placement,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        load(&self.contents, &self.chunks, version, placement)
    }

    /// What was last agreed with a peer.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn agreement(&self, peer: ReplicaId) -> Result<Option<Agreement>, StoreError> {
        let value = self.peers.get(peer.0)?;
        Ok(value.map(|row| decode(row.value())).transpose()?)
    }

    /// Number of records, ids and feed entries; always equal.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn counts(&self) -> Result<(u64, u64, u64), StoreError> {
        Ok((self.records.len()?, self.ids.len()?, self.changes.len()?))
    }

    /// Number of chunks and of their reference counts; always equal.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn chunk_counts(&self) -> Result<(u64, u64), StoreError> {
        Ok((self.chunks.len()?, self.chunk_references.len()?))
    }

    /// Visits every record row in key order (for checks that read everything).
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; a damaged row is handed to `visit` as an error.
    pub fn visit_records(
        &self,
        visit: &mut dyn FnMut(StateKey, Result<RecordRow, StoreError>),
    ) -> Result<(), StoreError> {
        for entry in self.records.iter()? {
            let (key, row) = entry?;
            let key = StateKey(*key.value());
            visit(key, RecordRow::from_bytes(key, row.value()));
        }
        Ok(())
    }

    /// Visits every history row in order.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; a damaged row is handed to `visit` as an error.
    pub fn visit_history(
        &self,
        visit: &mut dyn FnMut(StateKey, Result<Vec<Placed>, StoreError>),
    ) -> Result<(), StoreError> {
        for entry in self.history.iter()? {
            let (key, row) = entry?;
            visit(StateKey(*key.value().0), history_from_bytes(row.value()));
        }
        Ok(())
    }

    /// Visits every content row in order of hash.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; a damaged row is handed to `visit` as an error.
    pub fn visit_contents(
        &self,
        visit: &mut dyn FnMut(ContentHash, Result<ContentRow, StoreError>),
    ) -> Result<(), StoreError> {
        for entry in self.contents.iter()? {
            let (hash, row) = entry?;
            let hash = ContentHash(*hash.value());
            visit(hash, ContentRow::from_bytes(row.value()));
        }
        Ok(())
    }

    /// Visits every chunk's hash with its reference count; 0 when it has none.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit_chunks(&self, visit: &mut dyn FnMut(ChunkHash, u64)) -> Result<(), StoreError> {
        for entry in self.chunks.iter()? {
            let hash = *entry?.0.value();
            let references = self.chunk_references.get(&hash)?;
            visit(ChunkHash(hash), references.map_or(0, |count| count.value()));
        }
        Ok(())
    }

    /// Visits every id with its key.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit_ids(&self, visit: &mut dyn FnMut(&str, StateKey)) -> Result<(), StoreError> {
        for entry in self.ids.iter()? {
            let (id, key) = entry?;
            visit(id.value(), StateKey(*key.value()));
        }
        Ok(())
    }

    /// Visits the place and bytes of every stored Merkle row.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit_nodes(&self, visit: &mut dyn FnMut(u8, u64, &[u8])) -> Result<(), StoreError> {
        for entry in self.nodes.iter()? {
            let (at, row) = entry?;
            let (depth, bits) = at.value();
            visit(depth, bits, row.value());
        }
        Ok(())
    }
}

impl TreeStorage for Snapshot {
    type Error = StoreError;

    fn row(&self, at: Prefix) -> Result<Option<Vec<u8>>, StoreError> {
        tree_row(&self.nodes, at)
    }

    fn top_rows(&self, visit: &mut dyn FnMut(Prefix, &[u8])) -> Result<(), StoreError> {
        tree_top_rows(&self.nodes, visit)
    }

    fn leaves(&self, within: Prefix) -> Result<Vec<Leaf>, StoreError> {
        tree_leaves(&self.records, within)
    }
}
