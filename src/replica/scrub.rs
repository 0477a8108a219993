//! Scrubbing: reading the bytes of all versions a little at a time, superseded ones included, and
//! comparing them with their hashes.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use crate::delta::compress::unpack;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::{ContentBody, Placed, Placement};
use crate::types::hash::{ChunkHash, ContentHash, ContentHasher, StateKey};

/// Records that are looked up at a time.
const RECORDS: usize = 64;
/// Shared contents that are remembered as read in a pass; what is forgotten is read again.
const SEEN_MAX: usize = 1 << 20;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `content`, `record`, `history`, or `engine` when pages of the file cannot be read.
    pub kind: &'static str,
    /// The state's id, or its key when that cannot be read.
    pub what: String,
    /// The state.
    pub key: StateKey,
    /// The content whose bytes are damaged, with its length; `None` when it is something else.
    pub content: Option<(ContentHash, u64)>,
    /// What is wrong.
    pub detail: String,
}

/// What one step of a scrub did.
#[derive(Debug, Default)]
pub struct Step {
    /// Bytes that were read and hashed.
    pub bytes: u64,
    /// What was found.
    pub found: Vec<Finding>,
    /// True when everything has been read.
    pub is_done: bool,
}

/// One pass over a namespace.
pub struct Scrub {
    after: Option<StateKey>,
    /// Versions that were looked up and not read yet, in the view in which they were.
    waiting: VecDeque<Waiting>,
    view: Arc<View>,
    reading: Option<Reading>,
    seen: HashSet<u64>,
    has_all: bool,
    is_lost: bool,
}

struct Waiting {
    key: StateKey,
    what: String,
    placed: Placed,
}

/// A large content that is read chunk by chunk.
struct Reading {
    of: Waiting,
    chunks: std::vec::IntoIter<(ChunkHash, u32)>,
    hasher: ContentHasher,
}

impl Scrub {
    /// A pass that begins with the first state.
    pub fn new(view: Arc<View>) -> Self {
        Self {
            after: None,
            waiting: VecDeque::new(),
            view,
            reading: None,
            seen: HashSet::new(),
            has_all: false,
            is_lost: false,
        }
    }

    /// Reads on for about `budget` bytes. What has not been looked up yet is looked up in `newest`.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; damage is found, not an error.
    pub fn step(&mut self, newest: &Arc<View>, budget: u64) -> Result<Step, StoreError> {
        let mut step = Step::default();
        while step.bytes < budget {
            if let Some(reading) = self.reading.take() {
                self.read_chunk(reading, &mut step)?;
            } else if let Some(waiting) = self.waiting.pop_front() {
                self.read(waiting, &mut step)?;
            } else if self.has_all {
                step.is_done = true;
                break;
            } else {
                self.view = Arc::clone(newest);
                self.look_up(&mut step)?;
            }
        }
        Ok(step)
    }

    fn look_up(&mut self, step: &mut Step) -> Result<(), StoreError> {
        let snapshot = self.view.snapshot();
        let rows = match snapshot.records_behind(self.after, RECORDS) {
            Ok(rows) => rows,
            Err(StoreError::Damaged(what)) => {
                self.skip(&what, step);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.is_lost = false;
        self.has_all = rows.len() < RECORDS;
        for (key, row) in rows {
            self.after = Some(key);
            // Looking a record up takes time, too.
            step.bytes += 256;
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    step.found
                        .push(finding("record", key, key.to_string(), &error.bare()));
                    continue;
                }
            };
            let what = row.record.id.to_string();
            let mut versions: Vec<Placed> = row.placed().map(Placed::of).collect();
            match snapshot.history(&key) {
                Ok(history) => versions.extend(history),
                Err(error @ StoreError::Damaged(_)) => {
                    step.found
                        .push(finding("history", key, what.clone(), &error.bare()));
                }
                Err(error) => return Err(error),
            }
            self.waiting
                .extend(versions.into_iter().map(|placed| Waiting {
                    key,
                    what: what.clone(),
                    placed,
                }));
        }
        Ok(())
    }

    /// Goes on behind a place whose pages cannot be read: at the next of 65,536 equal parts of all
    /// keys.
    fn skip(&mut self, what: &str, step: &mut Step) {
        let at = self.after.unwrap_or(StateKey([0; 32]));
        if !self.is_lost {
            let place = format!("records behind {at}");
            step.found.push(finding("engine", at, place, what));
        }
        self.is_lost = true;
        step.bytes += 4096;
        let part = u16::from_be_bytes([at.0[0], at.0[1]]);
        let mut last = [0xff; 32];
        last[..2].copy_from_slice(&part.to_be_bytes());
        if at.0 == last {
            match part.checked_add(1) {
                Some(next) => last[..2].copy_from_slice(&next.to_be_bytes()),
                None => self.has_all = true,
            }
        }
        self.after = Some(StateKey(last));
    }

