//! The key of a cluster's sketches, and what it makes of keys and leaves.

use std::fmt;

use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;
use siphasher::sip128;

use crate::sketch::field::{BITS, P};
use crate::types::hash::{LeafDigest, StateKey};

/// First bits of a key that make its place: as many as a residue has.
pub const PLACE_BITS: u8 = BITS as u8;
/// Bytes of a key's fingerprint.
pub const FINGERPRINT_BYTES: usize = 4;
/// Counters of an estimator, in two halves; see [`crate::sketch::estimator`].
pub const COUNTERS: usize = 1280;

/// What only the replicas of a cluster know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The secret that a user wrote.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

impl Default for Secret {
    /// What stands in for it where none is set, which everybody knows.
    fn default() -> Self {
        Self::of("")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What the places of a cluster are hashed with. Without it nobody can prepare states that crowd
/// one partition, fall into the same cells or cancel each other.
#[derive(Debug, Clone, Copy)]
pub struct SketchKey {
    places: sip128::SipHasher13,
    values: SipHasher13,
    fingerprint: [u8; FINGERPRINT_BYTES],
}

/// Where a place is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Chooses the cells within a partition.
    pub seed: u64,
    /// The residue that proves a place to be one: what an arbitrary sum would have to hit.
    pub check: u32,
    /// Chooses the partition, its upper bits first.
    pub partition: u16,
    /// Where the estimator counts it, in each half of its counters.
    pub tallies: [Tally; 2],
}

/// A counter of an estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Which one of its half.
    pub counter: u16,
    /// Whether values count negative there.
    pub negative: bool,
}

impl Tally {
    /// Out of 16 bits of a hash.
    fn of(bits: u64) -> Self {
        Self {
            counter: (((bits >> 1 & 0x7fff) * (COUNTERS as u64 / 2)) >> 15) as u16,
            negative: bits & 1 == 1,
        }
    }
}

impl SketchKey {
    /// The key of all replicas that have this secret.
    pub fn new(secret: &Secret) -> Self {
        let part = |name: &str| -> [u8; 32] {
            let mut hasher = Sha256::new();
            hasher.update(name.as_bytes());
            hasher.update(secret.0);
            hasher.finalize().into()
        };
        let (first, second) = halves(part("samestate sketch key "));
        let [a, b, c, d, ..] = part("samestate sketch fingerprint ");
        Self {
            places: sip128::SipHasher13::new_with_key(&first),
            values: SipHasher13::new_with_key(&second),
            fingerprint: [a, b, c, d],
        }
    }

    /// Tells whether two replicas have the same secret, and nothing else of it.
    pub fn fingerprint(&self) -> [u8; FINGERPRINT_BYTES] {
        self.fingerprint
    }

    /// Where a place is counted.
    pub fn spot(&self, place: u32) -> Spot {
        let hash = self.places.hash(&place.to_le_bytes());
        let scaled = |number: u64, bound: u64| (number * bound) >> 32;
        Spot {
            seed: hash.h1,
            check: scaled(hash.h2 & 0xffff_ffff, u64::from(P)) as u32,
            partition: (hash.h2 >> 48) as u16,
            // The lowest bits of the seed decide least about the cells.
            tallies: [Tally::of(hash.h2 >> 32), Tally::of(hash.h1)],
        }
    }

    /// The value of a leaf, never 0.
    pub fn value(&self, key: &StateKey, digest: &LeafDigest) -> u32 {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&key.prefix64().to_le_bytes());
        bytes[8..].copy_from_slice(&digest.0);
        let hash = self.values.hash(&bytes);
        ((u128::from(hash) * u128::from(P - 1)) >> 64) as u32 + 1
    }
}

fn halves(bytes: [u8; 32]) -> ([u8; 16], [u8; 16]) {
    let half = |from: usize| std::array::from_fn(|at| bytes[from + at]);
    (half(0), half(16))
}

/// The place of a key.
pub fn place_of(key: &StateKey) -> u32 {
    let place = (key.prefix64() >> (64 - BITS)) as u32;
    // Three numbers of 29 bits are no residues; they share the places of 0, 1 and 2.
    if place >= P { place - P } else { place }
}

/// First [`PLACE_BITS`] bits of the keys at a place.
pub fn slots_of(place: u32) -> impl Iterator<Item = u64> {
    let alias = place.checked_add(P).filter(|slot| slot >> BITS == 0);
    [Some(place), alias].into_iter().flatten().map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_and_first_bits_belong_together() {
        let key = |slot: u64| {
            let mut bytes = [0xa5; 32];
            let prefix = slot << (64 - BITS) | 0x5_a5a5;
            bytes[..8].copy_from_slice(&prefix.to_be_bytes());
            StateKey(bytes)
        };
        let last = (1 << BITS) - 1;
        for slot in [0, 1, 2, 3, 12_345, u64::from(P) - 1, u64::from(P), last] {
            let place = place_of(&key(slot));
            assert!(place < P);
            assert!(slots_of(place).any(|candidate| candidate == slot));
            assert!(slots_of(place).all(|candidate| place_of(&key(candidate)) == place));
        }
        let all = |place| slots_of(place).collect::<Vec<u64>>();
        assert_eq!(all(2), [2, last]);
        assert_eq!(all(3), [3]);
    }

    proptest! {
        #[test]
        fn spots_are_in_range_and_depend_on_the_key(place in 0..P, bytes in any::<[u8; 32]>()) {
            let key = SketchKey::new(&Secret::of("a secret"));
            let spot = key.spot(place);
            let in_range = |tally: &Tally| usize::from(tally.counter) < COUNTERS / 2;
            prop_assert!(spot.check < P && spot.tallies.iter().all(in_range));
            prop_assert_ne!(spot.seed, SketchKey::new(&Secret::default()).spot(place).seed);
            let value = key.value(&StateKey(bytes), &LeafDigest(bytes));
            prop_assert!((1..P).contains(&value));
        }
    }

    #[test]
    fn keys_are_those_of_the_reference() {
        // The test vectors of docs/reference/reconciliation.md.
        let key = SketchKey::new(&Secret::of("correct horse"));
        assert_ne!(
            key.fingerprint(),
            SketchKey::new(&Secret::default()).fingerprint()
        );
        let again = SketchKey::new(&Secret::of("correct horse"));
        assert_eq!(key.fingerprint(), again.fingerprint());
        assert_eq!(key.spot(7), again.spot(7));
    }
}
