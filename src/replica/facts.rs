//! What a commit says beside its changes of states: what the namespace is from now on, and what was
//! seen of peers.

use serde::{Deserialize, Serialize};

use crate::store::rows::Identity;
use crate::types::cursor::Epoch;
use crate::types::lineage::{Provenance, Sighting};

/// What a commit says beside its changes of states. The log has it too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What the file is, and where it comes from, when that changes.
    pub identity: Option<(Identity, Provenance)>,
    /// What was seen of the feeds of peers.
    pub seen: Vec<Sighting>,
    /// Feeds of which nothing is remembered any more.
    pub forgotten: Vec<Epoch>,
}

impl Facts {
    /// True when there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.identity.is_none() && self.seen.is_empty() && self.forgotten.is_empty()
    }
}
