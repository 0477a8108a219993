//! What a command comes to, and what it has come to while it is being decided.

use std::collections::{HashMap, HashSet};

use crate::replica::command::{Accepted, Effect, Mutation};
use crate::store::body::Body;
use crate::store::stage::StageKey;
use crate::types::hash::{LeafDigest, StateKey};
use crate::types::record::StateRecord;

/// What a command comes to.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// Effects to make durable, in order.
    pub effects: Vec<Effect>,
    /// What the submitter is told.
    pub accepted: Accepted,
}

/// What one command has come to so far.
#[derive(Debug, Default)]
pub struct Draft {
    /// Newest position of the feed.
    pub seq: u64,
    /// Its effects, and what the submitter is told.
    pub decision: Decision,
    /// Records as decided; `None` for those that are removed.
    pub pending: HashMap<StateKey, Option<StateRecord>>,
    /// How far writes of ours were collected by it.
    pub collected: u64,
    /// Stages that it ends or gives up.
    pub stages: HashSet<StageKey>,
}

impl Draft {
    /// The next position of the feed.
    pub fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Adds a record as it is from now on, and returns its digest.
    pub fn push(
        &mut self,
        key: StateKey,
        seq: u64,
        record: StateRecord,
        bodies: Vec<Body>,
    ) -> LeafDigest {
        self.pending.insert(key, Some(record.clone()));
        let mutation = Mutation::new(key, seq, record, bodies);
        let digest = mutation.leaf.digest;
        self.decision.effects.push(Effect::Change(mutation));
        digest
    }
}
