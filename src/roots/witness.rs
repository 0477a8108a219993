//! What a replica remembers of the logs of others, and what it holds against them.

use serde::{Deserialize, Serialize};

use crate::roots::head::SignedHead;

/// Keys whose heads are remembered in a namespace; beyond, the one heard of longest ago is
/// forgotten.
pub const WITNESSED_MAX: usize = 64;
/// Keys of one replica id whose heads are remembered; beyond, the one of them that was heard of
/// longest ago is forgotten.
pub const KEYS_PER_REPLICA_MAX: usize = 4;
/// What is held against others in a namespace. Evidence is never forgotten, so beyond this
/// it is told in the log only.
pub const ACCUSED_MAX: usize = 64;

/// The newest head of a log that was found to follow from those before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witnessed {
    /// The head.
    pub head: SignedHead,
    /// When it was heard, in milliseconds since 1970-01-01 UTC.
    pub heard_at: u64,
}

/// What a replica did that its peers note; the first two are what no honest one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It signed two heads that cannot both be of one log. The heads alone prove it.
    TwoHeads,
    /// It signed a head, and later one that it could not show to follow from the first.
    Rewritten,
    /// Its log is another one under the same key: the one of before does not go on. A repair, an
    /// older file that was put back and a namespace made anew do that as well.
    BegunAnew,
    /// It signs with another key than before. One that lost its key file does that as well.
    NewKey,
}

impl Fault {
    /// A word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoHeads => "two_heads",
            Self::Rewritten => "rewritten",
            Self::BegunAnew => "begun_anew",
            Self::NewKey => "new_key",
        }
    }

    /// True for what no honest replica does.
    pub fn is_proof(self) -> bool {
        matches!(self, Self::TwoHeads | Self::Rewritten)
    }
}

/// Evidence against a replica's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accusation {
    /// What it did.
    pub fault: Fault,
    /// The head that was known.
    pub first: SignedHead,
    /// The one that does not go with it.
    pub second: SignedHead,
    /// When that was found, in milliseconds since 1970-01-01 UTC.
    pub found_at: u64,
}

/// How a head goes with one that was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// They are the same.
    Same,
    /// They cannot both be of one log.
    Contradiction,
    /// They are of two logs, under one key or under two.
    OtherLog,
    /// A proof that the log of so many entries is the beginning of the longer one has to tell.
    Ask {
        /// The shorter one.
        from: u64,
        /// The longer one.
        to: u64,
    },
}

/// Compares two heads, both signed.
pub fn relation(known: &SignedHead, head: &SignedHead) -> Relation {
    if !known.is_of_log_of(head) {
        return Relation::OtherLog;
    }
    if known.contradicts(head) {
        return Relation::Contradiction;
    }
    let (one, other) = (known.head.size, head.head.size);
    if one == other {
        return Relation::Same;
    }
    Relation::Ask {
        from: one.min(other),
        to: one.max(other),
    }
}
