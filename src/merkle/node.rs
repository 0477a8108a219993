//! What a node says of everything below it, and how two children make a parent.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::types::hash::NodeHash;
use crate::types::leaf::Leaf;

const LEAF_TAG: u8 = 0;
const INNER_TAG: u8 = 1;

/// Bytes of an encoded [`Summary`].
pub const SUMMARY_BYTES: usize = 56;

/// A subtree in 56 bytes: its hash, and aggregates that the hash covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// All zero for an empty subtree.
    pub hash: NodeHash,
    /// Records below, tombstones included.
    pub leaves: u64,
    /// Bytes of the shown versions below.
    pub size: u64,
    /// Newest version below, in milliseconds since 1970-01-01 UTC.
    pub updated_at: u64,
}

impl Summary {
    /// The subtree without leaves.
    pub const EMPTY: Self = Self {
        hash: NodeHash([0; 32]),
        leaves: 0,
        size: 0,
        updated_at: 0,
    };

    /// The subtree of one leaf, at whatever depth: `SHA-256(0 || key || digest || size || updated)`.
    pub fn of_leaf(leaf: &Leaf) -> Self {
        let mut preimage = [0; 1 + 32 + 32 + 8 + 8];
        preimage[0] = LEAF_TAG;
        preimage[1..33].copy_from_slice(&leaf.key.0);
        preimage[33..65].copy_from_slice(&leaf.digest.0);
        preimage[65..73].copy_from_slice(&leaf.size.to_le_bytes());
        preimage[73..].copy_from_slice(&leaf.updated_at.to_le_bytes());
        Self {
            hash: NodeHash(Sha256::digest(preimage).into()),
            leaves: 1,
            size: leaf.size,
            updated_at: leaf.updated_at,
        }
    }

    /// The parent, `depth` bits below the root, of two subtrees. A leaf alone is passed up
    /// unchanged, so the path to it is only as long as telling it from its neighbours takes.
    pub fn of_children(depth: u8, left: &Self, right: &Self) -> Self {
        if right.leaves == 0 && left.leaves <= 1 {
            return *left;
        }
        if left.leaves == 0 && right.leaves <= 1 {
            return *right;
        }
        // 114 bytes: with SHA-256's padding still two blocks.
        let mut preimage = [0; 2 + 2 * SUMMARY_BYTES];
        preimage[0] = INNER_TAG;
        preimage[1] = depth;
        left.write(&mut preimage[2..2 + SUMMARY_BYTES]);
        right.write(&mut preimage[2 + SUMMARY_BYTES..]);
        Self {
            hash: NodeHash(Sha256::digest(preimage).into()),
            leaves: left.leaves.saturating_add(right.leaves),
            size: left.size.saturating_add(right.size),
            updated_at: left.updated_at.max(right.updated_at),
        }
    }

    /// True when both sum up the same leaves. The hash, which decides whether a peer is believed,
    /// is compared in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        let aggregates = |summary: &Self| (summary.leaves, summary.size, summary.updated_at);
        self.hash.matches(&other.hash) & (aggregates(self) == aggregates(other))
    }

    /// Writes hash, leaves, size and newest update, little endian, into exactly 56 bytes.
    pub fn write(&self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.hash.0);
        out[32..40].copy_from_slice(&self.leaves.to_le_bytes());
        out[40..48].copy_from_slice(&self.size.to_le_bytes());
        out[48..56].copy_from_slice(&self.updated_at.to_le_bytes());
    }

    /// Reads what [`Summary::write`] wrote; `None` unless there are exactly 56 bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SUMMARY_BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[..32]);
        Some(Self {
            hash: NodeHash(hash),
            leaves: number(32),
            size: number(40),
            updated_at: number(48),
        })
    }
}
