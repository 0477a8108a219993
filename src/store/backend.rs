//! The engine's file on a [`Disk`](crate::store::disk::Disk).

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use crate::store::disk::DiskFile;

/// Hands the engine's reads and writes on to a file. Whoever opens it holds the data directory's
/// lock, so the engine needs none of its own.
#[derive(Debug)]
pub struct Backend(pub Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}
