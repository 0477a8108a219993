//! A namespace on disk: opening it, changing it, and moving what the log holds into its file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::checkpoint::{Flushed, Frozen};
use crate::store::claim::Claim;
use crate::store::cut::Cut;
use crate::store::directory::unusable;
use crate::store::disk::{Disk, MachineDisk};
use crate::store::engine_files::{EngineFiles, OnDamage};
use crate::store::error::StoreError;
use crate::store::guard::guarded;
use crate::store::layered::Layered;
use crate::store::log::place::{LogPlace, LogPosition};
use crate::store::memtable::Memtable;
use crate::store::open_file::{check_not_empty, create};
use crate::store::options::StoreOptions;
use crate::store::read::Snapshot;
use crate::store::rows::Identity;
use crate::store::shards::EngineTables;
use crate::store::suspects::Suspects;
use crate::store::tables::{Changes, Ids, Meta, Records, meta_names};
use crate::store::write::Tables;
use crate::types::binary::decode;
use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;
use crate::types::lineage::{Opening, Provenance};

/// A namespace's open file, with the rows that only the log and memory have in front of it. Reads
/// come from [`Snapshot`]s, changes go through [`Store::change`].
pub struct Store {
    disk: Arc<dyn Disk>,
    tables: Arc<EngineTables>,
    /// Newest first; the first one takes the changes.
    memtables: Vec<Arc<Memtable>>,
    commit: u64,
    /// The newest commit in the frozen memtable, if there is one.
    frozen_at: u64,
    path: PathBuf,
    identity: Identity,
    provenance: Arc<Provenance>,
    options: StoreOptions,
    suspects: Arc<Suspects>,
}

impl Store {
    /// Opens the file on the machine's disk, see [`Store::open_on`].
    ///
    /// # Errors
    /// As for [`Store::open_on`].
    pub fn open(
        path: &Path,
        replica: ReplicaId,
        epoch: Epoch,
        options: StoreOptions,
    ) -> Result<(Self, EngineFiles), StoreError> {
        Self::open_on(Arc::new(MachineDisk), path, replica, epoch, options)
    }

