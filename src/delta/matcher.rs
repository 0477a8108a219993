//! Finds what a new version shares with its base.
//!
//! Two versions of a game state differ in scattered places and are equal in between, at the same
//! offset or shifted by what was inserted before. So the matcher first looks where the base goes on
//! behind the last copy (the running diagonal), and only then into a sparse index of the base.
//! Every match found is extended both ways. Where nothing matches for long, it takes longer and
//! longer steps, so that unrelated input costs little.

use crate::delta::index::{Index, common_prefix, common_suffix};
use crate::delta::ops::Op;

/// How finely to look.
#[derive(Debug, Clone, Copy)]
pub struct Grain {
    /// Shortest copy worth an instruction, in bytes.
    pub copy_min: usize,
    /// Distance of the indexed positions of the base, in bytes.
    pub stride: usize,
    /// Steps grow by one for each this many bytes (as a power of two) without a match.
    pub patience: u32,
}

/// Bytes that must agree on the diagonal before a match is extended.
const PROBE: usize = 8;

/// The copies that make `new` from `base`, in order of `new`. Bytes that no copy covers are
/// literals. `KEY` is the length in bytes of the keys of the index.
///
/// Both inputs must be shorter than 4 GiB.
pub fn copies<const KEY: usize>(base: &[u8], new: &[u8], grain: Grain) -> Vec<Op> {
    let mut matcher = Matcher::<KEY> {
        base,
        new,
        grain,
        index: None,
        ops: Vec::new(),
        literal_from: 0,
        base_next: 0,
        diagonal_from: 0,
        index_from: 0,
    };
    matcher.run();
    matcher.ops
}

struct Matcher<'a, const KEY: usize> {
    base: &'a [u8],
    new: &'a [u8],
    grain: Grain,
    /// Made when the diagonal fails for the first time.
    index: Option<Index<KEY>>,
    ops: Vec<Op>,
    /// Everything in `new` before this is covered by `ops`.
    literal_from: usize,
    /// Where the base goes on behind the last copy.
    base_next: usize,
    /// Before this position in `new`, the diagonal is known to give no copy.
    diagonal_from: usize,
    /// Before this position in `new`, the index is not worth asking.
    index_from: usize,
}

/// A match that was too short for a copy, with its length in bytes from where it was found.
struct TooShort(usize);

impl<const KEY: usize> Matcher<'_, KEY> {
    fn run(&mut self) {
        let mut at = 0;
        while at + PROBE <= self.new.len() {
            if self.try_diagonal(at) || self.try_index(at) {
                at = self.literal_from;
            } else {
                // Odd steps, so that they do not keep missing the strides of the index.
                at += 1 + 2 * ((at - self.literal_from) >> self.grain.patience);
            }
        }
    }

    fn try_diagonal(&mut self, at: usize) -> bool {
        let from = self.base_next + (at - self.literal_from);
        let there = self.base.get(from..).and_then(|base| base.first_chunk());
        if at < self.diagonal_from || there != self.new[at..].first_chunk::<PROBE>() {
            return false;
        }
        let taken = self.try_copy(at, from);
        if let Err(TooShort(len)) = taken {
            self.diagonal_from = at + len;
        }
        taken.is_ok()
    }

    fn try_index(&mut self, at: usize) -> bool {
        let Some(key) = self.new[at..].first_chunk::<KEY>() else {
            return false;
        };
        if at < self.index_from {
            return false;
        }
        let (base, stride) = (self.base, self.grain.stride);
        let index = self.index.get_or_insert_with(|| Index::new(base, stride));
        let Some(from) = index.get(key) else {
            return false;
        };
        if self.base[from..].first_chunk() != Some(key) {
            return false;
        }
        let taken = self.try_copy(at, from);
        if let Err(TooShort(len)) = taken {
            // The keys up to here lie within the match that failed. Another position of the base
            // may still serve the later ones.
            self.index_from = at + (len + 1 - KEY) / 2;
        }
        taken.is_ok()
    }

    /// Extends a match both ways and takes it if it is long enough.
    fn try_copy(&mut self, at: usize, from: usize) -> Result<(), TooShort> {
        let literals = &self.new[self.literal_from..at];
        let back = common_suffix(literals, &self.base[..from]);
        let forward = common_prefix(&self.new[at..], &self.base[from..]);
        let len = back + forward;
        if len < self.grain.copy_min {
            return Err(TooShort(forward));
        }
        let (at, from) = (at - back, from - back);
        self.ops.push(Op {
            literal: (at - self.literal_from) as u32,
            len: len as u32,
            from: from as u32,
        });
        self.literal_from = at + len;
        self.base_next = from + len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAIN: Grain = Grain {
        copy_min: 16,
        stride: 4,
        patience: 6,
    };

    fn lines(range: std::ops::Range<u32>) -> Vec<u8> {
        let line = |n| format!("unit {n} at {}, {}\n", n * 7919 % 1000, n * 104_729 % 1000);
        range.flat_map(|n| line(n).into_bytes()).collect()
    }

    fn op(literal: usize, len: usize, from: usize) -> Op {
        Op {
            literal: literal as u32,
            len: len as u32,
            from: from as u32,
        }
    }

    #[test]
    fn equal_bytes_are_one_copy_and_need_no_index() {
        let bytes = lines(0..100);
        assert_eq!(copies::<8>(&bytes, &bytes, GRAIN), [op(0, bytes.len(), 0)]);
        assert!(copies::<8>(&bytes, b"", GRAIN).is_empty());
        assert!(copies::<8>(b"", &bytes, GRAIN).is_empty());
    }

    #[test]
    fn an_overwritten_byte_is_one_literal() {
        let base = lines(0..100);
        let mut new = base.clone();
        new[1000] = b'#';
        let expected = [op(0, 1000, 0), op(1, base.len() - 1001, 1001)];
        assert_eq!(copies::<8>(&base, &new, GRAIN), expected);
    }

    #[test]
    fn moved_blocks_are_found_through_the_index() {
        let (a, b, c) = (lines(0..50), lines(50..80), lines(80..100));
        let base = [&a[..], &b, &c].concat();
        let new = [&c[..], &b, &a].concat();
        let ops = copies::<8>(&base, &new, GRAIN);
        let copied: usize = ops.iter().map(|op| op.len as usize).sum();
        assert!(ops.len() <= 4, "{ops:?}");
        assert!(copied + 8 >= new.len(), "{copied} of {}", new.len());
    }
}
