//! The folder that backups are kept in.
//!
//! ```text
//! DEST/lock                     held while a backup is written
//! DEST/NNNNNN/manifest.json     what backup NNNNNN is of, and of which files it consists
//! DEST/NNNNNN/SHA256SUMS        hashes of the files in this folder
//! DEST/NNNNNN/NAMESPACE.data    states and bytes that no earlier file has
//! DEST/NNNNNN.draft/            a backup that is being written
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::backup::error::{BackupError, file_error};
use crate::backup::manifest::{MANIFEST, MANIFEST_MAX, Manifest, SUMS, data_name};
use crate::store::directory::make_durably;
use crate::types::id::Namespace;

const DRAFT: &str = ".draft";

/// A folder of backups.
#[derive(Debug, Clone)]
pub struct Destination {
    root: PathBuf,
}

/// Where a user wants backups to be.
///
/// # Errors
/// [`BackupError::Url`] when that is not a folder.
pub fn folder(text: &str) -> Result<PathBuf, BackupError> {
    let is_scheme = |scheme: &str| {
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(letters)
    };
    match text.split_once("://") {
        Some((scheme, _)) if is_scheme(scheme) => Err(BackupError::Url(text.to_owned())),
        _ => Ok(PathBuf::from(text)),
    }
}

/// How backups are numbered in paths.
pub fn folder_name(number: u32) -> String {
    format!("{number:06}")
}

impl Destination {
    /// A folder, whether it exists or not.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Makes the folder if it does not exist, and keeps other processes from writing backups there
    /// until the lock is dropped.
    ///
    /// # Errors
    /// [`BackupError`] when it cannot be written, or is being written.
    pub fn lock(&self) -> Result<File, BackupError> {
        make_durably(&self.root).map_err(file_error("make", &self.root))?;
        let path = self.root.join("lock");
        let lock = open_lock(&path).map_err(file_error("write", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(BackupError::InUse(self.root.clone())),
            Err(TryLockError::Error(source)) => Err(file_error("lock", &path)(source)),
        }
    }

    /// The numbers of all backups, oldest first.
    ///
    /// # Errors
    /// [`BackupError`] when the folder cannot be read.
    pub fn numbers(&self) -> Result<Vec<u32>, BackupError> {
        let mut numbers = Vec::new();
        for name in self.names()? {
            let number = name.parse().ok();
            numbers.extend(number.filter(|number| folder_name(*number) == name));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The newest backup, or the one of this number.
    ///
    /// # Errors
    /// [`BackupError`] when there is none, or its manifest is not what was written.
    pub fn pick(&self, number: Option<u32>) -> Result<Manifest, BackupError> {
        let numbers = self.numbers()?;
        let path = || self.root.clone();
        let number = match number {
            Some(number) if !numbers.contains(&number) => {
                let path = path();
                return Err(BackupError::NoSuch { path, number });
            }
            Some(number) => number,
            None => *numbers.last().ok_or_else(|| BackupError::Nothing(path()))?,
        };
        self.manifest(number)
    }

    /// The manifest of a backup.
    ///
    /// # Errors
    /// [`BackupError`] when it is not there, or not what was written.
    pub fn manifest(&self, number: u32) -> Result<Manifest, BackupError> {
        let folder = self.root.join(folder_name(number));
        let (path, sums) = (folder.join(MANIFEST), folder.join(SUMS));
        let (bytes, sums) = (read(&path)?, read(&sums)?);
        let sums = String::from_utf8_lossy(&sums);
        Manifest::read(&path, &bytes, &sums, number)
    }

    /// The data file of a namespace in a backup.
    pub fn data(&self, number: u32, namespace: &Namespace) -> PathBuf {
        let folder = self.root.join(folder_name(number));
        folder.join(data_name(namespace))
    }

    /// Begins a new backup. The destination must be locked: what earlier ones left half done is
    /// removed.
    ///
    /// # Errors
    /// [`BackupError`] when it cannot be written.
    pub fn draft(&self) -> Result<Draft, BackupError> {
        for name in self.names()? {
            let number = name.strip_suffix(DRAFT).map(str::parse::<u32>);
            if matches!(number, Some(Ok(_))) {
                let path = self.root.join(&name);
                fs::remove_dir_all(&path).map_err(file_error("remove", &path))?;
            }
        }
        let newest = self.numbers()?.last().copied().unwrap_or(0);
        let number = newest.checked_add(1);
        let number = number.ok_or_else(|| BackupError::NoNumbers(self.root.clone()))?;
        let name = folder_name(number);
        let draft = Draft {
            number,
            root: self.root.clone(),
            folder: self.root.join(format!("{name}{DRAFT}")),
            published: false,
        };
        fs::create_dir(&draft.folder).map_err(file_error("make", &draft.folder))?;
        Ok(draft)
    }

    fn names(&self) -> Result<Vec<String>, BackupError> {
        let entries = fs::read_dir(&self.root).and_then(|entries| {
            let names = entries.map(|entry| Ok(entry?.file_name()));
            names.collect::<io::Result<Vec<_>>>()
        });
        let names = entries.map_err(file_error("read", &self.root))?;
        Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect())
    }
}

/// A backup that is being written. Unless it is published, nothing of it stays.
#[derive(Debug)]
pub struct Draft {
    number: u32,
    root: PathBuf,
    folder: PathBuf,
    published: bool,
}

impl Draft {
    /// The number that the backup will have.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Where a namespace's data file is written.
    pub fn data(&self, namespace: &Namespace) -> PathBuf {
        self.folder.join(data_name(namespace))
    }

    /// Adds the manifest and gives the backup its name. It is whole and on disk then.
    ///
    /// # Errors
    /// [`BackupError`] when it cannot be written.
    pub fn publish(mut self, manifest: &Manifest) -> Result<(), BackupError> {
        let bytes = manifest.to_bytes();
        write(&self.folder.join(MANIFEST), &bytes)?;
        let sums = manifest.sums(&bytes);
        write(&self.folder.join(SUMS), sums.as_bytes())?;
        sync_folder(&self.folder)?;
        let path = self.root.join(folder_name(self.number));
        fs::rename(&self.folder, &path).map_err(file_error("make", &path))?;
        self.published = true;
        sync_folder(&self.root)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            // The next backup removes it.
            warn!(folder = %self.folder.display(), %error, "a half-made backup is left");
        }
    }
}

/// Opens a file to be locked, making it when it is missing.
///
/// # Errors
/// The operating system's.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).open(path)
}

