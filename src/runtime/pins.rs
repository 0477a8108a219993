//! Views that are pinned for sync sessions of other replicas: bounded in number, one for each peer,
//! and given up when the peer falls silent, since a pinned view keeps old pages from being reused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::replica::view::View;
use crate::runtime::lock::lock;
use crate::types::hash::NodeHash;
use crate::types::id::ReplicaId;

/// Peers that are remembered for having opened a session.
const HEARD_MAX: usize = 256;

/// Why a session could not be opened or found.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PinError {
    /// All places are taken.
    #[error("too many sync sessions are running; try again in a moment")]
    TooManySessions,
    /// Never opened here, closed, or silent for too long.
    #[error("there is no such sync session (any more); start a new one")]
    UnknownSession,
    /// No random number for a session id.
    #[error("the machine gives no random numbers")]
    NoRandomNumbers,
}

struct Pin {
    view: Arc<View>,
    peer: ReplicaId,
    last_used: Instant,
}

/// When a peer last opened a session here, and with which root it left.
struct Heard {
    at: Instant,
    root: Option<NodeHash>,
}

/// The pinned views of one namespace.
pub struct Pins {
    max: usize,
    idle: Duration,
    pins: Mutex<HashMap<u64, Pin>>,
    heard: Mutex<HashMap<ReplicaId, Heard>>,
}

impl Pins {
    /// At most `max` sessions at once, each given up after `idle` without a message.
    pub fn new(max: usize, idle: Duration) -> Self {
        Self {
            max,
            idle,
            pins: Mutex::default(),
            heard: Mutex::default(),
        }
    }

    /// Takes note that a peer that follows our feed opened a session here. `root` is what it is
    /// known to hold now, when that is known.
    pub fn hear(&self, peer: ReplicaId, root: Option<NodeHash>) {
        let mut heard = lock(&self.heard);
        if heard.len() >= HEARD_MAX && !heard.contains_key(&peer) {
            heard.retain(|_, heard| heard.at.elapsed() < self.idle);
        }
        if heard.len() < HEARD_MAX || heard.contains_key(&peer) {
            let at = Instant::now();
            heard.insert(peer, Heard { at, root });
        }
    }

    /// Takes note of what a peer that follows our feed held when it ended a session here.
    pub fn left(&self, peer: ReplicaId, root: Option<NodeHash>) {
        if let Some(heard) = lock(&self.heard).get_mut(&peer) {
            heard.root = root;
        }
    }

    /// True when the peer, following our feed, opened a session here within `time`.
    pub fn heard_within(&self, peer: ReplicaId, time: Duration) -> bool {
        let heard = lock(&self.heard);
        heard.get(&peer).is_some_and(|h| h.at.elapsed() < time)
    }

    /// The root the peer held when it last ended a session here, if it held ours.
    pub fn fetched(&self, peer: ReplicaId) -> Option<NodeHash> {
        lock(&self.heard).get(&peer).and_then(|heard| heard.root)
    }

    /// Pins a view for a peer. An older session of the same peer is given up: a replica runs one
    /// session a direction, so it has lost that one.
    ///
    /// # Errors
    /// [`PinError::TooManySessions`] when all places are taken by others.
    pub fn open(&self, peer: ReplicaId, view: Arc<View>) -> Result<u64, PinError> {
        let id = getrandom::u64().map_err(|_| PinError::NoRandomNumbers)?;
        let mut pins = lock(&self.pins);
        let idle = self.idle;
        pins.retain(|_, pin| pin.peer != peer && pin.last_used.elapsed() < idle);
        if pins.len() >= self.max {
            return Err(PinError::TooManySessions);
        }
        let last_used = Instant::now();
        pins.insert(
            id,
            Pin {
                view,
                peer,
                last_used,
            },
        );
        Ok(id)
    }

    /// The view and peer of a session.
    ///
    /// # Errors
    /// [`PinError::UnknownSession`] when it is not open (any more).
    pub fn get(&self, id: u64) -> Result<(Arc<View>, ReplicaId), PinError> {
        let mut pins = lock(&self.pins);
        let pin = pins.get_mut(&id).ok_or(PinError::UnknownSession)?;
        pin.last_used = Instant::now();
        Ok((Arc::clone(&pin.view), pin.peer))
    }

    /// Ends a session; says whose it was.
    pub fn close(&self, id: u64) -> Option<ReplicaId> {
        lock(&self.pins).remove(&id).map(|pin| pin.peer)
    }

    /// Gives up silent sessions; called now and then.
    pub fn sweep(&self) {
        let idle = self.idle;
        lock(&self.pins).retain(|_, pin| pin.last_used.elapsed() < idle);
    }
}
