//! Views that are pinned for sync sessions of other replicas: bounded in number, in all and for each
//! peer, and given up when the peer falls silent, since a pinned view keeps old pages from being reused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::replica::view::View;
use crate::runtime::lock::lock;
use crate::types::hash::NodeHash;
use crate::types::id::ReplicaId;
use crate::types::lineage::Lineage;
use crate::types::seen::Seen;

/// Peers that are remembered for having opened a session.
const HEARD_MAX: usize = 256;

/// Sessions of one peer that may be open at once. A replica that knows us by two names runs one a
/// direction for each of them.
const EACH: usize = 4;

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
    /// What the peer had taken in when it opened the session.
    seen: Arc<Seen>,
    /// True once something that the peer handed over was left out.
    left_out: bool,
    last_used: Instant,
}

/// A session that has ended.
pub struct Ended {
    /// Whose it was.
    pub peer: ReplicaId,
    /// What the peer had taken in when it opened it.
    pub seen: Arc<Seen>,
    /// True when something that the peer handed over was left out.
    pub left_out: bool,
}

/// When a peer last opened a session here, and with which root it left.
struct Heard {
    at: Instant,
    root: Option<NodeHash>,
}

/// What a peer said when it opened a session here and both were equal.
#[derive(Debug, Clone)]
pub struct Said {
    /// Who.
    pub replica: ReplicaId,
    /// True when it follows our feed.
    pub follows: bool,
    /// Openings of its file.
    pub lineage: Lineage,
    /// Its newest change.
    pub seq: u64,
}

/// The pinned views of one namespace.
pub struct Pins {
    max: usize,
    idle: Duration,
    pins: Mutex<HashMap<u64, Pin>>,
    heard: Mutex<HashMap<ReplicaId, Heard>>,
    said: Mutex<Told>,
}

/// What peers said while both were equal.
#[derive(Default)]
struct Told {
    /// By its digest, with a number that counts up.
    said: HashMap<u64, (u64, Said)>,
    count: u64,
}

impl Pins {
    /// At most `max` sessions at once, each given up after `idle` without a message.
    pub fn new(max: usize, idle: Duration) -> Self {
        Self {
            max,
            idle,
            pins: Mutex::default(),
            heard: Mutex::default(),
            said: Mutex::default(),
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

    /// Remembers what a peer says while both are equal, in place of what it said before, or of what was
    /// said the longest ago when that are too many.
    pub fn remember(&self, digest: u64, told: Said) {
        let mut known = lock(&self.said);
        let is_new = |known: &Said| known.replica != told.replica || known.follows != told.follows;
        known.said.retain(|_, (_, known)| is_new(known));
        if known.said.len() >= HEARD_MAX {
            let oldest = known.said.iter().min_by_key(|(_, (number, _))| *number);
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                known.said.remove(&oldest);
            }
        }
        known.count += 1;
        let number = known.count;
        known.said.insert(digest, (number, told));
    }

    /// What a digest stands for.
    pub fn recall(&self, digest: u64) -> Option<Said> {
        let known = lock(&self.said);
        known.said.get(&digest).map(|(_, said)| said.clone())
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

    /// Pins a view for a peer. When there is no place for it, the same peer's session that has been
    /// silent for longest is given up: most likely the peer has lost that one.
    ///
    /// # Errors
    /// [`PinError::TooManySessions`] when all places are taken by others.
    pub fn open(&self, peer: ReplicaId, view: Arc<View>, seen: Arc<Seen>) -> Result<u64, PinError> {
        // Half as long as it could be, since every message of the session has it.
        let id = getrandom::u32().map_err(|_| PinError::NoRandomNumbers)?;
        let mut id = u64::from(id);
        let mut pins = lock(&self.pins);
        let idle = self.idle;
        pins.retain(|_, pin| pin.last_used.elapsed() < idle);
        let same = pins.iter().filter(|(_, pin)| pin.peer == peer);
        if same.clone().count() >= EACH || pins.len() >= self.max {
            let lost = same.min_by_key(|(_, pin)| pin.last_used);
            let lost = *lost.ok_or(PinError::TooManySessions)?.0;
            pins.remove(&lost);
        }
        while pins.contains_key(&id) {
            id += 1;
        }
        let last_used = Instant::now();
        pins.insert(
            id,
            Pin {
                view,
                peer,
                seen,
                left_out: false,
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

    /// What the peer had taken in when it opened a session.
    ///
    /// # Errors
    /// [`PinError::UnknownSession`] when it is not open (any more).
    pub fn seen(&self, id: u64) -> Result<Arc<Seen>, PinError> {
        let pins = lock(&self.pins);
        let pin = pins.get(&id).ok_or(PinError::UnknownSession)?;
        Ok(Arc::clone(&pin.seen))
    }

    /// Takes note that something that the peer handed over in a session was left out.
    pub fn leave_out(&self, id: u64) {
        if let Some(pin) = lock(&self.pins).get_mut(&id) {
            pin.left_out = true;
        }
    }

    /// Ends a session.
    pub fn close(&self, id: u64) -> Option<Ended> {
        lock(&self.pins).remove(&id).map(|pin| Ended {
            peer: pin.peer,
            seen: pin.seen,
            left_out: pin.left_out,
        })
    }

    /// Gives up silent sessions; called now and then.
    pub fn sweep(&self) {
        let idle = self.idle;
        lock(&self.pins).retain(|_, pin| pin.last_used.elapsed() < idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::replica::engine::Engine;
    use crate::store::options::StoreOptions;
    use crate::types::cursor::Epoch;
    use crate::types::lineage::Provenance;

    #[test]
    fn what_a_new_peer_says_takes_the_place_of_what_was_said_the_longest_ago() {
        let pins = Pins::new(1, Duration::from_secs(3600));
        let say = |peer: u64| {
            let told = Said {
                replica: ReplicaId(peer),
                follows: true,
                lineage: Provenance::new(Epoch(peer)).lineage,
                seq: 1,
            };
            pins.remember(1000 + peer, told);
        };
        let last = HEARD_MAX as u64;
        (0..last).for_each(say);
        // This one is news again.
        say(0);
        say(last);
        let is_known = |peer: u64| pins.recall(1000 + peer).is_some();
        assert!(is_known(0) && is_known(last) && !is_known(1));
        assert!((2..last).all(is_known));
    }

    #[test]
    fn a_peer_has_a_few_sessions_and_loses_the_most_silent_one_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("default.redb");
        let (options, wall) = (StoreOptions::default(), Arc::new(SystemClock));
        let opened = Engine::open(&path, ReplicaId(1), Epoch(1), options, wall).unwrap();
        let engine = &opened.engine;
        let pins = Pins::new(EACH + 1, Duration::from_secs(3600));
        let open = |peer| pins.open(ReplicaId(peer), engine.view(), Arc::default());
        let is_open = |id: u64| lock(&pins.pins).contains_key(&id);
        let ids: Vec<u64> = (0..EACH).map(|_| open(7).unwrap()).collect();
        assert!(ids.iter().all(|id| is_open(*id)));
        pins.get(ids[0]).unwrap();
        open(7).unwrap();
        assert!(is_open(ids[0]) && !is_open(ids[1]));
        let other = open(8).unwrap();
        assert_eq!(
            open(9),
            Err(PinError::TooManySessions),
            "the places are taken by others"
        );
        open(7).unwrap();
        assert!(is_open(other) && !is_open(ids[2]));
        open(8).unwrap();
        assert!(!is_open(other));
    }
}
