//! Restoring: a new replica, with an id and epochs of its own, that holds what a backup holds.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;

use serde::Serialize;

use crate::backup::chain::Chain;
use crate::backup::check::{Living, check_roots, expect_root};
use crate::backup::destination::{Destination, folder_name, open_lock, sync_folder};
use crate::backup::error::{BackupError, file_error};
use crate::backup::fill::Filler;
use crate::backup::manifest::{Manifest, NamespacePart};
use crate::backup::watch::{Watch, step};
use crate::clock::WallClock;
use crate::store::directory::{DataDirectory, make_durably};

/// Behind the name of a directory that is being restored.
const UNFINISHED: &str = "restoring";
/// The file in it that says so, and is locked meanwhile.
const MARK: &str = "restoring";
/// A replica that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Name of the backup's folder.
    pub backup: String,
    /// When the backup was begun, RFC 3339.
    pub time: String,
    /// The replica that it is of.
    pub of: String,
    /// The data directory.
    pub data: String,
    /// The new replica's id.
    pub replica: String,
    /// In order of name.
    pub namespaces: Vec<RestoredNamespace>,
}

/// A namespace that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredNamespace {
    /// Its name.
    pub namespace: String,
    /// Its Merkle root.
    pub root: String,
    /// States that are not deleted.
    pub states: u64,
    /// Versions that were put in, superseded ones included.
    pub versions: u64,
}

/// Makes a new data directory from a backup, the newest unless told. The directory gets its name
/// once everything is in it and its roots are those that were backed up.
///
/// # Errors
/// [`BackupError`]: then nothing of it is left.
pub fn restore(
    destination: &Destination,
    number: Option<u32>,
    data: &Path,
    wall: &Arc<dyn WallClock>,
    watch: &dyn Watch,
) -> Result<Restored, BackupError> {
    let manifest = destination.pick(number)?;
    let data = absolute(data).map_err(file_error("use", data))?;
    let unfinished = Unfinished::claim(&data)?;
    check_roots(destination, &manifest, watch)?;
    let directory = DataDirectory::open(&unfinished.folder)?;
    let mut restored = Restored {
        backup: folder_name(manifest.backup),
        time: manifest.time.clone(),
        of: manifest.replica.to_string(),
        data: data.display().to_string(),
        replica: directory.replica().to_string(),
        namespaces: Vec::with_capacity(manifest.namespaces.len()),
    };
    for part in &manifest.namespaces {
        let chain = Chain::open(destination, part)?;
        let made = fill(&directory, &manifest, part, &chain, wall, watch)?;
        restored.namespaces.push(made);
    }
    drop(directory);
    unfinished.finish()?;
    Ok(restored)
}

fn fill(
    directory: &DataDirectory,
    manifest: &Manifest,
    part: &NamespacePart,
    chain: &Chain,
    wall: &Arc<dyn WallClock>,
    watch: &dyn Watch,
) -> Result<RestoredNamespace, BackupError> {
    watch.begin("restoring", part.records, "states");
    let path = directory.file(&part.namespace);
    let mut filler = Filler::create(&path, directory.replica(), wall)?;
    let (mut states, mut contents) = (chain.states()?, chain.contents());
    let mut live = Living::default();
    while let Some(state) = states.next_state()? {
        live.count(&state.record);
        for held in state.entry.oldest_first() {
            filler.add(&state.entry.id, held, &mut contents)?;
        }
        step(watch)?;
    }
    let (view, versions) = filler.finish()?;
    let head = view.head();
    expect_root(manifest.backup, part, head.root, live)?;
    Ok(RestoredNamespace {
        namespace: part.namespace.to_string(),
        root: head.root.hash.to_hex(),
        states: head.live,
        versions,
    })
}

/// A data directory under another name, until it is whole. Unless it is finished, nothing of it
/// stays.
struct Unfinished {
    data: PathBuf,
    folder: PathBuf,
    finished: bool,
    _lock: File,
}

impl Unfinished {
    /// Makes the folder. One that an earlier restore was killed in is begun anew.
    fn claim(data: &Path) -> Result<Self, BackupError> {
        if !is_free(data)? {
            return Err(BackupError::NotEmpty(data.to_path_buf()));
        }
        let folder = data.with_added_extension(UNFINISHED);
        if folder == data {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it has no name of its own");
            return Err(file_error("restore into", data)(source));
        }
        let mark = folder.join(MARK);
        if !is_free(&folder)? && !mark.is_file() {
            return Err(BackupError::NotEmpty(folder));
        }
        make_durably(&folder).map_err(file_error("make", &folder))?;
        let lock = open_lock(&mark).map_err(file_error("write", &mark))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::InUse(folder)),
            Err(TryLockError::Error(source)) => return Err(file_error("lock", &mark)(source)),
        }
        let unfinished = Self {
            data: data.to_path_buf(),
            folder,
            finished: false,
            _lock: lock,
        };
        unfinished.clear()?;
        Ok(unfinished)
    }

    /// Removes everything but the mark.
    fn clear(&self) -> Result<(), BackupError> {
        let cleared = fs::read_dir(&self.folder).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    _ if entry.file_name() == MARK => {}
                    true => fs::remove_dir_all(entry.path())?,
                    false => fs::remove_file(entry.path())?,
                }
            }
            Ok(())
        });
        cleared.map_err(file_error("clear", &self.folder))
    }

    /// Gives the directory its name.
    fn finish(mut self) -> Result<(), BackupError> {
        fs::rename(&self.folder, &self.data).map_err(file_error("make", &self.data))?;
        self.finished = true;
        // Under this name the mark says nothing any more; one that stays is in nobody's way.
        let _ = fs::remove_file(self.data.join(MARK));
        match self.data.parent() {
            Some(above) => sync_folder(above),
            None => Ok(()),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // What is left is marked, and the next restore removes it.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// True when nothing is there but, at most, an empty folder.
fn is_free(folder: &Path) -> Result<bool, BackupError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(file_error("read", folder)(error)),
    }
}
