//! The damage that is known in a namespace, and how far its scrub is, for people and scripts to look
//! at.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;

use crate::replica::scrub::Finding;
use crate::runtime::lock::lock;
use crate::types::hash::{ContentHash, StateKey};

/// Faults that are listed at most; a namespace with more is beyond healing piece by piece.
const OPEN_MAX: usize = 10_000;
/// Faults that are shown at most.
const SHOWN_MAX: usize = 100;

/// How far the scrub of a namespace is, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ScrubStatus {
    /// Passes that have ended.
    pub passes: u64,
    /// True while a pass goes on.
    pub running: bool,
    /// State bytes that the pass that goes on has read.
    pub bytes: u64,
    /// The pass that ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pass: Option<PassStatus>,
    /// Faults found since the start, by the scrub or by reads.
    pub faults_found: u64,
    /// Faults that are no more: healed with the bytes of a peer, or written over.
    pub healed: u64,
    /// Faults that are known and not healed.
    pub open: usize,
    /// The first of them.
    pub faults: Vec<OpenFault>,
}

/// A pass that has ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PassStatus {
    /// When it ended, RFC 3339.
    pub ended: String,
    /// How long it took.
    pub seconds: f64,
    /// State bytes that it read and hashed.
    pub bytes: u64,
    /// Faults that it found.
    pub faults: u64,
}

/// A fault that is not healed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenFault {
    /// `content`, `record`, `history` or `engine`.
    pub kind: &'static str,
    /// The state's id, or its key when that cannot be read.
    pub what: String,
    /// The content whose bytes are damaged, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What is wrong.
    pub detail: String,
}

/// A content of a state whose bytes are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damaged {
    /// The state.
    pub key: StateKey,
    /// The content.
    pub content: ContentHash,
    /// Length of its bytes.
    pub size: u64,
}

#[derive(Default)]
struct Inner {
    status: ScrubStatus,
    open: BTreeMap<(StateKey, &'static str, Option<ContentHash>), Finding>,
}

/// The damage that is known in a namespace.
#[derive(Default)]
pub struct DamageBook(Mutex<Inner>);

impl DamageBook {
    /// What is known, for people to look at.
    pub fn status(&self) -> ScrubStatus {
        let inner = lock(&self.0);
        let shown = inner.open.values().take(SHOWN_MAX).map(|fault| OpenFault {
            kind: fault.kind,
            what: fault.what.clone(),
            content: fault.content.map(|(hash, _)| hash.to_hex()),
            detail: fault.detail.clone(),
        });
        ScrubStatus {
            open: inner.open.len(),
            faults: shown.collect(),
            ..inner.status.clone()
        }
    }

    /// A pass begins.
    pub fn begin_pass(&self) {
        let mut inner = lock(&self.0);
        inner.status.running = true;
        inner.status.bytes = 0;
    }

    /// A pass has read so much in all.
    pub fn advance(&self, bytes: u64) {
        lock(&self.0).status.bytes = bytes;
    }

    /// A pass has ended.
    pub fn end_pass(&self, pass: PassStatus) {
        let mut inner = lock(&self.0);
        inner.status.running = false;
        inner.status.passes += 1;
        inner.status.last_pass = Some(pass);
    }

    /// Lists a fault; false when it is listed already.
    pub fn add(&self, finding: Finding) -> bool {
        let mut inner = lock(&self.0);
        let content = finding.content.map(|(hash, _)| hash);
        let place = (finding.key, finding.kind, content);
        let is_new = !inner.open.contains_key(&place) && inner.open.len() < OPEN_MAX;
        if is_new {
            inner.status.faults_found += 1;
            inner.open.insert(place, finding);
        }
        is_new
    }

    /// True when a content is listed as damaged.
    pub fn knows(&self, content: &ContentHash) -> bool {
        let inner = lock(&self.0);
        let mut places = inner.open.keys();
        places.any(|(_, _, listed)| listed.as_ref() == Some(content))
    }

    /// Damaged contents that are listed, at most `limit`, behind `after`.
    pub fn contents(&self, after: Option<Damaged>, limit: usize) -> Vec<Damaged> {
        let inner = lock(&self.0);
        let damaged = inner.open.values().filter_map(|fault| {
            let (content, size) = fault.content?;
            Some(Damaged {
                key: fault.key,
                content,
                size,
            })
        });
        let behind = |one: &Damaged| after.is_none_or(|after| *one > after);
        damaged.filter(behind).take(limit).collect()
    }

    /// Takes a content off the list: its bytes are right, or nobody has it any more.
    pub fn close(&self, damaged: &Damaged) {
        let mut inner = lock(&self.0);
        let place = (damaged.key, "content", Some(damaged.content));
        if inner.open.remove(&place).is_some() {
            inner.status.healed += 1;
        }
    }

    /// Takes faults of other kinds off the list, which a new pass will find again if they are still
    /// there.
    pub fn forget_others(&self) {
        lock(&self.0)
            .open
            .retain(|_, fault| fault.content.is_some());
    }
}
