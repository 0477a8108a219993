//! The rows of stages: how a stage grows, how it is given up, and how far it is.

use std::collections::HashSet;
use std::ops::Bound;

use crate::store::body::StagedBody;
use crate::store::error::StoreError;
use crate::store::layered::Layered;
use crate::store::placement::RELEASE_CHUNKS;
use crate::store::read::Snapshot;
use crate::store::rows::{chunk_list, push_chunk_list};
use crate::store::stage::{ChunkEntry, KeyAndStage, STAGE_CHUNKS_MAX, Stage, StageKey, Staging};
use crate::store::tables::{ChunkReferences, Chunks, Stages};
use crate::store::write::Tables;
use crate::types::binary::{decode, encode};
use crate::types::hash::ChunkHash;

impl Tables<'_> {
    /// Lets a stage grow, or begins it. Nothing happens when it has not come as far as the step
    /// says, when it would grow too large, or when a chunk is not there.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn stage(&mut self, staging: &Staging) -> Result<(), StoreError> {
        let stage = stage_of(self.rows(), staging.key)?;
        let mut stage =
            stage.unwrap_or_else(|| Stage::new(staging.content, staging.size, staging.at));
        let lengths = staging.chunks.iter().map(|chunk| u64::from(chunk.length));
        let bytes = lengths.fold(stage.bytes, u64::saturating_add);
        let is_same = stage.content == staging.content && stage.size == staging.size;
        let is_next = stage.chunks == staging.from && !staging.chunks.is_empty();
        if !is_same || !is_next || bytes > stage.size || !self.has_chunks(staging)? {
            return Ok(());
        }
        let mut list = Vec::with_capacity(36 * staging.chunks.len());
        for chunk in &staging.chunks {
            if let Some(packed) = &chunk.packed {
                self.put_chunk(&chunk.hash, packed)?;
            }
            self.count_chunk(&chunk.hash)?;
            push_chunk_list(&mut list, &[(chunk.hash, chunk.length)]);
        }
        stage.rows += 1;
        stage.chunks += staging.chunks.len() as u32;
        stage.bytes = bytes;
        stage.touched_at = staging.at;
        stage.step();
        let place = (staging.key.0, u64::from(stage.rows));
        self.set::<Stages>(place, list.into());
        self.set::<Stages>((staging.key.0, 0), encode(&stage).into());
        Ok(())
    }

    /// True when every chunk of a step is in the step or in the store.
    fn has_chunks(&self, staging: &Staging) -> Result<bool, StoreError> {
        let sent = staging.chunks.iter().filter(|chunk| chunk.packed.is_some());
        let sent: HashSet<&ChunkHash> = sent.map(|chunk| &chunk.hash).collect();
        for chunk in &staging.chunks {
            let is_here = |()| self.rows().get::<Chunks, _>(&chunk.hash.0, |_| ());
            if !sent.contains(&chunk.hash) && is_here(())?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives up the end of a stage, at most [`RELEASE_CHUNKS`] chunks, and with the last of them
    /// the stage.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn unstage(&mut self, key: StageKey) -> Result<(), StoreError> {
        let Some(mut stage) = stage_of(self.rows(), key)? else {
            return Ok(());
        };
        let mut released = 0;
        while stage.rows > 0 && released + STAGE_CHUNKS_MAX <= RELEASE_CHUNKS {
            let list = match self.stage_row(key, stage.rows) {
                // What it listed stays; `samestate verify` names it.
                Err(StoreError::Damaged(_)) => Vec::new(),
                list => list?,
            };
            for (chunk, length) in &list {
                self.release_chunk(chunk)?;
                stage.bytes = stage.bytes.saturating_sub(u64::from(*length));
            }
            released += list.len();
            stage.chunks = stage.chunks.saturating_sub(list.len() as u32);
            self.remove::<Stages>((key.0, u64::from(stage.rows)));
            stage.rows -= 1;
        }
        stage.step();
        if stage.rows == 0 {
            self.remove::<Stages>((key.0, 0));
        } else {
            self.set::<Stages>((key.0, 0), encode(&stage).into());
        }
        Ok(())
    }

    /// Ends a stage, whose chunks are counted for whoever takes the list.
    pub(in crate::store) fn take_stage(
        &mut self,
        key: StageKey,
    ) -> Result<Option<Vec<ChunkEntry>>, StoreError> {
        let Some(stage) = stage_of(self.rows(), key)? else {
            return Ok(None);
        };
        let list = self.list_of(key, &stage)?;
        for row in 0..=stage.rows {
            self.remove::<Stages>((key.0, u64::from(row)));
        }
        Ok(Some(list))
    }

    /// The list of a stage that has all of a content of this size, and has not changed since its
    /// chunks were checked; `None` for any other.
    pub(in crate::store) fn list_of_checked(
        &self,
        staged: &StagedBody,
        size: u64,
    ) -> Result<Option<Vec<ChunkEntry>>, StoreError> {
        let stage = stage_of(self.rows(), staged.stage)?;
        let stage = stage.filter(|stage| stage.mark == staged.mark && stage.bytes == size);
        let list = stage.map(|stage| self.list_of(staged.stage, &stage));
        list.transpose()
    }

    fn list_of(&self, key: StageKey, stage: &Stage) -> Result<Vec<ChunkEntry>, StoreError> {
        let mut list = Vec::with_capacity(stage.chunks as usize);
        for row in 1..=stage.rows {
            list.extend(self.stage_row(key, row)?);
        }
        Ok(list)
    }

    fn stage_row(&self, key: StageKey, row: u32) -> Result<Vec<ChunkEntry>, StoreError> {
        stage_row_of(self.rows(), key, row)
    }

    fn count_chunk(&mut self, hash: &ChunkHash) -> Result<(), StoreError> {
        let references = self.references_of(hash)?;
        self.set::<ChunkReferences>(hash.0, references + 1);
        Ok(())
    }
}

