//! A Bloom filter: a set in about 1.44 bits per item and halving of the error rate, which never
//! denies an item it holds and sometimes claims one it does not.

use bitvec::prelude::{BitVec, Lsb0};
use siphasher::sip128::SipHasher24;
use thiserror::Error;

/// Largest filter that is built or read, in bytes: 64 MiB, 37 million items at 0.1%.
pub const BYTES_MAX: usize = 64 << 20;
/// Most bits that one item sets; reached at an error rate of `2^-32`.
const HASHES_MAX: u8 = 32;
/// Bytes in front of the bits: the number of hashes.
const HEADER_BYTES: usize = 1;

/// Why bytes are no filter, or a filter cannot be built.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum BadFilter {
    /// More than [`BYTES_MAX`].
    #[error("a filter of {0} bytes is over the limit of {BYTES_MAX}; split the set")]
    TooLarge(usize),
    /// Not what [`BloomFilter::to_bytes`] writes.
    #[error("not a filter: it needs 1 to {HASHES_MAX} hashes and a whole number of 8-byte words")]
    Malformed,
}

/// The filter (Bloom, 1970), with double hashing in place of independent hash functions
/// (Kirsch and Mitzenmacher, "Less hashing, same performance", 2006). Both hashes come from one
/// SipHash-2-4-128 under a key, so that nobody without the key can prepare items that collide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BloomFilter {
    bits: BitVec<u64, Lsb0>,
    hashes: u8,
    key: [u8; 16],
}

impl BloomFilter {
    /// An empty filter that, once it holds `items`, wrongly claims a share `fpr` of other items.
    /// `fpr` is kept between `2^-32` and one half.
    ///
    /// # Errors
    /// [`BadFilter::TooLarge`] when that takes more than [`BYTES_MAX`].
    pub fn with_rate(items: u64, fpr: f64, key: [u8; 16]) -> Result<Self, BadFilter> {
        let bytes = Self::bytes_for(items, fpr);
        if bytes > BYTES_MAX {
            return Err(BadFilter::TooLarge(bytes));
        }
        let bits = (bytes - HEADER_BYTES) * 8;
        // The best number of hashes is bits / items * ln 2, which the rate alone decides.
        let hashes = (-bounded(fpr).log2()).round() as u8;
        Ok(Self {
            bits: BitVec::repeat(false, bits),
            hashes: hashes.clamp(1, HASHES_MAX),
            key,
        })
    }

    /// Bytes that [`BloomFilter::to_bytes`] takes for a filter of these parameters.
    pub fn bytes_for(items: u64, fpr: f64) -> usize {
        let ln2 = std::f64::consts::LN_2;
        let bits = items as f64 * -bounded(fpr).ln() / (ln2 * ln2);
        // A conversion from float saturates, so absurd counts end up over the limit.
        let words = (bits / 64.0).ceil().max(1.0) as usize;
        words.saturating_mul(8).saturating_add(HEADER_BYTES)
    }

    /// Puts an item in.
    pub fn insert(&mut self, item: &[u8]) {
        for position in self.positions(item) {
            self.bits.set(position, true);
        }
    }

    /// False: the item was never put in. True: it was, or this is one of the wrong claims.
    pub fn contains(&self, item: &[u8]) -> bool {
        self.positions(item).all(|position| self.bits[position])
    }

    /// The number of hashes, then the bits as little-endian 64-bit words. The key stays out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = self.bits.as_raw_slice();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + words.len() * 8);
        bytes.push(self.hashes);
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads a filter that was built under `key`.
    ///
    /// # Errors
    /// [`BadFilter`] when the bytes are too many or were not written by [`BloomFilter::to_bytes`].
    pub fn from_bytes(bytes: &[u8], key: [u8; 16]) -> Result<Self, BadFilter> {
        if bytes.len() > BYTES_MAX {
            return Err(BadFilter::TooLarge(bytes.len()));
        }
        let (&hashes, words) = bytes.split_first().ok_or(BadFilter::Malformed)?;
        let (words, rest) = words.as_chunks::<8>();
        if words.is_empty() || !rest.is_empty() || !(1..=HASHES_MAX).contains(&hashes) {
            return Err(BadFilter::Malformed);
        }
        let words = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        Ok(Self {
            bits: BitVec::from_vec(words),
            hashes,
            key,
        })
    }

