//! What keys and values of tables are in memory, and how the engine takes them.

use std::ops::Bound;
use std::sync::Arc;

use redb::Value;

use crate::store::cut::{Cut, KeyBounds, split_at_borders};

/// Bytes of a row in memory.
pub type RowBytes = Arc<[u8]>;

/// A key in memory, ordered as the engine orders its own.
pub trait KeyForm: Ord + Clone + Send + Sync + 'static {
    /// The engine's type.
    type Engine: redb::Key + 'static;

    /// As the engine takes it.
    fn lend(&self) -> <Self::Engine as Value>::SelfType<'_>;
    /// Kept from what the engine hands out.
    fn keep(lent: <Self::Engine as Value>::SelfType<'_>) -> Self;

    /// The bits that say which shard's file a row is in, left-aligned.
    fn leading_bits(&self) -> u64 {
        0
    }

    /// Ranges, in order, that together are `range`, each with the one shard that its rows are in.
    fn split(range: KeyBounds<Self>, cut: Cut) -> Vec<(usize, KeyBounds<Self>)> {
        let _ = cut;
        vec![(0, range)]
    }
}

/// A value in memory.
pub trait RowForm: Clone + Send + Sync + 'static {
    /// The engine's type.
    type Engine: Value + 'static;

    /// As the engine takes it.
    fn lend(&self) -> <Self::Engine as Value>::SelfType<'_>;
    /// Bytes behind a pointer, if any.
    fn weight(&self) -> usize {
        0
    }
}

impl KeyForm for [u8; 32] {
    type Engine = &'static [u8; 32];

    fn lend(&self) -> &[u8; 32] {
        self
    }

    fn keep(lent: &[u8; 32]) -> Self {
        *lent
    }

    fn leading_bits(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    fn split(range: KeyBounds<Self>, cut: Cut) -> Vec<(usize, KeyBounds<Self>)> {
        split_at_borders(range, cut, Self::leading_bits, first_hash, last_hash)
    }
}

impl KeyForm for ([u8; 32], u64) {
    type Engine = (&'static [u8; 32], u64);

    fn lend(&self) -> (&[u8; 32], u64) {
        (&self.0, self.1)
    }

    fn keep(lent: (&[u8; 32], u64)) -> Self {
        (*lent.0, lent.1)
    }

    fn leading_bits(&self) -> u64 {
        self.0.leading_bits()
    }

    fn split(range: KeyBounds<Self>, cut: Cut) -> Vec<(usize, KeyBounds<Self>)> {
        let first = |bits| (first_hash(bits), 0);
        let last = |bits| (last_hash(bits), u64::MAX);
        split_at_borders(range, cut, Self::leading_bits, first, last)
    }
}

impl KeyForm for (u64, [u8; 32]) {
    type Engine = (u64, &'static [u8; 32]);

    fn lend(&self) -> (u64, &[u8; 32]) {
        (self.0, &self.1)
    }

    fn keep(lent: (u64, &[u8; 32])) -> Self {
        (lent.0, *lent.1)
    }
}

/// A place in a tree: how deep, and its leading bits.
impl KeyForm for (u8, u64) {
    type Engine = (u8, u64);

    fn lend(&self) -> (u8, u64) {
        *self
    }

    fn keep(lent: (u8, u64)) -> Self {
        lent
    }

    fn leading_bits(&self) -> u64 {
        self.1
    }

    fn split(range: KeyBounds<Self>, cut: Cut) -> Vec<(usize, KeyBounds<Self>)> {
        let depth_of = |bound: &Bound<Self>, open: u8| match bound {
            Bound::Included((depth, _)) | Bound::Excluded((depth, _)) => *depth,
            Bound::Unbounded => open,
        };
        let depths = depth_of(&range.0, 0)..=depth_of(&range.1, u8::MAX);
        let (shallowest, deepest) = (*depths.start(), *depths.end());
        let mut parts = Vec::new();
        for depth in depths {
            let from = match depth == shallowest {
                true => range.0,
                false => Bound::Included((depth, 0)),
            };
            let to = match depth == deepest {
                true => range.1,
                false => Bound::Included((depth, u64::MAX)),
            };
            let (first, last) = (|bits| (depth, bits), |bits| (depth, bits));
            parts.extend(split_at_borders(
                (from, to),
                cut,
                Self::leading_bits,
                first,
                last,
            ));
        }
        parts
    }
}

impl KeyForm for u64 {
    type Engine = u64;

    fn lend(&self) -> u64 {
        *self
    }

    fn keep(lent: u64) -> Self {
        lent
    }
}

impl KeyForm for String {
    type Engine = &'static str;

    fn lend(&self) -> &str {
        self
    }

    fn keep(lent: &str) -> Self {
        lent.to_owned()
    }
}

impl RowForm for RowBytes {
    type Engine = &'static [u8];

    fn lend(&self) -> &[u8] {
        self
    }

    fn weight(&self) -> usize {
        self.len()
    }
}

impl RowForm for [u8; 32] {
    type Engine = &'static [u8; 32];

    fn lend(&self) -> &[u8; 32] {
        self
    }
}

impl RowForm for u64 {
    type Engine = u64;

    fn lend(&self) -> u64 {
        *self
    }
}

impl RowForm for () {
    type Engine = ();

    fn lend(&self) {}
}

/// The first hash with these leading bits.
fn first_hash(bits: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&bits.to_be_bytes());
    hash
}

/// The last hash with these leading bits.
fn last_hash(bits: u64) -> [u8; 32] {
    let mut hash = [u8::MAX; 32];
    hash[..8].copy_from_slice(&bits.to_be_bytes());
    hash
}
