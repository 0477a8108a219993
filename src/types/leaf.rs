//! What the Merkle tree knows of a state.

use serde::{Deserialize, Serialize};

use crate::types::hash::{LeafDigest, StateKey};

/// One state as the tree and the reconciliation strategies see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Where it stands in the tree.
    pub key: StateKey,
    /// Digest of the whole record: ids, versions, conflicts and deletions.
    pub digest: LeafDigest,
    /// Bytes of the shown version; 0 for a tombstone.
    pub size: u64,
    /// Milliseconds since 1970-01-01 UTC of the newest version.
    pub updated_at: u64,
}