    fn positions(&self, item: &[u8]) -> impl Iterator<Item = usize> + use<> {
        let hash = SipHasher24::new_with_key(&self.key).hash(item);
        let bits = self.bits.len() as u128;
        // Odd, so that the positions of one item never all fall together.
        let step = hash.h2 | 1;
        (0..u64::from(self.hashes)).map(move |turn| {
            let value = hash.h1.wrapping_add(turn.wrapping_mul(step));
            // Lemire's multiply-and-shift in place of a division.
            ((u128::from(value) * bits) >> 64) as usize
        })
    }
}

fn bounded(fpr: f64) -> f64 {
    // A NaN comes out as the strictest rate.
    fpr.min(0.5).max(2f64.powi(-i32::from(HASHES_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(items: u64, fpr: f64) -> BloomFilter {
        let mut filter = BloomFilter::with_rate(items, fpr, [7; 16]).unwrap();
        for item in 0..items {
            filter.insert(&item.to_le_bytes());
        }
        filter
    }

    #[test]
    fn it_denies_no_member_and_keeps_its_rate() {
        for (items, fpr) in [(1, 0.01), (100, 0.01), (10_000, 0.001), (10_000, 0.1)] {
            let filter = filled(items, fpr);
            assert!((0..items).all(|item| filter.contains(&item.to_le_bytes())));
            let trials = 50_000u64;
            let wrong = (items..items + trials)
                .filter(|item| filter.contains(&item.to_le_bytes()))
                .count() as f64;
            let expected = trials as f64 * fpr;
            assert!(
                wrong <= expected + 5.0 * expected.sqrt(),
                "{items} items at {fpr}: {wrong} wrong claims, expected {expected}"
            );
        }
    }

    #[test]
    fn size_follows_the_formula() {
        // 14.38 bits an item at 0.1%.
        let bytes = filled(10_000, 0.001).to_bytes().len();
        assert_eq!(bytes, BloomFilter::bytes_for(10_000, 0.001));
        assert!((17_970..17_990).contains(&bytes), "{bytes}");
    }

    #[test]
    fn bytes_round_trip_and_the_key_matters() {
        let filter = filled(1000, 0.01);
        let bytes = filter.to_bytes();
        assert_eq!(BloomFilter::from_bytes(&bytes, [7; 16]), Ok(filter));
        let foreign = BloomFilter::from_bytes(&bytes, [8; 16]).unwrap();
        let claimed = (0..1000u64)
            .filter(|item| foreign.contains(&item.to_le_bytes()))
            .count();
        assert!(claimed < 50, "{claimed}");
    }

    #[test]
    fn bad_bytes_and_absurd_sizes_are_refused() {
        let bytes = filled(10, 0.01).to_bytes();
        for bad in [&bytes[..0], &bytes[..1], &bytes[..bytes.len() - 1]] {
            assert_eq!(
                BloomFilter::from_bytes(bad, [0; 16]),
                Err(BadFilter::Malformed)
            );
        }
        for hashes in [0, HASHES_MAX + 1] {
            let mut bad = bytes.clone();
            bad[0] = hashes;
            assert!(BloomFilter::from_bytes(&bad, [0; 16]).is_err());
        }
        assert!(BloomFilter::with_rate(u64::MAX, 0.001, [0; 16]).is_err());
        for rate in [f64::NAN, -1.0, 0.0, 2.0] {
            assert!(BloomFilter::with_rate(10, rate, [0; 16]).is_ok(), "{rate}");
        }
    }
}
