//! Shards: a namespace's rows in `2^k` files of the engine, by the first bits of their keys.
//!
//! Rows that have a state's, a content's or a chunk's hash as their key, and Merkle rows, are in the
//! file of their shard; everything else is in the first file, which stands for the namespace. Every
//! file holds a range of keys, so that reading them one after the other reads a table in order.
//! Nothing above the store knows of this: the tree, its root and the feed are those of the whole.

use std::ops::Bound;

use redb::{ReadableTableMetadata, TableHandle};

use crate::store::cut::{Cut, KeyBounds};
use crate::store::error::StoreError;
use crate::store::forms::KeyForm;
use crate::store::guard::guarded;
use crate::store::tables::{EngineTable, FileTables, ForEachTable, KeyRef, Table, for_each_table};

/// The parts of a range of a table's keys, in order, each with the file that its rows are in.
pub fn parts_of<T: Table>(range: KeyBounds<T::Key>, cut: Cut) -> Vec<(usize, KeyBounds<T::Key>)> {
    if T::IS_SHARDED && cut.bits() > 0 {
        T::Key::split(range, cut)
    } else {
        vec![(0, range)]
    }
}

/// A range as the engine takes it.
pub fn lend<T: Table>(range: &KeyBounds<T::Key>) -> (Bound<KeyRef<'_, T>>, Bound<KeyRef<'_, T>>) {
    (lend_bound::<T>(&range.0), lend_bound::<T>(&range.1))
}

fn lend_bound<T: Table>(bound: &Bound<T::Key>) -> Bound<KeyRef<'_, T>> {
    match bound {
        Bound::Included(key) => Bound::Included(key.lend()),
        Bound::Excluded(key) => Bound::Excluded(key.lend()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The parts of a table that are in one shard's file, in order.
pub fn parts_in<T: Table>(
    range: KeyBounds<T::Key>,
    cut: Cut,
    shard: usize,
) -> impl Iterator<Item = KeyBounds<T::Key>> {
    let parts = parts_of::<T>(range, cut).into_iter();
    parts.filter_map(move |(at, part)| (at == shard).then_some(part))
}

/// The tables of all files of a namespace, opened for reading at one checkpoint.
pub struct EngineTables {
    files: Vec<FileTables>,
    cut: Cut,
}

/// A part of a table: the file's table, and the range of keys that it is to be asked for.
pub type TablePart<'e, T> = (&'e EngineTable<T>, KeyBounds<<T as Table>::Key>);

impl EngineTables {
    /// The files in order of their shards.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when there are not as many as shards.
    pub fn new(files: Vec<FileTables>, cut: Cut) -> Result<Self, StoreError> {
        if files.len() == cut.count() {
            return Ok(Self { files, cut });
        }
        Err(StoreError::damaged(format!(
            "{} of the files of {} shards are there",
            files.len(),
            cut.count()
        )))
    }

    /// Into how many shards it is cut.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// Reads of the files by anybody that had to wait for the disk, about.
    pub fn slow_reads(&self) -> u64 {
        self.files.iter().map(FileTables::slow_reads).sum()
    }

    /// The table that a key's row is in, if it is there.
    pub fn table_of<T: Table>(&self, key: &T::Key) -> &EngineTable<T> {
        let shard = match T::IS_SHARDED {
            true => self.cut.shard_of(key.leading_bits()),
            false => 0,
        };
        T::engine(&self.files[shard])
    }

    /// The tables that the rows of a range are in, in order of key.
    pub fn parts<T: Table>(&self, range: KeyBounds<T::Key>) -> Vec<TablePart<'_, T>> {
        let parts = parts_of::<T>(range, self.cut).into_iter();
        let parts = parts.map(|(shard, part)| (T::engine(&self.files[shard]), part));
        parts.collect()
    }

    /// Rows of a table in all files that may have some. What another file than the first says of
    /// itself is none of the namespace's rows.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn rows<T: Table>(&self) -> Result<u64, StoreError> {
        let files = if T::IS_SHARDED { self.files.len() } else { 1 };
        let mut rows = 0;
        for file in self.files.iter().take(files) {
            rows += T::engine(file).len()?;
        }
        Ok(rows)
    }

    /// Rows that are in the file of another shard than theirs, where nothing finds them, by the name
    /// of their table.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn misplaced_rows(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let mut misplaced = Misplaced {
            tables: self,
            found: Vec::new(),
        };
        if self.cut.bits() > 0 {
            for_each_table(&mut misplaced)?;
        }
        Ok(misplaced.found)
    }

    /// Bytes of all keys and rows. Looks at every page.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn stored_bytes(&self) -> Result<u64, StoreError> {
        self.files.iter().map(FileTables::stored_bytes).sum()
    }
}

