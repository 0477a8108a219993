//! The data directory: who may use it, whose it is, and where namespaces' files are.
//!
//! ```text
//! DIR/lock                       held while a process uses the directory
//! DIR/replica                    the replica's id, 16 hex digits
//! DIR/key                        what the replica signs with, for its owner's eyes only
//! DIR/place                      which file this is, to notice copies of the directory
//! DIR/namespaces/NAME.redb       one file a namespace
//! DIR/namespaces/NAME.redb.shard-SET-NN   the other files of one that is cut into shards
//! DIR/namespaces/NAME.redb.new   one that is being made
//! DIR/namespaces/NAME.redb.dropped   one that is being removed, and its log
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;

use crate::roots::head::{PublicKey, SecretKey};
use crate::store::claim::{Claim, Known};
use crate::store::draft::finish_draft;
use crate::store::error::{StoreError, is_full};
use crate::store::key::{key_of, look_at_key};
use crate::store::names::is_shard;
use crate::store::place::{Found, Place};
use crate::store::random::random_u64;
use crate::types::cursor::Epoch;
use crate::types::id::{Namespace, ReplicaId};

const EXTENSION: &str = "redb";
/// How often a lock that somebody else has is tried again, and after how long each time.
const LOCK_TRIES: u32 = 10;
const LOCK_WAIT: Duration = Duration::from_millis(20);

/// A data directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    root: PathBuf,
    naming: Mutex<Naming>,
    /// What is known of the files of namespaces before they are opened.
    known: KnownFiles,
    _lock: File,
}

/// What the directory is called, and what `DIR/place` is to say.
#[derive(Debug)]
struct Naming {
    replica: ReplicaId,
    /// What it signs with; a directory that is only looked at may have none.
    key: Option<SecretKey>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KnownFiles {
    /// There was no `DIR/place`.
    Unasked,
    /// The directory is where it was.
    Openings,
    /// The directory is a copy.
    Copies,
}

impl DataDirectory {
    /// Opens a data directory, making it and its replica id when they do not exist.
    ///
    /// # Errors
    /// [`StoreError`] when another process uses it or it cannot be written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let namespaces = root.join("namespaces");
        make_durably(&namespaces).map_err(|source| unusable(root, source))?;
        let is_new = !root.join("replica").exists();
        let directory = Self::lock(root)?;
        directory.take_key(is_new)?;
        directory.remove_drafts()?;
        if directory.known == KnownFiles::Copies {
            directory.rename()?;
        }
        Ok(directory)
    }

    /// Opens a data directory that must exist already, to look at it.
    ///
    /// # Errors
    /// [`StoreError`] when it does not exist, another process uses it or it cannot be written.
    pub fn open_existing(root: &Path) -> Result<Self, StoreError> {
        let namespaces = root.join("namespaces");
        if namespaces.is_dir() {
            return Self::lock(root);
        }
        let source = io::Error::new(io::ErrorKind::NotFound, "it is not a data directory");
        Err(unusable(root, source))
    }

