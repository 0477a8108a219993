//! The data files that make up a namespace's backup, and the bytes in them.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use crate::backup::block::Kind;
use crate::backup::data::DataFile;
use crate::backup::destination::{Destination, folder_name};
use crate::backup::entry::{Held, Run};
use crate::backup::error::BackupError;
use crate::backup::manifest::{MANIFEST, NamespacePart};
use crate::backup::states::ChainStates;
use crate::types::hash::ContentHasher;
use crate::types::id::GameId;

/// Most bytes that any state may be set to have.
pub const CONTENT_MAX: u64 = 1 << 30;
/// Unpacked blocks of pieces that are kept.
const CACHE_BYTES: usize = 32 << 20;
/// Longest block of pieces, in bytes.
const PIECES_MAX: usize = 256 << 10;

/// The data files of a namespace, oldest first.
#[derive(Debug, Default)]
pub struct Chain {
    files: Vec<Arc<DataFile>>,
}

impl Chain {
    /// Opens the files that a manifest lists.
    ///
    /// # Errors
    /// [`BackupError`] when one is missing or another one than the manifest speaks of.
    pub fn open(destination: &Destination, part: &NamespacePart) -> Result<Self, BackupError> {
        let files = part.files.iter().map(|file| {
            let path = destination.data(file.backup, &part.namespace);
            DataFile::open(&path, file).map(Arc::new)
        });
        Ok(Self {
            files: files.collect::<Result<_, _>>()?,
        })
    }

    /// The files, oldest first.
    pub fn files(&self) -> &[Arc<DataFile>] {
        &self.files
    }

    /// The states in order of key, from the first on.
    ///
    /// # Errors
    /// [`BackupError`] when a file cannot be read.
    pub fn states(&self) -> Result<ChainStates, BackupError> {
        ChainStates::new(&self.files)
    }

    /// A reader of bytes.
    pub fn contents(&self) -> Contents {
        Contents {
            files: self
                .files
                .iter()
                .map(|file| (file.backup, Arc::clone(file)))
                .collect(),
            cache: HashMap::new(),
            order: VecDeque::new(),
            cached_bytes: 0,
        }
    }
}

/// An unpacked block of pieces.
struct Pieces {
    first: u64,
    plain: Vec<u8>,
    /// Start and end of each piece.
    places: Vec<(usize, usize)>,
}

impl Pieces {
    fn new(first: u64, plain: Vec<u8>) -> Option<Self> {
        let (mut at, mut places) = (0, Vec::new());
        while let Some(length) = plain.get(at..).and_then(<[u8]>::first_chunk::<4>) {
            let start = at + 4;
            at = start.checked_add(u32::from_le_bytes(*length) as usize)?;
            if at == start {
                return None;
            }
            places.push((start, at));
        }
        let fits = at == plain.len() && at <= PIECES_MAX;
        fits.then_some(Self {
            first,
            plain,
            places,
        })
    }

    fn get(&self, number: u64) -> Option<&[u8]> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let (start, end) = *self.places.get(at)?;
        self.plain.get(start..end)
    }
}

/// Where a block is: backup and offset.
type Place = (u32, u64);

/// Reads the bytes of versions. What was unpacked last is kept.
pub struct Contents {
    files: HashMap<u32, Arc<DataFile>>,
    cache: HashMap<Place, Arc<Pieces>>,
    order: VecDeque<Place>,
    cached_bytes: usize,
}

