//! Writing a data file from front to back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::backup::block::{FORMAT, Kind, MAGIC, PLAIN_MAX, seal};
use crate::backup::data::{Blocks, ROW_BYTES, Row, TABLE_ROWS, Tables, row_bytes};
use crate::backup::entry::Entry;
use crate::backup::error::{BackupError, file_error};
use crate::backup::manifest::FilePart;
use crate::types::binary::encode;
use crate::types::hash::{ChunkHash, FileHash, StateKey};

/// Entries are gathered up to this many bytes.
const STATES_BLOCK: usize = 64 << 10;
/// Pieces are gathered up to this many bytes, to be compressed together.
const PIECES_BLOCK: usize = 128 << 10;
/// Rows of the index in one block: looking up a hash reads a whole one.
pub const INDEX_ROWS: usize = 102;
/// Bytes of such a row: hash and number.
pub const INDEX_ROW: usize = 32 + 8;

/// A data file that is being made.
#[derive(Debug)]
pub struct DataWriter {
    file: Arc<File>,
    path: PathBuf,
    backup: u32,
    end: u64,
    hash: Sha256,
    states: Vec<u8>,
    states_first: u64,
    pieces: Vec<u8>,
    pieces_first: u64,
    piece_count: u64,
    tables: Tables,
}

impl DataWriter {
    /// Makes a file for a backup.
    ///
    /// # Errors
    /// [`BackupError`] when it cannot be written.
    pub fn create(path: &Path, backup: u32) -> Result<Self, BackupError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(file_error("make", path))?;
        let mut writer = Self {
            file: Arc::new(file),
            path: path.to_path_buf(),
            backup,
            end: 0,
            hash: Sha256::new(),
            states: Vec::new(),
            states_first: 0,
            pieces: Vec::new(),
            pieces_first: 0,
            piece_count: 0,
            tables: Tables::default(),
        };
        writer.append(&[&MAGIC[..], &FORMAT.to_le_bytes()].concat())?;
        Ok(writer)
    }

    /// What has been written so far, for reading.
    pub fn blocks(&self) -> Blocks {
        Blocks::new(Arc::clone(&self.file), &self.path)
    }

    /// Adds an entry, whose key must be behind that of the one before.
    ///
    /// # Errors
    /// [`BackupError`] when the file cannot be written, or the entry is too long.
    pub fn put_entry(&mut self, key: &StateKey, entry: &Entry) -> Result<(), BackupError> {
        let bytes = encode(entry);
        if bytes.len() > PLAIN_MAX {
            return Err(BackupError::TooLarge(entry.id.clone()));
        }
        if self.states.len() + bytes.len() > STATES_BLOCK {
            self.close_states()?;
        }
        if self.states.is_empty() {
            self.states_first = key.prefix64();
        }
        self.states.extend_from_slice(&bytes);
        Ok(())
    }

    /// Adds a piece and returns its number in this file.
    ///
    /// # Errors
    /// [`BackupError`] when the file cannot be written.
    pub fn put_piece(&mut self, bytes: &[u8]) -> Result<u64, BackupError> {
        if !self.pieces.is_empty() && self.pieces.len() + bytes.len() > PIECES_BLOCK {
            self.close_pieces()?;
        }
        let number = self.piece_count;
        let length = bytes.len() as u32;
        self.pieces.extend_from_slice(&length.to_le_bytes());
        self.pieces.extend_from_slice(bytes);
        self.piece_count += 1;
        Ok(number)
    }

    /// Writes a run of the index, sorted by hash, and returns where its blocks are.
    ///
    /// # Errors
    /// [`BackupError`] when the file cannot be written.
    pub fn put_index(&mut self, run: &[(ChunkHash, u64)]) -> Result<Vec<Row>, BackupError> {
        let mut rows = Vec::new();
        for part in run.chunks(INDEX_ROWS) {
            let mut plain = Vec::with_capacity(part.len() * INDEX_ROW);
            for (hash, number) in part {
                plain.extend_from_slice(&hash.0);
                plain.extend_from_slice(&number.to_le_bytes());
            }
            let first = part.first().map_or(0, |(hash, _)| hash.prefix64());
            let offset = self.put_block(Kind::Index, &plain)?;
            rows.push(Row { first, offset });
        }
        self.tables.index.extend_from_slice(&rows);
        Ok(rows)
    }

    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.end
    }

    /// Writes what is gathered and the tables, and waits until the file is on disk.
    ///
    /// # Errors
    /// [`BackupError`] when it cannot be written.
    pub fn finish(mut self) -> Result<FilePart, BackupError> {
        self.close_pieces()?;
        self.close_states()?;
        let tables_at = self.end;
        let tables = std::mem::take(&mut self.tables);
        for (kind, rows) in [
            (Kind::StatesTable, tables.states),
            (Kind::PiecesTable, tables.pieces),
            (Kind::IndexTable, tables.index),
        ] {
            for part in rows.chunks(TABLE_ROWS) {
                let mut plain = Vec::with_capacity(part.len() * ROW_BYTES);
                part.iter()
                    .for_each(|row| plain.extend_from_slice(&row_bytes(*row)));
                self.put_block(kind, &plain)?;
            }
        }
        let synced = self.file.sync_all();
        synced.map_err(file_error("write", &self.path))?;
        Ok(FilePart {
            backup: self.backup,
            length: self.end,
            sha256: FileHash(self.hash.finalize().into()),
            tables: tables_at,
        })
    }

    fn close_states(&mut self) -> Result<(), BackupError> {
        let plain = std::mem::take(&mut self.states);
        if !plain.is_empty() {
            let offset = self.put_block(Kind::States, &plain)?;
            let first = self.states_first;
            self.tables.states.push(Row { first, offset });
        }
        Ok(())
    }

    fn close_pieces(&mut self) -> Result<(), BackupError> {
        let plain = std::mem::take(&mut self.pieces);
        if !plain.is_empty() {
            let offset = self.put_block(Kind::Pieces, &plain)?;
            let first = self.pieces_first;
            self.tables.pieces.push(Row { first, offset });
            self.pieces_first = self.piece_count;
        }
        Ok(())
    }

    fn put_block(&mut self, kind: Kind, plain: &[u8]) -> Result<u64, BackupError> {
        let offset = self.end;
        self.append(&seal(kind, offset, plain))?;
        Ok(offset)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let written = self.file.write_all_at(bytes, self.end);
        written.map_err(file_error("write", &self.path))?;
        self.hash.update(bytes);
        self.end += bytes.len() as u64;
        Ok(())
    }
}