    fn read(&mut self, waiting: Waiting, step: &mut Step) -> Result<(), StoreError> {
        let version = &waiting.placed.version;
        if waiting.placed.placement == Placement::Shared {
            if self.seen.len() >= SEEN_MAX {
                self.seen.clear();
            }
            if !self.seen.insert(version.content.prefix64()) {
                return Ok(());
            }
            let row = self.view.snapshot().content_row(&version.content);
            if let Ok(Some(row)) = row
                && let ContentBody::Chunks(chunks) = row.body
            {
                self.reading = Some(Reading {
                    of: waiting,
                    chunks: chunks.into_iter(),
                    hasher: ContentHasher::default(),
                });
                return Ok(());
            }
        }
        step.bytes += version.size;
        match self.view.content(&waiting.placed) {
            Ok(_) => Ok(()),
            Err(StoreError::Damaged(what)) => {
                step.found.push(damaged(&waiting, &what));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn read_chunk(&mut self, mut reading: Reading, step: &mut Step) -> Result<(), StoreError> {
        let Some((hash, length)) = reading.chunks.next() else {
            if !reading
                .hasher
                .finish()
                .matches(&reading.of.placed.version.content)
            {
                step.found
                    .push(damaged(&reading.of, "its chunks do not add up to it"));
            }
            return Ok(());
        };
        step.bytes += u64::from(length);
        let hasher = &mut reading.hasher;
        let read = self.view.snapshot().chunk(&hash, |packed| {
            let bytes = unpack(packed, length as usize).ok()?;
            hasher.update(&bytes);
            ChunkHash::of(&bytes).matches(&hash).then_some(())
        });
        match read {
            Ok(Some(())) => self.reading = Some(reading),
            Ok(None) => {
                let what = format!("chunk {hash} is missing or damaged");
                step.found.push(damaged(&reading.of, &what));
            }
            Err(StoreError::Damaged(what)) => step.found.push(damaged(&reading.of, &what)),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn finding(kind: &'static str, key: StateKey, what: String, detail: &str) -> Finding {
    Finding {
        kind,
        what,
        key,
        content: None,
        detail: detail.to_string(),
    }
}

fn damaged(waiting: &Waiting, what: &str) -> Finding {
    let version = &waiting.placed.version;
    Finding {
        kind: "content",
        what: waiting.what.clone(),
        key: waiting.key,
        content: Some((version.content, version.size)),
        detail: what.to_owned(),
    }
}

/// Who has a content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// States with a version that has these bytes, by id where it can be read, with their length.
    pub states: BTreeMap<StateKey, (String, u64)>,
    /// Versions whose bytes stand under the content's hash.
    pub references: u64,
}

/// Finds who has contents. Reads all records, and no bytes.
///
/// # Errors
/// [`StoreError`] when the store fails; records that are damaged are left out.
pub fn holders(
    view: &View,
    contents: &BTreeSet<ContentHash>,
) -> Result<BTreeMap<ContentHash, Holders>, StoreError> {
    let mut found: BTreeMap<ContentHash, Holders> = BTreeMap::new();
    let mut note = |key: StateKey, what: &str, placed: &Placed| {
        let version = &placed.version;
        if version.tombstone || !contents.contains(&version.content) {
            return;
        }
        let holders = found.entry(version.content).or_default();
        let known = holders.states.entry(key).or_default();
        if known.0.is_empty() {
            *known = (what.to_owned(), version.size);
        }
        holders.references += u64::from(placed.placement == Placement::Shared);
    };
    let snapshot = view.snapshot();
    let read = snapshot.visit_records(&mut |key, row| {
        if let Ok(row) = row {
            for placed in row.placed().map(Placed::of) {
                note(key, row.record.id.as_str(), &placed);
            }
        }
    });
    let read = read.and_then(|()| {
        snapshot.visit_history(&mut |key, row| {
            for placed in row.into_iter().flatten() {
                note(key, &key.to_string(), &placed);
            }
        })
    });
    match read {
        Ok(()) | Err(StoreError::Damaged(_)) => Ok(found),
        Err(error) => Err(error),
    }
}
