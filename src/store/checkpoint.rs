//! Checkpoints: the rows of a memtable go into the engine's file, in order of key and in one
//! transaction.

use std::ops::Bound;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use crate::store::error::StoreError;
use crate::store::forms::{KeyForm, RowForm};
use crate::store::layer::Known;
use crate::store::log::place::LogPosition;
use crate::store::memtable::Memtable;
use crate::store::rows::head_from_bytes;
use crate::store::tables::{EngineTables, ForEachTable, Meta, Table, for_each_table, meta_names};
use crate::types::binary::encode;

/// Rows taken from the memtable at a time.
const STRIDE: usize = 1024;

/// A memtable that takes no more rows, on its way into the engine's file. While it is, its rows
/// are read from it.
pub struct Frozen {
    pub(in crate::store) database: Arc<Database>,
    pub(in crate::store) memtable: Arc<Memtable>,
    pub(in crate::store) position: LogPosition,
}

/// The engine's tables after a checkpoint.
pub struct Flushed {
    pub(in crate::store) tables: Arc<EngineTables>,
    pub(in crate::store) position: LogPosition,
}

impl Frozen {
    /// Writes the rows and commits them durably.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; whether the file has the rows is unknown then until
    /// it has been opened again. The log has them in any case.
    pub fn flush(&self) -> Result<Flushed, StoreError> {
        let transaction = begin_durable(&self.database)?;
        for_each_table(&mut Flush {
            transaction: &transaction,
            memtable: &self.memtable,
        })?;
        set_position(&transaction, self.position)?;
        transaction.commit().map_err(StoreError::commit_failed)?;
        Ok(Flushed {
            tables: Arc::new(EngineTables::open(&self.database.begin_read()?)?),
            position: self.position,
        })
    }

    /// Says which segment of the log was begun when its rows were complete.
    pub fn ends_before(&mut self, segment: u64) {
        self.position.segment = segment;
    }

    /// The newest commit among its rows.
    pub fn commit(&self) -> u64 {
        self.position.commit
    }
}

impl Flushed {
    /// The newest commit that the file holds.
    pub fn commit(&self) -> u64 {
        self.position.commit
    }
}

/// A transaction whose commit is durable. Quick-repair is always on: without it the engine reads
/// the whole file again after a crash.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn begin_durable(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn set_position(transaction: &WriteTransaction, position: LogPosition) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(Meta::DEFINITION)?;
    let head = meta
        .get(meta_names::HEAD)?
        .map(|head| head.value().to_vec());
    let mut head = head_from_bytes(head.as_deref())?;
    head.log = position;
    meta.insert(meta_names::HEAD, encode(&head).as_slice())?;
    Ok(())
}

struct Flush<'f> {
    transaction: &'f WriteTransaction,
    memtable: &'f Memtable,
}

impl ForEachTable for Flush<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        let mut table = self.transaction.open_table(T::DEFINITION)?;
        let mut from = Bound::Unbounded;
        loop {
            let range = (from, Bound::Unbounded);
            let rows = self.memtable.range::<T>(range, u64::MAX, STRIDE);
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            from = Bound::Excluded(last.clone());
            for (key, known) in &rows {
                match known {
                    Known::Row(row) => {
                        table.insert(key.lend(), row.lend())?;
                    }
                    Known::Removed => {
                        table.remove(key.lend())?;
                    }
                }
            }
        }
    }
}
