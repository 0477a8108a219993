//! One file of the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::disk::{Disk, DiskFile};
use crate::store::log::group::SegmentKey;
use crate::types::cursor::Epoch;

/// Bytes in front of the first group.
pub const SEGMENT_HEADER: u64 = 64;
const MAGIC: &[u8; 16] = b"samestate log 1\0";
/// Zeros are written this far ahead of the groups: syncing a write within a file costs less than
/// syncing one that lets it grow, and a full disk is noticed before a group is written. They are
/// durable before anything is written over them, so that a file that was cut off can be told.
const AHEAD: u64 = 1 << 20;

/// A segment that can be appended to.
#[derive(Debug)]
pub struct Segment {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    key: SegmentKey,
    /// Where the next group goes.
    end: u64,
    /// Length of the file.
    allocated: u64,
}

/// What the header of a segment's file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// It is the segment with this key.
    Key(SegmentKey),
    /// It was never written.
    Blank,
    /// It is something else.
    Damaged,
}

impl Segment {
    /// Makes a segment out of a new file or one that was used before; durable when it returns,
    /// apart from its name.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(disk: &dyn Disk, path: PathBuf, epoch: Epoch, number: u64) -> io::Result<Self> {
        let (file, key) = (disk.open(&path, true)?, SegmentKey { epoch, number });
        let size = file.size()?;
        let mut segment = Self {
            // A crash may have come before all of its last stretch was durable.
            allocated: size - size % AHEAD,
            file,
            path,
            key,
            end: SEGMENT_HEADER,
        };
        if segment.allocated > 0 {
            // The process that made it so long may have been killed before it was durable.
            segment.file.sync()?;
        }
        segment.allocate(SEGMENT_HEADER)?;
        segment.file.write_at(0, &header(key))?;
        segment.file.sync()?;
        Ok(segment)
    }

    /// Appends a group and waits until it is durable.
    ///
    /// # Errors
    /// The disk's. [`io::ErrorKind::StorageFull`] comes before anything of the group is written.
    pub fn append(&mut self, group: &[u8]) -> io::Result<()> {
        self.allocate(self.end + group.len() as u64)?;
        let written = self.file.write_at(self.end, group);
        written.and_then(|()| self.file.sync()).map_err(|error| {
            // The space is there already, so a full disk is no explanation.
            io::Error::other(error)
        })?;
        self.end += group.len() as u64;
        Ok(())
    }

    /// Lets the file reach at least to `end`, in steps.
    fn allocate(&mut self, end: u64) -> io::Result<()> {
        if end <= self.allocated {
            return Ok(());
        }
        let target = end.next_multiple_of(AHEAD);
        let zeros = vec![0; AHEAD as usize];
        let from = self.allocated;
        let mut at = from;
        while at < target {
            let step = (target - at).min(AHEAD);
            if let Err(error) = self.file.write_at(at, &zeros[..step as usize]) {
                // What was gained is of no use to anybody else meanwhile.
                let _ = self.file.set_len(from);
                return Err(error);
            }
            at += step;
        }
        self.file.sync()?;
        self.allocated = target;
        Ok(())
    }

    /// Gives the space behind its groups back, but for what is left of a stretch.
    ///
    /// # Errors
    /// The disk's; groups are appended as before then.
    pub fn shrink(&mut self) -> io::Result<()> {
        let needed = self.end.next_multiple_of(AHEAD);
        if needed < self.allocated {
            // Whatever comes of it, nothing behind is counted on.
            self.allocated = needed;
            self.file.set_len(needed)?;
            self.file.sync()?;
        }
        Ok(())
    }

    /// The segment's number.
    pub fn number(&self) -> u64 {
        self.key.number
    }

    /// What its groups are sealed with.
    pub fn key(&self) -> SegmentKey {
        self.key
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn header(key: SegmentKey) -> [u8; SEGMENT_HEADER as usize] {
    let mut bytes = [0; SEGMENT_HEADER as usize];
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16..24].copy_from_slice(&key.epoch.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&key.number.to_le_bytes());
    bytes
}

/// True when a part of a segment's file is missing at its end: it ends within a stretch that was
/// durable as a whole before anything was written there.
pub fn is_cut_off(bytes: &[u8]) -> bool {
    let whole = bytes.len() - bytes.len() % AHEAD as usize;
    bytes[whole..].iter().any(|byte| *byte != 0)
}

/// Reads the header at the front of a segment's file.
pub fn read_header(bytes: &[u8]) -> Header {
    let header = &bytes[..bytes.len().min(SEGMENT_HEADER as usize)];
    if header.iter().all(|byte| *byte == 0) {
        return Header::Blank;
    }
    let number = |at: usize| {
        let bytes = header.get(at..at + 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    };
    match (header.get(..16), number(16), number(24)) {
        (Some(magic), Some(epoch), Some(number)) if magic == MAGIC => Header::Key(SegmentKey {
            epoch: Epoch(epoch),
            number,
        }),
        _ => Header::Damaged,
    }
}

/// True when a new file's header was not written to its end, or not at all: a write that fails may
/// have been carried out in part. Nothing was ever appended to such a segment.
pub fn is_unfinished(bytes: &[u8], key: SegmentKey) -> bool {
    let found = &bytes[..bytes.len().min(SEGMENT_HEADER as usize)];
    let end = found.iter().rposition(|byte| *byte != 0);
    let written = end.map_or(0, |last| last + 1);
    found[..written] == header(key)[..written]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::MachineDisk;

    #[test]
    fn headers_that_were_written_in_part_are_told_from_others() {
        let (epoch, number) = (Epoch(0x1122_3344_5566_7788), 7);
        let key = SegmentKey { epoch, number };
        let whole = header(key);
        for written in 0..whole.len() {
            let mut bytes = vec![0; 4096];
            bytes[..written].copy_from_slice(&whole[..written]);
            assert!(is_unfinished(&bytes, key), "{written}");
            let epoch = Epoch(1);
            let is_like_another = is_unfinished(&bytes, SegmentKey { epoch, number });
            assert_eq!(is_like_another, written <= 16, "{written}");
        }
    }

    /// A crash that leaves a part of a stretch must not make the segment look cut off later.
    #[test]
    fn a_file_that_ends_within_a_stretch_is_filled_up_before_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        for left in [0, 85_504, AHEAD, AHEAD + 512] {
            let path = folder.path().join(format!("t.log.{left}"));
            std::fs::write(&path, vec![0; left as usize]).unwrap();
            Segment::create(&MachineDisk, path.clone(), Epoch(1), 1).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert!(!is_cut_off(&bytes), "{left}");
        }
    }
}
