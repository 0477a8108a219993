//! One file of the engine in the hands of the one thread that writes to it: checkpoints, opening it
//! again after a failure, and compaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, WriteTransaction};

use crate::store::backend::OpenFile;
use crate::store::checkpoint::{
    Frozen, Share, begin_durable, flush_rows, position_of, set_position,
};
use crate::store::compaction::{Compaction, CompactionProgress};
use crate::store::directory::unusable;
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::guard::guarded;
use crate::store::log::place::LogPosition;
use crate::store::open_file::{open_database, sync_directory};
use crate::store::options::StoreOptions;
use crate::store::tables::FileTables;
use crate::store::tree_renewal::{is_due, renew};

/// A file of a namespace, open for writing.
pub struct EngineFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    options: StoreOptions,
    share: Share,
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
        share: Share,
        opened: OpenFile,
    ) -> Self {
        Self {
            disk,
            path,
            options,
            share,
            opened: Some(opened),
            compaction: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file's share of a frozen memtable's rows, with whatever else is to happen at the
    /// same moment, and commits them durably.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails; the file has to be opened again then.
    pub fn flush(
        &mut self,
        frozen: &Frozen,
        also: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.commit(|transaction, share| {
            flush_rows(transaction, &frozen.memtable, share)?;
            set_position(transaction, frozen.position)?;
            also(transaction)
        })?;
        if let Some(compaction) = &mut self.compaction
            && let Err(error) = guarded(|| compaction.flush(frozen))
        {
            tracing::warn!(%error, "compaction is given up");
            self.give_up_compaction();
        }
        Ok(())
    }

    /// Changes the file in one durable transaction.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails, or the first that `work` returns.
    pub fn commit(
        &mut self,
        work: impl FnOnce(&WriteTransaction, Share) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        guarded(|| {
            let transaction = begin_durable(self.database()?)?;
            work(&transaction, self.share)?;
            transaction.commit().map_err(StoreError::commit_failed)
        })
    }

    /// Makes its Merkle rows anew when a migration has changed how they are laid out.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a record row is damaged.
    pub fn renew_tree(&mut self) -> Result<(), StoreError> {
        let renewed = guarded(|| is_due(self.database()?)).and_then(|due| match due {
            true => self.commit(|transaction, _| renew(transaction)),
            false => Ok(()),
        });
        renewed.map_err(|error| error.of_file(&self.path))
    }

    /// Its tables as the newest commit left them.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn tables(&self) -> Result<FileTables, StoreError> {
        guarded(|| FileTables::open(self.opened()?))
    }

    /// The engine's handle.
    ///
    /// # Errors
    /// [`StoreError`] when the file is closed.
    pub fn database(&self) -> Result<&Database, StoreError> {
        Ok(&self.opened()?.database)
    }

    fn opened(&self) -> Result<&OpenFile, StoreError> {
        let closed = || StoreError::damaged(format!("{} is closed", self.path.display()));
        self.opened.as_ref().ok_or_else(closed)
    }

    /// True when the file has to be opened again before anything can be read from it: after a
    /// commit that failed, and after any failure of the disk.
    pub fn is_closed(&self) -> bool {
        self.opened.as_ref().is_none_or(OpenFile::has_failed)
    }

    /// Closes it, until it is opened again.
    pub fn close(&mut self) {
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
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.close();
        let opened = open_database(&*self.disk, &self.path, self.options)?;
        // It may have got its name by a compaction that failed right behind that.
        sync_directory(&*self.disk, &self.path)?;
        self.opened = Some(opened);
        Ok(())
    }

    /// Up to where the file holds what the log says.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn position(&self) -> Result<LogPosition, StoreError> {
        guarded(|| position_of(self.database()?))
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

    /// Begins to copy the live rows into a new file, which then takes the place of this one.
    ///
    /// # Errors
    /// [`StoreError`] when the new file cannot be made.
    pub fn begin_compaction(&mut self) -> Result<(), StoreError> {
        if self.compaction.is_none() {
            let (disk, bytes) = (Arc::clone(&self.disk), self.bytes()?);
            let database = self.database()?;
            let begun = guarded(|| {
                Compaction::begin(disk, &self.path, self.share, self.options, database, bytes)
            })?;
            self.compaction = Some(begun);
        }
        Ok(())
    }

    /// True while a compaction goes on.
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Copies a slice of rows. When the last one is copied the new file takes the place of the old
    /// one, which is returned: views of it keep working until it is closed.
    ///
    /// # Errors
    /// [`StoreError`] when either file fails; the compaction is given up then, and nothing is lost.
    pub fn compact_slice(
        &mut self,
        progress: &mut CompactionProgress,
    ) -> Result<Option<OpenFile>, StoreError> {
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

    fn swap(&mut self, compaction: Compaction) -> Result<OpenFile, StoreError> {
        let copy = compaction.finish(self.position()?)?;
        let closed = || StoreError::damaged(format!("{} is closed", self.path.display()));
        self.opened.replace(copy).ok_or_else(closed)
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
