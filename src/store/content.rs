//! Reading the bytes of a version from wherever they are.

use crate::delta::compress::unpack;
use crate::store::error::StoreError;
use crate::store::layered::Layered;
use crate::store::rows::{ContentBody, ContentRow, Placement};
use crate::store::tables::{Chunks, Contents};
use crate::types::hash::{ChunkHash, ContentHash};
use crate::types::version::Version;

/// Reads a version's bytes and checks them against its hash. Takes note of those that are damaged.
///
/// # Errors
/// [`StoreError::Damaged`] when they are missing or not those that were written.
pub fn load(
    rows: &Layered,
    version: &Version,
    placement: &Placement,
) -> Result<Option<Vec<u8>>, StoreError> {
    let loaded = load_checked(rows, version, placement);
    if let Err(StoreError::Damaged(_)) = &loaded {
        rows.suspects().note(version.content);
    }
    loaded
}

fn load_checked(
    rows: &Layered,
    version: &Version,
    placement: &Placement,
) -> Result<Option<Vec<u8>>, StoreError> {
    let hash = &version.content;
    let damaged = |what: &str| StoreError::damaged(format!("content {hash} {what}"));
    let size = usize::try_from(version.size).map_err(|_| damaged("is too large"))?;
    let bytes = match placement {
        Placement::Nothing => return Ok(None),
        Placement::Inline(packed) => unpack(packed, size).map_err(|e| damaged(&e.to_string()))?,
        Placement::Shared => {
            let row = rows.get::<Contents, _>(&hash.0, ContentRow::from_bytes)?;
            let row = row.ok_or_else(|| damaged("is missing"))??;
            if row.size != version.size {
                return Err(damaged("has another length than its version says"));
            }
            match row.body {
                ContentBody::Packed(packed) => {
                    unpack(&packed, size).map_err(|e| damaged(&e.to_string()))?
                }
                ContentBody::Chunks(list) => join_chunks(rows, &list, size, &damaged)?,
            }
        }
    };
    if ContentHash::of(&bytes).matches(hash) {
        Ok(Some(bytes))
    } else {
        Err(damaged("does not have its hash any more"))
    }
}

fn join_chunks(
    rows: &Layered,
    list: &[(ChunkHash, u32)],
    size: usize,
    damaged: &dyn Fn(&str) -> StoreError,
) -> Result<Vec<u8>, StoreError> {
    let total: u64 = list.iter().map(|(_, length)| u64::from(*length)).sum();
    if total != size as u64 {
        return Err(damaged("has chunks of another total length"));
    }
    let mut bytes = Vec::with_capacity(size);
    for (hash, length) in list {
        let unpacked = |packed: &[u8]| unpack(packed, *length as usize);
        let chunk = rows.get::<Chunks, _>(&hash.0, unpacked)?;
        let chunk = chunk.ok_or_else(|| damaged("misses a chunk"))?;
        let chunk = chunk.map_err(|e| damaged(&e.to_string()))?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
