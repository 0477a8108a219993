//! What can be wrong with settings, told so that the reader knows which one and where.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::config::origin::Origin;

/// Why settings cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings in {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{path}, line {line}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser expected.
        reason: String,
    },
    /// The file names something that is no setting.
    #[error("{path} has a setting {key:?}, which does not exist{meant}; the settings are {known}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// As written.
        key: String,
        /// Which one may have been meant, if there is one near.
        meant: String,
        /// All names.
        known: String,
    },
    /// The file gives a setting a table, a date or another thing that is no value of it.
    #[error("{path}: {key} takes {allowed}")]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// What it takes.
        allowed: &'static str,
    },
    /// A value that the setting does not take.
    #[error("{key} = {value:?} ({origin}) cannot be used: it takes {allowed}")]
    BadValue {
        /// The setting.
        key: &'static str,
        /// As given.
        value: String,
        /// Where it was given.
        origin: Origin,
        /// What the setting takes.
        allowed: &'static str,
    },
    /// Two peers under one name.
    #[error("peers: there are two named {name:?} ({origin}); give each replica a name of its own")]
    PeerTwice {
        /// The name.
        name: String,
        /// Where they were given.
        origin: Origin,
    },
    /// Two settings that do not go together.
    #[error(
        "in_flight_bytes ({in_flight}) must not be below max_state_bytes, or 64 MiB if that is less ({state}): no state of that size could be received"
    )]
    NoRoomForState {
        /// Bytes in flight.
        in_flight: u64,
        /// Bytes of the largest state.
        state: u64,
    },
}
