//! Reading rows straight from the pages of the engine's files, for what its tables do not lead to any
//! more. Layout of pages: redb's design document, "B-tree pages".
//!
//! A file holds pages of before that were not written over yet. So what is found may be old: whoever
//! uses it checks bytes by their hashes and prefers the newest of several records.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::store::disk::DiskFile;
use crate::store::error::StoreError;
use crate::store::rows::{Placed, RecordRow, history_from_bytes};
use crate::types::hash::StateKey;

/// Pages begin at multiples of this many bytes.
const PAGE: u64 = 4096;
/// First byte of a page with rows.
const LEAF: u8 = 1;
/// Bytes in front of a page's table of ends: kind, nothing, number of rows.
const HEADER: usize = 4;
/// Longest page that is believed: rows are bounded far below.
const PAGE_MAX: usize = 64 << 20;
/// Length of a content's, chunk's or record's key.
const HASH: usize = 32;
/// Length of the key of a row of history.
const HISTORY_KEY: usize = HASH + 8;

/// Where a row's bytes are.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: u8,
    offset: u64,
    length: u32,
}

/// What stands in the pages of a namespace's files.
#[derive(Debug)]
pub struct Pages {
    files: Vec<Arc<dyn DiskFile>>,
    /// Records that are whole, by key and feed position.
    records: BTreeMap<StateKey, BTreeMap<u64, Place>>,
    /// Rows of history, by key and position of the change that made them.
    history: BTreeMap<StateKey, BTreeMap<u64, Place>>,
    /// Rows under hashes that are no records: contents and chunks, and anything else.
    others: BTreeMap<[u8; HASH], Vec<Place>>,
}

impl Pages {
    /// Reads all of the files, of which at most 256 count.
    ///
    /// # Errors
    /// The disk's.
    pub fn scan(files: &[Arc<dyn DiskFile>]) -> io::Result<Self> {
        let mut pages = Self {
            files: files.to_vec(),
            records: BTreeMap::new(),
            history: BTreeMap::new(),
            others: BTreeMap::new(),
        };
        for (number, file) in (0..=u8::MAX).zip(files) {
            pages.scan_file(number, &**file)?;
        }
        Ok(pages)
    }

    fn scan_file(&mut self, number: u8, file: &dyn DiskFile) -> io::Result<()> {
        let length = file.size()?;
        let mut head = vec![0; PAGE as usize];
        for offset in (0..length / PAGE).map(|page| page * PAGE) {
            file.read_at(offset, &mut head)?;
            if head[0] != LEAF {
                continue;
            }
            for key in [HASH, HISTORY_KEY] {
                let Some(end) = end_of(&head, key) else {
                    continue;
                };
                let end = (end as u64).min(length - offset) as usize;
                let mut longer = Vec::new();
                let page = if end <= head.len() {
                    &head[..end]
                } else {
                    longer.resize(end, 0);
                    file.read_at(offset, &mut longer)?;
                    &longer[..]
                };
                self.take((number, offset), page, key);
            }
        }
        Ok(())
    }

    fn take(&mut self, (file, offset): (u8, u64), page: &[u8], key_length: usize) {
        for (key, value) in rows(page, key_length) {
            let place = Place {
                file,
                offset: offset + value.start as u64,
                length: value.len() as u32,
            };
            let (key, value) = (&page[key], &page[value]);
            let Some((hash, rest)) = key.split_first_chunk::<HASH>() else {
                continue;
            };
            let state = StateKey(*hash);
            match rest.try_into().map(u64::from_le_bytes) {
                Ok(seq) if history_from_bytes(value).is_ok() => {
                    self.history.entry(state).or_default().insert(seq, place);
                }
                Ok(_) => {}
                Err(_) => match record(state, value) {
                    Ok(row) => {
                        let found = self.records.entry(state).or_default();
                        found.insert(row.seq, place);
                    }
                    Err(_) => self.others.entry(*hash).or_default().push(place),
                },
            }
        }
    }

    fn read(&self, place: Place) -> Option<Vec<u8>> {
        let mut bytes = vec![0; place.length as usize];
        let file = self.files.get(usize::from(place.file))?;
        file.read_at(place.offset, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Keys of all records.
    pub fn keys(&self) -> impl Iterator<Item = StateKey> + '_ {
        self.records.keys().copied()
    }

    /// A state's record as it stands in several pages, the newest first.
    pub fn records(&self, key: StateKey) -> impl Iterator<Item = RecordRow> + '_ {
        let found = self.records.get(&key).into_iter().flatten().rev();
        found.filter_map(move |(_, place)| record(key, &self.read(*place)?).ok())
    }

    /// A state's rows of history.
    pub fn history(&self, key: StateKey) -> impl Iterator<Item = (u64, Vec<Placed>)> + '_ {
        let found = self.history.get(&key).into_iter().flatten();
        found.filter_map(|(seq, place)| {
            let row = history_from_bytes(&self.read(*place)?).ok()?;
            Some((*seq, row))
        })
    }

    /// Bytes of rows that stand under a content's or chunk's hash.
    pub fn rows(&self, hash: &[u8; HASH]) -> impl Iterator<Item = Vec<u8>> + '_ {
        let found = self.others.get(hash).into_iter().flatten();
        found.filter_map(|place| self.read(*place))
    }
}

fn record(key: StateKey, row: &[u8]) -> Result<RecordRow, StoreError> {
    RecordRow::from_bytes(key, row)?.checked()
}

fn number(page: &[u8], at: usize) -> Option<usize> {
    let bytes = page.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

fn row_count(page: &[u8]) -> usize {
    page.get(2..HEADER)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, |bytes| usize::from(u16::from_le_bytes(bytes)))
}

/// Where the last row of a page ends, if the page may be one with keys of this length.
fn end_of(page: &[u8], key_length: usize) -> Option<usize> {
    let count = row_count(page);
    let last = count.checked_sub(1)?;
    let begin = HEADER + count * (4 + key_length);
    let end = number(page, HEADER + last * 4)?;
    (begin <= end && end <= PAGE_MAX).then_some(end)
}

/// Keys and values of a page: the ends of all values, then all keys, then all values.
fn rows(page: &[u8], key_length: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let count = row_count(page);
    let keys = HEADER + count * 4;
    let mut begin = keys + count * key_length;
    let mut found = Vec::new();
    for row in 0..count {
        let Some(end) = number(page, HEADER + row * 4) else {
            break;
        };
        let key = keys + row * key_length..keys + (row + 1) * key_length;
        // One end that is damaged costs the two rows that it lies between.
        if begin <= end && end <= page.len() && key.end <= page.len() {
            found.push((key, begin..end));
        }
        begin = end;
    }
    found
}
