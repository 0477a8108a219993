//! Checkpoints: the rows of a memtable go into the engine's file, in order of key and in one
//! transaction.

use std::ops::Bound;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use crate::store::cut::Cut;
use crate::store::cut::KeyBounds;
use crate::store::error::StoreError;
use crate::store::forms::{KeyForm, RowForm};
use crate::store::layer::Known;
use crate::store::log::place::LogPosition;
use crate::store::memtable::Memtable;
use crate::store::rows::head_from_bytes;
use crate::store::shards::{EngineTables, parts_in};
use crate::store::tables::{
    EngineKey, EngineRow, ForEachTable, KeyRef, Meta, Table, for_each_table, meta_names,
};
use crate::types::binary::encode;

/// Rows taken from the memtable at a time.
const STRIDE: usize = 1024;

/// A memtable that takes no more rows, on its way into the engine's file. While it is, its rows
/// are read from it.
pub struct Frozen {
    pub(in crate::store) memtable: Arc<Memtable>,
    pub(in crate::store) position: LogPosition,
    pub(in crate::store) changes: u64,
}

/// The engine's tables after a checkpoint, or after its file was opened again.
pub struct Flushed {
    pub(in crate::store) tables: Arc<EngineTables>,
    pub(in crate::store) position: LogPosition,
}

impl Frozen {
    /// Says which segment of the log was begun when its rows were complete.
    pub fn ends_before(&mut self, segment: u64) {
        self.position.segment = segment;
    }

    /// The newest commit among its rows.
    pub fn commit(&self) -> u64 {
        self.position.commit
    }

    /// States that were written, about.
    pub fn changes(&self) -> u64 {
        self.changes
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

/// Says up to where the file holds what the log says.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn set_position(
    transaction: &WriteTransaction,
    position: LogPosition,
) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(Meta::DEFINITION)?;
    let head = meta
        .get(meta_names::HEAD)?
        .map(|head| head.value().to_vec());
    let mut head = head_from_bytes(head.as_deref())?;
    head.log = position;
    meta.insert(meta_names::HEAD, encode(&head).as_slice())?;
    Ok(())
}

/// Up to where a file holds what the log says.
///
/// # Errors
/// [`StoreError`] when the engine fails or the row is damaged.
pub fn position_of(database: &Database) -> Result<LogPosition, StoreError> {
    let table = database.begin_read()?.open_table(Meta::DEFINITION)?;
    let head = table.get(meta_names::HEAD)?;
    let head = head.map(|head| head.value().to_vec());
    Ok(head_from_bytes(head.as_deref())?.log)
}

/// Which of a namespace's rows a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Into how many shards they are cut.
    pub cut: Cut,
    /// The file's shard.
    pub shard: usize,
}

/// Writes a file's share of the newest rows of a memtable, in order of key.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn flush_rows(
    transaction: &WriteTransaction,
    memtable: &Memtable,
    share: Share,
) -> Result<(), StoreError> {
    for_each_table(&mut Flush {
        transaction,
        memtable,
        share,
    })
}

struct Flush<'f> {
    transaction: &'f WriteTransaction,
    memtable: &'f Memtable,
    share: Share,
}

impl ForEachTable for Flush<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        let mut table = self.transaction.open_table(T::DEFINITION)?;
        let everything = (Bound::Unbounded, Bound::Unbounded);
        for part in parts_in::<T>(everything, self.share.cut, self.share.shard) {
            flush_range::<T>(&mut table, self.memtable, part)?;
        }
        Ok(())
    }
}

/// Writes the newest rows of a range of a memtable.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn flush_range<T: Table>(
    table: &mut redb::Table<'_, EngineKey<T>, EngineRow<T>>,
    memtable: &Memtable,
    (mut from, end): KeyBounds<T::Key>,
) -> Result<(), StoreError> {
    let mut last = None;
    loop {
        let range = (from, end.clone());
        let rows = memtable.range::<T>(range, u64::MAX, STRIDE);
        let Some((newest, _)) = rows.last() else {
            return Ok(());
        };
        from = Bound::Excluded(newest.clone());
        if last.is_none() {
            last = Some(table.last()?.map(|(key, _)| T::Key::keep(key.value())));
        }
        let last = last.as_ref().and_then(Option::as_ref);
        let behind = |(key, _): &(T::Key, _)| last.is_none_or(|last| key > last);
        let split = rows.partition_point(|row| !behind(row));
        for (key, known) in &rows[..split] {
            match known {
                Known::Row(row) => {
                    table.insert(key.lend(), row.lend())?;
                }
                Known::Removed => {
                    table.remove(key.lend())?;
                }
            }
        }
        append_rows::<T>(table, &rows[split..])?;
    }
}

/// Adds rows behind all others. The engine fills its pages then, and does not look each place up.
fn append_rows<T: Table>(
    table: &mut redb::Table<'_, EngineKey<T>, EngineRow<T>>,
    rows: &[(T::Key, Known<T::Row>)],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let end: Bound<KeyRef<'_, T>> = Bound::Unbounded;
    let mut cursor = table.upper_bound_mut(end)?;
    for (key, known) in rows {
        if let Known::Row(row) = known {
            cursor.insert_before(key.lend(), row.lend())?;
        }
    }
    Ok(cursor.close()?)
}
