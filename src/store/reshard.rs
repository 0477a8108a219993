//! Cutting a namespace into another number of shards, while no process serves it.
//!
//! Every row is copied into a new set of files, in order of key. The one moment at which they take
//! over is when the new first file gets the namespace's name: up to then the old files are all that
//! counts, and afterwards the new ones. What the log holds beyond the files stays in the log.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, Durability, Value, WriteTransaction};

use crate::store::backend::OpenFile;
use crate::store::checkpoint::{Share, begin_durable, set_position};
use crate::store::cut::Cut;
use crate::store::cut::KeyBounds;
use crate::store::directory::{reshard_draft_of, unusable};
use crate::store::disk::{Disk, DiskFile};
use crate::store::engine_files::{EngineFiles, OnDamage};
use crate::store::error::StoreError;
use crate::store::forms::KeyForm;
use crate::store::guard::guarded;
use crate::store::layered::Stored;
use crate::store::log::place::LogPosition;
use crate::store::open_file::{open_database, sync_directory};
use crate::store::options::StoreOptions;
use crate::store::shard_set::{Member, remove_stale};
use crate::store::shards::{EngineTables, parts_in};
use crate::store::tables::{EngineRow, ForEachTable, KeyRef, Table, for_each_table};

/// Bytes of rows that one transaction copies, about.
const SLICE_BYTES: usize = 16 << 20;

/// What cutting a namespace anew did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resharded {
    /// Shards before.
    pub from: usize,
    /// Rows of all tables, each of which was copied.
    pub rows: u64,
    /// Bytes of the files before.
    pub bytes_before: u64,
    /// Bytes of the files afterwards.
    pub bytes_after: u64,
}

/// Into how many shards the namespace whose first file is at `path` is cut.
///
/// # Errors
/// [`StoreError`] when its files cannot be opened.
pub fn shards_of(
    disk: &Arc<dyn Disk>,
    path: &Path,
    options: StoreOptions,
) -> Result<Cut, StoreError> {
    Ok(EngineFiles::open(disk, path, options, OnDamage::Refuse)?.cut())
}

/// Cuts the namespace whose first file is at `path` into so many shards. `set` is a random number
/// that tells the new files from those of before; `progress` is told how many rows were copied, of
/// how many.
///
/// # Errors
/// [`StoreError`] when the files cannot be opened, there is no space for new ones, or either fails;
/// the namespace is as it was then.
pub fn reshard(
    disk: &Arc<dyn Disk>,
    path: &Path,
    cut: Cut,
    set: u64,
    options: StoreOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Resharded, StoreError> {
    let files = EngineFiles::open(disk, path, options, OnDamage::Refuse)?;
    let (bytes_before, tables) = (files.bytes()?, files.tables()?);
    if files.free_bytes()? < bytes_before {
        return Err(StoreError::Full);
    }
    let target = Target::new(Arc::clone(disk), path, cut, set, options);
    let copied = target.copy(&tables, files.stands_at()?, progress);
    let finished = copied.and_then(|rows| {
        let bytes_after = target.bytes()?;
        target.take_over()?;
        Ok(Resharded {
            from: files.cut().count(),
            rows,
            bytes_before,
            bytes_after,
        })
    });
    // The old files, closed at last, or the new ones, if these did not come to anything.
    drop((tables, files));
    target.tidy(finished.is_ok());
    finished
}

/// The new files.
struct Target {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    cut: Cut,
    set: u64,
    options: StoreOptions,
}

impl Target {
    fn new(disk: Arc<dyn Disk>, path: &Path, cut: Cut, set: u64, options: StoreOptions) -> Self {
        let path = path.to_path_buf();
        Self {
            disk,
            path,
            cut,
            set,
            options,
        }
    }

    fn member(&self, shard: usize) -> Member {
        Member {
            set: self.set,
            bits: self.cut.bits(),
            shard: shard as u8,
        }
    }

    /// Where a new file is while the old ones still count.
    fn path_of(&self, shard: usize) -> PathBuf {
        match shard {
            0 => reshard_draft_of(&self.path),
            shard => self.member(shard).path(&self.path),
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let shards = 0..self.cut.count();
        shards.map(|shard| self.path_of(shard)).collect()
    }

    /// Makes all files and fills them; returns how many rows there are.
    fn copy(
        &self,
        source: &EngineTables,
        position: LogPosition,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, StoreError> {
        let mut count = Count { source, rows: 0 };
        for_each_table(&mut count)?;
        let (mut copied, total) = (0, count.rows);
        for shard in 0..self.cut.count() {
            let path = self.path_of(shard);
            // What a cut that was broken off left behind; if there is none, so much the better.
            let _ = self.disk.remove(&path);
            let file = self.disk.open(&path, true);
            let file = file.map_err(|source| unusable(&path, source))?;
            let opened = self.open_new(&path, &file, shard)?;
            let mut copy = Copy {
                source,
                target: &opened.database,
                share: Share {
                    cut: self.cut,
                    shard,
                },
                progress: &mut |rows| {
                    copied += rows;
                    progress(copied, total);
                },
            };
            for_each_table(&mut copy)?;
            guarded(|| self.finish(&opened, shard, position))?;
            drop(opened);
            file.sync().map_err(|source| unusable(&path, source))?;
        }
        if copied == total {
            sync_directory(&*self.disk, &self.path)?;
            return Ok(total);
        }
        let what = format!("of its {total} rows, {copied} can be read");
        Err(StoreError::damaged(what).of_file(&self.path))
    }

    /// The first file gets its schema version along with the other rows that say what it is.
    fn open_new(
        &self,
        path: &Path,
        file: &Arc<dyn DiskFile>,
        shard: usize,
    ) -> Result<OpenFile, StoreError> {
        if shard > 0 {
            return open_database(&*self.disk, path, self.options);
        }
        let opened = OpenFile::open(Arc::clone(file), self.options.cache_bytes);
        Ok(opened.map_err(redb::Error::from)?)
    }

    fn finish(
        &self,
        opened: &OpenFile,
        shard: usize,
        position: LogPosition,
    ) -> Result<(), StoreError> {
        let transaction = begin_durable(&opened.database)?;
        for_each_table(&mut Make(&transaction))?;
        self.member(shard).write(&transaction)?;
        set_position(&transaction, position)?;
        transaction.commit().map_err(StoreError::commit_failed)
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        let bytes = self.paths().into_iter().map(|path| {
            let file = self.disk.open(&path, false);
            let bytes = file.and_then(|file| file.allocated());
            bytes.map_err(|source| unusable(&path, source))
        });
        bytes.sum()
    }

    /// Gives the first file the namespace's name, and with that all of them.
    fn take_over(&self) -> Result<(), StoreError> {
        let named = self.disk.rename(&self.path_of(0), &self.path);
        named.map_err(|source| unusable(&self.path, source))?;
        sync_directory(&*self.disk, &self.path)
    }

    /// Removes the files that do not count. When it is not known which these are, all stay.
    fn tidy(&self, has_taken_over: bool) {
        if has_taken_over {
            remove_stale(&*self.disk, &self.path, &self.paths());
        } else if self.disk.open(&self.path_of(0), false).is_ok() {
            for path in self.paths() {
                // The next start removes it otherwise.
                let _ = self.disk.remove(&path);
            }
        }
    }
}

/// Counts the rows of all tables.
struct Count<'c> {
    source: &'c EngineTables,
    rows: u64,
}

impl ForEachTable for Count<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        self.rows += self.source.rows::<T>()?;
        Ok(())
    }
}

