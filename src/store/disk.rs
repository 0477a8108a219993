//! Files as the store uses them: the machine's, or those of a test that cuts the power.
//!
//! Everything that the store has to say to a disk goes through these two traits, so that a test can
//! record it and show what the disk may look like after a power cut, or let any one step fail.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that is open for reading and writing at any place.
pub trait DiskFile: Debug + Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// The disk's.
    fn size(&self) -> io::Result<u64>;

    /// Bytes that the disk has given to the file, which may have holes.
    ///
    /// # Errors
    /// The disk's.
    fn allocated(&self) -> io::Result<u64> {
        self.size()
    }

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    /// The disk's; `UnexpectedEof` when the file ends before the buffer is full.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. Durable after [`DiskFile::sync`] only.
    ///
    /// # Errors
    /// The disk's; any part of the bytes may have been written then.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or lets it grow with zeros.
    ///
    /// # Errors
    /// The disk's.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Waits until everything written so far survives a power cut.
    ///
    /// # Errors
    /// The disk's; what was written since the last successful sync may or may not be there then.
    fn sync(&self) -> io::Result<()>;
}

/// A place for files.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file for reading and writing; with `create` it is made, empty, when it is missing.
    ///
    /// # Errors
    /// The disk's; `NotFound` when it is missing and not to be made.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;

    /// The paths of all entries of a folder, in any order.
    ///
    /// # Errors
    /// The disk's.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Gives a file another name, in place of the file that has it now, if any.
    ///
    /// # Errors
    /// The disk's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The disk's; `NotFound` when there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Waits until the names in a folder (files made, renamed, removed) survive a power cut.
    ///
    /// # Errors
    /// The disk's.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Bytes that can still be written below a folder by this process.
    ///
    /// # Errors
    /// The disk's.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineDisk;

#[derive(Debug)]
struct MachineFile(File);

impl Disk for MachineDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(MachineFile(file)))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(folder)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl DiskFile for MachineFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocated(&self) -> io::Result<u64> {
        // POSIX counts them in units of 512 bytes, whatever the blocks of the file system.
        Ok(self.0.metadata()?.blocks() * 512)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
