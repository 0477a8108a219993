//! Rows on their way into the files of several shards.
//!
//! A checkpoint has to be in all files of a namespace or in none, while each file is committed to by
//! itself. So the rows for the other files are first written into the first file, in the very
//! transaction that carries its own rows; with that the checkpoint has happened. Whatever of them a
//! crash keeps from the other files is carried there when the namespace is opened again. Rows are
//! written as they are to be, not as changes, so doing it twice does no harm.

use std::ops::Bound;

use redb::{Database, ReadableDatabase, TableDefinition, TableError, Value, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::store::cut::Cut;
use crate::store::error::StoreError;
use crate::store::forms::{KeyForm, RowForm};
use crate::store::layer::Known;
use crate::store::log::place::LogPosition;
use crate::store::memtable::Memtable;
use crate::store::shards::parts_in;
use crate::store::tables::{EngineKey, EngineRow, ForEachTable, Table, for_each_table};
use crate::types::binary::{decode, encode};

/// (Shard, part) -> rows; (0, 0) -> [`Span`].
const PENDING: TableDefinition<'_, (u8, u32), &[u8]> = TableDefinition::new("pending");

/// Bytes of rows that stand together, about.
const PART_BYTES: usize = 1 << 20;
/// Rows taken from the memtable at a time.
const STRIDE: usize = 1024;
/// Length of a row that was removed.
const REMOVED: u32 = u32::MAX;

/// Which checkpoint the rows belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Where all files stood before.
    pub from: LogPosition,
    /// Where they stand afterwards.
    pub to: LogPosition,
}

/// Puts the rows for all other files into the first one, in place of those of the checkpoint before.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn write_pending(
    transaction: &WriteTransaction,
    memtable: &Memtable,
    cut: Cut,
    span: Span,
) -> Result<(), StoreError> {
    transaction.delete_table(PENDING)?;
    let mut pending = transaction.open_table(PENDING)?;
    pending.insert((0, 0), encode(&span).as_slice())?;
    for shard in 1..cut.count() {
        let mut gather = Gather {
            memtable,
            cut,
            shard,
            table: 0,
            part: Vec::new(),
            full: Vec::new(),
        };
        for_each_table(&mut gather)?;
        let parts = gather.full.iter().chain([&gather.part]);
        for (number, part) in parts.filter(|part| !part.is_empty()).enumerate() {
            pending.insert((shard as u8, number as u32), part.as_slice())?;
        }
    }
    Ok(())
}

/// Collects the rows of one shard.
struct Gather<'g> {
    memtable: &'g Memtable,
    cut: Cut,
    shard: usize,
    table: u8,
    part: Vec<u8>,
    full: Vec<Vec<u8>>,
}

impl ForEachTable for Gather<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        let everything = (Bound::Unbounded, Bound::Unbounded);
        for (mut from, to) in parts_in::<T>(everything, self.cut, self.shard) {
            loop {
                let range = (from, to.clone());
                let rows = self.memtable.range::<T>(range, u64::MAX, STRIDE);
                let Some((newest, _)) = rows.last() else {
                    break;
                };
                from = Bound::Excluded(newest.clone());
                for (key, known) in &rows {
                    write_row::<T>(&mut self.part, self.table, key, known)?;
                    if self.part.len() >= PART_BYTES {
                        self.full.push(std::mem::take(&mut self.part));
                    }
                }
            }
        }
        self.table += 1;
        Ok(())
    }
}

fn length(bytes: &[u8]) -> Result<[u8; 4], StoreError> {
    let length = u32::try_from(bytes.len()).ok();
    let length = length.filter(|length| *length < REMOVED);
    let too_long = || StoreError::damaged("a row is too long");
    Ok(length.ok_or_else(too_long)?.to_le_bytes())
}

/// The number of the table, then key and row, each behind its length (`u32`, little endian).
fn write_row<T: Table>(
    part: &mut Vec<u8>,
    table: u8,
    key: &T::Key,
    known: &Known<T::Row>,
) -> Result<(), StoreError> {
    let lent = key.lend();
    let key = EngineKey::<T>::as_bytes(&lent);
    part.push(table);
    part.extend(length(key.as_ref())?);
    part.extend(key.as_ref());
    match known {
        Known::Row(row) => {
            let lent = row.lend();
            let row = EngineRow::<T>::as_bytes(&lent);
            part.extend(length(row.as_ref())?);
            part.extend(row.as_ref());
        }
        Known::Removed => part.extend(REMOVED.to_le_bytes()),
    }
    Ok(())
}

/// Which checkpoint the rows in the first file belong to, if there are some.
///
/// # Errors
/// [`StoreError`] when the engine fails or the row is damaged.
pub fn span_of(first: &Database) -> Result<Option<Span>, StoreError> {
    let table = match first.begin_read()?.open_table(PENDING) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let span = table.get((0, 0))?;
    Ok(span.map(|span| decode::<Span>(span.value())).transpose()?)
}

/// Carries the rows for one shard from the first file into its own.
///
/// # Errors
/// [`StoreError`] when the engine fails or the rows are damaged.
pub fn carry_over(
    first: &Database,
    shard: usize,
    transaction: &WriteTransaction,
) -> Result<(), StoreError> {
    let pending = first.begin_read()?.open_table(PENDING)?;
    let shard = shard as u8;
    for part in pending.range((shard, 0)..=(shard, u32::MAX))? {
        let (_, part) = part?;
        let rows = read_rows(part.value());
        let rows = rows.ok_or_else(|| StoreError::damaged("rows on their way are damaged"))?;
        for_each_table(&mut Carry {
            transaction,
            rows: &rows,
            table: 0,
        })?;
    }
    Ok(())
}

/// A row as it stands in a part.
struct PendingRow<'p> {
    table: u8,
    key: &'p [u8],
    /// `None` when it is to be removed.
    row: Option<&'p [u8]>,
}

fn read_rows(mut part: &[u8]) -> Option<Vec<PendingRow<'_>>> {
    let mut rows = Vec::new();
    while let Some((table, rest)) = part.split_first() {
        let (key, rest) = read_bytes(rest)?;
        let (row, rest) = match rest.split_first_chunk()? {
            (length, rest) if u32::from_le_bytes(*length) == REMOVED => (None, rest),
            _ => {
                let (row, rest) = read_bytes(rest)?;
                (Some(row), rest)
            }
        };
        let table = *table;
        rows.push(PendingRow { table, key, row });
        part = rest;
    }
    Some(rows)
}

fn read_bytes(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = from.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// Writes the rows of a part into their tables.
struct Carry<'c> {
    transaction: &'c WriteTransaction,
    rows: &'c [PendingRow<'c>],
    table: u8,
}

impl ForEachTable for Carry<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        let number = self.table;
        self.table += 1;
        let mut rows = self
            .rows
            .iter()
            .filter(|row| row.table == number)
            .peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut table = self.transaction.open_table(T::DEFINITION)?;
        for PendingRow { key, row, .. } in rows {
            let key = EngineKey::<T>::from_bytes(key);
            match row {
                Some(row) => {
                    table.insert(key, EngineRow::<T>::from_bytes(row))?;
                }
                None => {
                    table.remove(key)?;
                }
            }
        }
        Ok(())
    }
}
