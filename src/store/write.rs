//! Writing: the tables of one open transaction.

use redb::{ReadableTable, Table, WriteTransaction};

use crate::merkle::prefix::Prefix;
use crate::merkle::storage::{TreeStorage, TreeStorageMut};
use crate::store::error::StoreError;
use crate::store::options::StoreOptions;
use crate::store::rows::{
    Agreement, Head, Placed, RecordRow, head_from_bytes, history_from_bytes, history_to_bytes,
};
use crate::store::tables::{
    CHANGES, CHUNK_REFERENCES, CHUNKS, CONTENTS, HISTORY, IDS, META, NODES, PEERS, RECORDS,
    meta_names,
};
use crate::store::tree::{tree_leaves, tree_row, tree_top_rows};
use crate::types::binary::encode;
use crate::types::hash::StateKey;
use crate::types::id::ReplicaId;
use crate::types::leaf::Leaf;

type HashTable<'t> = Table<'t, &'static [u8; 32], &'static [u8]>;

/// All tables, open for writing in one transaction.
pub struct Tables<'t> {
    pub(in crate::store) options: StoreOptions,
    meta: Table<'t, &'static str, &'static [u8]>,
    records: HashTable<'t>,
    ids: Table<'t, &'static str, &'static [u8; 32]>,
    pub(in crate::store) contents: HashTable<'t>,
    pub(in crate::store) chunks: HashTable<'t>,
    pub(in crate::store) chunk_references: Table<'t, &'static [u8; 32], u64>,
    history: Table<'t, (&'static [u8; 32], u64), &'static [u8]>,
    changes: Table<'t, u64, &'static [u8; 32]>,
    nodes: Table<'t, (u8, u64), &'static [u8]>,
    peers: Table<'t, u64, &'static [u8]>,
}

impl<'t> Tables<'t> {
    /// Opens all tables of a transaction.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn open(
        transaction: &'t WriteTransaction,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            options,
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

    /// Sets a fact about the file.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn set_meta(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.meta.insert(name, value)?;
        Ok(())
    }

    /// Where the namespace stands.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn head(&self) -> Result<Head, StoreError> {
        let value = self.meta.get(meta_names::HEAD)?;
        head_from_bytes(value.as_ref().map(redb::AccessGuard::value))
    }

    /// Says where the namespace stands after this transaction.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn set_head(&mut self, head: &Head) -> Result<(), StoreError> {
        self.set_meta(meta_names::HEAD, &encode(head))
    }

    /// A state's row as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn record(&self, key: &StateKey) -> Result<Option<RecordRow>, StoreError> {
        let value = self.records.get(&key.0)?;
        value
            .map(|row| RecordRow::from_bytes(*key, row.value()))
            .transpose()
    }

    /// Puts a state's row in place of `previous` and moves the state to the end of the feed.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn put_record(
        &mut self,
        row: &RecordRow,
        previous: Option<&RecordRow>,
    ) -> Result<(), StoreError> {
        let key = &row.leaf.key.0;
        self.records.insert(key, row.to_bytes().as_slice())?;
        match previous {
            Some(previous) => {
                self.changes.remove(previous.seq)?;
            }
            None => {
                self.ids.insert(row.record.id.as_str(), key)?;
            }
        }
        self.changes.insert(row.seq, key)?;
        Ok(())
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
        let row = history_to_bytes(superseded);
        self.history.insert((&key.0, seq), row.as_slice())?;
        self.forget_oldest(key)
    }

    fn forget_oldest(&mut self, key: &StateKey) -> Result<(), StoreError> {
        let kept: Vec<u64> = self
            .history
            .range((&key.0, 0)..=(&key.0, u64::MAX))?
            .map(|entry| Ok(entry?.0.value().1))
            .collect::<Result<_, StoreError>>()?;
        let surplus = kept.len().saturating_sub(self.options.history_versions);
        for seq in &kept[..surplus] {
            let removed = match self.history.remove((&key.0, *seq))? {
                Some(row) => history_from_bytes(row.value())?,
                None => continue,
            };
            for entry in removed {
                self.release(&entry.version.content, &entry.placement)?;
            }
        }
        Ok(())
    }

    /// Remembers a moment at which a peer and we agreed.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn set_agreement(
        &mut self,
        peer: ReplicaId,
        agreement: &Agreement,
    ) -> Result<(), StoreError> {
        self.peers.insert(peer.0, encode(agreement).as_slice())?;
        Ok(())
    }
}

impl TreeStorage for Tables<'_> {
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

impl TreeStorageMut for Tables<'_> {
    fn set_row(&mut self, at: Prefix, row: &[u8]) -> Result<(), StoreError> {
        self.nodes.insert((at.depth(), at.bits()), row)?;
        Ok(())
    }

    fn remove_row(&mut self, at: Prefix) -> Result<(), StoreError> {
        self.nodes.remove((at.depth(), at.bits()))?;
        Ok(())
    }
}
