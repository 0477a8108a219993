//! What can go wrong between us and the disk, told so that an operator knows what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::merkle::storage::TreeError;
use crate::types::binary::BadEncoding;
use crate::types::id::ReplicaId;

/// What is wrong with a file whose pages lead behind its end.
pub const ENDS_EARLY: &str = "it ends before pages that it refers to";

/// True when the operating system says that there is no space, or none for this user.
pub fn is_full(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// What to do when the operating system lets us not use a file or a directory.
fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "run samestate as the user who owns the data directory, or give that directory and all in \
             it to the one who runs it (chown -R)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "its file system is mounted read-only: mount it for writing, or copy the directory to \
             another one"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "check that no part of the path is a file"
        }
        full if is_full(full) => "free some space",
        _ => "check that it exists, is writable and has free space",
    }
}

/// An error of the storage layer.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has the file or the directory open.
    #[error(
        "{path} is in use by another samestate process; stop that one or choose another --data directory"
    )]
    InUse {
        /// The file or directory.
        path: PathBuf,
    },
    /// The file was written by a newer build.
    #[error(
        "{path} has schema version {found}, this build knows up to {known}; use the newer samestate that wrote it"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version this build knows.
        known: u32,
    },
    /// Creating, opening or writing failed in the file system.
    #[error("cannot use {path}: {source}; {}", advice(source.kind()))]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk is full.
    #[error(
        "the disk that holds the data directory is full, or has less free space than the setting \
         disk_reserve keeps; free some space"
    )]
    Full,
    /// The file does not hold what it should.
    #[error(
        "the store is damaged: {0}; stop the server and run `samestate verify --data DIR --repair`, \
         and let peers or a backup bring back what is lost"
    )]
    Damaged(String),
    /// The file was made by another replica.
    #[error(
        "{path} belongs to replica {owner}, its data directory to replica {replica}; put the file \
         back where it came from, and let samestate sync its states instead"
    )]
    OtherReplica {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: ReplicaId,
        /// Whose directory it is in.
        replica: ReplicaId,
    },
    /// The operating system gives no random numbers.
    #[error("the machine gives no random numbers ({0}); check its random device and start again")]
    NoRandomNumbers(String),
    /// A thread of ours panicked.
    #[error(
        "{0} failed unexpectedly, which is a defect of samestate: restart it, and report this with \
         its log; nothing acknowledged is lost"
    )]
    Unexpected(&'static str),
    /// The storage engine failed in another way. After a failed commit its outcome is unknown
    /// until the file has been opened again.
    #[error("the storage engine failed: {0}; restart samestate, nothing acknowledged is lost")]
    Engine(#[source] Box<redb::Error>),
}

impl StoreError {
    /// The error of a commit whose outcome is unknown, or whose outcome cannot be read: whatever
    /// the cause, it needs reopening.
    pub fn commit_failed(error: impl Into<Self>) -> Self {
        match error.into() {
            Self::Damaged(what) => Self::Engine(Box::new(redb::Error::Corrupted(what))),
            other => other,
        }
    }

    /// True when the store must be opened again before it can be trusted with another write: the
    /// engine failed, as opposed to a row that was found damaged before anything was changed.
    pub fn needs_reopening(&self) -> bool {
        !matches!(self, Self::Damaged(_))
    }

    /// Names the file that is damaged, if the message does not.
    #[must_use]
    pub fn of_file(self, path: &Path) -> Self {
        match self {
            Self::Damaged(what) if !what.contains(&path.display().to_string()) => {
                Self::Damaged(format!("{}: {what}", path.display()))
            }
            other => other,
        }
    }

    /// What is wrong, without what to do about it if it is damage.
    pub fn bare(&self) -> String {
        match self {
            Self::Damaged(what) => what.clone(),
            other => other.to_string(),
        }
    }

    /// A damage report in words.
    pub fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(io) if is_full(io.kind()) => Self::Full,
            redb::Error::Io(io) if io.kind() == io::ErrorKind::UnexpectedEof => {
                Self::damaged(ENDS_EARLY)
            }
            redb::Error::Corrupted(what) => Self::Damaged(what),
            other => Self::Engine(Box::new(other)),
        }
    }
}

macro_rules! from_engine {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_engine!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError,
    redb::CursorError
);

impl From<BadEncoding> for StoreError {
    fn from(error: BadEncoding) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<TreeError<StoreError>> for StoreError {
    fn from(error: TreeError<StoreError>) -> Self {
        match error {
            TreeError::Storage(error) => error,
            other => Self::Damaged(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_told_with_what_to_do() {
        for (kind, told) in [
            (io::ErrorKind::PermissionDenied, "as the user who owns"),
            (io::ErrorKind::ReadOnlyFilesystem, "mounted read-only"),
            (
                io::ErrorKind::NotADirectory,
                "no part of the path is a file",
            ),
            (io::ErrorKind::StorageFull, "free some space"),
            (io::ErrorKind::NotFound, "check that it exists"),
        ] {
            let path = PathBuf::from("/d/lock");
            let source = kind.into();
            let error = StoreError::Unusable { path, source }.to_string();
            let named = error.starts_with("cannot use /d/lock: ");
            assert!(named && error.contains(told), "{error}");
        }
    }

    #[test]
    fn damage_needs_reopening_only_once_a_commit_stands() {
        assert!(!StoreError::damaged("a row").needs_reopening());
        assert!(StoreError::commit_failed(StoreError::damaged("a row")).needs_reopening());
        assert!(StoreError::commit_failed(StoreError::Full).needs_reopening());
    }
}
