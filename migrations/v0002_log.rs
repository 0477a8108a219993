//! Schema 2: ids stand without their keys, which are their hashes, and the head says where in the
//! write-ahead log the file stands.

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::store::error::StoreError;
use crate::types::binary::{decode, encode};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const IDS_WITH_KEYS: TableDefinition<'_, &str, &[u8; 32]> = TableDefinition::new("ids");
const IDS: TableDefinition<'_, &str, ()> = TableDefinition::new("ids");
const IDS_ANEW: TableDefinition<'_, &str, ()> = TableDefinition::new("ids_anew");

/// Name of the head in the meta table.
const HEAD: &str = "head";

#[derive(Deserialize)]
struct OldHead {
    seq: u64,
    root: ([u8; 32], u64, u64, u64),
    live: u64,
    clock: u64,
}

#[derive(Serialize)]
struct NewHead {
    seq: u64,
    root: ([u8; 32], u64, u64, u64),
    live: u64,
    clock: u64,
    log_commit: u64,
    log_segment: u64,
}

/// Rewrites the ids and the head.
pub fn run(transaction: &WriteTransaction) -> Result<(), StoreError> {
    {
        let with_keys = transaction.open_table(IDS_WITH_KEYS)?;
        let mut anew = transaction.open_table(IDS_ANEW)?;
        for entry in with_keys.iter()? {
            anew.insert(entry?.0.value(), ())?;
        }
    }
    transaction.delete_table(IDS_WITH_KEYS)?;
    transaction.rename_table(IDS_ANEW, IDS)?;
    let mut meta = transaction.open_table(META)?;
    let head = match meta.get(HEAD)? {
        Some(head) => decode::<OldHead>(head.value())?,
        None => return Ok(()),
    };
    let head = NewHead {
        seq: head.seq,
        root: head.root,
        live: head.live,
        clock: head.clock,
        log_commit: 0,
        log_segment: 0,
    };
    meta.insert(HEAD, encode(&head).as_slice())?;
    Ok(())
}
