//! Reading: everything a snapshot can answer. Snapshots never wait for the writer.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use crate::merkle::prefix::Prefix;
use crate::merkle::storage::TreeStorage;
use crate::store::content::load;
use crate::store::error::StoreError;
use crate::store::layered::Layered;
use crate::store::placement::RELEASE_CHUNKS;
use crate::store::rows::{
    Agreement, ContentBody, ContentRow, Head, Placed, Placement, RecordRow, head_from_bytes,
    history_from_bytes, leaf_of_row, seq_of_row,
};
use crate::store::tables::{
    Changes, ChunkReferences, Chunks, Contents, Deadlines, History, Ids, Meta, Nodes, Peers,
    Records, meta_names,
};
use crate::store::tree::{tree_leaves, tree_row, tree_top_rows};
use crate::types::binary::decode;
use crate::types::hash::{ChunkHash, ContentHash, StateKey};
use crate::types::id::{GameId, ReplicaId};
use crate::types::leaf::Leaf;
use crate::types::lineage::Sighting;
use crate::types::seen::Seen;
use crate::types::version::Version;

/// A record's key with its row, or what is wrong with that.
pub type KeyAndRow = (StateKey, Result<RecordRow, StoreError>);
/// What one change of a state superseded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The state.
    pub key: StateKey,
    /// The change's position in the feed.
    pub seq: u64,
    /// The versions, and where their bytes are.
    pub entries: Vec<Placed>,
}

/// Rows of history with their states; those that are damaged as errors.
pub type HistoryPage = Vec<(StateKey, Result<HistoryRow, StoreError>)>;

/// The namespace as one commit left it.
pub struct Snapshot {
    rows: Layered,
}

impl Snapshot {
    /// What these rows show.
    pub fn new(rows: Layered) -> Self {
        Self { rows }
    }

    /// Reads of the engine's files by anybody that had to wait for the disk since they were
    /// opened, about.
    pub fn slow_reads(&self) -> u64 {
        self.rows.slow_reads()
    }

    pub(in crate::store) fn rows(&self) -> &Layered {
        &self.rows
    }

