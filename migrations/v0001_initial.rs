//! Schema 1: every table of the first release.

use redb::{TableDefinition, WriteTransaction};

use crate::store::error::StoreError;

type ByHash = TableDefinition<'static, &'static [u8; 32], &'static [u8]>;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const RECORDS: ByHash = TableDefinition::new("records");
const IDS: TableDefinition<'_, &str, &[u8; 32]> = TableDefinition::new("ids");
const CONTENTS: ByHash = TableDefinition::new("contents");
const CHUNKS: ByHash = TableDefinition::new("chunks");
const CHUNK_REFERENCES: TableDefinition<'_, &[u8; 32], u64> =
    TableDefinition::new("chunk_references");
const HISTORY: TableDefinition<'_, (&[u8; 32], u64), &[u8]> = TableDefinition::new("history");
const CHANGES: TableDefinition<'_, u64, &[u8; 32]> = TableDefinition::new("changes");
const NODES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("nodes");
const PEERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("peers");

/// Creates the tables, empty.
pub fn run(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(META)?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(IDS)?;
    transaction.open_table(CONTENTS)?;
    transaction.open_table(CHUNKS)?;
    transaction.open_table(CHUNK_REFERENCES)?;
    transaction.open_table(HISTORY)?;
    transaction.open_table(CHANGES)?;
    transaction.open_table(NODES)?;
    transaction.open_table(PEERS)?;
    Ok(())
}
