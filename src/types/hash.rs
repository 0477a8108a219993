//! 32-byte SHA-256 values, one type for each role so that they cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::types::id::GameId;

/// Why a text is not a 32-byte hash.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("expected 64 hexadecimal digits (a SHA-256), got {got:?}")]
pub struct BadHash {
    /// What was given, cut to a length that is safe to show.
    pub got: String,
}

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Compares in constant time. Use this, not `==`, wherever the answer decides whether
            /// bytes from outside are trusted.
            pub fn matches(&self, other: &Self) -> bool {
                bool::from(self.0.ct_eq(&other.0))
            }

            /// The first 64 bits as a big-endian number, so that numbers sort as hashes do.
            pub fn prefix64(&self) -> u64 {
                let [a, b, c, d, e, f, g, h, ..] = self.0;
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }

            /// Lower-case hexadecimal, 64 digits.
            pub fn to_hex(&self) -> String {
                hex(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.to_hex()[..16])
            }
        }

        impl FromStr for $name {
            type Err = BadHash;

            fn from_str(text: &str) -> Result<Self, BadHash> {
                unhex(text).map(Self)
            }
        }
    };
}

hash_type! {
    /// SHA-256 of a state's bytes.
    ContentHash
}
hash_type! {
    /// SHA-256 of a state's id: its place in the Merkle tree, evenly spread whatever ids look like.
    StateKey
}
hash_type! {
    /// SHA-256 over the canonical encoding of a whole record (see [`crate::types::record`]).
    LeafDigest
}
hash_type! {
    /// The hash of a Merkle node, as described in docs/reference/merkle-tree.md.
    NodeHash
}
hash_type! {
    /// A hash of the log of roots, as described in docs/reference/root-log.md.
    LogHash
}
hash_type! {
    /// SHA-256 of one content-defined chunk.
    ChunkHash
}
hash_type! {
    /// SHA-256 of a whole file.
    FileHash
}

impl ContentHash {
    /// Hashes a state's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// What tombstones carry, which have no bytes.
    pub const NONE: Self = Self([0; 32]);
}

/// Hashes a state's bytes a part at a time.
#[derive(Debug, Clone, Default)]
pub struct ContentHasher(Sha256);

impl ContentHasher {
    /// Takes the next part.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all parts.
    pub fn finish(self) -> ContentHash {
        ContentHash(self.0.finalize().into())
    }
}

impl ChunkHash {
    /// Hashes a chunk's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl StateKey {
    /// The key of an id.
    pub fn of(id: &GameId) -> Self {
        Self::of_text(id.as_str())
    }

    /// The key of an id that was read from where only ids stand.
    pub fn of_text(id: &str) -> Self {
        Self(Sha256::digest(id.as_bytes()).into())
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

fn unhex(text: &str) -> Result<[u8; 32], BadHash> {
    let bad = || BadHash {
        got: text.chars().take(80).collect(),
    };
    if text.len() != 64 {
        return Err(bad());
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16).ok_or_else(bad);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_hashes_do() {
        let low = StateKey(std::array::from_fn(|at| at as u8));
        let high = StateKey([0x80; 32]);
        assert_eq!(low.prefix64(), 0x0001_0203_0405_0607);
        assert!(low < high && low.prefix64() < high.prefix64());
    }

    #[test]
    fn hex_round_trips_and_rejects_what_is_not_a_hash() {
        let hash = ContentHash::of(b"state");
        assert_eq!(hash.to_hex().parse::<ContentHash>(), Ok(hash));
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"é".repeat(32)] {
            assert!(bad.parse::<ContentHash>().is_err(), "{bad}");
        }
    }
}
