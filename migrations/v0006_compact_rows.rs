//! Schema 6: Merkle rows below smaller subtrees, in a shorter form. They follow from the records, so
//! this step only says that they are to be made anew. That happens once all files of a namespace
//! stand at the same checkpoint: a file that a crash has left behind still gets rows of before.

use redb::{ReadableTableMetadata, TableDefinition, WriteTransaction};

use crate::store::error::StoreError;

const NODES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("nodes");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Says so, unless the file is a new one.
pub fn run(transaction: &WriteTransaction) -> Result<(), StoreError> {
    if transaction.open_table(NODES)?.len()? > 0 {
        let mut meta = transaction.open_table(META)?;
        meta.insert("tree_is_due", [].as_slice())?;
    }
    Ok(())
}
