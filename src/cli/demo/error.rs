//! Why the demonstration ended before its end.

use thiserror::Error;

use crate::cli::error::CliError;
use crate::cli::text::printable;
use crate::delta::archive::ArchiveError;
use crate::delta::error::DeltaError;

/// What went wrong.
#[derive(Debug, Error)]
pub enum DemoError {
    /// A claim that turned out not to hold.
    #[error("{claim} does not hold: {}", printable(found))]
    Untrue {
        /// What was claimed.
        claim: String,
        /// What was found instead.
        found: String,
    },
    /// A request or a file.
    #[error(transparent)]
    Client(#[from] CliError),
    /// Something that never happened.
    #[error("waited {seconds} s for {event} in vain: {}", printable(instead))]
    Waited {
        /// How long.
        seconds: u64,
        /// For what.
        event: &'static str,
        /// What was the case instead.
        instead: String,
    },
    /// The recorded game states inside the program.
    #[error("the recorded game states cannot be read: {0}; build the program anew")]
    Recording(#[from] ArchiveError),
    /// The recorded game states are others than the demonstration was written for.
    #[error("the recorded game states lack {0}; take the fixtures of this version")]
    Lacking(&'static str),
    /// Compression failed.
    #[error(transparent)]
    Compression(#[from] DeltaError),
}