/// Compares the rows that are there with those that are found.
struct Misplaced<'m> {
    tables: &'m EngineTables,
    found: Vec<(&'static str, u64)>,
}

impl ForEachTable for Misplaced<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        let there = self.tables.rows::<T>()?;
        let mut found = 0;
        for (table, part) in self.tables.parts::<T>((Bound::Unbounded, Bound::Unbounded)) {
            let rows = guarded(|| table.range::<KeyRef<'_, T>>(lend::<T>(&part)))?;
            for row in rows {
                guarded(|| row.map(drop))?;
                found += 1;
            }
        }
        if found < there {
            self.found.push((T::DEFINITION.name(), there - found));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::layer::is_empty;
    use crate::store::tables::{Changes, History, Nodes, Records};

    fn cut(bits: u8) -> Cut {
        Cut::of_bits(bits).unwrap()
    }

    fn bound<K: std::fmt::Debug + Clone>(
        key: impl Strategy<Value = K>,
    ) -> impl Strategy<Value = Bound<K>> {
        (key, 0..5).prop_map(|(key, kind)| match kind {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Excluded(key),
            _ => Bound::Included(key),
        })
    }

    fn hash() -> impl Strategy<Value = [u8; 32]> {
        // Few values for each byte, so that borders are met.
        let byte = proptest::sample::select(vec![0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff]);
        (any::<u8>(), proptest::collection::vec(byte, 31)).prop_map(|(first, rest)| {
            let mut hash = [first; 32];
            hash[1..].copy_from_slice(&rest);
            hash
        })
    }

    /// Every key of the range is in exactly one part, that of its shard, and parts are in order.
    fn check<T: Table<Key = K>, K: KeyForm + std::fmt::Debug>(
        range: KeyBounds<K>,
        bits: u8,
        mut keys: Vec<K>,
    ) {
        use std::ops::RangeBounds;
        let cut = cut(bits);
        keys.sort();
        let wanted: Vec<K> = keys
            .iter()
            .filter(|key| range.contains(key))
            .cloned()
            .collect();
        let mut found = Vec::new();
        if !is_empty(&range) {
            for (shard, part) in parts_of::<T>(range, cut) {
                let within = keys.iter().filter(|key| part.contains(key));
                found.extend(within.cloned().map(|key| (shard, key)));
            }
        }
        for (shard, key) in &found {
            let own = if T::IS_SHARDED {
                cut.shard_of(key.leading_bits())
            } else {
                0
            };
            assert_eq!(*shard, own);
        }
        let found: Vec<K> = found.into_iter().map(|(_, key)| key).collect();
        assert_eq!(found, wanted);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_parts_of_a_range_are_the_range(
            from in bound(hash()), to in bound(hash()), bits in 0..=Cut::BITS_MAX,
            keys in proptest::collection::vec((hash(), any::<u64>()), 0..200),
        ) {
            let hashes = keys.iter().map(|(hash, _)| *hash).collect();
            check::<Records, _>((from, to), bits, hashes);
            let (from, to) = (from.map(|hash| (hash, 7)), to.map(|hash| (hash, 7)));
            check::<History, _>((from, to), bits, keys);
        }

        #[test]
        fn the_parts_of_a_range_of_merkle_rows_are_the_range(
            from in bound((0u8..70, any::<u64>())), to in bound((0u8..70, any::<u64>())),
            bits in 0..=Cut::BITS_MAX,
            keys in proptest::collection::vec((0u8..70, any::<u64>()), 0..200),
        ) {
            check::<Nodes, _>((from, to), bits, keys);
        }

        #[test]
        fn what_is_not_sharded_is_in_the_first_file(
            from in bound(any::<u64>()), to in bound(any::<u64>()),
            keys in proptest::collection::vec(any::<u64>(), 0..50),
        ) {
            check::<Changes, _>((from, to), 3, keys);
        }
    }
}
