//! The engine's file on a [`Disk`](crate::store::disk::Disk).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redb::{Database, DatabaseError, StorageBackend};

use crate::store::disk::DiskFile;

/// A read that takes so long comes from the disk; one from the system's memory takes a tenth of it.
const SLOW_READ: Duration = Duration::from_micros(40);

/// An open file of the engine.
pub struct OpenFile {
    /// The engine's handle.
    pub database: Database,
    has_failed: Arc<AtomicBool>,
    readers: Reader,
}

/// Held by whoever reads from a file. While there is one, the file is not closed for being out of
/// date.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    token: Arc<()>,
    slow_reads: Arc<AtomicU64>,
}

impl Reader {
    /// Reads by anybody that had to wait for the disk since the file was opened, about.
    pub fn slow_reads(&self) -> u64 {
        self.slow_reads.load(Ordering::Relaxed)
    }
}

impl OpenFile {
    /// Opens a file with so many bytes of memory for its pages; an empty one is made a database.
    ///
    /// # Errors
    /// The engine's.
    pub fn open(file: Arc<dyn DiskFile>, cache_bytes: usize) -> Result<Self, DatabaseError> {
        let has_failed = Arc::<AtomicBool>::default();
        let readers = Reader::default();
        let backend = Backend {
            file,
            has_failed: Arc::clone(&has_failed),
            slow_reads: Arc::clone(&readers.slow_reads),
        };
        let mut builder = Database::builder();
        let database = builder
            .set_cache_size(cache_bytes)
            .create_with_backend(backend)?;
        Ok(Self {
            database,
            has_failed,
            readers,
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
            readers: Reader::default(),
        })
    }

    /// For one more who reads from it.
    pub fn reader(&self) -> Reader {
        self.readers.clone()
    }

    /// True while somebody reads from it.
    pub fn is_read(&self) -> bool {
        Arc::strong_count(&self.readers.token) > 1
    }

    /// True when the disk has failed once, even at a read. The engine refuses everything since
    /// then, until the file is opened again.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

/// Hands the engine's reads and writes on to a file. Whoever opens it holds the data directory's
/// lock, so the engine needs none of its own.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
    has_failed: Arc<AtomicBool>,
    slow_reads: Arc<AtomicU64>,
}

impl Backend {
    fn noting<R>(&self, done: io::Result<R>) -> io::Result<R> {
        if done.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.noting(self.file.size())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let begun = Instant::now();
        let read = self.noting(self.file.read_at(offset, out));
        if begun.elapsed() >= SLOW_READ {
            self.slow_reads.fetch_add(1, Ordering::Relaxed);
        }
        read
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noting(self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noting(self.file.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noting(self.file.write_at(offset, data))
    }
}
