//! Compaction: the live rows are copied in order of key into a new file, which the engine fills
//! page by page, while checkpoints go on into both.
//!
//! Tables are copied one after the other. What a checkpoint changes behind the place that the copy
//! has reached is left to the copy, which reads the old file as it is by then; what it changes in
//! front of it is changed in the new file too.

use std::any::Any;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableHandle, Value,
    WriteTransaction,
};

use crate::store::backend::OpenFile;
use crate::store::checkpoint::{Frozen, Share, begin_durable, flush_range, set_position};
use crate::store::directory::{compact_draft_of, unusable};
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::forms::KeyForm;
use crate::store::log::place::LogPosition;
use crate::store::memtable::Memtable;
use crate::store::options::StoreOptions;
use crate::store::shards::parts_in;
use crate::store::tables::{EngineRow, ForEachTable, KeyRef, Table, for_each_table};

/// Bytes of rows that one slice copies, about: a few milliseconds' work.
const SLICE_BYTES: usize = 2 << 20;

/// How far a compaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionProgress {
    /// Rows copied so far.
    pub rows: u64,
    /// Rows there are to copy, about.
    pub rows_total: u64,
    /// Length of the file before, in bytes.
    pub bytes_before: u64,
    /// Length of the file afterwards, in bytes; 0 until it has ended.
    pub bytes_after: u64,
}

/// A copy in the making.
pub struct Compaction {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    draft: PathBuf,
    share: Share,
    target: OpenFile,
    place: Place,
    progress: CompactionProgress,
}

/// How far the copy has come: tables in front of `table` are whole, and `table` is up to a key.
#[derive(Default)]
struct Place {
    table: usize,
    after: Option<Box<dyn Any + Send>>,
}

impl Place {
    fn after<T: Table>(&self) -> Option<&T::Key> {
        self.after.as_ref()?.downcast_ref()
    }
}

impl Compaction {
    /// Begins a copy of the file at `path`.
    ///
    /// # Errors
    /// [`StoreError`] when the new file cannot be made.
    pub fn begin(
        disk: Arc<dyn Disk>,
        path: &Path,
        share: Share,
        options: StoreOptions,
        source: &Database,
        bytes_before: u64,
    ) -> Result<Self, StoreError> {
        let draft = compact_draft_of(path);
        // Left behind by a copy that a crash broke off; when there is none, so much the better.
        let _ = disk.remove(&draft);
        let file = disk.open(&draft, true);
        let file = file.map_err(|source| unusable(&draft, source))?;
        let target = OpenFile::open(file, options.cache_bytes / 4);
        let target = target.map_err(redb::Error::from)?;
        let rows_total = rows_of(source)?;
        Ok(Self {
            disk,
            path: path.to_path_buf(),
            draft,
            share,
            target,
            place: Place::default(),
            progress: CompactionProgress {
                rows_total,
                bytes_before,
                ..CompactionProgress::default()
            },
        })
    }

    /// How far it has come.
    pub fn progress(&self) -> CompactionProgress {
        self.progress
    }

    /// Copies some rows; true when there are no more.
    ///
    /// # Errors
    /// [`StoreError`] when either file fails.
    pub fn copy_slice(&mut self, source: &Database) -> Result<bool, StoreError> {
        let transaction = self.target.database.begin_write()?;
        let mut slice = Slice {
            source: source.begin_read()?,
            target: &transaction,
            place: &mut self.place,
            table: 0,
            rows: 0,
            bytes: 0,
        };
        for_each_table(&mut slice)?;
        let is_full = slice.bytes >= SLICE_BYTES;
        self.progress.rows += slice.rows;
        drop(slice);
        transaction.commit().map_err(StoreError::commit_failed)?;
        Ok(!is_full)
    }

