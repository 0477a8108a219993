//! A place in the tree: the first bits of the keys below it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::hash::StateKey;

/// The first `depth` bits (at most 64) of a key, left-aligned in `bits`, zero behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Prefix {
    bits: u64,
    depth: u8,
}

/// What a prefix looks like from outside, before it is known to be one.
#[derive(Deserialize)]
#[serde(rename = "Prefix")]
struct Parts {
    bits: u64,
    depth: u8,
}

impl TryFrom<Parts> for Prefix {
    type Error = &'static str;

    fn try_from(parts: Parts) -> Result<Self, Self::Error> {
        Self::new(parts.bits, parts.depth)
            .filter(|prefix| prefix.bits == parts.bits)
            .ok_or("a prefix has at most 64 bits and zeros behind them")
    }
}

impl fmt::Display for Prefix {
    /// The bits in hexadecimal and how many of them count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.bits, self.depth)
    }
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
            bits: key.prefix64() & mask(depth),
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

    /// The first `depth` bits of this prefix; itself when it has no more than that.
    pub fn ancestor(&self, depth: u8) -> Self {
        let depth = depth.min(self.depth);
        Self {
            bits: self.bits & mask(depth),
            depth,
        }
    }

    /// The other child of this prefix's parent; the root has none and is its own.
    pub fn sibling(&self) -> Self {
        match self.depth {
            0 => *self,
            depth => Self {
                bits: self.bits ^ 1 << (64 - depth),
                depth,
            },
        }
    }

    /// The last `levels` bits: which one it is of the places that far below its ancestor.
    pub fn slot(&self, levels: u8) -> u64 {
        let levels = u32::from(levels.min(self.depth));
        let last = match self.depth {
            0 => 0,
            depth => self.bits >> (64 - depth),
        };
        last & !u64::MAX.checked_shl(levels).unwrap_or(0)
    }

    /// True when the key lies below this prefix.
    pub fn covers(&self, key: &StateKey) -> bool {
        key.prefix64() & mask(self.depth) == self.bits
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::binary::{decode, encode};

    #[test]
    fn children_siblings_and_slots_agree() {
        for depth in [0, 1, 12, 60, 63] {
            let at = Prefix::of(&StateKey([0xa5; 32]), depth);
            let (left, right) = (at.child(0, 1).unwrap(), at.child(1, 1).unwrap());
            assert_eq!((left.sibling(), right.sibling()), (right, left));
            assert_eq!((left.slot(1), right.slot(1)), (0, 1));
            assert_eq!((left.ancestor(depth), right.ancestor(depth)), (at, at));
            assert_eq!(at.key_range().0, left.key_range().0);
            assert_eq!(at.key_range().1, right.key_range().1);
        }
        let deepest = Prefix::of(&StateKey([0xa5; 32]), 64);
        assert_eq!(deepest.slot(64), 0xa5a5_a5a5_a5a5_a5a5);
        assert_eq!((deepest.slot(4), deepest.child(0, 1)), (5, None));
        assert_eq!(Prefix::ROOT.slot(4), 0);
        assert_eq!(deepest.ancestor(12).to_string(), "a5a0000000000000/12");
    }

    #[test]
    fn a_prefix_from_outside_is_checked() {
        let at = Prefix::of(&StateKey([0xa5; 32]), 12);
        assert_eq!(decode::<Prefix>(&encode(&at)).unwrap(), at);
        for bad in [(0u64, 65u8), (0, 255), (1, 63), (1 << 51, 12), (1 << 63, 0)] {
            assert!(decode::<Prefix>(&encode(&bad)).is_err(), "{bad:?}");
        }
    }
}
