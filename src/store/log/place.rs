//! Where a namespace's log is, and where its file stands in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::store::directory::unusable;
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::types::cursor::Epoch;

/// Where the segments of a namespace are and how they are named.
#[derive(Debug, Clone)]
pub struct LogPlace {
    /// The disk that they are on.
    pub disk: Arc<dyn Disk>,
    /// The folder that they are in.
    pub folder: PathBuf,
    /// What their names begin with.
    pub stem: String,
    /// The life of the feed that they belong to.
    pub epoch: Epoch,
}

impl LogPlace {
    /// The log beside a namespace's file.
    pub fn beside(file: &Path, disk: Arc<dyn Disk>, epoch: Epoch) -> Self {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let folder = file.parent().unwrap_or(Path::new("."));
        Self {
            disk,
            folder: folder.to_path_buf(),
            stem: format!("{stem}.log."),
            epoch,
        }
    }

    /// The file of a segment.
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}{number:016x}", self.stem))
    }

    /// The numbers of the segments that there are, in order.
    ///
    /// # Errors
    /// The disk's.
    pub fn numbers(&self) -> io::Result<Vec<u64>> {
        let paths = self.disk.list(&self.folder)?;
        let mut numbers: Vec<u64> = paths
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.strip_prefix(&self.stem))
            .filter(|digits| digits.len() == 16)
            .filter_map(|digits| u64::from_str_radix(digits, 16).ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes all segments, of whatever epoch.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when one cannot be removed.
    pub fn remove_all(&self) -> Result<(), StoreError> {
        let removed = self.numbers().and_then(|numbers| {
            let mut numbers = numbers.into_iter();
            numbers.try_for_each(|number| self.disk.remove(&self.path(number)))?;
            self.disk.sync_folder(&self.folder)
        });
        removed.map_err(|source| unusable(&self.folder, source))
    }
}

/// Where a file stands in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogPosition {
    /// The newest commit that the file holds.
    pub commit: u64,
    /// A segment that was made before the file got this far, and that is needed still or there
    /// has a newer one; 0 before the first.
    pub segment: u64,
}