    /// Brings what was copied already up to a checkpoint of the old file.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn flush(&mut self, frozen: &Frozen) -> Result<(), StoreError> {
        let transaction = self.target.database.begin_write()?;
        for_each_table(&mut Follow {
            target: &transaction,
            memtable: &frozen.memtable,
            share: self.share,
            place: &self.place,
            table: 0,
        })?;
        transaction.commit().map_err(StoreError::commit_failed)
    }

    /// Compares the numbers of rows: what the engine does not find in a damaged file must not be
    /// given up along with it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they differ, or either file fails.
    pub fn check_counts(&self, source: &Database) -> Result<(), StoreError> {
        for_each_table(&mut Compare {
            source: source.begin_read()?,
            target: self.target.database.begin_read()?,
        })
    }

    /// Puts the new file in the place of the old one, which stands at `position`.
    ///
    /// # Errors
    /// [`StoreError`] when the new file or its name cannot be made durable. Either file may have
    /// the name then.
    pub fn finish(self, position: LogPosition) -> Result<OpenFile, StoreError> {
        // Opening a file whose last commit was made without quick-repair takes long.
        let transaction = begin_durable(&self.target.database)?;
        // Rows of a memtable do not know it, and the head may have come from one.
        set_position(&transaction, position)?;
        transaction.commit().map_err(StoreError::commit_failed)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let named = self.disk.rename(&self.draft, &self.path);
        named
            .and_then(|()| self.disk.sync_folder(folder))
            .map_err(|source| unusable(&self.path, source))?;
        Ok(self.target)
    }

    /// Removes what was copied.
    pub fn discard(self) {
        drop(self.target);
        // The next start removes it otherwise.
        let _ = self.disk.remove(&self.draft);
    }
}

/// Rows of all tables of a file.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn rows_of(source: &Database) -> Result<u64, StoreError> {
    let mut count = Count {
        transaction: source.begin_read()?,
        rows: 0,
    };
    for_each_table(&mut count)?;
    Ok(count.rows)
}

/// Counts the rows of all tables.
struct Count {
    transaction: ReadTransaction,
    rows: u64,
}

impl ForEachTable for Count {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        self.rows += self.transaction.open_table(T::DEFINITION)?.len()?;
        Ok(())
    }
}

/// Compares the numbers of rows of all tables.
struct Compare {
    source: ReadTransaction,
    target: ReadTransaction,
}

impl ForEachTable for Compare {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        let rows = self.source.open_table(T::DEFINITION)?.len()?;
        let copied = self.target.open_table(T::DEFINITION)?.len()?;
        if rows == copied {
            return Ok(());
        }
        let table = T::DEFINITION.name();
        Err(StoreError::damaged(format!(
            "table {table} has {rows} rows, of which {copied} can be read"
        )))
    }
}

/// Copies rows from where the copy has come to.
struct Slice<'s> {
    source: ReadTransaction,
    target: &'s WriteTransaction,
    place: &'s mut Place,
    table: usize,
    rows: u64,
    bytes: usize,
}

impl ForEachTable for Slice<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        let table = self.table;
        self.table += 1;
        if table != self.place.table || self.bytes >= SLICE_BYTES {
            return Ok(());
        }
        let source = self.source.open_table(T::DEFINITION)?;
        let mut target = self.target.open_table(T::DEFINITION)?;
        let from = match self.place.after::<T>() {
            Some(after) => Bound::Excluded(after.lend()),
            None => Bound::Unbounded,
        };
        let end: Bound<KeyRef<'_, T>> = Bound::Unbounded;
        let mut cursor = target.upper_bound_mut(end)?;
        let mut last = None;
        let everything: Bound<KeyRef<'_, T>> = Bound::Unbounded;
        for entry in source.range::<KeyRef<'_, T>>((from, everything))? {
            let (key, row) = entry?;
            cursor.insert_before(key.value(), row.value())?;
            self.bytes += EngineRow::<T>::as_bytes(&row.value()).as_ref().len() + 48;
            self.rows += 1;
            if self.bytes >= SLICE_BYTES {
                last = Some(T::Key::keep(key.value()));
                break;
            }
        }
        cursor.close()?;
        match last {
            Some(last) => self.place.after = Some(Box::new(last)),
            None => {
                *self.place = Place {
                    table: table + 1,
                    after: None,
                };
            }
        }
        Ok(())
    }
}

/// Carries a checkpoint out in what was copied already.
struct Follow<'f> {
    target: &'f WriteTransaction,
    memtable: &'f Memtable,
    share: Share,
    place: &'f Place,
    table: usize,
}

impl ForEachTable for Follow<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        let table = self.table;
        self.table += 1;
        let end = match self.place.after::<T>() {
            _ if table < self.place.table => Bound::Unbounded,
            Some(after) if table == self.place.table => Bound::Included(after.clone()),
            _ => return Ok(()),
        };
        let mut target = self.target.open_table(T::DEFINITION)?;
        let range = (Bound::Unbounded, end);
        for part in parts_in::<T>(range, self.share.cut, self.share.shard) {
            flush_range::<T>(&mut target, self.memtable, part)?;
        }
        Ok(())
    }
}
