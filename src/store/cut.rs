//! Into how many shards the keys of a namespace are cut, and where the borders are.

use std::ops::{Bound, RangeInclusive};

use crate::store::layer::is_empty;

/// Into how many shards a namespace is cut: a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cut {
    bits: u8,
}

impl Cut {
    /// Most leading bits that tell shards apart: 64 files. Merkle rows stand deeper than this, so
    /// each of them belongs to one shard.
    pub const BITS_MAX: u8 = 6;

    /// `2^bits` shards; `None` when those are too many.
    pub fn of_bits(bits: u8) -> Option<Self> {
        (bits <= Self::BITS_MAX).then_some(Self { bits })
    }

    /// So many shards; `None` unless it is a power of two up to 64.
    pub fn of_count(count: usize) -> Option<Self> {
        let bits = u8::try_from(count.checked_ilog2()?).ok()?;
        Self::of_bits(bits).filter(|cut| cut.count() == count)
    }

    /// How many leading bits tell the shards apart.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// How many shards there are.
    pub fn count(self) -> usize {
        1 << self.bits
    }

    /// The shard of a key with these leading bits.
    pub fn shard_of(self, leading: u64) -> usize {
        let shard = leading.checked_shr(64 - u32::from(self.bits));
        shard.unwrap_or(0) as usize
    }

    /// The leading bits of the keys of a shard.
    fn leading_bits_of(self, shard: usize) -> RangeInclusive<u64> {
        let width = 64 - u32::from(self.bits);
        let first = (shard as u64).checked_shl(width).unwrap_or(0);
        first..=first | u64::MAX.checked_shr(64 - width).unwrap_or(0)
    }
}

/// Both ends of a range of keys.
pub type KeyBounds<K> = (Bound<K>, Bound<K>);

/// Cuts a range of keys at the borders of shards. `leading` tells a key's leading bits, `first` and
/// `last` make the first and the last key with given ones.
pub fn split_at_borders<K: Ord + Clone>(
    range: KeyBounds<K>,
    cut: Cut,
    leading: impl Fn(&K) -> u64,
    first: impl Fn(u64) -> K,
    last: impl Fn(u64) -> K,
) -> Vec<(usize, KeyBounds<K>)> {
    let shard_of = |bound: &Bound<K>, open: usize| match bound {
        Bound::Included(key) | Bound::Excluded(key) => cut.shard_of(leading(key)),
        Bound::Unbounded => open,
    };
    let (low, high) = (shard_of(&range.0, 0), shard_of(&range.1, cut.count() - 1));
    let parts = (low..=high).map(|shard| {
        let leading = cut.leading_bits_of(shard);
        let from = match shard == low {
            true => range.0.clone(),
            false => Bound::Included(first(*leading.start())),
        };
        let to = match shard == high {
            true => range.1.clone(),
            false => Bound::Included(last(*leading.end())),
        };
        (shard, (from, to))
    });
    parts.filter(|(_, part)| !is_empty(part)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bits: u8) -> Cut {
        Cut::of_bits(bits).unwrap()
    }

    #[test]
    fn counts_are_powers_of_two_up_to_sixty_four() {
        let allowed: Vec<usize> = (0..200)
            .filter(|count| Cut::of_count(*count).is_some())
            .collect();
        assert_eq!(allowed, [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(Cut::of_count(usize::MAX), None);
        assert_eq!(Cut::of_bits(7), None);
    }

    #[test]
    fn borders_are_where_the_leading_bits_change() {
        assert_eq!(cut(0).leading_bits_of(0), 0..=u64::MAX);
        assert_eq!(cut(1).leading_bits_of(1), 1 << 63..=u64::MAX);
        for bits in 0..=Cut::BITS_MAX {
            let mut next = Some(0);
            for shard in 0..cut(bits).count() {
                let leading = cut(bits).leading_bits_of(shard);
                assert_eq!(Some(*leading.start()), next);
                assert_eq!(cut(bits).shard_of(*leading.start()), shard);
                assert_eq!(cut(bits).shard_of(*leading.end()), shard);
                next = leading.end().checked_add(1);
            }
            assert_eq!(next, None);
        }
    }
}
