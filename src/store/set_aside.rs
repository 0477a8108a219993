//! Putting a repaired file in the place of one that is kept for whoever wants to look at it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::directory::{sync_folder_of, unusable};
use crate::store::error::StoreError;

/// Puts a repaired file in the place of the one before. That one and what belongs to it, the segments
/// of its log and the files of its shards, are kept under other names, which are returned.
///
/// # Errors
/// [`StoreError::Unusable`] when a name cannot be given.
pub fn set_aside(
    file: &Path,
    repaired: &Path,
    parts: &[PathBuf],
) -> Result<Vec<PathBuf>, StoreError> {
    let named = |number: u32| file.with_added_extension(format!("broken-{number}"));
    let number = (1..)
        .find(|number| !named(*number).exists())
        .unwrap_or(u32::MAX);
    let mut kept = Vec::new();
    let moved = (|| {
        if file.exists() {
            let broken = named(number);
            // There is no moment at which neither file has the name.
            fs::hard_link(file, &broken).or_else(|_| copy_durably(file, &broken))?;
            kept.push(broken);
        }
        fs::rename(repaired, file)?;
        sync_folder_of(file)?;
        // The new file needs none of them; a crash in between is told by the next start.
        for part in parts {
            let broken = part.with_added_extension(format!("broken-{number}"));
            fs::rename(part, &broken)?;
            kept.push(broken);
        }
        sync_folder_of(file)
    })();
    moved.map_err(|source| unusable(file, source))?;
    Ok(kept)
}

/// For file systems without hard links.
fn copy_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}
