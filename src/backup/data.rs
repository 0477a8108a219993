//! Reading data files: single blocks, the tables that say where blocks are, and the whole file
//! against what its manifest says of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::backup::block::{BLOCK_HEADER, FILE_HEADER, FORMAT, Header, Kind, MAGIC};
use crate::backup::error::{BackupError, file_error};
use crate::backup::manifest::FilePart;
use crate::backup::watch::Watch;
use crate::types::hash::FileHash;

/// Rows of a table in one block.
pub const TABLE_ROWS: usize = 4096;
/// Bytes of a row.
pub const ROW_BYTES: usize = 16;

/// Where a block is, and what it begins with: the first 64 bits of a state's key or of a piece's
/// hash, or the number of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What it begins with.
    pub first: u64,
    /// Its offset in the file, in bytes.
    pub offset: u64,
}

/// Where the blocks of a data file are, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Blocks of states, by key.
    pub states: Vec<Row>,
    /// Blocks of pieces, by number.
    pub pieces: Vec<Row>,
    /// Blocks of the index, by hash; where the hashes go down, another run begins.
    pub index: Vec<Row>,
}

/// A block as it stands in the file, which has its checksum.
struct Block {
    offset: u64,
    front: [u8; BLOCK_HEADER],
    header: Header,
    packed: Vec<u8>,
}

impl Block {
    fn end(&self) -> u64 {
        let length = (BLOCK_HEADER + self.packed.len()) as u64;
        self.offset.saturating_add(length)
    }
}

/// A file to read blocks from.
#[derive(Debug, Clone)]
pub struct Blocks {
    file: Arc<File>,
    path: Arc<Path>,
}

impl Blocks {
    /// Reads from an open file.
    pub fn new(file: Arc<File>, path: &Path) -> Self {
        Self {
            file,
            path: path.into(),
        }
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of the block at `offset`, which must be of this kind.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] when it is anything else.
    pub fn read(&self, kind: Kind, offset: u64) -> Result<Vec<u8>, BackupError> {
        let block = self.block(offset)?;
        if block.header.kind != kind {
            return Err(self.damaged(offset, "another kind of block stands here"));
        }
        self.unpack(&block)
    }

    /// An error about a place in this file.
    pub fn damaged(&self, offset: u64, what: impl Into<String>) -> BackupError {
        BackupError::damaged(&self.path, offset, what)
    }

    fn block(&self, offset: u64) -> Result<Block, BackupError> {
        let mut front = [0; BLOCK_HEADER];
        self.fill(offset, &mut front)?;
        let header = Header::read(&front).map_err(|what| self.damaged(offset, what))?;
        let mut packed = vec![0; header.packed];
        let behind = offset.saturating_add(BLOCK_HEADER as u64);
        self.fill(behind, &mut packed)?;
        if !header.fits(offset, &packed) {
            return Err(self.damaged(offset, "the block does not have its checksum"));
        }
        Ok(Block {
            offset,
            front,
            header,
            packed,
        })
    }

    fn unpack(&self, block: &Block) -> Result<Vec<u8>, BackupError> {
        let plain = block.header.unpack(&block.packed);
        plain.map_err(|what| self.damaged(block.offset, what))
    }

    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackupError> {
        let read = self.file.read_exact_at(buffer, offset);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(offset, "the file ends too early"),
            _ => file_error("read", &self.path)(error),
        })
    }
}

/// A whole data file.
#[derive(Debug)]
pub struct DataFile {
    /// The backup that it was written for.
    pub backup: u32,
    /// Its blocks.
    pub blocks: Blocks,
    /// Where they are.
    pub tables: Tables,
}

