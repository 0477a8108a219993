//! Looking at a namespace that no process serves: all of its file and its log, without changing
//! either.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::clock::{SystemClock, WallClock};
use crate::replica::check::check;
use crate::replica::findings::CheckReport;
use crate::replica::recover::recover;
use crate::store::claim::Claim;
use crate::store::directory::unusable;
use crate::store::disk::Disk;
use crate::store::engine_files::EngineFiles;
use crate::store::error::StoreError;
use crate::store::log::replay::read_segments;
use crate::store::open::Store;
use crate::store::open_file::check_engine;
use crate::store::options::StoreOptions;
use crate::store::overlay::Overlay;
use crate::store::read::Snapshot;
use crate::store::shard_set::shard_files;
use crate::types::id::Namespace;

/// Is told how many bytes of states have been read, and how many there are.
pub type OnProgress<'p> = &'p mut dyn FnMut(u64, u64);

/// Checks everything that a namespace's file and its log hold.
///
/// # Errors
/// [`StoreError`] when the disk fails, or the file is not one that this replica and build may use;
/// damage is reported, not an error.
pub fn inspect(
    disk: &Arc<dyn Disk>,
    path: &Path,
    namespace: &Namespace,
    claim: &Claim,
    progress: OnProgress<'_>,
) -> Result<CheckReport, StoreError> {
    let mut early = CheckReport::default();
    let Some((mut store, _file)) = open(disk, path, claim, &mut early)? else {
        return Ok(early);
    };
    if let Err(StoreError::Damaged(what)) = store.check_counts() {
        early.fault("head", &"counts", &what);
    }
    match store.misplaced_rows() {
        Ok(tables) => tables.into_iter().for_each(|(table, rows)| {
            let detail = format!("{rows} of its rows are in the file of another shard");
            early.fault("shard", &table, &detail);
        }),
        Err(StoreError::Damaged(what)) => early.fault("shard", &path.display(), &what),
        Err(error) => return Err(error),
    }
    let snapshot = match with_log(&mut store) {
        Ok(snapshot) => snapshot,
        Err(StoreError::Damaged(what)) => {
            let detail = format!("{what}; what stands in the log alone was not checked");
            early.fault("log", &path.display(), &detail);
            store.snapshot()
        }
        Err(error) => return Err(error),
    };
    let total = snapshot.head().map_or(0, |head| head.root.size);
    let mut report = check(&snapshot, namespace, &mut |bytes| progress(bytes, total))?;
    early.faults.append(&mut report.faults);
    report.faults = early.faults;
    Ok(report)
}

/// Opens a file without changing it. `None` when it cannot be opened, which is a fault then.
fn open(
    disk: &Arc<dyn Disk>,
    path: &Path,
    claim: &Claim,
    report: &mut CheckReport,
) -> Result<Option<(Store, EngineFiles)>, StoreError> {
    match disk.open(path, false) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let detail = "it is missing, but its log or its shards are there; put it back";
            report.fault("file", &path.display(), &detail);
            return Ok(None);
        }
        Err(source) => return Err(unusable(path, source)),
    }
    let options = StoreOptions::default();
    let overlay = || Arc::new(Overlay::new(Arc::clone(disk)));
    for file in std::iter::once(path.to_path_buf()).chain(shard_files(&**disk, path)?) {
        // The check leaves a file that it found damaged unusable.
        match check_engine(&*overlay(), &file, options) {
            Ok(None) => {}
            Ok(Some(what)) => report.fault("engine", &file.display(), &what),
            Err(StoreError::Damaged(what)) => {
                report.fault("file", &file.display(), &what);
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    match Store::open_as(overlay(), path, claim, options) {
        Ok(opened) => Ok(Some(opened)),
        Err(StoreError::Damaged(what)) => {
            report.fault("file", &path.display(), &what);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What the file shows once its log is carried out.
fn with_log(store: &mut Store) -> Result<Snapshot, StoreError> {
    let from = store.snapshot().head()?.log;
    let replay = read_segments(&store.log_place(), from)?;
    recover(store, replay, SystemClock.now_millis())?;
    Ok(store.snapshot())
}