    /// Opens the file, creating it when it does not exist, and brings its schema up to date. When
    /// it cannot be created, there is none afterwards. What the log holds is not read.
    ///
    /// A new file belongs to `replica` and starts its change feed as `epoch`.
    ///
    /// # Errors
    /// [`StoreError`] when the file is newer than this build, damaged, of another replica or not
    /// writable.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        replica: ReplicaId,
        epoch: Epoch,
        options: StoreOptions,
    ) -> Result<(Self, EngineFiles), StoreError> {
        Self::open_as(disk, path, &Claim::plain(replica, epoch), options)
    }

    /// As [`Store::open_on`], for a file that may have belonged to the replica under another id.
    ///
    /// # Errors
    /// As for [`Store::open_on`].
    pub fn open_as(
        disk: Arc<dyn Disk>,
        path: &Path,
        claim: &Claim,
        options: StoreOptions,
    ) -> Result<(Self, EngineFiles), StoreError> {
        Self::open_with(disk, path, claim, options, OnDamage::Refuse)
    }

    /// As [`Store::open_as`], without what is damaged, if that is asked for.
    ///
    /// # Errors
    /// As for [`Store::open_on`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        path: &Path,
        claim: &Claim,
        options: StoreOptions,
        damage: OnDamage,
    ) -> Result<(Self, EngineFiles), StoreError> {
        let fresh = Identity {
            replica: claim.replica,
            epoch: claim.fresh,
            incarnation: 0,
        };
        match disk.open(path, false) {
            Ok(file) => check_not_empty(&*file, path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(&disk, path, &fresh, options)?;
            }
            Err(source) => return Err(unusable(path, source)),
        }
        let file = EngineFiles::open(&disk, path, options, damage)?;
        let tables = file.tables()?;
        let (identity, provenance) = guarded(|| {
            let meta = tables.table_of::<Meta>(&String::new());
            let identity = meta.get(meta_names::IDENTITY)?;
            let identity = identity.map(|bytes| decode::<Identity>(bytes.value()));
            let provenance = meta.get(meta_names::PROVENANCE)?;
            let provenance = provenance.map(|bytes| decode::<Provenance>(bytes.value()));
            Ok::<_, StoreError>((identity.transpose()?, provenance.transpose()?))
        })?;
        let unnamed = || StoreError::damaged("the file does not say whose it is");
        let identity = identity.ok_or_else(unnamed)?;
        if !claim.covers(identity.replica) {
            return Err(StoreError::OtherReplica {
                path: path.to_path_buf(),
                owner: identity.replica,
                replica: claim.replica,
            });
        }
        let provenance = provenance.unwrap_or_else(|| Provenance::unknown(identity.epoch));
        let mut store = Self {
            disk,
            tables: Arc::new(tables),
            memtables: vec![Arc::default()],
            commit: 0,
            frozen_at: 0,
            path: path.to_path_buf(),
            identity,
            provenance: Arc::new(provenance),
            options,
            suspects: Arc::default(),
        };
        store.commit = store.snapshot().head()?.log.commit;
        Ok((store, file))
    }

    /// Counts one more opening for writing, which begins behind position `seq` of the feed, so that
    /// peers can tell lives of this file apart. A file that is a copy gets a life of the feed of
    /// its own; true then. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`] when the commit fails.
    pub fn begin_incarnation(
        &mut self,
        file: &mut EngineFiles,
        claim: &Claim,
        seq: u64,
    ) -> Result<bool, StoreError> {
        let (mut identity, mut provenance) = (self.identity, (*self.provenance).clone());
        let is_copy = identity.incarnation > 0 && claim.renews(&provenance.lineage);
        if is_copy {
            identity.epoch = claim.fresh;
        }
        if identity.replica != claim.replica {
            provenance.give_up_name(identity.replica);
            identity.replica = claim.replica;
        }
        identity.incarnation += 1;
        provenance.lineage.begin(Opening {
            id: claim.fresh.0,
            epoch: identity.epoch,
            first: seq,
        });
        let flushed = file.set_identity(&identity, &provenance)?;
        self.adopt(identity, Arc::new(provenance));
        self.tables = flushed.tables;
        Ok(is_copy)
    }

    /// Takes note of what the file is from now on.
    pub fn adopt(&mut self, identity: Identity, provenance: Arc<Provenance>) {
        self.identity = identity;
        self.provenance = provenance;
    }

    /// The commit that the next change will be.
    pub fn next_commit(&self) -> u64 {
        self.commit + 1
    }

    /// Changes rows in memory as the next commit. When `work` fails, nothing has changed.
    ///
    /// # Errors
    /// Whatever `work` returns.
    pub fn change<R>(
        &mut self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let commit = self.next_commit();
        let rows = self.rows_at(commit);
        let mut tables = Tables::new(rows, &self.memtables[0], commit, self.options);
        let changed = work(&mut tables);
        match &changed {
            Ok(_) => self.commit = commit,
            Err(_) => self.memtables[0].roll_back(commit),
        }
        changed
    }

    /// Takes note of a commit that is known not to have been carried out.
    pub fn skip_commit(&mut self) {
        self.commit += 1;
    }

    /// Lets the next change be numbered behind `commit`, whatever was changed so far.
    pub fn go_on_behind(&mut self, commit: u64) {
        self.commit = self.commit.max(commit);
    }

    /// Takes back every commit behind `commit`, none of which may be on its way into the file.
    pub fn roll_back_to(&mut self, commit: u64) {
        for memtable in &self.memtables {
            memtable.roll_back(commit + 1);
        }
        self.commit = commit;
        self.frozen_at = self.frozen_at.min(commit);
    }

    /// Bytes of memory taken by rows that the engine's file does not have and that no checkpoint
    /// has taken yet.
    pub fn pending_bytes(&self) -> usize {
        self.memtables[0].bytes()
    }

    /// True while a checkpoint is on its way.
    pub fn is_freezing(&self) -> bool {
        self.memtables.len() > 1
    }

    /// Begins a checkpoint of everything up to now. `None` while another one is on its way.
    pub fn freeze(&mut self) -> Option<Frozen> {
        if self.is_freezing() {
            return None;
        }
        self.memtables.insert(0, Arc::default());
        self.frozen_at = self.commit;
        self.frozen()
    }

    /// The rows of the checkpoint that is on its way, to begin it anew.
    pub fn frozen(&self) -> Option<Frozen> {
        let memtable = self.memtables.get(1)?;
        Some(Frozen {
            memtable: Arc::clone(memtable),
            changes: memtable.rows::<Records>() as u64,
            position: LogPosition {
                commit: self.frozen_at,
                segment: 0,
            },
        })
    }

    /// Takes note that a checkpoint has ended, or that the file was opened again.
    pub fn flushed(&mut self, flushed: &Flushed) {
        self.tables = Arc::clone(&flushed.tables);
        if self.is_freezing() && flushed.commit() >= self.frozen_at {
            self.memtables.truncate(1);
        }
    }

    /// A consistent view of the newest commit, which later commits do not change.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.rows_at(self.commit))
    }

    fn rows_at(&self, commit: u64) -> Layered {
        let (tables, suspects) = (Arc::clone(&self.tables), Arc::clone(&self.suspects));
        Layered::new(tables, self.memtables.clone(), commit, suspects)
    }

    /// Which replica, feed and opening this file is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where the file comes from.
    pub fn provenance(&self) -> &Arc<Provenance> {
        &self.provenance
    }

    /// Into how many shards it is cut.
    pub fn cut(&self) -> Cut {
        self.tables.cut()
    }

    /// Rows that are in the file of another shard than theirs, by the name of their table.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn misplaced_rows(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        self.tables.misplaced_rows()
    }

    /// How it keeps its data.
    pub fn options(&self) -> StoreOptions {
        self.options
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log is.
    pub fn log_place(&self) -> LogPlace {
        LogPlace::beside(&self.path, Arc::clone(&self.disk), self.provenance.log)
    }

    /// Compares counts that every checkpoint keeps equal. Cheap, whatever the size of the store.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they differ.
    pub fn check_counts(&self) -> Result<(), StoreError> {
        let (tables, suspects) = (Arc::clone(&self.tables), Arc::clone(&self.suspects));
        let engine = Layered::new(tables, Vec::new(), 0, suspects);
        let engine = Snapshot::new(engine);
        let leaves = engine.head()?.root.leaves;
        let (records, ids, changes) = guarded(|| {
            let records = self.tables.rows::<Records>()?;
            let ids = self.tables.rows::<Ids>()?;
            Ok::<_, StoreError>((records, ids, self.tables.rows::<Changes>()?))
        })?;
        if (records, ids, changes) == (leaves, leaves, leaves) {
            return engine.check_root_log_size();
        }
        Err(StoreError::damaged(format!(
            "{}: the tree has {leaves} leaves, but there are {records} records, {ids} ids and \
             {changes} feed entries",
            self.path.display(),
        )))
    }
}
