//! What the HTTP face may ask of the peer links, so that the two layers need not know each other.

use std::future::Future;
use std::pin::Pin;

use serde::Serialize;
use thiserror::Error;

use crate::reconcile::strategy::StrategyName;
use crate::sync::report::Report;
use crate::types::id::Namespace;

/// A future that the caller polls to its end.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, PeeringError>> + Send + 'a>>;

/// A peer as `/v1/peers` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Its name here.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Its replica id, once it has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// `connecting`, `healthy`, `failing` when it answers but sessions fail, `unreachable` or
    /// `banned`.
    pub health: &'static str,
    /// Changes of the peer that were known not to have been pulled at the last look.
    pub lag: u64,
    /// Misbehaviour points; they fade with time, and above a limit the peer is banned for a while.
    pub penalties: f64,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When a session last proved equality or pulled everything, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_synced: Option<String>,
    /// Bytes that went to it through connections opened here, since the process began: sessions,
    /// polls of its change feed, looks at its log of roots.
    pub bytes_sent: u64,
    /// Bytes that came from it through those.
    pub bytes_received: u64,
    /// What is held against it about its log of roots; the evidence is in `/agreement`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accused: Vec<&'static str>,
}

/// One session, asked for by a user.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// Which namespace.
    pub namespace: Namespace,
    /// The peer: a configured name or an `http://` URL.
    pub peer: String,
    /// Take over what the peer has.
    pub pull: bool,
    /// Give the peer what we have.
    pub push: bool,
    /// How to find differences; `None` lets the planner choose.
    pub strategy: Option<StrategyName>,
}

/// One comparison, asked for by a user.
#[derive(Debug, Clone)]
pub struct DiffRequest {
    /// Which namespace.
    pub namespace: Namespace,
    /// The peer: a configured name or an `http://` URL.
    pub peer: String,
    /// How to find differences; `None` lets the planner choose.
    pub strategy: Option<StrategyName>,
}

/// One state that two replicas hold differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiffEntry {
    /// Its id.
    pub id: String,
    /// Its key in hex.
    pub key: String,
    /// Content hash here; absent when there is no such state here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// Content hash there; absent when there is no such state there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
}

/// What differs between this replica and another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiffReport {
    /// True when the roots are equal.
    pub equal: bool,
    /// How the differences were found.
    pub strategy: String,
    /// Bytes to the peer, as they went through the socket.
    pub bytes_sent: u64,
    /// Bytes from the peer, as they came through the socket.
    pub bytes_received: u64,
    /// Every state that differs, in order of id.
    pub differences: Vec<DiffEntry>,
}

/// Why something about peers could not be done.
#[derive(Debug, Error)]
pub enum PeeringError {
    /// No peer of that name.
    #[error("there is no peer named {0:?}; list them with GET /v1/peers")]
    UnknownPeer(String),
    /// Not a usable name.
    #[error(
        "a peer name has 1 to 63 characters from a-z, 0-9 and '-', and does not start with '-'"
    )]
    BadName,
    /// Not a usable address.
    #[error("{0:?} is not an http:// URL of a samestate server, without credentials and query")]
    BadUrl(String),
    /// All places are taken.
    #[error("there are as many peers as this replica takes; remove one first")]
    TooManyPeers,
    /// No namespace of that name here.
    #[error("there is no namespace {0} here")]
    UnknownNamespace(Namespace),
    /// A session with this peer is running in this direction.
    #[error("a sync session with this peer is running already; try again in a moment")]
    Busy,
    /// The peer misbehaved too often.
    #[error("this peer misbehaved and is banned for {0} more seconds; see GET /v1/peers")]
    Banned(u64),
    /// The comparison with the peer failed.
    #[error("{0}")]
    Failed(String),
    /// A session panicked.
    #[error("the session failed unexpectedly; the replica's log says more")]
    Unexpected,
    /// The replica is stopping.
    #[error("the replica is shutting down")]
    ShuttingDown,
}

/// The peer links of a replica.
pub trait Peering: Send + Sync {
    /// All configured peers, in order of name.
    fn list(&self) -> Vec<PeerStatus>;

    /// Adds or changes a peer; true when it is new.
    ///
    /// # Errors
    /// [`PeeringError`] when the name or the URL is unusable or there are too many.
    fn put(&self, name: &str, url: &str) -> Result<bool, PeeringError>;

    /// Forgets a peer.
    ///
    /// # Errors
    /// [`PeeringError::UnknownPeer`].
    fn remove(&self, name: &str) -> Result<(), PeeringError>;

    /// Runs one session to its end. A session that fails is an `Ok` report that says so.
    fn sync(&self, request: SyncRequest) -> Answer<'_, Report>;

    /// Finds what differs without changing either side.
    fn diff(&self, request: DiffRequest) -> Answer<'_, DiffReport>;
}
