//! A disk that can be written to without changing anything: what is written stays in memory, in
//! front of the files of another disk. For looking at what must not be touched, by code that would
//! bring it up to date.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::disk::{Disk, DiskFile};

/// Bytes that are kept together.
const PAGE: u64 = 4096;

/// Files of another disk, behind what was written to them here.
#[derive(Debug)]
pub struct Overlay {
    below: Arc<dyn Disk>,
    files: Mutex<HashMap<PathBuf, Arc<OverlayFile>>>,
}

impl Overlay {
    /// Nothing has been written yet.
    pub fn new(below: Arc<dyn Disk>) -> Self {
        Self {
            below,
            files: Mutex::default(),
        }
    }
}

fn only_files_that_exist() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "it is only looked at")
}

impl Disk for Overlay {
    fn open(&self, path: &Path, _create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(path) {
            return Ok(Arc::clone(file) as Arc<dyn DiskFile>);
        }
        let below = self.below.open(path, false)?;
        let length = below.size()?;
        let file = Arc::new(OverlayFile {
            below,
            written: Mutex::new(Written {
                pages: BTreeMap::new(),
                length,
                below: length,
            }),
        });
        files.insert(path.to_path_buf(), Arc::clone(&file));
        Ok(file)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.below.list(folder)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(only_files_that_exist())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Err(only_files_that_exist())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

#[derive(Debug)]
struct OverlayFile {
    below: Arc<dyn DiskFile>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    /// By number.
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    length: u64,
    /// Bytes of the file below that still count.
    below: u64,
}

impl OverlayFile {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `buffer` with the bytes at `offset` as the file below has them, zeros behind its end.
    fn read_below(&self, end: u64, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = end.saturating_sub(offset).min(buffer.len() as u64);
        let (front, behind) = buffer.split_at_mut(there as usize);
        behind.fill(0);
        if front.is_empty() {
            return Ok(());
        }
        self.below.read_at(offset, front)
    }
}

/// The parts of a range that lie in one page each: page, place within it, length.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + length as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        let (page, within) = (at / PAGE, at % PAGE);
        let length = (PAGE - within).min(end.saturating_sub(at));
        at += length;
        (length > 0).then_some((page, within as usize, length as usize))
    })
}

impl DiskFile for OverlayFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().length)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let written = self.lock();
        if offset.saturating_add(buffer.len() as u64) > written.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(written.below, offset, buffer)?;
        let mut done = 0;
        for (page, within, length) in parts(offset, buffer.len()) {
            if let Some(page) = written.pages.get(&page) {
                let part = &page[within..within + length];
                buffer[done..done + length].copy_from_slice(part);
            }
            done += length;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written = self.lock();
        let mut done = 0;
        for (number, within, length) in parts(offset, bytes.len()) {
            if !written.pages.contains_key(&number) {
                let mut page = Box::new([0; PAGE as usize]);
                self.read_below(written.below, number * PAGE, &mut page[..])?;
                written.pages.insert(number, page);
            }
            if let Some(page) = written.pages.get_mut(&number) {
                page[within..within + length].copy_from_slice(&bytes[done..done + length]);
            }
            done += length;
        }
        written.length = written.length.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.lock();
        let cut = length.div_ceil(PAGE);
        written.pages.split_off(&cut);
        if let Some(page) = written.pages.get_mut(&(length / PAGE)) {
            page[(length % PAGE) as usize..].fill(0);
        }
        written.length = length;
        written.below = written.below.min(length);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::disk::MachineDisk;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        Cut(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (0u64..20_000, proptest::collection::vec(1u8.., 1..9_000))
            .prop_map(|(at, bytes)| Step::Write(at, bytes));
        let cut = (0u64..30_000).prop_map(Step::Cut);
        proptest::collection::vec(prop_oneof![3 => write, 1 => cut], 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_reads_as_a_file_does_and_the_file_stays(
            steps in steps(), length in 0usize..15_000
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (path, other) = (folder.path().join("a"), folder.path().join("b"));
            std::fs::write(&path, vec![7; length]).unwrap();
            std::fs::copy(&path, &other).unwrap();
            let overlay = Overlay::new(Arc::new(MachineDisk));
            let shown = overlay.open(&path, false).unwrap();
            let real = MachineDisk.open(&other, false).unwrap();
            for step in steps {
                for file in [&shown, &real] {
                    match &step {
                        Step::Write(at, bytes) => file.write_at(*at, bytes).unwrap(),
                        Step::Cut(length) => file.set_len(*length).unwrap(),
                    }
                }
                prop_assert_eq!(shown.size().unwrap(), real.size().unwrap());
                let both = [&shown, &real].map(|file| {
                    let mut bytes = vec![1; file.size().unwrap() as usize];
                    file.read_at(0, &mut bytes).unwrap();
                    let behind = file.read_at(1, &mut vec![1; bytes.len()]);
                    assert!(behind.is_err() || bytes.is_empty());
                    bytes
                });
                prop_assert!(both[0] == both[1]);
            }
            prop_assert_eq!(std::fs::read(&path).unwrap(), vec![7; length]);
        }
    }
}
