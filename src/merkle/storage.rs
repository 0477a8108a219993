//! What the tree needs from whoever keeps its rows and the records, and how that can fail.

use thiserror::Error;

use crate::merkle::prefix::Prefix;
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// Reads the rows of a tree and the leaves they stand on, all of one moment.
pub trait TreeStorage {
    /// Why the storage failed.
    type Error;

    /// The row kept at `at`, if there is one.
    ///
    /// # Errors
    /// Whatever reading it meets.
    fn row(&self, at: Prefix) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Shows every row at depth [`crate::merkle::row::TOP_DEPTH`], in order of prefix.
    ///
    /// # Errors
    /// Whatever reading them meets.
    fn top_rows(&self, visit: &mut dyn FnMut(Prefix, &[u8])) -> Result<(), Self::Error>;

    /// The leaves below `within`, sorted by key.
    ///
    /// # Errors
    /// Whatever reading them meets.
    fn leaves(&self, within: Prefix) -> Result<Vec<Leaf>, Self::Error>;
}

/// Also writes rows. Records are written by the caller.
pub trait TreeStorageMut: TreeStorage {
    /// Keeps `row` at `at`, in place of the one before.
    ///
    /// # Errors
    /// Whatever writing it meets.
    fn set_row(&mut self, at: Prefix, row: &[u8]) -> Result<(), Self::Error>;

    /// Drops the row at `at`, which exists.
    ///
    /// # Errors
    /// Whatever removing it meets.
    fn remove_row(&mut self, at: Prefix) -> Result<(), Self::Error>;
}

/// Why the tree could not be read or updated.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TreeError<E> {
    /// The storage below failed; `E` says how.
    #[error("the storage below the Merkle tree failed: {0}")]
    Storage(E),
    /// A row is absent, malformed, or at odds with the node above it.
    #[error("the Merkle row at {at} is missing or damaged; rebuild the tree from the records")]
    DamagedRow {
        /// Where the row stands.
        at: Prefix,
    },
    /// The records below a place are not those that the tree was made from.
    #[error("the records below {at} do not add up to the Merkle tree; rebuild it from the records")]
    StaleLeaves {
        /// The place.
        at: Prefix,
    },
    /// Leaves or changes handed over unsorted, twice, or under a key that is not theirs.
    #[error("leaves must come sorted by key, each once and under its own key; {key} does not")]
    NotSorted {
        /// The first key at fault.
        key: StateKey,
    },
    /// More levels at once than [`crate::merkle::view::CHILD_LEVELS_MAX`], or below depth 64.
    #[error("cannot list {levels} levels below {at}: ask for fewer levels, at most to depth 64")]
    TooDeep {
        /// Where the children were asked for.
        at: Prefix,
        /// How many levels further down.
        levels: u8,
    },
}
