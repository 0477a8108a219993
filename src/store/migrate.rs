//! Brings a file to the newest schema, one step a transaction.

use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

use crate::store::error::StoreError;

#[path = "../../migrations/v0001_initial.rs"]
mod v0001_initial;
#[path = "../../migrations/v0002_log.rs"]
mod v0002_log;

type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// Facts about the file, in every schema version.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// All steps in order; the schema version of a file is how many of them it has seen.
const STEPS: &[Step] = &[v0001_initial::run, v0002_log::run];

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
