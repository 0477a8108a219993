//! Short hashes of nodes and leaves under a key of the session.
//!
//! Truncating the SHA-256 values themselves would be as short, but whoever finds two states whose
//! digests begin with the same 64 bits (2^32 work) could then make two replicas disagree for good.
//! Under a fresh random key such pairs cannot be prepared.

use siphasher::sip::SipHasher24;

use crate::merkle::node::Summary;
use crate::types::leaf::Leaf;

/// Bytes of a node's or leaf's fingerprint. A wrong match among a million has a chance of 2^-28,
/// is noticed by the session, and does not return under the next key.
pub const FINGERPRINT_BYTES: usize = 6;

/// Makes the fingerprints of one session.
#[derive(Debug, Clone, Copy)]
pub struct Fingerprints(SipHasher24);

impl Fingerprints {
    /// Under a session's key.
    pub fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(key))
    }

    /// Of a subtree.
    pub fn node(&self, summary: &Summary) -> [u8; FINGERPRINT_BYTES] {
        first_bytes(self.0.hash(&summary.hash.0))
    }

    /// Of a leaf.
    pub fn leaf(&self, leaf: &Leaf) -> [u8; FINGERPRINT_BYTES] {
        first_bytes(self.leaf_id(leaf, 64))
    }

    /// A leaf as a number of 1 to 64 bits; other widths count as the nearest of these.
    pub fn leaf_id(&self, leaf: &Leaf, bits: u8) -> u64 {
        self.0.hash(&leaf_bytes(leaf)) >> (64 - bits.clamp(1, 64))
    }
}

/// A leaf as the item of a set: its key, then its digest. Size and time follow from the record
/// under the digest.
pub fn leaf_bytes(leaf: &Leaf) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&leaf.key.0);
    bytes[32..].copy_from_slice(&leaf.digest.0);
    bytes
}

fn first_bytes(hash: u64) -> [u8; FINGERPRINT_BYTES] {
    let [a, b, c, d, e, f, _, _] = hash.to_le_bytes();
    [a, b, c, d, e, f]
}