impl DataFile {
    /// Opens a file and reads its tables. Of the rest only the length is compared.
    ///
    /// # Errors
    /// [`BackupError`] when it is missing or another one than the manifest speaks of.
    pub fn open(path: &Path, part: &FilePart) -> Result<Self, BackupError> {
        let blocks = open(path, part)?;
        let mut tables = Tables::default();
        let mut offset = part.tables;
        while offset < part.length {
            let block = blocks.block(offset)?;
            let table = match block.header.kind {
                Kind::StatesTable => &mut tables.states,
                Kind::PiecesTable => &mut tables.pieces,
                Kind::IndexTable => &mut tables.index,
                _ => return Err(blocks.damaged(offset, "another block where tables stand")),
            };
            let plain = blocks.unpack(&block)?;
            table.extend(rows(&plain).ok_or_else(|| blocks.damaged(offset, "half a row"))?);
            offset = block.end();
        }
        let file = Self {
            backup: part.backup,
            blocks,
            tables,
        };
        file.check_order(part)?;
        Ok(file)
    }

    fn check_order(&self, part: &FilePart) -> Result<(), BackupError> {
        let damaged = |what| Err(self.blocks.damaged(part.tables, what));
        let Tables { states, pieces, .. } = &self.tables;
        if states.windows(2).any(|pair| pair[0].first > pair[1].first) {
            return damaged("the table of states is out of order");
        }
        if pieces.windows(2).any(|pair| pair[0].first >= pair[1].first) {
            return damaged("the table of pieces is out of order");
        }
        Ok(())
    }
}

/// Reads a whole file: every block against its checksum, then the file against the hash in the
/// manifest.
///
/// # Errors
/// [`BackupError`] naming the first place that is wrong.
pub fn verify(path: &Path, part: &FilePart, watch: &dyn Watch) -> Result<(), BackupError> {
    let blocks = open(path, part)?;
    let mut hash = Sha256::new();
    let mut front = [0; FILE_HEADER as usize];
    blocks.fill(0, &mut front)?;
    hash.update(front);
    let mut offset = FILE_HEADER;
    while offset < part.length {
        if watch.stopped() {
            return Err(BackupError::Stopped);
        }
        let block = blocks.block(offset)?;
        hash.update(block.front);
        hash.update(&block.packed);
        watch.advance(block.end() - offset);
        offset = block.end();
    }
    if FileHash(hash.finalize().into()).matches(&part.sha256) {
        return Ok(());
    }
    let what = "it does not have the SHA-256 that the manifest says; it may be another file";
    Err(BackupError::damaged(path, None, what))
}

fn open(path: &Path, part: &FilePart) -> Result<Blocks, BackupError> {
    let file = File::open(path).map_err(file_error("read", path))?;
    let length = file.metadata().map_err(file_error("read", path))?.len();
    if length != part.length {
        let what = format!("it has {length} bytes, the manifest says {}", part.length);
        return Err(BackupError::damaged(path, None, what));
    }
    let blocks = Blocks::new(Arc::new(file), path);
    let mut front = [0; FILE_HEADER as usize];
    blocks.fill(0, &mut front)?;
    let (magic, version) = front.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(blocks.damaged(0, "it is no data file of a backup"));
    }
    let found = version.try_into().map_or(0, u32::from_le_bytes);
    if found > FORMAT {
        return Err(BackupError::TooNew {
            path: path.to_path_buf(),
            found,
            known: FORMAT,
        });
    }
    if found != FORMAT {
        return Err(blocks.damaged(MAGIC.len() as u64, "an unknown format"));
    }
    Ok(blocks)
}

/// A row as bytes.
pub fn row_bytes(row: Row) -> [u8; ROW_BYTES] {
    let mut bytes = [0; ROW_BYTES];
    bytes[..8].copy_from_slice(&row.first.to_le_bytes());
    bytes[8..].copy_from_slice(&row.offset.to_le_bytes());
    bytes
}

fn rows(plain: &[u8]) -> Option<Vec<Row>> {
    let (rows, []) = plain.as_chunks::<ROW_BYTES>() else {
        return None;
    };
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let rows = rows.iter().map(|row| Row {
        first: number(&row[..8]),
        offset: number(&row[8..]),
    });
    Some(rows.collect())
}
