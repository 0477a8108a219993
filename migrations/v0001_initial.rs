//! Schema 1: every table of the first release.

use redb::{TableError, WriteTransaction};

use crate::store::tables::{
    CHANGES, CHUNK_REFERENCES, CHUNKS, CONTENTS, HISTORY, IDS, META, NODES, PEERS, RECORDS,
};

/// Creates the tables, empty.
pub fn run(transaction: &WriteTransaction) -> Result<(), TableError> {
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
