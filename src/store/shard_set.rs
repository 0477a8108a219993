//! Which files belong to a namespace that is cut into shards, and what each of them is.
//!
//! The first file has the namespace's name and says how many others there are. Those are named after
//! the set that they were made as, so that a namespace is cut anew beside the files that it has, and
//! the first file's change of name is the one moment at which the new set takes over.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::store::cut::Cut;
use crate::store::directory::unusable;
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::names::{SHARD, is_shard};
use crate::store::tables::{Meta, Table, meta_names};
use crate::types::binary::{decode, encode};

/// Which part of a namespace a file is. A file that does not say so is all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// What all files of one set have in common; random.
    pub set: u64,
    /// Leading bits of keys that tell the shards apart.
    pub bits: u8,
    /// Which shard.
    pub shard: u8,
}

impl Member {
    /// What a file says of itself.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row makes no sense.
    pub fn of(database: &Database) -> Result<(Self, Cut), StoreError> {
        let table = database.begin_read()?.open_table(Meta::DEFINITION)?;
        let row = table.get(meta_names::SHARD)?;
        let member = row.map(|row| decode::<Self>(row.value())).transpose()?;
        let member = member.unwrap_or_default();
        let cut = Cut::of_bits(member.bits);
        let cut = cut.filter(|cut| usize::from(member.shard) < cut.count());
        let nonsense = || StoreError::damaged("what it says of its shard makes no sense");
        Ok((member, cut.ok_or_else(nonsense)?))
    }

    /// Says so in a file.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn write(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let mut meta = transaction.open_table(Meta::DEFINITION)?;
        meta.insert(meta_names::SHARD, encode(self).as_slice())?;
        Ok(())
    }

    /// Where its file is.
    pub fn path(&self, first: &Path) -> PathBuf {
        match self.shard {
            0 => first.to_path_buf(),
            shard => first.with_added_extension(format!("{SHARD}{:016x}-{shard:02}", self.set)),
        }
    }
}

/// The files of shards beside a namespace's first file, those of other sets among them, in order.
///
/// # Errors
/// [`StoreError::Unusable`] when the folder cannot be read.
pub fn shard_files(disk: &dyn Disk, first: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let folder = first.parent().unwrap_or(Path::new("."));
    let listed = disk.list(folder);
    let mut found = listed.map_err(|source| unusable(folder, source))?;
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let rest = name.and_then(|name| name.split_once('.'));
        path.with_extension("") == first && rest.is_some_and(|(_, rest)| is_shard(rest))
    });
    found.sort();
    Ok(found)
}

/// Which set a namespace's first file belongs to.
///
/// # Errors
/// [`StoreError`] when the engine fails, or it is not a first file.
pub fn set_of(first: &Path, database: &Database) -> Result<(Member, Cut), StoreError> {
    let (member, cut) = Member::of(database).map_err(|error| error.of_file(first))?;
    if member.shard == 0 {
        return Ok((member, cut));
    }
    let shard = member.shard;
    let what = format!("it is the file of shard {shard}, and no namespace of its own");
    Err(StoreError::damaged(what).of_file(first))
}

/// Removes files of shards that belong to no set any more: a cut that was broken off, or the one of
/// before. One that stays takes space, nothing else.
pub fn remove_stale(disk: &dyn Disk, first: &Path, used: &[PathBuf]) {
    for path in shard_files(disk, first).unwrap_or_default() {
        if !used.contains(&path) {
            // It is looked at again by the next start.
            let _ = disk.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::MachineDisk;

    #[test]
    fn files_of_shards_are_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("default.redb");
        let member = Member {
            set: 0xfe,
            bits: 2,
            shard: 0,
        };
        let second = Member { shard: 1, ..member }.path(&first);
        let name = second.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, "default.redb.shard-00000000000000fe-01");
        assert_eq!(member.path(&first), first);
        let others = [
            "default.redb",
            "default.redb.new",
            "default.redb.shard-1-1",
            "default.redb.shard-00000000000000fe-01.broken-1",
            "default2.redb.shard-00000000000000fe-01",
            "default.log.0000000000000001",
        ];
        for name in others.iter().copied().chain([name]) {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let found = shard_files(&MachineDisk, &first).unwrap();
        assert_eq!(found, std::slice::from_ref(&second));
        remove_stale(&MachineDisk, &first, std::slice::from_ref(&second));
        assert!(second.exists());
        remove_stale(&MachineDisk, &first, &[]);
        assert!(!second.exists());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            others.len()
        );
    }
}
