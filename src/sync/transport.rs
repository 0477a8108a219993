//! What a session needs from outside: a way to the peer, and the replica it works for. Tests put
//! other things in their place.

use std::sync::Arc;

use thiserror::Error;

use crate::replica::command::{Meeting, Refused};
use crate::replica::staging::Stager;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::Agreement;
use crate::sync::dictionaries::Dictionaries;
use crate::sync::report::{Passed, Report};
use crate::types::id::ReplicaId;
use crate::types::lineage::{Lineage, Sighting};
use crate::types::seen::Seen;
use crate::wire::messages::Endpoint;

/// Why a request to the peer got no usable answer.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TransportError {
    /// No connection, or it broke.
    #[error("cannot reach the peer: {0}")]
    Unreachable(String),
    /// The peer answered with an error of its own.
    #[error("the peer refused: {detail} ({code})")]
    Refused {
        /// Its stable code.
        code: String,
        /// Its explanation.
        detail: String,
    },
    /// The answer was longer than any that fits the request.
    #[error("the peer's answer is longer than {0} bytes")]
    TooLong(usize),
    /// The replica is stopping, or the peer or the namespace was removed.
    #[error("broken off: the replica is stopping, or the peer or the namespace was removed")]
    Cancelled,
}

/// Carries messages to one peer.
pub trait Transport {
    /// Sends a request and waits for its answer, which may have at most `limit` bytes.
    ///
    /// # Errors
    /// [`TransportError`] when there is no usable answer.
    fn call(
        &mut self,
        endpoint: Endpoint,
        request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError>;

    /// What this transport has sent and received so far; `None` when there is no socket, and messages
    /// cost as many bytes as they have.
    fn passed(&self) -> Option<Passed> {
        None
    }
}

/// Why records could not be merged.
#[derive(Debug, Error, Clone)]
pub enum MergeError {
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The replica is stopping, or cannot take more writes.
    #[error("{0}")]
    Unavailable(String),
}

/// Waits until records that were handed over are durable, and tells which ones were refused.
pub type Merging = Box<dyn FnOnce() -> Result<Vec<Refused>, MergeError> + Send>;

/// The replica a session works for.
pub trait Home: Stager {
    /// Its id.
    fn replica(&self) -> ReplicaId;

    /// The newest commit.
    fn view(&self) -> Arc<View>;

    /// The clock on the wall, in milliseconds since 1970-01-01 UTC.
    fn now(&self) -> u64;

    /// Hands verified records to the writer, or states that the peer has collected, and returns at
    /// once; the result is waited for apart.
    fn merge(&self, meeting: Meeting) -> Merging;

    /// Takes note that everything that a peer had seen was taken in. With `at_once` whatever is
    /// handed over next sees it; otherwise there is no hurry.
    fn note_seen(&self, seen: &Seen, at_once: bool);

    /// What was last agreed with a peer.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn agreement(&self, peer: ReplicaId) -> Result<Option<Agreement>, StoreError>;

    /// Notes a new agreement.
    fn agree(&self, peer: ReplicaId, agreement: Agreement);

    /// A peer tells of itself. What it has to be told in return, when that does not go together
    /// with what was seen of it before.
    fn meet(&self, told: &Lineage, seq: u64) -> Option<Sighting>;

    /// A peer that was told so goes on nevertheless: what it says of itself holds from now on.
    fn trust(&self, told: &Lineage, seq: u64);

    /// A peer tells what it has seen of this replica. True when that shows that there is a copy of
    /// this one, and writes count under another name now.
    ///
    /// # Errors
    /// [`MergeError`] when they should and do not.
    fn learn(&self, seen: Sighting) -> Result<bool, MergeError>;

    /// The dictionaries of the namespace.
    fn dictionaries(&self) -> Arc<Dictionaries>;

    /// Shows how far a session has come.
    fn progress(&self, report: &Report);
}
