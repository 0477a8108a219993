//! Large versions that travel chunk by chunk: what both directions have in common. A list that comes
//! from outside is checked here before anything is kept of it.

use std::collections::HashSet;

use crate::delta::chunker::{CHUNK_MAX, CHUNK_MIN};
use crate::delta::compress::pack;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::stage::{STAGE_CHUNKS_MAX, Stage, StagedChunk};
use crate::sync::transfer::TransferError;
use crate::types::hash::ChunkHash;
use crate::wire::chunk_messages::{CHUNKS_MAX, ListedChunk};

const _: () = assert!(CHUNKS_MAX == STAGE_CHUNKS_MAX);

/// State bytes of one message, at least and at most.
const PART_MIN: u64 = 128 << 10;
const PART_MAX: u64 = 4 << 20;
/// A state travels in about so many messages, so that one which is lost costs little of it.
const PARTS: u64 = 256;

/// State bytes that one message carries of a version of this size.
pub fn part_bytes(size: u64) -> u64 {
    (size / PARTS).clamp(PART_MIN, PART_MAX)
}

/// The next part of a list that stands for at most `bytes`, at least one chunk unless there is none.
pub fn next_part(list: &[ListedChunk], from: usize, bytes: u64) -> &[ListedChunk] {
    let rest = list.get(from..).unwrap_or_default();
    let mut sum = 0;
    let fitting = rest.iter().take_while(|(_, length)| {
        sum += u64::from(*length);
        sum <= bytes
    });
    let count = fitting.count().clamp(1, CHUNKS_MAX);
    &rest[..count.min(rest.len())]
}

/// Checks a part of a list that a peer sent, behind what `stage` has of it.
///
/// # Errors
/// [`TransferError::Malformed`] when no honest list has such a part there.
pub fn check_part(part: &[ListedChunk], stage: &Stage) -> Result<(), TransferError> {
    if part.len() > CHUNKS_MAX {
        return Err(TransferError::Malformed("too many chunks in one message"));
    }
    let mut bytes = stage.bytes;
    for (_, length) in part {
        bytes += u64::from(*length);
        let is_last = bytes == stage.size;
        let length = *length as usize;
        if length > CHUNK_MAX || length == 0 || (length < CHUNK_MIN && !is_last) {
            return Err(TransferError::Malformed(
                "a chunk of a length that none has",
            ));
        }
        if bytes > stage.size {
            return Err(TransferError::Malformed(
                "chunks that are longer than their state",
            ));
        }
    }
    if part.is_empty() != (stage.bytes == stage.size) {
        return Err(TransferError::Malformed(
            "chunks that are shorter than their state",
        ));
    }
    Ok(())
}

/// Which chunks of a part are not here, each named once: their places. What is here, and damaged,
/// counts as not here.
///
/// # Errors
/// [`StoreError`] when the store fails.
pub fn lacking(view: &View, part: &[ListedChunk]) -> Result<Vec<u32>, StoreError> {
    let (mut lacking, mut seen) = (Vec::new(), HashSet::new());
    for (place, chunk) in (0u32..).zip(part) {
        let is_new = seen.insert(&chunk.0);
        if is_new && view.snapshot().plain_chunk(chunk)?.is_none() {
            lacking.push(place);
        }
    }
    Ok(lacking)
}

/// True when places name chunks of a part, each at most once, in order.
pub fn are_places(places: &[u32], part: usize) -> bool {
    let is_inside = places.last().is_none_or(|last| (*last as usize) < part);
    is_inside && places.is_sorted_by(|a, b| a < b)
}

