//! Rows that are in memory only: written and logged, not yet in the engine's file.
//!
//! One writer adds rows under the number of the commit that it is working on; readers see what was
//! there at the commit of their snapshot, however much is added later (multi-version concurrency
//! control). A memtable is given up as a whole once the engine has its newest rows, so superseded
//! versions of a row are not collected before.

use std::ops::RangeBounds;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::error::StoreError;
use crate::store::forms::RowForm;
use crate::store::layer::Known;
use crate::store::tables::{ForEachTable, Layers, Table, for_each_table};

/// Memory of an entry apart from the bytes of its row, roughly.
const ENTRY_BYTES: usize = 96;

/// Rows in front of the engine's file.
#[derive(Default)]
pub struct Memtable {
    layers: Layers,
    bytes: AtomicUsize,
}

impl Memtable {
    /// Memory taken so far, in bytes, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Rows of one table that were touched.
    pub fn rows<T: Table>(&self) -> usize {
        T::layer(&self.layers).len()
    }

    /// A row as of a commit; `None` when it was not touched up to then.
    pub fn get<T: Table>(&self, key: &T::Key, commit: u64) -> Option<Known<T::Row>> {
        T::layer(&self.layers).get(key, commit)
    }

    /// At most `limit` rows of a range as of a commit, in order of key.
    pub fn range<T: Table>(
        &self,
        range: impl RangeBounds<T::Key>,
        commit: u64,
        limit: usize,
    ) -> Vec<(T::Key, Known<T::Row>)> {
        T::layer(&self.layers).range(range, commit, limit)
    }

    /// The last row of a range that is there as of a commit.
    pub fn last<T: Table>(
        &self,
        range: impl RangeBounds<T::Key>,
        commit: u64,
    ) -> Option<(T::Key, T::Row)> {
        T::layer(&self.layers).last(range, commit)
    }

    /// Sets or removes a row as part of a commit, the newest there is.
    pub fn set<T: Table>(&self, key: T::Key, known: Known<T::Row>, commit: u64) {
        let weight = match &known {
            Known::Row(row) => row.weight(),
            Known::Removed => 0,
        };
        self.bytes
            .fetch_add(ENTRY_BYTES + weight, Ordering::Relaxed);
        T::layer(&self.layers).set(key, known, commit);
    }

    /// Takes back everything that belongs to a commit or a later one.
    pub fn roll_back(&self, commit: u64) {
        struct RollBack<'m>(&'m Memtable, u64);
        impl ForEachTable for RollBack<'_> {
            fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
                T::layer(&self.0.layers).roll_back(self.1);
                Ok(())
            }
        }
        // The work has nothing to fail at.
        let _ = for_each_table(&mut RollBack(self, commit));
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use super::*;
    use crate::store::tables::{Changes, Ids};

    #[test]
    fn a_snapshot_sees_its_commit_whatever_comes_later() {
        let memtable = Memtable::default();
        memtable.set::<Changes>(7, Known::Row([1; 32]), 1);
        memtable.set::<Changes>(7, Known::Removed, 2);
        memtable.set::<Changes>(9, Known::Row([2; 32]), 2);
        memtable.set::<Changes>(7, Known::Row([3; 32]), 4);
        let at = |commit| memtable.get::<Changes>(&7, commit);
        assert_eq!(at(0), None);
        assert_eq!(at(1), Some(Known::Row([1; 32])));
        assert_eq!(at(2), Some(Known::Removed));
        assert_eq!(at(3), Some(Known::Removed));
        assert_eq!(at(4), Some(Known::Row([3; 32])));
        assert_eq!(memtable.range::<Changes>(.., 1, 9).len(), 1);
        assert_eq!(memtable.last::<Changes>(..9, 2), None);
        assert_eq!(memtable.last::<Changes>(..=9, 2), Some((9, [2; 32])));
    }

    #[test]
    fn a_commit_that_is_rolled_back_leaves_no_trace() {
        let memtable = Memtable::default();
        memtable.set::<Ids>("a".into(), Known::Row(()), 1);
        memtable.set::<Ids>("a".into(), Known::Removed, 2);
        memtable.set::<Ids>("b".into(), Known::Row(()), 2);
        memtable.roll_back(2);
        let rows = memtable.range::<Ids>(.., 9, 9);
        assert_eq!(rows, [("a".to_owned(), Known::Row(()))]);
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_empty() {
        let memtable = Memtable::default();
        memtable.set::<Changes>(7, Known::Row([1; 32]), 1);
        let ranges = [
            (Bound::Excluded(7), Bound::Excluded(7)),
            (Bound::Included(9), Bound::Excluded(7)),
            (Bound::Excluded(8), Bound::Included(7)),
        ];
        for range in ranges {
            assert!(memtable.range::<Changes>(range, 1, 9).is_empty());
        }
    }
}
