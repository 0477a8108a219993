//! Opening a namespace's file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError};

use crate::store::directory::{draft_of, unusable};
use crate::store::error::StoreError;
use crate::store::migrate::migrate;
use crate::store::options::StoreOptions;
use crate::store::read::Snapshot;
use crate::store::rows::Identity;
use crate::store::tables::{META, meta_names};
use crate::store::write::Tables;
use crate::types::binary::{decode, encode};
use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;

/// A namespace's open file. Reads come from [`Snapshot`]s, writes go through [`Store::write`].
#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
    identity: Identity,
    options: StoreOptions,
}

impl Store {
    /// Opens the file, creating it when it does not exist, and brings its schema up to date. When
    /// it cannot be created, there is none afterwards.
    ///
    /// A new file belongs to `replica` and starts its change feed as `epoch`.
    ///
    /// # Errors
    /// [`StoreError`] when the file is in use, newer than this build, damaged, of another replica
    /// or not writable.
    pub fn open(
        path: &Path,
        replica: ReplicaId,
        epoch: Epoch,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let exists = path.try_exists();
        if !exists.map_err(|source| unusable(path, source))? {
            create(path, options)?;
        }
        let database = open_database(path, options)?;
        sync_directory(path)?;
        let fresh = Identity {
            replica,
            epoch,
            incarnation: 0,
        };
        let identity = read_identity(&database)?.unwrap_or(fresh);
        if identity.replica != replica {
            return Err(StoreError::OtherReplica {
                path: path.to_path_buf(),
                owner: identity.replica,
                replica,
            });
        }
        Ok(Self {
            database,
            path: path.to_path_buf(),
            identity,
            options,
        })
    }

    /// Counts one more opening for writing, so that peers can tell lives of this file apart.
    ///
    /// # Errors
    /// [`StoreError`] when the commit fails.
    pub fn begin_incarnation(&mut self) -> Result<(), StoreError> {
        let mut identity = self.identity;
        identity.incarnation += 1;
        self.write(|tables| tables.set_meta(meta_names::IDENTITY, &encode(&identity)))?;
        self.identity = identity;
        Ok(())
    }

    /// Runs `work` in one transaction and makes it durable. When `work` fails, nothing changes.
    ///
    /// Quick-repair is always on: without it the engine reads the whole file again after a crash.
    ///
    /// # Errors
    /// Whatever `work` returns, or [`StoreError`] when the engine fails; after a failed commit
    /// the outcome is unknown until the file is opened again.
    pub fn write<R>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        let result = {
            let mut tables = Tables::open(&transaction, self.options)?;
            work(&mut tables)
        };
        match result {
            Ok(value) => {
                // Whatever the engine says here, what is on disk is not known until it is opened again.
                let committed = transaction.commit();
                committed.map_err(StoreError::commit_failed)?;
                Ok(value)
            }
            Err(error) => {
                transaction.abort()?;
                Err(error)
            }
        }
    }

    /// A consistent view of the newest commit, which later commits do not change.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Snapshot::open(&self.database.begin_read()?)
    }

    /// Which replica, feed and opening this file is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compares counts that every commit keeps equal. Cheap, whatever the size of the store.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they differ.
    pub fn check_counts(&self) -> Result<(), StoreError> {
        let snapshot = self.snapshot()?;
        let head = snapshot.head()?;
        let (records, ids, changes) = snapshot.counts()?;
        if (records, ids, changes) == (head.root.leaves, head.root.leaves, head.root.leaves) {
            return Ok(());
        }
        Err(StoreError::damaged(format!(
            "{}: the tree has {} leaves, but there are {records} records, {ids} ids and {changes} \
             feed entries",
            self.path.display(),
            head.root.leaves
        )))
    }
}

/// Makes a new file under the name of a draft, and gives it its own name once it is whole and on
/// disk. What a full disk or a crash leaves behind is then never taken for a namespace.
fn create(path: &Path, options: StoreOptions) -> Result<(), StoreError> {
    let draft = draft_of(path);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(&draft, error));
        }
        _ => {}
    }
    let made = open_database(&draft, options).and_then(|database| {
        drop(database);
        fs::File::open(&draft)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&draft, path))
            .map_err(|source| unusable(&draft, source))
    });
    if made.is_err() {
        // The next start removes it otherwise.
        let _ = fs::remove_file(&draft);
    }
    made
}

fn open_database(path: &Path, options: StoreOptions) -> Result<Database, StoreError> {
    let database = Database::builder()
        .set_cache_size(options.cache_bytes)
        .create(path)
        .map_err(|error| open_error(path, error))?;
    migrate(&database, path)?;
    Ok(database)
}

fn read_identity(database: &Database) -> Result<Option<Identity>, StoreError> {
    let table = database.begin_read()?.open_table(META)?;
    let value = table.get(meta_names::IDENTITY)?;
    Ok(value.map(|bytes| decode(bytes.value())).transpose()?)
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_path_buf();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            io::ErrorKind::InvalidData => StoreError::damaged(format!(
                "{} is not a samestate file: {source}",
                path.display()
            )),
            _ => unusable(&path, source),
        },
        DatabaseError::Storage(StorageError::Corrupted(what)) => {
            StoreError::damaged(format!("{}: {what}", path.display()))
        }
        DatabaseError::UpgradeRequired(format) => StoreError::damaged(format!(
            "{} has engine file format {format}, which this build cannot read",
            path.display()
        )),
        other => redb::Error::from(other).into(),
    }
}

/// A new file's name must be on disk too, or a power cut could take the whole file away.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| unusable(folder, source))
}
