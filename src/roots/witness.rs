//! What a replica remembers of the logs of others, and what it holds against them.

use serde::{Deserialize, Serialize};

use crate::roots::head::SignedHead;

/// Keys whose heads are remembered in a namespace; beyond, the one heard of longest ago is
/// forgotten.
pub const WITNESSED_MAX: usize = 64;
/// Keys that something is held against in a namespace. Evidence is never forgotten, so beyond this
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

/// What a replica did that no honest one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It signed two heads that cannot both be of one log. The heads alone prove it.
    TwoHeads,
    /// It signed a head, and later one that it could not show to follow from the first.
    Rewritten,
}

impl Fault {
    /// A word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoHeads => "two_heads",
            Self::Rewritten => "rewritten",
        }
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
