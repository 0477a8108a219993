//! Bytes that the log has in a repair: of contents, of chunks, and the lists of chunks that stages had when something
//! referred to them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::replica::command::Effect;
use crate::replica::journal;
use crate::replica::repair_large::listed;
use crate::store::body::{Body, Form};
use crate::store::salvage::Remains;
use crate::store::stage::{ChunkEntry, StageKey, StagedChunk, Staging};
use crate::types::hash::{ChunkHash, ContentHash};

/// What the log has, whoever brought it there.
#[derive(Debug, Default)]
pub struct LogBytes {
    /// Contents that stand there as a whole.
    pub bodies: HashMap<ContentHash, Body>,
    /// Lists of chunks of large contents.
    pub lists: HashMap<ContentHash, Vec<ChunkEntry>>,
    /// Chunks, packed.
    pub chunks: HashMap<ChunkHash, Bytes>,
    /// How far each stage has come.
    stages: HashMap<StageKey, Vec<ChunkEntry>>,
}

impl LogBytes {
    /// Reads the commits of a log. Nothing is believed: whoever uses a content or a chunk compares its hash.
    pub fn read(remains: &Remains, commits: &BTreeMap<u64, Bytes>) -> Self {
        let mut found = Self::default();
        let effects = commits.values().filter_map(|changes| {
            let (_, effects) = journal::from_bytes(changes.clone()).ok()?;
            Some(effects)
        });
        for effect in effects.flatten() {
            match effect {
                Effect::Change(change) => change.bodies.into_iter().for_each(|b| found.keep(b)),
                Effect::Heal(healing) => found.keep(healing.body),
                Effect::Stage(staging) => found.grow(remains, staging),
                _ => {}
            }
        }
        found
    }

    fn keep(&mut self, body: Body) {
        match &body.form {
            Form::Staged(staged) => {
                let list = self.stages.remove(&staged.stage);
                self.lists.extend(list.map(|list| (body.hash, list)));
            }
            Form::Chunks(chunks) => {
                let packed = chunks
                    .iter()
                    .map(|chunk| (chunk.hash, chunk.packed.clone()));
                self.chunks.extend(packed);
                self.bodies.insert(body.hash, body);
            }
            Form::Whole(_) => drop(self.bodies.insert(body.hash, body)),
        }
    }

    fn grow(&mut self, remains: &Remains, staging: Staging) {
        let from = staging.from as usize;
        let list = self.stages.entry(staging.key);
        // What came before stands in the file, which may have more of it.
        let list = list.or_insert_with(|| listed(remains, staging.key).unwrap_or_default());
        list.truncate(from);
        if list.len() == from {
            list.extend(
                staging
                    .chunks
                    .iter()
                    .map(|chunk| (chunk.hash, chunk.length)),
            );
        }
        let packed = |chunk: StagedChunk| Some((chunk.hash, chunk.packed?));
        self.chunks
            .extend(staging.chunks.into_iter().filter_map(packed));
    }
}
