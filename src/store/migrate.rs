//! Brings a file to the newest schema, one step a transaction.

use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

use crate::store::error::StoreError;

#[path = "../../migrations/v0001_initial.rs"]
mod v0001_initial;
#[path = "../../migrations/v0002_log.rs"]
mod v0002_log;
#[path = "../../migrations/v0003_deadlines.rs"]
mod v0003_deadlines;
#[path = "../../migrations/v0004_roots.rs"]
mod v0004_roots;
#[path = "../../migrations/v0005_stages.rs"]
mod v0005_stages;
#[path = "../../migrations/v0006_compact_rows.rs"]
mod v0006_compact_rows;

type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// Facts about the file, in every schema version.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// All steps in order; the schema version of a file is how many of them it has seen.
const STEPS: &[Step] = &[
    v0001_initial::run,
    v0002_log::run,
    v0003_deadlines::run,
    v0004_roots::run,
    v0005_stages::run,
    v0006_compact_rows::run,
];

/// Name of the schema version in the meta table.
const SCHEMA: &str = "schema";

/// The schema version that this build writes.
pub const SCHEMA_VERSION: u32 = STEPS.len() as u32;

/// Runs the steps a file has not seen yet.
///
/// # Errors
/// [`StoreError::TooNew`] when the file has seen steps that this build does not know; nothing is
/// changed then.
pub fn migrate(database: &Database, path: &Path) -> Result<(), StoreError> {
    let found = schema_version(database)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::TooNew {
            path: path.to_path_buf(),
            found,
            known: SCHEMA_VERSION,
        });
    }
    for (index, step) in STEPS.iter().enumerate().skip(found as usize) {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        step(&transaction)?;
        let version = index as u32 + 1;
        transaction
            .open_table(META)?
            .insert(SCHEMA, version.to_le_bytes().as_slice())?;
        transaction.commit()?;
    }
    Ok(())
}

/// The schema version of a file; 0 when it is new.
fn schema_version(database: &Database) -> Result<u32, StoreError> {
    let table = match database.begin_read()?.open_table(META) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let Some(value) = table.get(SCHEMA)? else {
        return Ok(0);
    };
    let bytes = value.value().try_into();
    bytes
        .map(u32::from_le_bytes)
        .map_err(|_| StoreError::damaged("the schema version is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open::Store;
    use crate::store::options::StoreOptions;
    use crate::store::rows::{Placement, RecordRow};
    use crate::types::cursor::Epoch;
    use crate::types::hash::ContentHash;
    use crate::types::id::{GameId, ReplicaId, WriterId};
    use crate::types::record::StateRecord;
    use crate::types::version::{Stamp, Version, VersionVector};

    const DEADLINES: TableDefinition<'_, (u64, &[u8; 32]), ()> = TableDefinition::new("deadlines");
    const ROOTS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("roots");

    fn row(seq: u64, tombstone: bool) -> RecordRow {
        let mut vector = VersionVector::default();
        vector.set(WriterId(u64::MAX), seq);
        let version = Version {
            vector,
            stamp: Stamp {
                millis: seq * 1_000_000_007,
                logical: 3,
                replica: ReplicaId(1),
            },
            content: if tombstone {
                ContentHash::NONE
            } else {
                ContentHash::of(b"")
            },
            size: 0,
            content_type: (!tombstone).then(|| "text/plain".to_owned()),
            expires_at: None,
            tombstone,
            lease_epoch: 0,
        };
        let record = StateRecord::new(GameId::new(&format!("match/{seq}")).unwrap(), version);
        let place = if tombstone {
            Placement::Nothing
        } else {
            Placement::Inline(vec![0])
        };
        RecordRow {
            leaf: record.leaf(),
            seq,
            record,
            placements: vec![place],
        }
    }

    #[test]
    fn a_file_of_schema_2_gets_a_deadline_for_every_deleted_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.redb");
        let open = || Store::open(&path, ReplicaId(1), Epoch(1), StoreOptions::default()).unwrap();
        let (mut store, mut file) = open();
        let rows: Vec<RecordRow> = (1..40).map(|seq| row(seq, seq % 3 == 0)).collect();
        let written = store.change(|tables| {
            rows.iter().for_each(|row| tables.put_record(row, None));
            Ok(())
        });
        written.unwrap();
        let flushed = file.flush(&store.freeze().unwrap()).unwrap();
        store.flushed(&flushed);
        drop((store, file, flushed));

        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        assert!(transaction.delete_table(DEADLINES).unwrap());
        assert!(transaction.delete_table(ROOTS).unwrap());
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert(SCHEMA, 2u32.to_le_bytes().as_slice()).unwrap();
        drop(meta);
        transaction.commit().unwrap();
        drop(database);

        let mut due = Vec::new();
        let (store, _file) = open();
        let visited = store
            .snapshot()
            .visit_deadlines(&mut |at, key| due.push((at, *key)));
        visited.unwrap();
        let deleted = rows.iter().filter(|row| row.record.is_deleted());
        let mut expected: Vec<(u64, [u8; 32])> = deleted
            .map(|row| (row.record.departs_at().unwrap(), row.leaf.key.0))
            .collect();
        expected.sort_unstable();
        assert_eq!(due, expected);
        assert_eq!(store.snapshot().root_log_size().unwrap(), 0);
    }
}
