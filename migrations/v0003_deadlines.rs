//! Schema 3: an index of what is to be collected when. Files of schema 2 hold nothing that expires,
//! so only deleted states are in it.

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::Deserialize;

use crate::store::error::StoreError;
use crate::types::binary::decode_prefix;

const RECORDS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("records");
const DEADLINES: TableDefinition<'_, (u64, &[u8; 32]), ()> = TableDefinition::new("deadlines");

/// Bytes of a record row in front of the encoded record.
const HEADER: usize = 56;
const HOUR: u64 = 60 * 60 * 1000;
const HORIZON: u64 = 24 * HOUR;

#[derive(Deserialize)]
struct Record {
    _id: String,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    _vector: Vec<(u64, u64)>,
    /// Milliseconds, logical count, replica.
    stamp: (u64, u32, u64),
    _content: [u8; 32],
    _size: u64,
    _content_type: Option<String>,
    _expires_at: Option<u64>,
    tombstone: bool,
    _lease_epoch: u64,
}

/// Creates the table and fills it.
pub fn run(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut deadlines = transaction.open_table(DEADLINES)?;
    let records = transaction.open_table(RECORDS)?;
    for entry in records.iter()? {
        let (key, row) = entry?;
        // A row that cannot be read keeps nothing from opening: `samestate verify` names it.
        let encoded = row.value().get(HEADER..).unwrap_or_default();
        let Ok((record, _)) = decode_prefix::<Record>(encoded) else {
            continue;
        };
        if let Some(at) = departs_at(&record) {
            deadlines.insert((at, key.value()), ())?;
        }
    }
    Ok(())
}

fn departs_at(record: &Record) -> Option<u64> {
    if !record.versions.iter().all(|version| version.tombstone) {
        return None;
    }
    let last = record
        .versions
        .iter()
        .map(|version| version.stamp.0)
        .max()?;
    let at = last.saturating_add(HORIZON);
    Some(at.checked_next_multiple_of(HOUR).unwrap_or(u64::MAX))
}
