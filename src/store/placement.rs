//! Where the bytes of states go: small ones into their row, others once for each content hash,
//! large ones in content-defined chunks that versions and states share.

use std::ops::Bound;

use tracing::error;

use crate::store::body::{Body, Form, PackedChunk, StagedBody};
use crate::store::error::StoreError;
use crate::store::rows::{
    ContentBody, ContentRow, Placed, Placement, history_from_bytes, history_to_bytes,
};
use crate::store::tables::{ChunkReferences, Chunks, Contents, Deadlines, History, Records};
use crate::store::write::Tables;
use crate::types::hash::{ChunkHash, ContentHash, StateKey};
use crate::types::version::Version;

/// Chunks that are given up at once, a few milliseconds of work; those of larger contents go in
/// several steps.
pub const RELEASE_CHUNKS: usize = 1024;

impl Tables<'_> {
    /// Stores the bytes of a version that is about to be referred to once more. Bytes that are
    /// there already are compared with those at hand and put right if they differ, so that no
    /// write is acknowledged onto damage.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn place(&mut self, body: &Body) -> Result<Placement, StoreError> {
        if let Form::Whole(packed) = &body.form
            && packed.len() <= self.options().inline_bytes
        {
            return Ok(Placement::Inline(packed.to_vec()));
        }
        if let Form::Staged(staged) = &body.form {
            return self.place_staged(body, staged);
        }
        let known = match self.content_row(&body.hash)? {
            Some(row) if row.references == 0 => {
                self.free_chunks(&body.hash, row, true, usize::MAX)?;
                None
            }
            known => known,
        };
        let references = known.as_ref().map_or(0, |row| row.references);
        let row = ContentRow {
            references: references + 1,
            size: body.size,
            body: match &body.form {
                Form::Whole(packed) => ContentBody::Packed(packed.to_vec()),
                Form::Chunks(chunks) => {
                    ContentBody::Chunks(self.store_chunks(chunks, references == 0)?)
                }
                Form::Staged(_) => return Err(not_here(&body.hash)),
            },
        };
        self.set::<Contents>(body.hash.0, row.to_bytes().into());
        Ok(Placement::Shared)
    }

    /// Refers to bytes that a stage holds. When the content is there already, the stage is left to
    /// be collected.
    fn place_staged(&mut self, body: &Body, staged: &StagedBody) -> Result<Placement, StoreError> {
        match self.content_row(&body.hash)? {
            Some(mut row) if row.references > 0 => {
                row.references += 1;
                self.set::<Contents>(body.hash.0, row.to_bytes().into());
                return Ok(Placement::Shared);
            }
            Some(row) => self.free_chunks(&body.hash, row, true, usize::MAX)?,
            None => {}
        }
        let list = self.take_stage(staged.stage)?;
        let row = ContentRow {
            references: 1,
            size: body.size,
            body: ContentBody::Chunks(list.ok_or_else(|| not_here(&body.hash))?),
        };
        self.set::<Contents>(body.hash.0, row.to_bytes().into());
        Ok(Placement::Shared)
    }

    /// Gives up one reference; bytes that nobody refers to any more are removed. A content that is
    /// gone already is no reason to fail a write: `samestate verify` names it.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn release(&mut self, hash: &ContentHash, placement: &Placement) -> Result<(), StoreError> {
        if *placement != Placement::Shared {
            return Ok(());
        }
        let Some(mut row) = self.content_row(hash)? else {
            error!(content = %hash, "a content to be released is missing or damaged");
            return Ok(());
        };
        if row.references > 1 {
            row.references -= 1;
            self.set::<Contents>(hash.0, row.to_bytes().into());
            return Ok(());
        }
        row.references = 0;
        self.free_chunks(hash, row, false, RELEASE_CHUNKS)
    }

    /// Goes on giving up a content that nobody refers to.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn free(&mut self, hash: &ContentHash) -> Result<(), StoreError> {
        match self.content_row(hash)? {
            Some(row) if row.references == 0 => self.free_chunks(hash, row, true, RELEASE_CHUNKS),
            _ => Ok(()),
        }
    }

    /// Gives up at most `limit` chunks of a content without references, from its end. With the
    /// last of them its row goes; until then it is listed as being given up.
    fn free_chunks(
        &mut self,
        hash: &ContentHash,
        mut row: ContentRow,
        is_listed: bool,
        limit: usize,
    ) -> Result<(), StoreError> {
        let mut left = 0;
        if let ContentBody::Chunks(list) = &mut row.body {
            left = list.len().saturating_sub(limit);
            for (chunk, _) in list.split_off(left) {
                self.release_chunk(&chunk)?;
            }
        }
        if left > 0 {
            self.set::<Contents>(hash.0, row.to_bytes().into());
            self.set::<Deadlines>((0, hash.0), ());
            return Ok(());
        }
        self.remove::<Contents>(hash.0);
        if is_listed {
            self.remove::<Deadlines>((0, hash.0));
        }
        Ok(())
    }

    /// Puts the bytes of a state's versions right, wherever they stand. `references` is how many
    /// versions refer to the content by its hash, for when its row is gone. Records, feed and tree
    /// stay as they are.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row of the state is damaged.
    pub fn heal(&mut self, key: &StateKey, body: &Body, references: u64) -> Result<(), StoreError> {
        if let Some(mut row) = self.record(key)? {
            let versions = row.record.versions().to_vec();
            if self.heal_inline(&mut row.placements, &versions, body)? {
                self.set::<Records>(key.0, row.to_bytes().into());
            }
        }
        let (first, last) = ((key.0, 0), (key.0, u64::MAX));
        let range = (Bound::Included(first), Bound::Included(last));
        let history = self
            .rows()
            .collect::<History, _>(range, usize::MAX, |(_, seq), row| {
                Ok((seq, history_from_bytes(row)?))
            })?;
        for (seq, row) in history {
            let (versions, mut placements): (Vec<_>, Vec<_>) =
                row.into_iter().map(|p| (p.version, p.placement)).unzip();
            if self.heal_inline(&mut placements, &versions, body)? {
                let placed = versions.iter().zip(&placements).map(Placed::of);
                let placed: Vec<Placed> = placed.collect();
                self.set::<History>((key.0, seq), history_to_bytes(&placed).into());
            }
        }
        self.heal_shared(body, references)
    }

    /// Puts right what stands in a row itself; true when something did.
    fn heal_inline(
        &mut self,
        placements: &mut [Placement],
        versions: &[Version],
        body: &Body,
    ) -> Result<bool, StoreError> {
        let mut healed = false;
        for (placement, version) in placements.iter_mut().zip(versions) {
            let is_inline = matches!(placement, Placement::Inline(_));
            if is_inline && !version.tombstone && version.content == body.hash {
                *placement = self.place(body)?;
                healed = true;
            }
        }
        Ok(healed)
    }

    fn heal_shared(&mut self, body: &Body, references: u64) -> Result<(), StoreError> {
        let known = self.content_row(&body.hash)?;
        let counted = known.as_ref().map_or(references, |row| row.references);
        if counted == 0 {
            return Ok(());
        }
        let row = ContentRow {
            references: counted,
            size: body.size,
            body: match &body.form {
                Form::Whole(packed) => ContentBody::Packed(packed.to_vec()),
                Form::Chunks(chunks) => ContentBody::Chunks(self.store_chunks(chunks, false)?),
                Form::Staged(staged) => return self.heal_list(body, staged, counted, known),
            },
        };
        if let ContentBody::Chunks(list) = &row.body {
            for (chunk, _) in list {
                // Counts outlive a list that is gone, unless they are gone, too.
                if self.references_of(chunk)? == 0 {
                    self.set::<ChunkReferences>(chunk.0, 1);
                }
            }
        }
        self.set::<Contents>(body.hash.0, row.to_bytes().into());
        Ok(())
    }

    /// Puts a list of chunks right by that of a stage. The chunks themselves were put right when they
    /// arrived there.
    fn heal_list(
        &mut self,
        body: &Body,
        staged: &StagedBody,
        references: u64,
        known: Option<ContentRow>,
    ) -> Result<(), StoreError> {
        let list = self.list_of_checked(staged, body.size)?;
        let Some(list) = list.map(ContentBody::Chunks) else {
            // It was given up meanwhile, and the next attempt begins a new one.
            return Ok(());
        };
        if known.is_some_and(|row| row.body == list && row.size == body.size) {
            // The stage goes as others do whose content is here.
            return Ok(());
        }
        if let Some(list) = self.take_stage(staged.stage)? {
            for (chunk, _) in &list {
                // Counts outlive a list that is gone, unless they are gone, too: then those of the
                // stage take their place.
                let count = self.references_of(chunk)?;
                self.set::<ChunkReferences>(chunk.0, count.saturating_sub(1).max(1));
            }
        }
        let row = ContentRow {
            references,
            size: body.size,
            body: list,
        };
        self.set::<Contents>(body.hash.0, row.to_bytes().into());
        Ok(())
    }

    /// The row of a content; `None` when there is none, or a damaged one.
    fn content_row(&self, hash: &ContentHash) -> Result<Option<ContentRow>, StoreError> {
        let row = self
            .rows()
            .get::<Contents, _>(&hash.0, ContentRow::from_bytes)?;
        Ok(row.and_then(Result::ok))
    }

    /// Stores what is lacking of the chunks. With `count` each of them is referred to once more.
    fn store_chunks(
        &mut self,
        chunks: &[PackedChunk],
        count: bool,
    ) -> Result<Vec<(ChunkHash, u32)>, StoreError> {
        let mut list = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            self.put_chunk(&chunk.hash, &chunk.packed)?;
            if count {
                let references = self.references_of(&chunk.hash)?;
                self.set::<ChunkReferences>(chunk.hash.0, references + 1);
            }
            list.push((chunk.hash, chunk.length));
        }
        Ok(list)
    }

    /// Stores a chunk, unless it is there and intact.
    pub(in crate::store) fn put_chunk(
        &mut self,
        hash: &ChunkHash,
        packed: &[u8],
    ) -> Result<(), StoreError> {
        let same = |stored: &[u8]| stored == packed;
        let intact = self.rows().get::<Chunks, _>(&hash.0, same)?;
        if intact != Some(true) {
            self.set::<Chunks>(hash.0, packed.into());
        }
        Ok(())
    }

    pub(in crate::store) fn release_chunk(&mut self, hash: &ChunkHash) -> Result<(), StoreError> {
        let references = self.references_of(hash)?;
        if references > 1 {
            self.set::<ChunkReferences>(hash.0, references - 1);
        } else {
            self.remove::<ChunkReferences>(hash.0);
            self.remove::<Chunks>(hash.0);
        }
        Ok(())
    }

    pub(in crate::store) fn references_of(&self, hash: &ChunkHash) -> Result<u64, StoreError> {
        let count = self
            .rows()
            .get::<ChunkReferences, _>(&hash.0, |count| count)?;
        Ok(count.unwrap_or(0))
    }
}

fn not_here(content: &ContentHash) -> StoreError {
    StoreError::damaged(format!("the stage of content {content} is not there"))
}
