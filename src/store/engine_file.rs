//! The engine's file in the hands of the one thread that writes to it: checkpoints, opening it
//! again after a failure, and compaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase};

use crate::store::backend::OpenFile;
use crate::store::checkpoint::{Flushed, Frozen, begin_durable, flush_rows, set_position};
use crate::store::compaction::{Compaction, CompactionProgress};
use crate::store::directory::unusable;
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::guard::guarded;
use crate::store::log::place::LogPosition;
use crate::store::open_file::{open_database, set_identity, sync_directory};
use crate::store::options::StoreOptions;
use crate::store::rows::{Identity, head_from_bytes};
use crate::store::tables::{EngineTables, Meta, Table, meta_names};
use crate::types::lineage::Provenance;

/// Waste that is not worth a compaction, in bytes.
const WASTE_MIN: u64 = 8 << 20;

/// A namespace's file, open for writing.
pub struct EngineFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    options: StoreOptions,
    /// `None` after a failure, until the file has been opened again.
    opened: Option<OpenFile>,
    compaction: Option<Compaction>,
}

impl EngineFile {
    /// Takes over an open file.
    pub fn new(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        options: StoreOptions,
        opened: OpenFile,
    ) -> Self {
        Self {
            disk,
            path,
            options,
            opened: Some(opened),
            compaction: None,
        }
    }

    /// Writes the rows of a frozen memtable and commits them durably.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails. The log has the rows in any case; the file is closed
    /// then, and all views of it fail, until [`EngineFile::reopen`] or the next flush.
    pub fn flush(&mut self, frozen: &Frozen) -> Result<Flushed, StoreError> {
        if self.is_closed() {
            self.reopen()?;
        }
        // When the commit that seemed to fail had taken place, the rows are written once more: what
        // a failed sync has left is seen, but may not be on the disk, and only writing it again
        // puts it there.
        let flushed = guarded(|| self.try_flush(frozen));
        if flushed.is_err() {
            self.close();
        }
        flushed
    }

    fn try_flush(&mut self, frozen: &Frozen) -> Result<Flushed, StoreError> {
        let database = self.database()?;
        let transaction = begin_durable(database)?;
        flush_rows(&transaction, &frozen.memtable)?;
        set_position(&transaction, frozen.position)?;
        transaction.commit().map_err(StoreError::commit_failed)?;
        if let Some(compaction) = &mut self.compaction
            && let Err(error) = compaction.flush(frozen)
        {
            tracing::warn!(%error, "compaction is given up");
            self.give_up_compaction();
        }
        self.flushed(frozen.position)
    }

    fn flushed(&self, position: LogPosition) -> Result<Flushed, StoreError> {
        let transaction = self.database()?.begin_read()?;
        Ok(Flushed {
            tables: Arc::new(EngineTables::open(&transaction)?),
            position,
        })
    }

    fn database(&self) -> Result<&Database, StoreError> {
        let closed = || StoreError::damaged(format!("{} is closed", self.path.display()));
        let opened = self.opened.as_ref().ok_or_else(closed)?;
        Ok(&opened.database)
    }

    /// True when the file has to be opened again before anything can be read from it: after a
    /// commit that failed, and after any failure of the disk.
    pub fn is_closed(&self) -> bool {
        self.opened.as_ref().is_none_or(OpenFile::has_failed)
    }

    fn close(&mut self) {
        self.give_up_compaction();
        let opened = self.opened.take();
        // Closing writes, too; what fails of it the next open makes good.
        let _ = guarded(|| {
            drop(opened);
            Ok::<_, StoreError>(())
        });
    }

    /// Opens the file again after a failure.
    ///
    /// # Errors
    /// [`StoreError`] when that fails too.
    pub fn reopen(&mut self) -> Result<Flushed, StoreError> {
        self.close();
        let opened = open_database(&*self.disk, &self.path, self.options)?;
        // It may have got its name by a compaction that failed right behind that.
        sync_directory(&*self.disk, &self.path)?;
        self.opened = Some(opened);
        let flushed = guarded(|| self.flushed(self.position()?));
        if flushed.is_err() {
            self.close();
        }
        flushed
    }

