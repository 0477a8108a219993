//! A place in the tree: the first bits of the keys below it.

use serde::{Deserialize, Serialize};

use crate::types::hash::StateKey;

/// The first `depth` bits (at most 64) of a key, left-aligned in `bits`, zero behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prefix {
    bits: u64,
    depth: u8,
}

impl Prefix {
    /// Deepest prefix. Keys are SHA-256 values: 64 equal leading bits among a billion keys have a
    /// chance below one in ten thousand, and the tree handles them correctly all the same.
    pub const DEPTH_MAX: u8 = 64;

    /// The whole tree.
    pub const ROOT: Self = Self { bits: 0, depth: 0 };

    /// A prefix from its parts; bits behind `depth` are cleared. `None` above 64.
    pub fn new(bits: u64, depth: u8) -> Option<Self> {
        (depth <= Self::DEPTH_MAX).then(|| Self {
            bits: bits & mask(depth),
            depth,
        })
    }

    /// The first `depth` bits of a key; `depth` above 64 counts as 64.
    pub fn of(key: &StateKey, depth: u8) -> Self {
        let depth = depth.min(Self::DEPTH_MAX);
        Self {
            bits: leading_bits(key) & mask(depth),
            depth,
        }
    }

    /// The bits, left-aligned.
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// How many bits.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The `slot`-th of the `2^levels` prefixes that are `levels` bits longer; `None` below depth 64.
    pub fn child(&self, slot: u64, levels: u8) -> Option<Self> {
        let depth = self.depth.checked_add(levels)?;
        if depth > Self::DEPTH_MAX || levels == 0 {
            return (levels == 0).then_some(*self);
        }
        let bits = self.bits | (slot << (64 - depth));
        Self::new(bits, depth)
    }

    /// True when the key lies below this prefix.
    pub fn covers(&self, key: &StateKey) -> bool {
        leading_bits(key) & mask(self.depth) == self.bits
    }

    /// The smallest and the largest possible key below this prefix, both included.
    pub fn key_range(&self) -> (StateKey, StateKey) {
        let mut first = [0x00; 32];
        let mut last = [0xff; 32];
        first[..8].copy_from_slice(&self.bits.to_be_bytes());
        last[..8].copy_from_slice(&(self.bits | !mask(self.depth)).to_be_bytes());
        (StateKey(first), StateKey(last))
    }
}

/// The first 64 bits of a key as a number.
pub fn leading_bits(key: &StateKey) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&key.0[..8]);
    u64::from_be_bytes(eight)
}

/// The bit of a key that decides between left (false) and right (true) at `depth`.
pub fn bit(key: &StateKey, depth: u8) -> bool {
    key.0[usize::from(depth >> 3)] >> (7 - (depth & 7)) & 1 == 1
}

fn mask(depth: u8) -> u64 {
    match depth {
        0 => 0,
        depth => u64::MAX << (64 - depth),
    }
}
