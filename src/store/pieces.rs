//! Reading large contents chunk by chunk.

use crate::delta::compress::unpack;
use crate::store::error::StoreError;
use crate::store::read::Snapshot;
use crate::store::rows::{ContentBody, Placement};
use crate::store::stage::ChunkEntry;
use crate::types::hash::{ChunkHash, ContentHash, ContentHasher};
use crate::types::version::Version;

impl Snapshot {
    /// The chunks of a version that is stored in chunks, in order; `None` for any other.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the list is missing, or is of another length.
    pub fn chunks_of(
        &self,
        version: &Version,
        placement: &Placement,
    ) -> Result<Option<Vec<ChunkEntry>>, StoreError> {
        if *placement != Placement::Shared {
            return Ok(None);
        }
        let hash = &version.content;
        let damaged = |what: &str| {
            self.rows().suspects().note(*hash);
            StoreError::damaged(format!("content {hash} {what}"))
        };
        let row = self.content_row(hash)?;
        match row.ok_or_else(|| damaged("is missing"))?.body {
            ContentBody::Packed(_) => Ok(None),
            ContentBody::Chunks(list) => {
                let lengths = list.iter().map(|(_, length)| u64::from(*length));
                if lengths.fold(0, u64::saturating_add) == version.size {
                    Ok(Some(list))
                } else {
                    Err(damaged("has chunks of another total length"))
                }
            }
        }
    }

    /// Reads a version's bytes, piece by piece where it is stored in chunks, and checks them against
    /// its hash. Returns how many there are.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they are missing or not those that were written.
    pub fn check_content(
        &self,
        version: &Version,
        placement: &Placement,
    ) -> Result<u64, StoreError> {
        let Some(list) = self.chunks_of(version, placement)? else {
            let bytes = self.content(version, placement)?;
            return Ok(bytes.map_or(0, |bytes| bytes.len() as u64));
        };
        let hash = &version.content;
        let mut hasher = ContentHasher::default();
        for chunk in &list {
            hasher.update(&self.chunk_of(hash, chunk)?);
        }
        if hasher.finish().matches(hash) {
            return Ok(version.size);
        }
        self.rows().suspects().note(*hash);
        let what = format!("content {hash} does not have its hash any more");
        Err(StoreError::damaged(what))
    }

    /// The bytes of a chunk, checked against its hash; `None` when it is not there or not what was
    /// written.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn plain_chunk(&self, (hash, length): &ChunkEntry) -> Result<Option<Vec<u8>>, StoreError> {
        self.chunk(hash, |packed| {
            let bytes = unpack(packed, *length as usize).ok()?;
            ChunkHash::of(&bytes).matches(hash).then_some(bytes)
        })
    }

    /// The bytes of a chunk of a content, checked. Takes note of contents that are damaged.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the chunk is missing or not what was written.
    pub fn chunk_of(
        &self,
        content: &ContentHash,
        chunk: &ChunkEntry,
    ) -> Result<Vec<u8>, StoreError> {
        match self.plain_chunk(chunk)? {
            Some(bytes) => Ok(bytes),
            None => {
                self.rows().suspects().note(*content);
                let what = format!("content {content} misses a chunk, or it is damaged");
                Err(StoreError::damaged(what))
            }
        }
    }
}
