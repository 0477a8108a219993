//! What makes figures worthless: answers other than the ones that were asked for.

use std::io;

use thiserror::Error;

use crate::cli::text::printable;
use crate::delta::archive::ArchiveError;
use crate::delta::error::DeltaError;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::view::ViewError;
use crate::store::error::StoreError;
use crate::sync::dictionaries::DictionaryError;

/// Why a measurement came to nothing.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The connection could not be made, or ended too early.
    #[error("the connection to the server broke: {0}")]
    Broken(#[from] io::Error),
    /// Another status than success.
    #[error("the server refused with {status}: {}", printable(said))]
    Refused {
        /// The status.
        status: u16,
        /// The beginning of the body.
        said: String,
    },
    /// An answer that the small client here does not read.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(&'static str),
    /// Other bytes than were written.
    #[error("state {id} was read back with other bytes than were written to {from}")]
    Differs {
        /// Which state.
        id: String,
        /// Who gave them.
        from: &'static str,
    },
    /// A delta that does not give back what it was made from.
    #[error("the delta of {0} does not give back the state; please report this")]
    WrongDelta(&'static str),
    /// A codec that fails.
    #[error("a delta cannot be made or undone: {0}")]
    Delta(#[source] DeltaError),
    /// A dictionary that the other side would refuse.
    #[error("a dictionary cannot be passed on: {0}")]
    Dictionary(#[source] DictionaryError),
    /// The recording that ships with the program.
    #[error("the recorded game states cannot be read: {0}")]
    Recording(#[source] ArchiveError),
    /// A line of an index of small states.
    #[error("the index of small states has a line that is not key, turn, offset, length: {0:?}")]
    Index(String),
    /// Another program.
    #[error("{0} failed; leave --tools away, or install it anew")]
    Tool(&'static str),
    /// What a process takes cannot be told.
    #[error("the memory that a delta takes cannot be measured: {0}")]
    Memory(String),
    /// Acknowledged and gone.
    #[error("{lost} of {acknowledged} acknowledged writes are lost, among them {examples}")]
    Lost {
        /// How many.
        lost: u64,
        /// Of how many.
        acknowledged: u64,
        /// A few of the states.
        examples: String,
    },
    /// A comparison failed.
    #[error("a comparison failed: {0}")]
    Compare(#[from] ReconcileError),
    /// The sets could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The file that the upkeep is measured with.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A comparison ended without a result.
    #[error("a comparison came to no end; report it with the seed")]
    Unfinished,
    /// A comparison ended with another result than the truth.
    #[error("{0} comparisons named the wrong differences; report it with the seed")]
    WrongDifferences(u64),
}