impl Contents {
    /// The bytes of a version, which have its hash. `None` for a deletion, and where they were given
    /// up.
    ///
    /// # Errors
    /// [`BackupError`] when they are missing or wrong.
    pub fn read(&mut self, id: &GameId, held: &Held) -> Result<Option<Vec<u8>>, BackupError> {
        let mut bytes = Vec::new();
        let is_there = self.visit(id, held, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(is_there.then_some(bytes))
    }

    /// Hands out the bytes of a version piece by piece, at most 256 KiB at a time. Whether they have
    /// its hash is known at the end only: what came before is worth nothing when this fails. False
    /// for a deletion, and where the bytes were given up.
    ///
    /// # Errors
    /// [`BackupError`] when they are missing or wrong, and the first that `take` returns.
    pub fn visit(
        &mut self,
        id: &GameId,
        held: &Held,
        take: &mut dyn FnMut(&[u8]) -> Result<(), BackupError>,
    ) -> Result<bool, BackupError> {
        let version = &held.version;
        if version.tombstone || held.is_given_up() {
            return Ok(false);
        }
        let (mut length, mut hasher) = (0, ContentHasher::default());
        for run in &held.pieces {
            let file = self.file(id, run)?;
            let wrong = || wrong_bytes(id, held, &file);
            let behind = run.first.checked_add(u64::from(run.count));
            for number in run.first..behind.ok_or_else(wrong)? {
                let pieces = self.pieces(&file, number)?;
                let piece = pieces.get(number).ok_or_else(wrong)?;
                length += piece.len() as u64;
                if length > version.size.min(CONTENT_MAX) {
                    return Err(wrong());
                }
                hasher.update(piece);
                take(piece)?;
            }
        }
        if length == version.size && hasher.finish().matches(&version.content) {
            return Ok(true);
        }
        let last = match held.pieces.last() {
            Some(run) => self.file(id, run)?,
            None => self.newest()?,
        };
        Err(wrong_bytes(id, held, &last))
    }

    fn file(&self, id: &GameId, run: &Run) -> Result<Arc<DataFile>, BackupError> {
        if let Some(file) = self.files.get(&run.backup) {
            return Ok(Arc::clone(file));
        }
        let other = folder_name(run.backup);
        let what = format!("{id:?} refers to backup {other}, which is not part of this one");
        Err(BackupError::damaged(
            self.newest()?.blocks.path(),
            None,
            what,
        ))
    }

    fn newest(&self) -> Result<Arc<DataFile>, BackupError> {
        let newest = self.files.values().max_by_key(|file| file.backup);
        newest.cloned().ok_or_else(|| {
            BackupError::damaged(
                Path::new(MANIFEST),
                None,
                "it lists no files for its states",
            )
        })
    }

    /// The block that holds a piece.
    fn pieces(&mut self, file: &DataFile, number: u64) -> Result<Arc<Pieces>, BackupError> {
        let table = &file.tables.pieces;
        let behind = table.partition_point(|row| row.first <= number);
        let row = behind.checked_sub(1).and_then(|at| table.get(at));
        let row = row.ok_or_else(|| file.blocks.damaged(0, format!("it has no piece {number}")))?;
        let place = (file.backup, row.offset);
        if let Some(pieces) = self.cache.get(&place) {
            return Ok(Arc::clone(pieces));
        }
        let plain = file.blocks.read(Kind::Pieces, row.offset)?;
        let pieces = Pieces::new(row.first, plain);
        let pieces =
            pieces.ok_or_else(|| file.blocks.damaged(row.offset, "pieces that do not fit"))?;
        let pieces = Arc::new(pieces);
        self.cached_bytes += pieces.plain.len();
        self.order.push_back(place);
        self.cache.insert(place, Arc::clone(&pieces));
        while self.cached_bytes > CACHE_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(dropped) = self.cache.remove(&oldest) {
                self.cached_bytes -= dropped.plain.len();
            }
        }
        Ok(pieces)
    }
}

fn wrong_bytes(id: &GameId, held: &Held, file: &DataFile) -> BackupError {
    BackupError::WrongBytes {
        id: id.clone(),
        path: file.blocks.path().to_path_buf(),
        hash: held.version.content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fill_their_block() {
        let plain = [&[2, 0, 0, 0][..], b"ab", &[1, 0, 0, 0], b"c"].concat();
        let pieces = Pieces::new(7, plain.clone()).unwrap();
        let found: Vec<_> = (6..10).map(|number| pieces.get(number)).collect();
        assert_eq!(found, [None, Some(&b"ab"[..]), Some(b"c"), None]);
        assert!(Pieces::new(0, plain[..plain.len() - 1].to_vec()).is_none());
        assert!(Pieces::new(0, plain[..3].to_vec()).is_none());
        assert!(Pieces::new(0, vec![0xff; 4]).is_none());
        assert!(Pieces::new(0, vec![0; 4]).is_none(), "an empty piece");
        assert!(Pieces::new(0, [1, 0, 0, 0, 7].repeat(60_000)).is_none());
    }
}
