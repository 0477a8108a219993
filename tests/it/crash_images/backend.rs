//! The engine alone on a file of a simulated disk, for tests that look behind the store's back.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;
use samestate::store::disk::DiskFile;

#[derive(Debug)]
pub struct Raw(pub Arc<dyn DiskFile>);

impl StorageBackend for Raw {
    fn len(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}