/// Waits until the names in a folder are on disk.
///
/// # Errors
/// [`BackupError::File`].
pub fn sync_folder(folder: &Path) -> Result<(), BackupError> {
    let synced = File::open(folder).and_then(|handle| handle.sync_all());
    synced.map_err(file_error("write", folder))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(file_error("write", path))
}

fn read(path: &Path) -> Result<Vec<u8>, BackupError> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MANIFEST_MAX + 1).read_to_end(&mut bytes));
    let length = read.map_err(file_error("read", path))? as u64;
    if length > MANIFEST_MAX {
        return Err(BackupError::damaged(path, None, "it does not end"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for path in ["/a/b", "a", "a:b", "C:/a", "://a", "a/b://c"] {
            assert_eq!(folder(path).unwrap(), PathBuf::from(path));
        }
        for url in ["s3://bucket/a", "file:///a", "gs+x.y-z://b"] {
            let refused = folder(url).unwrap_err().to_string();
            assert!(
                refused.contains(url) && refused.contains("folder"),
                "{refused}"
            );
        }
    }

    #[test]
    fn drafts_are_no_backups_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::at(&dir.path().join("a/b"));
        let lock = destination.lock().unwrap();
        assert!(matches!(destination.lock(), Err(BackupError::InUse(_))));
        assert!(matches!(
            destination.pick(None),
            Err(BackupError::Nothing(_))
        ));
        let draft = destination.draft().unwrap();
        assert_eq!(draft.number(), 1);
        let folder = draft.folder.clone();
        drop(draft);
        assert!(!folder.exists());
        for name in [
            "000007.draft",
            "000007",
            "7",
            "0000008",
            "x",
            "manifest.json",
        ] {
            fs::create_dir(destination.path().join(name)).unwrap();
        }
        assert_eq!(destination.numbers().unwrap(), [7]);
        assert_eq!(destination.draft().unwrap().number(), 8);
        assert!(!destination.path().join("000007.draft").exists());
        let none = destination.pick(Some(6)).unwrap_err();
        assert!(matches!(none, BackupError::NoSuch { number: 6, .. }));
        assert!(matches!(
            destination.pick(None),
            Err(BackupError::File { .. })
        ));
        drop(lock);
        assert!(destination.lock().is_ok());
    }
}