    /// Writes what the file is and where it comes from; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn set_identity(
        &mut self,
        identity: &Identity,
        provenance: &Provenance,
    ) -> Result<Flushed, StoreError> {
        guarded(|| {
            let transaction = begin_durable(self.database()?)?;
            set_identity(&transaction, identity, provenance)?;
            transaction.commit().map_err(StoreError::commit_failed)?;
            self.flushed(self.position()?)
        })
    }

    /// Up to where the file holds what the log says.
    fn position(&self) -> Result<LogPosition, StoreError> {
        let table = self
            .database()?
            .begin_read()?
            .open_table(Meta::DEFINITION)?;
        let head = table
            .get(meta_names::HEAD)?
            .map(|head| head.value().to_vec());
        Ok(head_from_bytes(head.as_deref())?.log)
    }

    /// Bytes that the disk has given to the file.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the disk fails.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        let file = self.disk.open(&self.path, false);
        let size = file.and_then(|file| file.allocated());
        size.map_err(|source| unusable(&self.path, source))
    }

    /// A look at the file as it is now, for another thread: it takes long.
    ///
    /// # Errors
    /// [`StoreError`] when the engine or the disk fails.
    pub fn survey(&self) -> Result<Survey, StoreError> {
        let transaction = self.database()?.begin_read()?;
        Ok(Survey {
            tables: EngineTables::open(&transaction)?,
            bytes: self.bytes()?,
        })
    }

    /// Bytes that can still be written beside the file.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the disk fails.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let free = self.disk.free_bytes(folder);
        free.map_err(|source| unusable(folder, source))
    }

    /// Begins to copy the live rows into a new file, which then takes the place of this one.
    ///
    /// # Errors
    /// [`StoreError`] when the new file cannot be made.
    pub fn begin_compaction(&mut self) -> Result<(), StoreError> {
        if self.compaction.is_none() {
            let (disk, bytes) = (Arc::clone(&self.disk), self.bytes()?);
            let database = self.database()?;
            let begun =
                guarded(|| Compaction::begin(disk, &self.path, self.options, database, bytes))?;
            self.compaction = Some(begun);
        }
        Ok(())
    }

    /// True while a compaction goes on.
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Copies a slice of rows. When the last one is copied the new file takes the place of the old
    /// one, and its tables are returned: views of the old file keep working.
    ///
    /// # Errors
    /// [`StoreError`] when either file fails; the compaction is given up then, and nothing is lost.
    pub fn compact_slice(
        &mut self,
        progress: &mut CompactionProgress,
    ) -> Result<Option<(Flushed, RetiredFile)>, StoreError> {
        let Some(mut compaction) = self.compaction.take() else {
            return Ok(None);
        };
        let database = self.database()?;
        match guarded(|| compaction.copy_slice(database)) {
            Ok(false) => {
                *progress = compaction.progress();
                self.compaction = Some(compaction);
                Ok(None)
            }
            Ok(true) => {
                *progress = compaction.progress();
                if let Err(error) = guarded(|| compaction.check_counts(self.database()?)) {
                    compaction.discard();
                    return Err(error);
                }
                let swapped = guarded(|| self.swap(compaction));
                if swapped.is_err() {
                    // Either file may have the name now; opening it again tells which.
                    self.close();
                }
                progress.bytes_after = self.bytes().unwrap_or_default();
                swapped.map(Some)
            }
            Err(error) => {
                compaction.discard();
                Err(error)
            }
        }
    }

    fn swap(&mut self, compaction: Compaction) -> Result<(Flushed, RetiredFile), StoreError> {
        let position = self.position()?;
        let copy = compaction.finish(position)?;
        let closed = || StoreError::damaged(format!("{} is closed", self.path.display()));
        let retired = self.opened.replace(copy).ok_or_else(closed)?;
        Ok((self.flushed(position)?, RetiredFile(retired)))
    }

    /// Stops a compaction; the old file stays as it is.
    pub fn give_up_compaction(&mut self) {
        if let Some(compaction) = self.compaction.take() {
            compaction.discard();
        }
    }
}

impl Drop for EngineFile {
    fn drop(&mut self) {
        self.close();
    }
}

/// A file as it was at one moment.
pub struct Survey {
    tables: EngineTables,
    bytes: u64,
}

impl Survey {
    /// True when a compaction would give much back. Looks at every page of the file.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn is_wasteful(&self) -> Result<bool, StoreError> {
        let live = guarded(|| self.tables.stored_bytes())?;
        Ok(self.bytes > live + live / 10 * 4 + WASTE_MIN)
    }
}

/// The engine's handle of a file that has no name any more. Dropping it closes the file, after
/// which views of it fail; keep it for as long as there may be some.
pub struct RetiredFile(#[expect(dead_code, reason = "kept to keep the file open")] OpenFile);