    fn lock(root: &Path) -> Result<Self, StoreError> {
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| unusable(&path, source))?;
        take_lock(&lock).map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::InUse {
                path: root.to_path_buf(),
            },
            TryLockError::Error(source) => unusable(&path, source),
        })?;
        let replica = replica_id(root)?;
        let (known, place) = match Place::find(root).map_err(|source| unusable(root, source))? {
            Found::Nothing => (KnownFiles::Unasked, Place::default()),
            Found::Same(place) => (KnownFiles::Openings, place),
            Found::Elsewhere(place) => (KnownFiles::Copies, place),
        };
        Ok(Self {
            root: root.to_path_buf(),
            naming: Mutex::new(Naming {
                replica,
                key: None,
                place,
            }),
            known,
            _lock: lock,
        })
    }

    /// Takes the key that is there, or makes one.
    fn take_key(&self, is_new: bool) -> Result<(), StoreError> {
        let mut naming = self.naming();
        let path = self.root.join("key");
        let found = key_of(&self.root, naming.replica);
        let found = found.map_err(|source| unusable(&path, source))?;
        if found.is_new && !is_new {
            warn!(
                replica = %naming.replica,
                "there was no key of this replica in {}: it signs its log of roots with a new one \
                 from now on",
                path.display()
            );
        }
        naming.key = Some(found.key);
        Ok(())
    }

    fn naming(&self) -> MutexGuard<'_, Naming> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replica that this directory belongs to.
    pub fn replica(&self) -> ReplicaId {
        self.naming().replica
    }

    /// The replica's id, and the key that it signs with; `None` for a directory that was opened to be
    /// looked at.
    pub fn signer(&self) -> Option<(ReplicaId, SecretKey)> {
        let naming = self.naming();
        Some((naming.replica, naming.key.clone()?))
    }

    /// The key that the replica signs with, if there is one, and what is wrong with its file.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when it cannot be read.
    pub fn look_at_key(&self) -> Result<(Option<PublicKey>, Option<&'static str>), StoreError> {
        let path = self.root.join("key");
        let looked = look_at_key(&self.root, self.replica());
        let (key, fault) = looked.map_err(|source| unusable(&path, source))?;
        Ok((key.map(|key| key.public()), fault))
    }

    /// True when this directory was found to be a copy, or an older copy that was put back.
    pub fn is_copy(&self) -> bool {
        self.known == KnownFiles::Copies
    }

    /// Gives the directory another replica id. Files of namespaces that have the one of before
    /// still belong to it, also after a crash. [`DataDirectory::settle`] ends the change.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    pub fn rename(&self) -> Result<ReplicaId, StoreError> {
        let mut naming = self.naming();
        let before = naming.replica;
        // Another one than that of the place was given by a change that a crash broke off.
        if naming.place.names.last() == Some(&before) {
            let (path, replica) = (self.root.join("replica"), ReplicaId(random_u64()?));
            write_durably(&path, &format!("{replica}\n"))
                .map_err(|source| unusable(&path, source))?;
            let found = key_of(&self.root, replica);
            let found = found.map_err(|source| unusable(&self.root.join("key"), source))?;
            naming.key = Some(found.key);
            naming.replica = replica;
        }
        Ok(naming.replica)
    }

    /// What this directory claims of a namespace's file before it is opened.
    ///
    /// # Errors
    /// [`StoreError::NoRandomNumbers`].
    pub fn claim(&self, namespace: &Namespace) -> Result<Claim, StoreError> {
        let naming = self.naming();
        let opening = naming.place.openings.get(namespace);
        let known = match (self.known, opening) {
            (KnownFiles::Unasked, _) => Known::Unasked,
            (KnownFiles::Openings, Some(id)) => Known::Opening(*id),
            // Files that came by themselves are copies of whatever they were.
            (KnownFiles::Openings, None) | (KnownFiles::Copies, _) => Known::Copy,
        };
        Ok(Claim {
            replica: naming.replica,
            names: naming.place.names.clone(),
            fresh: fresh_epoch()?,
            known,
        })
    }

    /// Takes note of the openings that the files of namespaces had last, and that all of them know
    /// the directory's replica id; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    pub fn settle(
        &self,
        openings: impl IntoIterator<Item = (Namespace, u64)>,
    ) -> Result<(), StoreError> {
        let mut naming = self.naming();
        let replica = naming.replica;
        naming.place.take_name(replica);
        naming.place.openings = openings.into_iter().collect();
        self.write_place(&naming.place)
    }

    /// Takes note of the openings of some namespaces when others could not be opened: after many
    /// starts that fail they would not be known again. In a copy of a directory nothing is noted,
    /// for those that were not opened have to find out yet.
    ///
    /// # Errors
    /// As for [`DataDirectory::settle`].
    pub fn remember(
        &self,
        openings: impl IntoIterator<Item = (Namespace, u64)>,
    ) -> Result<(), StoreError> {
        let mut naming = self.naming();
        if !matches!(self.known, KnownFiles::Openings) {
            return Ok(());
        }
        naming.place.openings.extend(openings);
        self.write_place(&naming.place)
    }

    fn write_place(&self, place: &Place) -> Result<(), StoreError> {
        let written = place.write(&self.root);
        written.map_err(|source| unusable(&self.root.join("place"), source))
    }

    /// The file of a namespace.
    pub fn file(&self, namespace: &Namespace) -> PathBuf {
        let file = format!("{namespace}.{EXTENSION}");
        self.root.join("namespaces").join(file)
    }

    /// The namespaces that have a file, or a log or shards whose file is missing, in order.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the directory cannot be read.
    pub fn namespaces(&self) -> Result<Vec<Namespace>, StoreError> {
        let mut found = Vec::new();
        for path in self.entries()? {
            let name = path.file_name().and_then(|name| name.to_str());
            let (name, rest) = name
                .and_then(|name| name.split_once('.'))
                .unwrap_or_default();
            let Ok(name) = Namespace::new(name) else {
                continue;
            };
            let was_dropped = || dropped_of(&self.file(&name)).exists();
            let is_log = segment_number(rest).is_some();
            let is_part = is_log || is_shard(rest);
            if rest == EXTENSION || (is_part && !was_dropped()) {
                found.push(name);
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn entries(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.root.join("namespaces");
        fs::read_dir(&folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(|source| unusable(&folder, source))
    }

    /// Removes files that a crash left half made or half removed.
    fn remove_drafts(&self) -> Result<(), StoreError> {
        for dropped in self.entries()? {
            let file = dropped.with_extension("");
            if dropped == dropped_of(&file) && !file.exists() {
                finish_drop(&file).map_err(|source| unusable(&dropped, source))?;
            }
        }
        let suffixes =
            ["new", "compact", "repair", "reshard"].map(|last| format!(".{EXTENSION}.{last}"));
        for path in self.entries()? {
            let name = path.file_name().and_then(|name| name.to_str());
            let is_draft = |name: &str| {
                let is_one = suffixes.iter().any(|suffix| name.ends_with(suffix));
                let copied = name.strip_suffix(".compact");
                let copied = copied.and_then(|name| name.split_once('.'));
                is_one || copied.is_some_and(|(_, rest)| is_shard(rest))
            };
            if name.is_some_and(is_draft) {
                // One that stays is in the way of nothing but the creation of its namespace.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Removes a namespace's file and its log. Its store must be closed.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when it cannot be removed.
    pub fn remove(&self, namespace: &Namespace) -> Result<(), StoreError> {
        let path = self.file(namespace);
        // From here on a log without a file is what is left of a drop, and not of a lost file.
        let removed = fs::rename(&path, dropped_of(&path))
            .and_then(|()| sync_folder_of(&path))
            .and_then(|()| finish_drop(&path));
        removed.map_err(|source| unusable(&path, source))
    }
}

/// Removes the log and the shards of a file that was dropped, and at last what says that it was.
fn finish_drop(file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let stem = file.file_stem().unwrap_or_default();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.split_once('.'));
        let is_part = |rest: &str| segment_number(rest).is_some() || is_shard(rest);
        if name.is_some_and(|(name, rest)| stem == name && is_part(rest)) {
            fs::remove_file(&path)?;
        }
    }
    sync_folder_of(file)?;
    fs::remove_file(dropped_of(file))?;
    sync_folder_of(file)
}

/// Waits a moment for whoever is just ending: a process that is being started by another one holds
/// what that had open until it runs a program of its own.
fn take_lock(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_WAIT),
            done => return done,
        }
    }
    lock.try_lock()
}

/// Waits until the names in a file's folder survive a power cut.
pub(in crate::store) fn sync_folder_of(file: &Path) -> io::Result<()> {
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The number of the segment of a log whose name ends so behind its namespace and a dot.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name
        .strip_prefix("log.")
        .filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Where a namespace's file is while it is being made anew by a repair.
pub fn repair_draft_of(file: &Path) -> PathBuf {
    file.with_added_extension("repair")
}

/// What a namespace's file is called while it is being removed, and its log.
pub fn dropped_of(file: &Path) -> PathBuf {
    file.with_added_extension("dropped")
}

/// Where a namespace's file is while it is being made.
pub fn draft_of(file: &Path) -> PathBuf {
    file.with_added_extension("new")
}

/// Where the copy of a namespace's file is while it is being made by a compaction.
pub fn compact_draft_of(file: &Path) -> PathBuf {
    file.with_added_extension("compact")
}

/// Where a namespace's first file is while it is being cut into other shards.
pub fn reshard_draft_of(file: &Path) -> PathBuf {
    file.with_added_extension("reshard")
}

/// A random epoch for a new change feed.
///
/// # Errors
/// [`StoreError::NoRandomNumbers`].
pub fn fresh_epoch() -> Result<Epoch, StoreError> {
    random_u64().map(Epoch)
}

fn replica_id(root: &Path) -> Result<ReplicaId, StoreError> {
    let path = root.join("replica");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            StoreError::damaged(format!("{} does not hold a replica id", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let replica = ReplicaId(random_u64()?);
            write_durably(&path, &format!("{replica}\n"))
                .map_err(|source| unusable(&path, source))?;
            Ok(replica)
        }
        Err(source) => Err(unusable(&path, source)),
    }
}

/// Either the whole file is there after a crash, or none of it.
fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    finish_draft(File::create(&draft)?, text, &draft, path)
}

/// Makes a directory and what is lacking above it, each with its name on disk: a power cut must
/// not take away the folder of data that was synced.
///
/// # Errors
/// The operating system's.
pub fn make_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent();
    let above = above.filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    make_durably(above)?;
    match fs::create_dir(folder) {
        // Somebody else made it at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    File::open(above)?.sync_all()
}

/// What an error of the operating system about a file or directory means.
pub fn unusable(path: &Path, source: io::Error) -> StoreError {
    if is_full(source.kind()) {
        return StoreError::Full;
    }
    StoreError::Unusable {
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_lack_are_made_and_a_file_in_their_place_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b/c");
        let made = DataDirectory::open(&root).unwrap().replica();
        assert_eq!(DataDirectory::open(&root).unwrap().replica(), made);
        fs::write(folder.path().join("file"), "").unwrap();
        let refused = DataDirectory::open(&folder.path().join("file/d"));
        assert!(matches!(refused, Err(StoreError::Unusable { .. })));
    }
}
