//! What is left of a damaged file: rows that its tables still lead to, and behind them whatever
//! stands in its pages. Nothing is handed out that does not have its hash.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::delta::compress::unpack;
use crate::store::claim::Claim;
use crate::store::disk::{Disk, DiskFile};
use crate::store::engine_files::{EngineFiles, OnDamage};
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::options::StoreOptions;
use crate::store::overlay::Overlay;
use crate::store::pages::Pages;
use crate::store::read::Snapshot;
use crate::store::rows::{
    Agreement, ContentBody, ContentRow, Head, Identity, Placed, Placement, RecordRow,
};
use crate::store::shard_set::shard_files;
use crate::store::stage::ChunkEntry;
use crate::types::hash::{ChunkHash, ContentHash, StateKey};
use crate::types::id::ReplicaId;
use crate::types::lineage::{Provenance, Sighting};
use crate::types::seen::Seen;
use crate::types::version::Version;

/// Memory for pages of each of the two files of a repair, in bytes. Rows are read once, so more does not help.
pub const REPAIR_CACHE_BYTES: usize = 32 << 20;

/// What is left of a damaged file.
pub struct Remains {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// The tables, when the engine opens the file.
    tables: Option<Tables>,
    pages: OnceCell<Option<Pages>>,
    /// Chunks that stand elsewhere, packed.
    elsewhere: HashMap<ChunkHash, Bytes>,
}

struct Tables {
    snapshot: Snapshot,
    identity: Identity,
    provenance: Provenance,
    _file: EngineFiles,
}

/// A record that is left.
pub struct Saved {
    /// The record.
    pub row: RecordRow,
    /// True when the change feed says that this is the newest record of its state.
    pub is_listed: bool,
    /// True when a newer one may have been lost.
    pub may_be_old: bool,
}

impl Remains {
    /// Opens what is left, without changing it.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails, or the file is not one that this replica and build may
    /// use. Damage is none.
    pub fn open(disk: &Arc<dyn Disk>, path: &Path, claim: &Claim) -> Result<Self, StoreError> {
        let overlay = Arc::new(Overlay::new(Arc::clone(disk)));
        let options = StoreOptions {
            cache_bytes: REPAIR_CACHE_BYTES,
            ..StoreOptions::default()
        };
        let opened = Store::open_with(overlay, path, claim, options, OnDamage::LeaveOut);
        let tables = match opened {
            Ok((store, file)) => Some(Tables {
                snapshot: store.snapshot(),
                identity: store.identity(),
                provenance: (**store.provenance()).clone(),
                _file: file,
            }),
            Err(StoreError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            disk: Arc::clone(disk),
            path: path.to_path_buf(),
            tables,
            pages: OnceCell::new(),
            elsewhere: HashMap::new(),
        })
    }

    /// Adds chunks that are not in the file, packed, to where bytes are looked for.
    pub fn add_chunks(&mut self, chunks: HashMap<ChunkHash, Bytes>) {
        self.elsewhere.extend(chunks);
    }

    /// What was taken in from others, as far as the file says so.
    pub fn taken_in(&self) -> Seen {
        let seen = self.tables.as_ref().map(|tables| tables.snapshot.seen());
        seen.and_then(Result::ok).unwrap_or_default()
    }

    /// What the file is, if it says so.
    pub fn identity(&self) -> Option<Identity> {
        self.tables.as_ref().map(|tables| tables.identity)
    }

    /// Where the file comes from, if it says so.
    pub fn provenance(&self) -> Option<&Provenance> {
        self.tables.as_ref().map(|tables| &tables.provenance)
    }

    /// What was seen of the feeds of peers.
    pub fn sightings(&self) -> Vec<Sighting> {
        let seen = self
            .snapshot()
            .and_then(|snapshot| snapshot.sightings().ok());
        seen.unwrap_or_default()
    }

    /// Where the namespace stood, if the file says so in a way that can be believed.
    pub fn head(&self) -> Option<Head> {
        let head = self.snapshot()?.head().ok()?;
        let behind = self.snapshot()?.changes_after(head.seq, 1).ok()?;
        behind.is_empty().then_some(head)
    }