/// Makes the tables that no row was copied into.
struct Make<'m>(&'m WriteTransaction);

impl ForEachTable for Make<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        self.0.open_table(T::DEFINITION)?;
        Ok(())
    }
}

/// Copies a shard's share of all tables into its file.
struct Copy<'c> {
    source: &'c EngineTables,
    target: &'c Database,
    share: Share,
    progress: &'c mut dyn FnMut(u64),
}

impl ForEachTable for Copy<'_> {
    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        let everything = (Bound::Unbounded, Bound::Unbounded);
        for (mut from, to) in parts_in::<T>(everything, self.share.cut, self.share.shard) {
            while let Some(last) = self.copy_slice::<T>((from, to.clone()))? {
                from = Bound::Excluded(last);
            }
        }
        Ok(())
    }
}

impl Copy<'_> {
    /// Copies the first rows of a range; the last one of them, if there were any.
    fn copy_slice<T: Table>(
        &mut self,
        range: KeyBounds<T::Key>,
    ) -> Result<Option<T::Key>, StoreError> {
        let mut stored = Stored::<T>::new(self.source, range);
        let Some(mut row) = stored.next()? else {
            return Ok(None);
        };
        let (mut rows, mut bytes) = (0, 0);
        let last = guarded(|| {
            let mut transaction = self.target.begin_write()?;
            // Nothing of it counts before the last transaction of the file.
            transaction.set_durability(Durability::None)?;
            let mut table = transaction.open_table(T::DEFINITION)?;
            let end: Bound<KeyRef<'_, T>> = Bound::Unbounded;
            let mut cursor = table.upper_bound_mut(end)?;
            let last = loop {
                cursor.insert_before(row.0.value(), row.1.value())?;
                bytes += EngineRow::<T>::as_bytes(&row.1.value()).as_ref().len() + 48;
                rows += 1;
                if bytes >= SLICE_BYTES {
                    break T::Key::keep(row.0.value());
                }
                row = match stored.next()? {
                    Some(next) => next,
                    None => break T::Key::keep(row.0.value()),
                };
            };
            cursor.close()?;
            drop(table);
            transaction.commit().map_err(StoreError::commit_failed)?;
            Ok::<_, StoreError>(last)
        })?;
        (self.progress)(rows);
        Ok(Some(last))
    }
}
