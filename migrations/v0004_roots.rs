//! Schema 4: the log of roots. Files of schema 3 have held roots that nobody has written down.

use redb::{TableDefinition, WriteTransaction};

use crate::store::error::StoreError;

const ROOTS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("roots");

/// Creates the table, empty.
pub fn run(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(ROOTS)?;
    Ok(())
}
