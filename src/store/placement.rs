//! Where the bytes of states go: small ones into their row, others once for each content hash,
//! large ones in content-defined chunks that versions and states share.

use redb::ReadableTable;

use crate::delta::chunker::chunks;
use crate::delta::compress::pack;
use crate::store::error::StoreError;
use crate::store::rows::{ContentBody, ContentRow, Placement};
use crate::store::write::Tables;
use crate::types::hash::{ChunkHash, ContentHash};

/// Contents above this many bytes are cut into chunks. The engine stores a value in a
/// power-of-two run of 4 KiB pages, so values are kept just below 16 KiB.
pub const WHOLE_BYTES_MAX: usize = 15_800;

impl Tables<'_> {
    /// Stores the bytes of a version that is about to be referred to once more.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn place(&mut self, hash: &ContentHash, bytes: &[u8]) -> Result<Placement, StoreError> {
        if bytes.len() <= WHOLE_BYTES_MAX {
            let packed = pack(bytes);
            if packed.len() <= self.options.inline_bytes {
                return Ok(Placement::Inline(packed));
            }
            if !self.refer_again(hash)? {
                self.put_content(hash, bytes.len(), ContentBody::Packed(packed))?;
            }
        } else if !self.refer_again(hash)? {
            let list = self.store_chunks(bytes)?;
            self.put_content(hash, bytes.len(), ContentBody::Chunks(list))?;
        }
        Ok(Placement::Shared)
    }

    /// Gives up one reference; bytes that nobody refers to any more are removed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when there was no such reference.
    pub fn release(&mut self, hash: &ContentHash, placement: &Placement) -> Result<(), StoreError> {
        if *placement != Placement::Shared {
            return Ok(());
        }
        let Some(mut row) = self.content_row(hash)? else {
            return Err(StoreError::damaged(format!("content {hash} is missing")));
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

    fn refer_again(&mut self, hash: &ContentHash) -> Result<bool, StoreError> {
        let Some(mut row) = self.content_row(hash)? else {
            return Ok(false);
        };
        row.references += 1;
        self.contents.insert(&hash.0, row.to_bytes().as_slice())?;
        Ok(true)
    }

    fn content_row(&self, hash: &ContentHash) -> Result<Option<ContentRow>, StoreError> {
        let value = self.contents.get(&hash.0)?;
        value
            .map(|row| ContentRow::from_bytes(row.value()))
            .transpose()
    }

    fn put_content(
        &mut self,
        hash: &ContentHash,
        size: usize,
        body: ContentBody,
    ) -> Result<(), StoreError> {
        let row = ContentRow {
            references: 1,
            size: size as u64,
            body,
        };
        self.contents.insert(&hash.0, row.to_bytes().as_slice())?;
        Ok(())
    }

    fn store_chunks(&mut self, bytes: &[u8]) -> Result<Vec<(ChunkHash, u32)>, StoreError> {
        let mut list = Vec::new();
        for range in chunks(bytes) {
            let chunk = &bytes[range];
            let hash = ChunkHash::of(chunk);
            let references = self
                .chunk_references
                .get(&hash.0)?
                .map_or(0, |count| count.value());
            if references == 0 {
                self.chunks.insert(&hash.0, pack(chunk).as_slice())?;
            }
            self.chunk_references.insert(&hash.0, references + 1)?;
            list.push((hash, chunk.len() as u32));
        }
        Ok(list)
    }

    fn release_chunk(&mut self, hash: &ChunkHash) -> Result<(), StoreError> {
        let references = self
            .chunk_references
            .get(&hash.0)?
            .map_or(0, |count| count.value());
        if references > 1 {
            self.chunk_references.insert(&hash.0, references - 1)?;
        } else {
            self.chunk_references.remove(&hash.0)?;
            self.chunks.remove(&hash.0)?;
        }
        Ok(())
    }
}
