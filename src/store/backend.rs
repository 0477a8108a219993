//! The engine's file on a [`Disk`](crate::store::disk::Disk).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, DatabaseError, StorageBackend};

use crate::store::disk::DiskFile;
use crate::store::page_queue::PageQueue;

/// Bytes that are written before the file is synced in the middle of a commit: some milliseconds of a disk's time,
/// for which somebody who syncs another file has to wait.
const SYNCED_AT_ONCE: usize = 2 << 20;

/// An open file of the engine.
pub struct OpenFile {
    /// The engine's handle.
    pub database: Database,
    has_failed: Arc<AtomicBool>,
}

impl OpenFile {
    /// Opens a file with so many bytes of memory for its pages; an empty one is made a database.
    ///
    /// # Errors
    /// The engine's.
    pub fn open(file: Arc<dyn DiskFile>, cache_bytes: usize) -> Result<Self, DatabaseError> {
        let has_failed = Arc::<AtomicBool>::default();
        let backend = Backend {
            file,
            waiting: Mutex::default(),
            has_failed: Arc::clone(&has_failed),
        };
        let mut builder = Database::builder();
        let database = builder
            .set_cache_size(cache_bytes)
            .create_with_backend(backend)?;
        Ok(Self {
            database,
            has_failed,
        })
    }

    /// A file that is nowhere but in memory.
    ///
    /// # Errors
    /// The engine's.
    pub fn in_memory() -> Result<Self, DatabaseError> {
        let backend = redb::backends::InMemoryBackend::new();
        Ok(Self {
            database: Database::builder().create_with_backend(backend)?,
            has_failed: Arc::default(),
        })
    }

    /// True when the disk has failed once, even at a read. The engine refuses everything since
    /// then, until the file is opened again.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

/// Hands the engine's reads and writes on to a file. Whoever opens it holds the data directory's
/// lock, so the engine needs none of its own.
///
/// The engine writes page after page in no order, and then syncs. Its pages wait here until it does, or until
/// there are many, and go to the file in order of place, a few at a time with a sync behind them: whoever syncs
/// another file of the same disk meanwhile waits for those few, and not for all pages of a checkpoint.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
    waiting: Mutex<PageQueue>,
    has_failed: Arc<AtomicBool>,
}

impl Backend {
    fn waiting(&self) -> MutexGuard<'_, PageQueue> {
        // What a panic leaves is pages that were not written, or are once more.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self) -> io::Result<()> {
        self.waiting().write(&*self.file, usize::MAX)
    }

    /// Makes durable what waits and what was written before.
    fn sync_out(&self) -> io::Result<()> {
        loop {
            let mut waiting = self.waiting();
            waiting.write(&*self.file, SYNCED_AT_ONCE)?;
            let is_done = waiting.is_empty();
            // Whoever reads meanwhile need not wait for the disk.
            drop(waiting);
            self.file.sync()?;
            if is_done {
                return Ok(());
            }
        }
    }

    fn noting<R>(&self, done: io::Result<R>) -> io::Result<R> {
        if done.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.noting(self.write_out().and_then(|()| self.file.size()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut waiting = self.waiting();
        if waiting.overlaps(offset, out.len()) {
            self.noting(waiting.write(&*self.file, usize::MAX))?;
        }
        drop(waiting);
        self.noting(self.file.read_at(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noting(self.write_out().and_then(|()| self.file.set_len(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noting(self.sync_out())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut waiting = self.waiting();
        if waiting.is_full() || !waiting.push(offset, data) {
            self.noting(waiting.write(&*self.file, usize::MAX))?;
            waiting.push(offset, data);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.noting(self.write_out())
    }
}
