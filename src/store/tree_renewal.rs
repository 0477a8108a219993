//! Makes the Merkle rows of a file anew from its records, when a migration has changed how they are
//! laid out.

use redb::{Database, ReadableDatabase, ReadableTable, Table as EngineRows, WriteTransaction};

use crate::merkle::prefix::Prefix;
use crate::merkle::storage::{TreeStorage, TreeStorageMut};
use crate::merkle::update::{Work, rebuild};
use crate::store::error::StoreError;
use crate::store::rows::leaf_of_row;
use crate::store::tables::{EngineKey, EngineRow, Meta, Nodes, Records, Table, meta_names};
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// True when the rows of a file are those of an older layout.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn is_due(database: &Database) -> Result<bool, StoreError> {
    let meta = database.begin_read()?.open_table(Meta::DEFINITION)?;
    Ok(meta.get(meta_names::TREE_IS_DUE)?.is_some())
}

/// Replaces a file's Merkle rows by those of the records in it: all below the prefixes that it
/// holds. Takes memory for a 4096th of the leaves.
///
/// # Errors
/// [`StoreError`] when the engine fails or a record row is damaged.
pub fn renew(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.delete_table(Nodes::DEFINITION)?;
    let records = transaction.open_table(Records::DEFINITION)?;
    let leaves = records.iter()?.map(|entry| {
        let (key, row) = entry?;
        leaf_of_row(StateKey(*key.value()), row.value())
    });
    let mut rows = Rows(transaction.open_table(Nodes::DEFINITION)?);
    rebuild(&mut rows, leaves, &mut Work::default())?;
    let mut meta = transaction.open_table(Meta::DEFINITION)?;
    meta.remove(meta_names::TREE_IS_DUE)?;
    Ok(())
}

/// The table that a rebuild fills. It reads nothing back.
struct Rows<'t>(EngineRows<'t, EngineKey<Nodes>, EngineRow<Nodes>>);

impl TreeStorage for Rows<'_> {
    type Error = StoreError;

    fn row(&self, at: Prefix) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.0.get((at.depth(), at.bits()))?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    fn top_rows(&self, _visit: &mut dyn FnMut(Prefix, &[u8])) -> Result<(), StoreError> {
        Ok(())
    }

    fn leaves(&self, _within: Prefix) -> Result<Vec<Leaf>, StoreError> {
        Ok(Vec::new())
    }
}

impl TreeStorageMut for Rows<'_> {
    fn set_row(&mut self, at: Prefix, row: &[u8]) -> Result<(), StoreError> {
        self.0.insert((at.depth(), at.bits()), row)?;
        Ok(())
    }

    fn remove_row(&mut self, at: Prefix) -> Result<(), StoreError> {
        self.0.remove((at.depth(), at.bits()))?;
        Ok(())
    }
}
