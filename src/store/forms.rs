//! What keys and values of tables are in memory, and how the engine takes them.

use std::sync::Arc;

use redb::Value;

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
}

impl KeyForm for ([u8; 32], u64) {
    type Engine = (&'static [u8; 32], u64);

    fn lend(&self) -> (&[u8; 32], u64) {
        (&self.0, self.1)
    }

    fn keep(lent: (&[u8; 32], u64)) -> Self {
        (*lent.0, lent.1)
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

impl KeyForm for (u8, u64) {
    type Engine = (u8, u64);

    fn lend(&self) -> (u8, u64) {
        *self
    }

    fn keep(lent: (u8, u64)) -> Self {
        lent
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
