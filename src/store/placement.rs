//! Where the bytes of states go: small ones into their row, others once for each content hash,
//! large ones in content-defined chunks that versions and states share.

use redb::ReadableTable;
use tracing::error;

use crate::delta::chunker::{CHUNK_MAX, chunks};
use crate::delta::compress::pack;
use crate::store::error::StoreError;
use crate::store::rows::{ContentBody, ContentRow, Placement};
use crate::store::write::Tables;
use crate::types::hash::{ChunkHash, ContentHash};

/// Contents above this many bytes are cut into chunks.
pub const WHOLE_BYTES_MAX: usize = CHUNK_MAX;

impl Tables<'_> {
    /// Stores the bytes of a version that is about to be referred to once more. Bytes that are
    /// there already are compared with those at hand and put right if they differ, so that no
    /// write is acknowledged onto damage.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn place(&mut self, hash: &ContentHash, bytes: &[u8]) -> Result<Placement, StoreError> {
        let fits_whole = bytes.len() <= WHOLE_BYTES_MAX;
        let packed = if fits_whole { pack(bytes) } else { Vec::new() };
        if fits_whole && packed.len() <= self.options.inline_bytes {
            return Ok(Placement::Inline(packed));
        }
        let known = self.content_row(hash)?;
        let references = known.as_ref().map_or(0, |row| row.references);
        let body = if fits_whole {
            ContentBody::Packed(packed)
        } else {
            ContentBody::Chunks(self.store_chunks(bytes, references == 0)?)
        };
        let row = ContentRow {
            references: references + 1,
            size: bytes.len() as u64,
            body,
        };
        self.contents.insert(&hash.0, row.to_bytes().as_slice())?;
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
            self.contents.insert(&hash.0, row.to_bytes().as_slice())?;
            return Ok(());
        }
        self.contents.remove(&hash.0)?;
        if let ContentBody::Chunks(list) = row.body {
            for (chunk, _) in list {
                self.release_chunk(&chunk)?;
            }
        }
        Ok(())
    }

    /// The row of a content; `None` when there is none, or a damaged one.
    fn content_row(&self, hash: &ContentHash) -> Result<Option<ContentRow>, StoreError> {
        let value = self.contents.get(&hash.0)?;
        Ok(value.and_then(|row| ContentRow::from_bytes(row.value()).ok()))
    }

    /// Stores what is lacking of the chunks. With `count` each of them is referred to once more.
    fn store_chunks(
        &mut self,
        bytes: &[u8],
        count: bool,
    ) -> Result<Vec<(ChunkHash, u32)>, StoreError> {
        let mut list = Vec::new();
        for range in chunks(bytes) {
            let chunk = &bytes[range];
            let hash = ChunkHash::of(chunk);
            let packed = pack(chunk);
            let stored = self.chunks.get(&hash.0)?;
            let intact = stored.is_some_and(|stored| stored.value() == packed);
            if !intact {
                self.chunks.insert(&hash.0, packed.as_slice())?;
            }
            if count {
                let references = self.references_of(&hash)?;
                self.chunk_references.insert(&hash.0, references + 1)?;
            }
            list.push((hash, chunk.len() as u32));
        }
        Ok(list)
    }

    fn release_chunk(&mut self, hash: &ChunkHash) -> Result<(), StoreError> {
        let references = self.references_of(hash)?;
        if references > 1 {
            self.chunk_references.insert(&hash.0, references - 1)?;
        } else {
            self.chunk_references.remove(&hash.0)?;
            self.chunks.remove(&hash.0)?;
        }
        Ok(())
    }

    fn references_of(&self, hash: &ChunkHash) -> Result<u64, StoreError> {
        let count = self.chunk_references.get(&hash.0)?;
        Ok(count.map_or(0, |count| count.value()))
    }
}