    /// Where the namespace stood.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn head(&self) -> Result<Head, StoreError> {
        let head = |bytes: &[u8]| head_from_bytes(Some(bytes));
        let found = self
            .rows
            .get::<Meta, _>(&meta_names::HEAD.to_owned(), head)?;
        found.unwrap_or_else(|| head_from_bytes(None))
    }

    /// A state's row, which is what it was when it was written.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn record(&self, key: &StateKey) -> Result<Option<RecordRow>, StoreError> {
        let row = |bytes: &[u8]| RecordRow::from_bytes(*key, bytes)?.checked();
        self.rows.get::<Records, _>(&key.0, row)?.transpose()
    }

    /// True when the id is listed.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn has_id(&self, id: &GameId) -> Result<bool, StoreError> {
        let id = id.as_str().to_owned();
        Ok(self.rows.get::<Ids, _>(&id, |()| ())?.is_some())
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
            Some(after) if *after >= first => Bound::Excluded(after.0),
            _ => Bound::Included(first.0),
        };
        let range = (from, Bound::Included(last.0));
        self.rows.collect::<Records, _>(range, limit, |key, row| {
            RecordRow::from_bytes(StateKey(*key), row)
        })
    }

    /// Rows of the records behind `after`, in key order, at most `limit`; damaged ones as errors.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn records_behind(
        &self,
        after: Option<StateKey>,
        limit: usize,
    ) -> Result<Vec<KeyAndRow>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.0));
        let range = (from, Bound::Unbounded);
        self.rows.collect::<Records, _>(range, limit, |key, row| {
            let key = StateKey(*key);
            let row = RecordRow::from_bytes(key, row).and_then(RecordRow::checked);
            Ok((key, row))
        })
    }

    /// The row of a content that is shared.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn content_row(&self, hash: &ContentHash) -> Result<Option<ContentRow>, StoreError> {
        let row = self
            .rows
            .get::<Contents, _>(&hash.0, ContentRow::from_bytes)?;
        row.transpose()
    }

    /// Takes the contents that reads found damaged since this was last called.
    pub fn take_suspects(&self) -> BTreeSet<ContentHash> {
        self.rows.suspects().take()
    }

    /// Leaves below a prefix, in key order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn leaves_below(&self, at: Prefix, limit: usize) -> Result<Vec<Leaf>, StoreError> {
        tree_leaves(&self.rows, at, limit)
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
            Some(after) if after >= prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        let mut found = Vec::new();
        let range = (from, Bound::Unbounded);
        self.rows.visit::<Ids>(range, |id, ()| {
            if found.len() == limit || !id.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            found.push((id.to_owned(), StateKey::of_text(id)));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// The key of the nearest id in front of `id` within the same folder: in a series of saves,
    /// the one before.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn neighbour(&self, id: &GameId) -> Result<Option<StateKey>, StoreError> {
        let folder = Bound::Included(id.folder().to_owned());
        let before = Bound::Excluded(id.as_str().to_owned());
        let found = self.rows.last_key::<Ids>(&(folder, before))?;
        Ok(found.map(|id| StateKey::of_text(&id)))
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
        let range = (Bound::Excluded(seq), Bound::Unbounded);
        self.rows
            .collect::<Changes, _>(range, limit, |seq, key| Ok((seq, StateKey(*key))))
    }

    /// The leaf of a state, with its feed position.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn leaf(&self, key: &StateKey) -> Result<Option<(Leaf, u64)>, StoreError> {
        let leaf = |row: &[u8]| Ok((leaf_of_row(*key, row)?, seq_of_row(row)?));
        self.rows.get::<Records, _>(&key.0, leaf)?.transpose()
    }

    /// Superseded versions that are still kept, newest change first.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn history(&self, key: &StateKey) -> Result<Vec<Placed>, StoreError> {
        let rows = self.history_rows(key)?;
        Ok(rows
            .into_iter()
            .rev()
            .flat_map(|(_, entries)| entries)
            .collect())
    }

    /// What changes superseded, from the first to the last place, in order of key and change, at
    /// most `limit` changes, each with its state. A damaged row is an error in its place.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn history_between(
        &self,
        first: (StateKey, u64),
        last: (StateKey, u64),
        limit: usize,
    ) -> Result<HistoryPage, StoreError> {
        let first = Bound::Included((first.0.0, first.1));
        let last = Bound::Included((last.0.0, last.1));
        self.rows
            .collect::<History, _>((first, last), limit, |(key, seq), row| {
                let key = StateKey(*key);
                let entries = history_from_bytes(row);
                Ok((key, entries.map(|entries| HistoryRow { key, seq, entries })))
            })
    }

    /// What was taken in from others.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn seen(&self) -> Result<Seen, StoreError> {
        let name = meta_names::TAKEN_IN.to_owned();
        let found = self.rows.get::<Meta, _>(&name, decode)?;
        Ok(found.transpose()?.unwrap_or_default())
    }

    /// What is to be collected at `now` or before, and stands behind `after`: moment and key, in
    /// this order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn due(
        &self,
        now: u64,
        after: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<(u64, [u8; 32])>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Included((now, [u8::MAX; 32])));
        self.rows
            .collect::<Deadlines, _>(range, limit, |(at, key), ()| Ok((at, *key)))
    }

    /// How many rows giving up a reference to a content touches at once.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn release_cost(&self, placed: &Placed) -> Result<usize, StoreError> {
        if placed.placement != Placement::Shared {
            return Ok(0);
        }
        let row = self.intact_content_row(&placed.version.content)?;
        Ok(row.map_or(0, |row| match row.body {
            ContentBody::Chunks(list) if row.references <= 1 => {
                1 + 2 * list.len().min(RELEASE_CHUNKS)
            }
            _ => 1,
        }))
    }

    /// Chunks of a content that is being given up; none of any other.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn chunks_to_free(&self, hash: &ContentHash) -> Result<usize, StoreError> {
        let row = self.intact_content_row(hash)?;
        Ok(row.map_or(0, |row| match row.body {
            ContentBody::Chunks(list) if row.references == 0 => list.len(),
            _ => 0,
        }))
    }

    /// The row of a content; `None` when there is none, or a damaged one.
    fn intact_content_row(&self, hash: &ContentHash) -> Result<Option<ContentRow>, StoreError> {
        match self.content_row(hash) {
            Err(StoreError::Damaged(_)) => Ok(None),
            row => row,
        }
    }

    /// The rows that [`Snapshot::history`] is made of, each with the change that made it.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn history_rows(&self, key: &StateKey) -> Result<Vec<(u64, Vec<Placed>)>, StoreError> {
        let (first, last) = ((key.0, 0), (key.0, u64::MAX));
        let range = (Bound::Included(first), Bound::Included(last));
        self.rows
            .collect::<History, _>(range, usize::MAX, |(_, seq), row| {
                Ok((seq, history_from_bytes(row)?))
            })
    }

    /// Reads a packed chunk; `None` when it is missing, or `read` returns that.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn chunk<R>(
        &self,
        hash: &ChunkHash,
        read: impl FnOnce(&[u8]) -> Option<R>,
    ) -> Result<Option<R>, StoreError> {
        Ok(self.rows.get::<Chunks, _>(&hash.0, read)?.flatten())
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
        load(&self.rows, version, placement)
    }

    /// What was last agreed with a peer.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn agreement(&self, peer: ReplicaId) -> Result<Option<Agreement>, StoreError> {
        let agreement = |row: &[u8]| decode(row);
        let found = self.rows.get::<Peers, _>(&peer.0, agreement)?;
        Ok(found.transpose()?)
    }

    /// What was seen of the feeds of peers.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn sightings(&self) -> Result<Vec<Sighting>, StoreError> {
        let (first, limit) = (meta_names::SEEN.to_owned(), usize::MAX);
        let range = (Bound::Included(first), Bound::Unbounded);
        let found = self.rows.collect::<Meta, _>(range, limit, |name, row| {
            let is_one = name.starts_with(meta_names::SEEN);
            Ok(is_one.then(|| decode::<Sighting>(row)).transpose()?)
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Visits what was last agreed with each peer.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; a damaged row is handed to `visit` as an error.
    pub fn visit_agreements(
        &self,
        visit: &mut dyn FnMut(ReplicaId, Result<Agreement, StoreError>),
    ) -> Result<(), StoreError> {
        self.rows.visit_all::<Peers>(&mut |peer, row| {
            visit(ReplicaId(peer), decode(row).map_err(StoreError::from));
        })
    }

    /// Visits every record row in key order (for checks that read everything).
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; a damaged row is handed to `visit` as an error.
    pub fn visit_records(
        &self,
        visit: &mut dyn FnMut(StateKey, Result<RecordRow, StoreError>),
    ) -> Result<(), StoreError> {
        self.rows.visit_all::<Records>(&mut |key, row| {
            let key = StateKey(*key);
            visit(key, RecordRow::from_bytes(key, row));
        })
    }

    /// Visits every history row in order.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; a damaged row is handed to `visit` as an error.
    pub fn visit_history(
        &self,
        visit: &mut dyn FnMut(StateKey, Result<Vec<Placed>, StoreError>),
    ) -> Result<(), StoreError> {
        self.rows.visit_all::<History>(&mut |key, row| {
            visit(StateKey(*key.0), history_from_bytes(row));
        })
    }

    /// Visits every entry of the list of what is to be collected when.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit_deadlines(&self, visit: &mut dyn FnMut(u64, &[u8; 32])) -> Result<(), StoreError> {
        self.rows
            .visit_all::<Deadlines>(&mut |(at, key), ()| visit(at, key))
    }

    /// Visits every content row in order of hash.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; a damaged row is handed to `visit` as an error.
    pub fn visit_contents(
        &self,
        visit: &mut dyn FnMut(ContentHash, Result<ContentRow, StoreError>),
    ) -> Result<(), StoreError> {
        self.rows.visit_all::<Contents>(&mut |hash, row| {
            visit(ContentHash(*hash), ContentRow::from_bytes(row));
        })
    }

    /// Visits every chunk's hash with its packed bytes.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit_chunks(&self, visit: &mut dyn FnMut(ChunkHash, &[u8])) -> Result<(), StoreError> {
        self.rows
            .visit_all::<Chunks>(&mut |hash, packed| visit(ChunkHash(*hash), packed))
    }

    /// Visits the reference count of every chunk.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit_chunk_references(
        &self,
        visit: &mut dyn FnMut(ChunkHash, u64),
    ) -> Result<(), StoreError> {
        self.rows
            .visit_all::<ChunkReferences>(&mut |hash, count| visit(ChunkHash(*hash), count))
    }

    /// Visits every id with its key.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit_ids(&self, visit: &mut dyn FnMut(&str, StateKey)) -> Result<(), StoreError> {
        self.rows
            .visit_all::<Ids>(&mut |id, ()| visit(id, StateKey::of_text(id)))
    }

    /// Visits the place and bytes of every stored Merkle row.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit_nodes(&self, visit: &mut dyn FnMut(u8, u64, &[u8])) -> Result<(), StoreError> {
        self.rows
            .visit_all::<Nodes>(&mut |(depth, bits), row| visit(depth, bits, row))
    }
}

impl TreeStorage for Snapshot {
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
