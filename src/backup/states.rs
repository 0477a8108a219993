//! The states of a chain of data files in order of key, each as the newest file has it.

use std::sync::Arc;

use crate::backup::block::Kind;
use crate::backup::data::DataFile;
use crate::backup::entry::Entry;
use crate::backup::error::BackupError;
use crate::types::binary::decode_prefix;
use crate::types::hash::StateKey;
use crate::types::record::StateRecord;

/// A state that a chain has.
#[derive(Debug)]
pub struct State {
    /// Where it stands.
    pub key: StateKey,
    /// Its versions and their bytes.
    pub entry: Entry,
    /// The record of its current versions.
    pub record: StateRecord,
}

/// An entry that was read; without a record it says that a state is gone.
struct Head {
    key: StateKey,
    entry: Entry,
    record: Option<StateRecord>,
}

/// The entries of one file in order of key.
struct FileStates {
    file: Arc<DataFile>,
    /// Which block is read next.
    next_block: usize,
    block: Vec<u8>,
    /// How much of the block has been taken.
    at: usize,
    last: Option<StateKey>,
    head: Option<Head>,
}

impl FileStates {
    fn new(file: Arc<DataFile>) -> Result<Self, BackupError> {
        let mut states = Self {
            file,
            next_block: 0,
            block: Vec::new(),
            at: 0,
            last: None,
            head: None,
        };
        states.advance()?;
        Ok(states)
    }

    /// Takes the head and reads the next entry.
    fn advance(&mut self) -> Result<Option<Head>, BackupError> {
        let next = self.read()?;
        Ok(std::mem::replace(&mut self.head, next))
    }

    /// Goes forward to the first entry that is not before `key`.
    fn seek(&mut self, key: &StateKey) -> Result<(), BackupError> {
        let is_before = |head: &Head| head.key < *key;
        if !self.head.as_ref().is_some_and(is_before) {
            return Ok(());
        }
        let table = &self.file.tables.states;
        // Several blocks may begin with the same 64 bits; the key may be in the one before them.
        let behind = table.partition_point(|row| row.first < key.prefix64());
        let block = behind.saturating_sub(1);
        if block >= self.next_block {
            self.next_block = block;
            self.at = self.block.len();
        }
        loop {
            self.advance()?;
            if !self.head.as_ref().is_some_and(is_before) {
                return Ok(());
            }
        }
    }

    fn read(&mut self) -> Result<Option<Head>, BackupError> {
        if self.at == self.block.len() {
            let Some(row) = self.file.tables.states.get(self.next_block) else {
                return Ok(None);
            };
            self.block = self.file.blocks.read(Kind::States, row.offset)?;
            self.at = 0;
            self.next_block += 1;
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let (entry, used): (Entry, usize) =
            decode_prefix(rest).map_err(|error| self.damaged(error.to_string()))?;
        self.at += used;
        let key = StateKey::of(&entry.id);
        if self.last.is_some_and(|last| last >= key) {
            return Err(self.damaged(format!("{:?} is out of order", entry.id)));
        }
        self.last = Some(key);
        let record = entry.record();
        let record = record.map_err(|what| self.damaged(format!("{:?}: {what}", entry.id)))?;
        Ok(Some(Head { key, entry, record }))
    }

    /// An error about the block that is being read.
    fn damaged(&self, what: impl Into<String>) -> BackupError {
        let table = &self.file.tables.states;
        let row = self.next_block.checked_sub(1).and_then(|at| table.get(at));
        let blocks = &self.file.blocks;
        blocks.damaged(row.map_or(0, |row| row.offset), what)
    }
}

/// The states of a chain, in order of key.
pub struct ChainStates {
    /// Newest file first.
    files: Vec<FileStates>,
}

impl ChainStates {
    /// Begins in front of the first state. `files` are in order of age, oldest first.
    ///
    /// # Errors
    /// [`BackupError`] when a file cannot be read.
    pub fn new(files: &[Arc<DataFile>]) -> Result<Self, BackupError> {
        let newest_first = files.iter().rev();
        let states = newest_first.map(|file| FileStates::new(Arc::clone(file)));
        Ok(Self {
            files: states.collect::<Result<_, _>>()?,
        })
    }

    /// The next state.
    ///
    /// # Errors
    /// [`BackupError`] when a file cannot be read, or does not hold what it should.
    pub fn next_state(&mut self) -> Result<Option<State>, BackupError> {
        loop {
            let heads = self.files.iter().filter_map(|file| file.head.as_ref());
            let Some(key) = heads.map(|head| head.key).min() else {
                return Ok(None);
            };
            if let Some(state) = self.take(&key)? {
                return Ok(Some(state));
            }
        }
    }

    /// A state, if it is there. Keys have to be asked for in order; what lies before is passed
    /// over, mostly without being read.
    ///
    /// # Errors
    /// As [`ChainStates::next_state`].
    pub fn seek(&mut self, key: &StateKey) -> Result<Option<State>, BackupError> {
        for file in &mut self.files {
            file.seek(key)?;
        }
        self.take(key)
    }

    /// Takes the entries of this key, at which the files stand, and returns the newest one unless it
    /// says that the state is gone.
    fn take(&mut self, key: &StateKey) -> Result<Option<State>, BackupError> {
        let mut newest = None;
        for file in &mut self.files {
            if file.head.as_ref().is_some_and(|head| head.key == *key) {
                let taken = file.advance()?;
                newest = newest.or(taken);
            }
        }
        Ok(newest.and_then(|Head { key, entry, record }| {
            record.map(|record| State { key, entry, record })
        }))
    }
}
