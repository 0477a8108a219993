//! Making and opening a namespace's file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{DatabaseError, StorageError, WriteTransaction};

use crate::store::backend::OpenFile;
use crate::store::checkpoint::begin_durable;
use crate::store::directory::{draft_of, dropped_of, unusable};
use crate::store::disk::{Disk, DiskFile};
use crate::store::error::{ENDS_EARLY, StoreError};
use crate::store::guard::guarded;
use crate::store::log::place::LogPlace;
use crate::store::migrate::migrate;
use crate::store::options::StoreOptions;
use crate::store::rows::Identity;
use crate::store::shard_set::{remove_stale, shard_files};
use crate::store::tables::{Meta, Table, meta_names};
use crate::types::binary::encode;
use crate::types::cursor::Epoch;
use crate::types::lineage::Provenance;

/// Writes what the file is.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn set_identity(
    transaction: &WriteTransaction,
    identity: &Identity,
    provenance: &Provenance,
) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(Meta::DEFINITION)?;
    meta.insert(meta_names::IDENTITY, encode(identity).as_slice())?;
    meta.insert(meta_names::PROVENANCE, encode(provenance).as_slice())?;
    Ok(())
}

/// Makes a new file under the name of a draft, and gives it its own name once it is whole and on
/// disk. What a full disk or a crash leaves behind is then never taken for a namespace.
///
/// # Errors
/// [`StoreError`] when it cannot be made.
pub fn create(
    disk: &Arc<dyn Disk>,
    path: &Path,
    identity: &Identity,
    options: StoreOptions,
) -> Result<(), StoreError> {
    refuse_orphans(disk, path, identity.epoch)?;
    let draft = draft_of(path);
    match disk.remove(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(&draft, error));
        }
        _ => {}
    }
    let made = make_draft(&**disk, &draft, identity, options).and_then(|()| {
        let named = disk.rename(&draft, path);
        named.map_err(|source| unusable(&draft, source))
    });
    if made.is_err() {
        // The next start removes it otherwise.
        let _ = disk.remove(&draft);
    }
    made
}

/// A file that is missing while its log or shards are there was lost, unless the namespace was
/// dropped.
fn refuse_orphans(disk: &Arc<dyn Disk>, path: &Path, epoch: Epoch) -> Result<(), StoreError> {
    let log = LogPlace::beside(path, Arc::clone(disk), epoch);
    let dropped = dropped_of(path);
    if disk.open(&dropped, false).is_ok() {
        log.remove_all()?;
        remove_stale(&**disk, path, &[]);
        let removed = disk.remove(&dropped);
        return removed.map_err(|source| unusable(&dropped, source));
    }
    let segments = log.numbers();
    let segments = segments.map_err(|source| unusable(&log.folder, source))?;
    let left = match (segments.is_empty(), shard_files(&**disk, path)?.is_empty()) {
        (true, true) => return Ok(()),
        (false, _) => "log is",
        (true, false) => "shards are",
    };
    let what = format!("it is missing, but its {left} there; put it back");
    Err(StoreError::damaged(what).of_file(path))
}

fn make_draft(
    disk: &dyn Disk,
    draft: &Path,
    identity: &Identity,
    options: StoreOptions,
) -> Result<(), StoreError> {
    let file = disk.open(draft, true);
    let file = file.map_err(|source| unusable(draft, source))?;
    let opened = open_database(disk, draft, options)?;
    let transaction = begin_durable(&opened.database)?;
    set_identity(&transaction, identity, &Provenance::new(identity.epoch))?;
    transaction.commit()?;
    drop(opened);
    file.sync().map_err(|source| unusable(draft, source))
}

/// Opens the engine's file and brings its schema up to date.
///
/// # Errors
/// [`StoreError`] as for [`Store::open_on`].
pub fn open_database(
    disk: &dyn Disk,
    path: &Path,
    options: StoreOptions,
) -> Result<OpenFile, StoreError> {
    let file = disk.open(path, false);
    let file = file.map_err(|source| unusable(path, source))?;
    let opened = guarded(|| {
        let opened = OpenFile::open(file, options.cache_bytes);
        let opened = opened.map_err(|error| open_error(path, error))?;
        migrate(&opened.database, path)?;
        Ok::<_, StoreError>(opened)
    });
    opened.map_err(|error| error.of_file(path))
}

/// A file without rows, in memory only.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn empty_database() -> Result<OpenFile, StoreError> {
    let opened = OpenFile::in_memory().map_err(redb::Error::from)?;
    migrate(&opened.database, Path::new("memory"))?;
    Ok(opened)
}

/// Lets the engine check all of its pages, and says what it found. The file is written to, so it
/// should be one of an [`Overlay`](crate::store::overlay::Overlay).
///
/// # Errors
/// [`StoreError`] when the disk fails, or the file is of a newer build.
pub fn check_engine(
    disk: &dyn Disk,
    path: &Path,
    options: StoreOptions,
) -> Result<Option<String>, StoreError> {
    let file = disk.open(path, false);
    let file = file.map_err(|source| unusable(path, source))?;
    check_not_empty(&*file, path)?;
    let checked = guarded(|| {
        let opened = OpenFile::open(file, options.cache_bytes);
        let mut opened = opened.map_err(|error| open_error(path, error))?;
        let intact = opened.database.check_integrity();
        intact.map_err(|error| open_error(path, error))
    });
    match checked {
        Ok(true) => Ok(None),
        Ok(false) => {
            let what = "its list of the pages in use is not that of its tables";
            Ok(Some(what.to_owned()))
        }
        Err(StoreError::Damaged(what)) => Ok(Some(what)),
        Err(error) => Err(error),
    }
}

/// The engine takes an empty file for one that it is to fill; a namespace's never is.
///
/// # Errors
/// [`StoreError::Damaged`] when the file is empty.
pub fn check_not_empty(file: &dyn DiskFile, path: &Path) -> Result<(), StoreError> {
    match file.size() {
        Ok(0) => Err(StoreError::damaged("it is empty").of_file(path)),
        Ok(_) => Ok(()),
        Err(source) => Err(unusable(path, source)),
    }
}

pub(in crate::store) fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
            path: path.to_path_buf(),
        },
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            io::ErrorKind::InvalidData => StoreError::damaged(format!(
                "{} is not a samestate file: {source}",
                path.display()
            )),
            io::ErrorKind::UnexpectedEof => StoreError::damaged(ENDS_EARLY).of_file(path),
            _ => unusable(path, source),
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
///
/// # Errors
/// [`StoreError::Unusable`].
pub fn sync_directory(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let synced = disk.sync_folder(folder);
    synced.map_err(|source| unusable(folder, source))
}