    /// What was agreed with peers.
    pub fn agreements(&self) -> Vec<(ReplicaId, Agreement)> {
        let mut agreements = Vec::new();
        if let Some(snapshot) = self.snapshot() {
            // What cannot be read of them costs the next session a comparison.
            let _ = snapshot.visit_agreements(&mut |peer, agreement| {
                agreements.extend(agreement.ok().map(|agreement| (peer, agreement)));
            });
        }
        agreements
    }

    /// The file's tables, when the engine opens them.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.tables.as_ref().map(|tables| &tables.snapshot)
    }

    /// All files of the namespace that can be opened, those of sets of before among them.
    fn files(&self) -> Vec<Arc<dyn DiskFile>> {
        let others = shard_files(&*self.disk, &self.path).unwrap_or_default();
        let paths = std::iter::once(&self.path).chain(&others);
        paths
            .filter_map(|path| self.disk.open(path, false).ok())
            .collect()
    }

    fn pages(&self) -> Option<&Pages> {
        let scan = || Pages::scan(&self.files()).ok();
        self.pages.get_or_init(scan).as_ref()
    }

    /// Visits the record of every state, each once.
    ///
    /// # Errors
    /// The first that `visit` returns.
    pub fn records(
        &self,
        visit: &mut dyn FnMut(Saved) -> Result<(), StoreError>,
    ) -> Result<HashSet<StateKey>, StoreError> {
        let mut seen = HashSet::new();
        let mut outcome = Ok(());
        let mut has_all = false;
        if let Some(snapshot) = self.snapshot() {
            let read = snapshot.visit_records(&mut |key, row| {
                let row = row.and_then(RecordRow::checked);
                if let (Ok(row), Ok(())) = (row, &outcome) {
                    seen.insert(key);
                    outcome = visit(Saved {
                        is_listed: self.is_listed(&row),
                        may_be_old: false,
                        row,
                    });
                }
            });
            outcome?;
            has_all = read.is_ok() && self.lists(seen.len());
        }
        if has_all {
            return Ok(seen);
        }
        let ids = self.ids();
        for key in self.pages().iter().flat_map(|pages| pages.keys()) {
            let is_known = ids.as_ref().is_none_or(|ids| ids.contains(&key));
            if !is_known || seen.contains(&key) {
                continue;
            }
            if let Some(row) = self.pages().and_then(|pages| pages.records(key).next()) {
                seen.insert(key);
                let is_listed = self.is_listed(&row);
                visit(Saved {
                    row,
                    is_listed,
                    may_be_old: !is_listed,
                })?;
            }
        }
        Ok(seen)
    }

    /// True when the listing has as many ids.
    fn lists(&self, count: usize) -> bool {
        self.ids().is_some_and(|ids| ids.len() == count)
    }

    /// The keys of all ids; `None` when they cannot all be read.
    fn ids(&self) -> Option<HashSet<StateKey>> {
        let mut ids = HashSet::new();
        let visited = self.visit_ids(&mut |_, key| {
            ids.insert(key);
        });
        visited.then_some(ids)
    }

    /// Visits the ids that can be read; true when these are all.
    pub fn visit_ids(&self, visit: &mut dyn FnMut(&str, StateKey)) -> bool {
        let visited = self.snapshot().map(|snapshot| snapshot.visit_ids(visit));
        visited.is_some_and(|visited| visited.is_ok())
    }

    fn is_listed(&self, row: &RecordRow) -> bool {
        let entry = self
            .snapshot()
            .and_then(|snapshot| snapshot.changes_after(row.seq.checked_sub(1)?, 1).ok());
        entry.is_some_and(|entry| entry.first() == Some(&(row.seq, row.leaf.key)))
    }

    /// The superseded versions of a state, with the changes that superseded them.
    pub fn history(&self, key: StateKey) -> Vec<(u64, Vec<Placed>)> {
        let rows = self
            .snapshot()
            .filter(|snapshot| snapshot.leaf(&key).is_ok_and(|leaf| leaf.is_some()))
            .and_then(|snapshot| snapshot.history_rows(&key).ok());
        rows.unwrap_or_else(|| {
            let found = self
                .pages()
                .into_iter()
                .flat_map(|pages| pages.history(key));
            found.collect()
        })
    }

    /// The bytes of a version of a state, if they are still anywhere.
    pub fn content(
        &self,
        key: StateKey,
        version: &Version,
        placement: &Placement,
    ) -> Option<Vec<u8>> {
        let loaded = self
            .snapshot()
            .map(|snapshot| snapshot.content(version, placement));
        match loaded {
            Some(Ok(bytes)) => bytes,
            _ => self.content_of_pages(key, version, placement),
        }
    }

    /// The lists of chunks that a version's bytes may have, the likeliest first.
    pub fn chunk_lists(&self, version: &Version, placement: &Placement) -> Vec<Vec<ChunkEntry>> {
        let listed = self.snapshot().map(|s| s.chunks_of(version, placement));
        let listed = listed.and_then(Result::ok).flatten();
        let in_pages = || {
            self.pages()
                .into_iter()
                .flat_map(|p| p.rows(&version.content.0))
        };
        let list = |row: Vec<u8>| match ContentRow::from_bytes(&row).ok()?.body {
            ContentBody::Chunks(list) => Some(list),
            ContentBody::Packed(_) => None,
        };
        let of_length = |list: &Vec<ChunkEntry>| {
            let lengths = list.iter().map(|(_, length)| u64::from(*length));
            lengths.fold(0, u64::saturating_add) == version.size
        };
        match listed {
            Some(list) => vec![list],
            None => in_pages().filter_map(list).filter(of_length).collect(),
        }
    }

    fn content_of_pages(
        &self,
        key: StateKey,
        version: &Version,
        placement: &Placement,
    ) -> Option<Vec<u8>> {
        let hash = version.content;
        let size = usize::try_from(version.size).ok()?;
        let whole = |bytes: Vec<u8>| ContentHash::of(&bytes).matches(&hash).then_some(bytes);
        let inline = |placed: &Placement| match placed {
            Placement::Inline(packed) => unpack(packed, size).ok().and_then(whole),
            _ => None,
        };
        if let Some(bytes) = inline(placement) {
            return Some(bytes);
        }
        let pages = self.pages()?;
        let shared = |row: Vec<u8>| match ContentRow::from_bytes(&row).ok()?.body {
            ContentBody::Packed(packed) => unpack(&packed, size).ok().and_then(whole),
            ContentBody::Chunks(list) => self.join(&list, size).and_then(whole),
        };
        if let Some(bytes) = pages.rows(&hash.0).find_map(shared) {
            return Some(bytes);
        }
        let same = |held: &Version| held.content == hash;
        pages.records(key).find_map(|row| {
            let placed = row.placed().find(|(held, _)| same(held))?;
            inline(placed.1)
        })
    }

    fn join(&self, list: &[(ChunkHash, u32)], size: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for (hash, length) in list {
            bytes.extend(self.chunk(*hash, *length)?);
            if bytes.len() > size {
                return None;
            }
        }
        Some(bytes)
    }

    /// The bytes of a chunk, which have its hash, if they are still anywhere.
    pub fn chunk(&self, hash: ChunkHash, length: u32) -> Option<Vec<u8>> {
        let whole = |packed: &[u8]| {
            let bytes = unpack(packed, length as usize).ok()?;
            ChunkHash::of(&bytes).matches(&hash).then_some(bytes)
        };
        let stored = self.snapshot().map(|snapshot| snapshot.chunk(&hash, whole));
        if let Some(Ok(Some(bytes))) = stored {
            return Some(bytes);
        }
        let elsewhere = self.elsewhere.get(&hash);
        if let Some(bytes) = elsewhere.and_then(|packed| whole(packed)) {
            return Some(bytes);
        }
        self.pages()?.rows(&hash.0).find_map(|row| whole(&row))
    }
}
