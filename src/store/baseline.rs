//! The storage engine with nothing around it, to measure what everything else costs.

use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use crate::store::checkpoint::begin_durable;
use crate::store::error::StoreError;
use crate::store::open_file::open_error;
use crate::store::options::StoreOptions;
use crate::types::hash::StateKey;

const TABLE: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("values");

/// A redb file with one table from keys to values: no log, no versions, no history, no hashes, no
/// compression, no feed and no tree. Its cache is as large as a namespace's, and it is committed
/// to as a namespace's file is, with quick-repair.
#[derive(Debug)]
pub struct Baseline {
    database: Database,
}

impl Baseline {
    /// Opens the file, creating it when it does not exist. After a crash this goes back to the
    /// last commit.
    ///
    /// # Errors
    /// [`StoreError`] when the file is in use, damaged or not writable.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(StoreOptions::default().cache_bytes)
            .create(path)
            .map_err(|error| open_error(path, error))?;
        Ok(Self { database })
    }

    /// Stores all values in one durable commit, in the order given; ascending keys are fastest.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; nothing of the batch is stored unless the commit was
    /// what failed.
    pub fn put<'a>(
        &self,
        batch: impl IntoIterator<Item = (&'a StateKey, &'a [u8])>,
    ) -> Result<(), StoreError> {
        let transaction = begin_durable(&self.database)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in batch {
                table.insert(&key.0, value)?;
            }
        }
        transaction.commit().map_err(StoreError::commit_failed)
    }

    /// The value of a key in the newest commit.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn get(&self, key: &StateKey) -> Result<Option<Vec<u8>>, StoreError> {
        let table = match self.database.begin_read()?.open_table(TABLE) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let value = table.get(&key.0)?;
        Ok(value.map(|value| value.value().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline.redb");
        let keys: Vec<StateKey> = (0..100).map(|n| StateKey([n; 32])).collect();
        let baseline = Baseline::open(&path).unwrap();
        assert_eq!(baseline.get(&keys[0]).unwrap(), None);
        baseline
            .put(keys.iter().map(|key| (key, &key.0[..7])))
            .unwrap();
        baseline.put([(&keys[9], &b"other"[..])]).unwrap();
        assert!(matches!(
            Baseline::open(&path),
            Err(StoreError::InUse { .. })
        ));
        drop(baseline);

        let baseline = Baseline::open(&path).unwrap();
        for (number, key) in keys.iter().enumerate() {
            let expected = if number == 9 {
                &b"other"[..]
            } else {
                &key.0[..7]
            };
            assert_eq!(baseline.get(key).unwrap().as_deref(), Some(expected));
        }
        assert_eq!(baseline.get(&StateKey([200; 32])).unwrap(), None);
    }
}