impl Snapshot {
    /// How far a stage has come, if it was begun.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn stage(&self, key: StageKey) -> Result<Option<Stage>, StoreError> {
        stage_of(self.rows(), key)
    }

    /// A row of a stage's list of chunks, counted from 1.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is missing or damaged.
    pub fn stage_row(&self, key: StageKey, row: u32) -> Result<Vec<ChunkEntry>, StoreError> {
        stage_row_of(self.rows(), key, row)
    }

    /// All stages; damaged ones as errors.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn stages(&self) -> Result<Vec<KeyAndStage>, StoreError> {
        let (mut found, mut from) = (Vec::new(), Bound::Unbounded);
        loop {
            let range = (from, Bound::Unbounded);
            let first = self
                .rows()
                .collect::<Stages, _>(range, 1, |(key, row), bytes| {
                    let stage = match row {
                        0 => decode(bytes).map_err(StoreError::from),
                        _ => Err(StoreError::damaged("a stage has no first row")),
                    };
                    Ok((StageKey(*key), stage))
                })?;
            let Some((key, stage)) = first.into_iter().next() else {
                return Ok(found);
            };
            from = Bound::Excluded((key.0, u64::MAX));
            found.push((key, stage));
        }
    }
}

fn stage_of(rows: &Layered, key: StageKey) -> Result<Option<Stage>, StoreError> {
    let found = rows.get::<Stages, _>(&(key.0, 0), decode)?;
    Ok(found.transpose()?)
}

fn stage_row_of(rows: &Layered, key: StageKey, row: u32) -> Result<Vec<ChunkEntry>, StoreError> {
    let list = rows.get::<Stages, _>(&(key.0, u64::from(row)), chunk_list)?;
    list.flatten()
        .ok_or_else(|| StoreError::damaged("a row of a stage is missing or damaged"))
}
