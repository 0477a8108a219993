//! Stages: large contents that are on their way in, chunk by chunk.

use redb::{TableDefinition, WriteTransaction};

use crate::store::error::StoreError;

const STAGES: TableDefinition<'_, (&[u8; 32], u64), &[u8]> = TableDefinition::new("stages");

/// Creates the table, empty.
pub fn run(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(STAGES)?;
    Ok(())
}
