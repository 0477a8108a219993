//! What can go wrong with a backup, told so that an operator knows what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::replica::command::Refused;
use crate::replica::staging::StagingError;
use crate::store::error::{StoreError, is_full};
use crate::types::hash::ContentHash;
use crate::types::id::{GameId, Namespace};

/// Why a backup could not be made, checked or restored.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A destination that is not a folder.
    #[error(
        "backups go to folders so far, and {0:?} is a URL; give a path, for example one where the \
         other storage is mounted"
    )]
    Url(String),
    /// A file or folder could not be used.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// A verb: read, write, ...
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space left for {path}; free some space, or use another folder")]
    Full {
        /// What was being written.
        path: PathBuf,
    },
    /// A file is not what was written.
    #[error(
        "{path} is damaged{}: {what}; get the file back from a copy, restore another backup with \
         --at, or make a new one with --full", .offset.map_or_else(String::new, |at| format!(" at byte {at}"))
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, when that is known.
        offset: Option<u64>,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer samestate.
    #[error(
        "{path} has backup format {found}, this build knows up to {known}; use the newer samestate \
         that wrote it"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Format in the file.
        found: u32,
        /// Newest format this build knows.
        known: u32,
    },
    /// No backup in the folder.
    #[error("there is no backup in {0}; make one with `samestate backup --to {0}`")]
    Nothing(PathBuf),
    /// No backup of that number.
    #[error("{path} has no backup {number:06}; list them with `samestate restore --list`")]
    NoSuch {
        /// The destination.
        path: PathBuf,
        /// What was asked for.
        number: u32,
    },
    /// Another process works there.
    #[error("{0} is in use by another backup or restore; wait until that one has ended")]
    InUse(PathBuf),
    /// A target of a restore that is not empty.
    #[error("{0} holds files already; restore into a folder that does not exist or is empty")]
    NotEmpty(PathBuf),
    /// The states do not give the root in the manifest.
    #[error(
        "the states of namespace {namespace} in backup {number:06} give root {actual}, its \
         manifest.json says {expected}: the backup was changed after it was made; use another one \
         with --at"
    )]
    WrongRoot {
        /// Which namespace.
        namespace: Namespace,
        /// Which backup.
        number: u32,
        /// Root and counts of what is there.
        actual: String,
        /// Root and counts of what was backed up.
        expected: String,
    },
    /// The bytes of a version are not those that its hash speaks of.
    #[error("the bytes of {id:?} in {path} do not have their hash {hash}; use another backup")]
    WrongBytes {
        /// The state.
        id: GameId,
        /// The file that its last bytes stand in.
        path: PathBuf,
        /// The hash that they should have.
        hash: ContentHash,
    },
    /// A state that no entry has room for.
    #[error("{0:?} has too many conflicting versions to be backed up; resolve them first")]
    TooLarge(GameId),
    /// The new replica does not take a state.
    #[error("the backup cannot be restored: {0}")]
    Refused(Refused),
    /// All numbers are given out.
    #[error("{0} is full: there are no numbers left; begin another folder")]
    NoNumbers(PathBuf),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A large state could not be brought in.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// Told to stop.
    #[error("stopped before it was done; nothing of it is left")]
    Stopped,
}

impl BackupError {
    /// Damage at a place in a file.
    pub fn damaged(path: &Path, offset: impl Into<Option<u64>>, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            offset: offset.into(),
            what: what.into(),
        }
    }
}

/// Completes an error of the operating system with what was done to which file.
pub fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        kind if is_full(kind) => BackupError::Full { path },
        _ => BackupError::File {
            doing,
            path,
            source,
        },
    }
}
