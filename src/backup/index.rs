//! Finding the pieces that a chain holds already, by hash.
//!
//! The newest hashes are kept in memory; when they become too many they go into the file as a sorted
//! run. A lookup asks memory, then each run, in each of which it reads one block.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::backup::block::Kind;
use crate::backup::data::{Blocks, DataFile, Row};
use crate::backup::error::BackupError;
use crate::backup::writer::{DataWriter, INDEX_ROW};
use crate::types::hash::ChunkHash;

/// Hashes that are kept in memory until they become a run.
const RECENT_MAX: usize = 512 << 10;
/// Blocks of runs that are kept, 4 KiB each.
const CACHE_BLOCKS: usize = 4096;

/// A sorted part of a file's index.
struct SortedRun {
    backup: u32,
    blocks: Blocks,
    rows: Vec<Row>,
}

/// Where pieces are, by hash.
pub struct PieceIndex {
    backup: u32,
    recent: HashMap<ChunkHash, u64>,
    recent_max: usize,
    /// Newest first.
    runs: Vec<SortedRun>,
    cache: HashMap<(u32, u64), Arc<Vec<u8>>>,
    order: VecDeque<(u32, u64)>,
}

impl PieceIndex {
    /// Knows the pieces of a chain, whose files come oldest first; new ones will be those of
    /// `backup`.
    pub fn new(files: &[Arc<DataFile>], backup: u32) -> Self {
        let mut runs = Vec::new();
        for file in files.iter().rev() {
            for rows in sorted_parts(&file.tables.index) {
                runs.push(SortedRun {
                    backup: file.backup,
                    blocks: file.blocks.clone(),
                    rows: rows.to_vec(),
                });
            }
        }
        Self {
            backup,
            recent: HashMap::new(),
            recent_max: RECENT_MAX,
            runs,
            cache: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// The backup and the number of a piece.
    ///
    /// # Errors
    /// [`BackupError`] when a file of the chain cannot be read.
    pub fn find(&mut self, hash: &ChunkHash) -> Result<Option<(u32, u64)>, BackupError> {
        if let Some(number) = self.recent.get(hash) {
            return Ok(Some((self.backup, *number)));
        }
        for at in 0..self.runs.len() {
            if let Some(number) = self.find_in(at, hash)? {
                return Ok(self.runs.get(at).map(|run| (run.backup, number)));
            }
        }
        Ok(None)
    }

    /// Notes a piece that was just put into the file.
    ///
    /// # Errors
    /// [`BackupError`] when a run cannot be written.
    pub fn note(
        &mut self,
        writer: &mut DataWriter,
        hash: ChunkHash,
        number: u64,
    ) -> Result<(), BackupError> {
        self.recent.insert(hash, number);
        if self.recent.len() < self.recent_max {
            return Ok(());
        }
        self.flush(writer)
    }

    /// Writes what is in memory as a run.
    ///
    /// # Errors
    /// [`BackupError`] when it cannot be written.
    pub fn flush(&mut self, writer: &mut DataWriter) -> Result<(), BackupError> {
        let mut run: Vec<(ChunkHash, u64)> = self.recent.drain().collect();
        run.sort_unstable();
        let rows = writer.put_index(&run)?;
        if !rows.is_empty() {
            let run = SortedRun {
                backup: self.backup,
                blocks: writer.blocks(),
                rows,
            };
            self.runs.insert(0, run);
        }
        Ok(())
    }

    fn find_in(&mut self, run: usize, hash: &ChunkHash) -> Result<Option<u64>, BackupError> {
        let wanted = hash.prefix64();
        let Some(rows) = self.runs.get(run).map(|run| &run.rows) else {
            return Ok(None);
        };
        // Several blocks may begin with the same 64 bits; the hash may be in the one before them.
        let first = rows.partition_point(|row| row.first < wanted);
        let behind = rows.partition_point(|row| row.first <= wanted);
        let offsets: Vec<u64> = rows
            .get(first.saturating_sub(1)..behind)
            .unwrap_or_default()
            .iter()
            .map(|row| row.offset)
            .collect();
        for offset in offsets {
            let block = self.block(run, offset)?;
            let (rows, _) = block.as_chunks::<INDEX_ROW>();
            let found = rows.binary_search_by(|row| row[..32].cmp(&hash.0));
            if let Some(row) = found.ok().and_then(|at| rows.get(at)) {
                return Ok(row[32..].try_into().ok().map(u64::from_le_bytes));
            }
        }
        Ok(None)
    }

    fn block(&mut self, run: usize, offset: u64) -> Result<Arc<Vec<u8>>, BackupError> {
        let Some(run) = self.runs.get(run) else {
            return Ok(Arc::default());
        };
        let place = (run.backup, offset);
        if let Some(block) = self.cache.get(&place) {
            return Ok(Arc::clone(block));
        }
        let plain = run.blocks.read(Kind::Index, offset)?;
        if !plain.len().is_multiple_of(INDEX_ROW) {
            return Err(run.blocks.damaged(offset, "half a row of the index"));
        }
        let block = Arc::new(plain);
        self.order.push_back(place);
        self.cache.insert(place, Arc::clone(&block));
        if self.order.len() > CACHE_BLOCKS
            && let Some(oldest) = self.order.pop_front()
        {
            self.cache.remove(&oldest);
        }
        Ok(block)
    }
}

/// The parts of an index within which hashes go up: its runs, unless chance lets one begin above
/// the last block of another. A piece that is not found for that is merely copied once more.
fn sorted_parts(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|before, row| before.first <= row.first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> ChunkHash {
        ChunkHash::of(&n.to_le_bytes())
    }

    #[test]
    fn pieces_are_found_in_memory_in_runs_and_in_finished_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.data");
        let mut writer = DataWriter::create(&path, 7).unwrap();
        let mut index = PieceIndex::new(&[], 7);
        index.recent_max = 300;
        for n in 0..1_000 {
            assert_eq!(index.find(&hash(n)).unwrap(), None);
            let number = writer.put_piece(&n.to_le_bytes()).unwrap();
            index.note(&mut writer, hash(n), number).unwrap();
        }
        assert_eq!((index.runs.len(), index.recent.len()), (3, 100));
        let find_all = |index: &mut PieceIndex| {
            for n in 0..1_000 {
                assert_eq!(index.find(&hash(n)).unwrap(), Some((7, n)));
            }
            assert_eq!(index.find(&hash(1_000)).unwrap(), None);
        };
        find_all(&mut index);
        index.flush(&mut writer).unwrap();
        find_all(&mut index);
        let part = writer.finish().unwrap();
        let file = Arc::new(DataFile::open(&path, &part).unwrap());
        let mut index = PieceIndex::new(&[file], 8);
        assert_eq!(index.runs.len(), 4);
        find_all(&mut index);
    }

    #[test]
    fn blocks_that_begin_alike_are_all_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.data");
        let mut writer = DataWriter::create(&path, 1).unwrap();
        let mut index = PieceIndex::new(&[], 1);
        // Three blocks of hashes that share their first 64 bits.
        let alike = |n: u64| {
            let mut hash = ChunkHash([7; 32]);
            hash.0[24..].copy_from_slice(&n.to_be_bytes());
            hash
        };
        for n in 0..250 {
            index.note(&mut writer, alike(n), n).unwrap();
        }
        index.flush(&mut writer).unwrap();
        for n in 0..250 {
            assert_eq!(index.find(&alike(n)).unwrap(), Some((1, n)));
        }
        assert_eq!(index.find(&alike(250)).unwrap(), None);
    }
}
