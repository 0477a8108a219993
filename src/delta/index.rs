//! A sparse index of where keys of some bytes stand in a base, and how far two places agree.

/// Sparse index of the base: the first of the positions whose keys share a slot.
pub struct Index<const KEY: usize> {
    /// Position plus one, 0 for none.
    slots: Vec<u32>,
    shift: u32,
}

impl<const KEY: usize> Index<KEY> {
    /// Takes in every `stride`th position of the base, which is shorter than 4 GiB.
    pub fn new(base: &[u8], stride: usize) -> Self {
        let bits = (base.len() / stride * 3 / 2 + 2)
            .next_power_of_two()
            .ilog2();
        let mut index = Self {
            slots: vec![0; 1 << bits],
            shift: 64 - bits,
        };
        let mut at = 0;
        while let Some(key) = base.get(at..).and_then(<[u8]>::first_chunk) {
            let slot = index.slot(key);
            if index.slots[slot] == 0 {
                index.slots[slot] = at as u32 + 1;
            }
            at += stride;
        }
        index
    }

    /// A position where this key may stand.
    pub fn get(&self, key: &[u8; KEY]) -> Option<usize> {
        (self.slots[self.slot(key)] as usize).checked_sub(1)
    }

    fn slot(&self, key: &[u8; KEY]) -> usize {
        const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
        let hash = key.as_chunks::<8>().0.iter().fold(0u64, |hash, word| {
            (hash.rotate_left(29) ^ u64::from_le_bytes(*word)).wrapping_mul(MIX)
        });
        ((hash ^ (hash >> 32)).wrapping_mul(MIX) >> self.shift) as usize
    }
}

/// Equal bytes at the beginning.
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let blocks = a.as_chunks::<32>().0.iter().zip(b.as_chunks::<32>().0);
    let equal = 32 * blocks.take_while(|(a, b)| a == b).count();
    let rest = a[equal..].iter().zip(&b[equal..]);
    equal + rest.take_while(|(a, b)| a == b).count()
}

/// Equal bytes at the end.
pub fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let pairs = a.iter().rev().zip(b.iter().rev());
    pairs.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_count_equal_bytes_over_block_borders() {
        for len in [0, 1, 31, 32, 33, 64, 100] {
            let a = [&vec![b'='; len][..], b"a"].concat();
            let b = [&vec![b'='; len][..], b"b"].concat();
            assert_eq!(common_prefix(&a, &b), len);
            assert_eq!(common_prefix(&a, &b[..len]), len);
            let (a, b): (Vec<u8>, Vec<u8>) =
                (a.into_iter().rev().collect(), b.into_iter().rev().collect());
            assert_eq!(common_suffix(&a, &b), len);
        }
    }
}