/// Puts a part together from the bytes of the chunks that were sent, and checks each of them.
///
/// # Errors
/// [`TransferError`] when the bytes are not those of the chunks.
pub fn put_together(
    part: &[ListedChunk],
    sent: &[u32],
    blob: &[u8],
) -> Result<Vec<StagedChunk>, TransferError> {
    let (mut rest, mut sent) = (blob, sent.iter().peekable());
    let mut chunks = Vec::with_capacity(part.len());
    for (place, (hash, length)) in (0u32..).zip(part) {
        let packed = match sent.next_if(|sent| **sent == place) {
            None => None,
            Some(_) => {
                let (bytes, behind) = rest
                    .split_at_checked(*length as usize)
                    .ok_or(TransferError::Malformed("a chunk ends too early"))?;
                rest = behind;
                if !ChunkHash::of(bytes).matches(hash) {
                    return Err(TransferError::Malformed(
                        "a chunk does not have the hash that its list says",
                    ));
                }
                Some(pack(bytes).into())
            }
        };
        chunks.push(StagedChunk {
            hash: *hash,
            length: *length,
            packed,
        });
    }
    if rest.is_empty() && sent.next().is_none() {
        return Ok(chunks);
    }
    Err(TransferError::Malformed("bytes are left behind the chunks"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::ContentHash;

    fn stage(bytes: u64, size: u64) -> Stage {
        Stage {
            bytes,
            ..Stage::new(ContentHash([1; 32]), size, 0)
        }
    }

    fn part(lengths: &[u32]) -> Vec<ListedChunk> {
        let chunk = |length: &u32| (ChunkHash([7; 32]), *length);
        lengths.iter().map(chunk).collect()
    }

    #[test]
    fn lists_that_no_honest_sender_makes_are_refused() {
        let refused = |lengths: &[u32], stage: &Stage| check_part(&part(lengths), stage).is_err();
        let fresh = stage(0, 20_000);
        assert!(!refused(&[10_000, 9_000], &fresh));
        assert!(!refused(&[10_000, 9_000, 1_000], &fresh));
        assert!(
            refused(&[10_000, 1_000, 9_000], &fresh),
            "a short one inside"
        );
        assert!(refused(&[15_801], &fresh), "too long");
        assert!(refused(&[0], &fresh), "empty");
        assert!(refused(&[10_000, 10_001], &fresh), "more than the state");
        assert!(refused(&[], &fresh), "less than the state");
        assert!(refused(&[10_000], &stage(20_000, 20_000)), "behind the end");
        assert!(!refused(&[], &stage(20_000, 20_000)));
        assert!(
            refused(&[2048; CHUNKS_MAX + 1], &stage(0, 1 << 30)),
            "too many"
        );
    }

    #[test]
    fn parts_of_a_list_cover_it() {
        let list = part(&[5000; 1000]);
        let mut at = 0;
        while at < list.len() {
            let next = next_part(&list, at, 600_000);
            assert!(next.len() <= 120 && !next.is_empty());
            at += next.len();
        }
        assert_eq!(next_part(&list, 1000, 1), []);
        assert_eq!(next_part(&list, 5000, 1), []);
        assert_eq!(next_part(&list, 0, 1).len(), 1);
        assert_eq!(next_part(&list, 0, u64::MAX).len(), CHUNKS_MAX);
    }

    #[test]
    fn bytes_that_are_not_those_of_the_chunks_are_refused() {
        let (one, two) = (vec![1; 3000], vec![2; 4000]);
        let entry = |bytes: &[u8]| (ChunkHash::of(bytes), bytes.len() as u32);
        let part = [entry(&one), entry(&two), entry(&one)];
        let blob = [&one[..], &two].concat();
        let chunks = put_together(&part, &[0, 1], &blob).unwrap();
        assert!(chunks[0].packed.is_some() && chunks[2].packed.is_none());
        let refused = |sent: &[u32], blob: &[u8]| put_together(&part, sent, blob).is_err();
        assert!(refused(&[0, 1], &blob[1..]));
        assert!(refused(&[0], &blob));
        assert!(refused(&[1, 0], &blob));
        assert!(refused(&[0, 1, 3], &blob));
        assert!(refused(&[0, 2], &blob));
        assert!(!are_places(&[1, 0], 3) && !are_places(&[3], 3) && are_places(&[0, 2], 3));
    }
}
