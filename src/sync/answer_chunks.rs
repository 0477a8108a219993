//! The other side, for large versions that travel chunk by chunk: gives out chunks, and keeps those
//! that are sent.

use tracing::error;

use crate::replica::staging::{Stager, admit, grow};
use crate::replica::view::View;
use crate::store::body::WHOLE_BYTES_MAX;
use crate::store::error::StoreError;
use crate::store::rows::{Placed, Placement};
use crate::store::stage::StageKey;
use crate::sync::chunks::{are_places, check_part, lacking, next_part, put_together};
use crate::sync::responder::ResponderError;
use crate::sync::send_chunks::bytes_of;
use crate::sync::transfer::{TransferError, record_at};
use crate::types::id::ReplicaId;
use crate::types::limits::Limits;
use crate::types::version::Version;
use crate::wire::chunk_messages::{
    CHUNKS_MAX, ChunksReply, ChunksRequest, PartRequest, StageReply, StageRequest,
};
use crate::wire::healing_messages::PiecesRequest;

/// State bytes that the next part of a list stands for, at most.
const PART_MAX: u64 = 4 << 20;

/// Answers with chunks of a version, and with the next part of its list.
///
/// # Errors
/// [`ResponderError`].
pub fn chunks(view: &View, head: &ChunksRequest) -> Result<(ChunksReply, Vec<u8>), ResponderError> {
    let row = record_at(view, head.state)?;
    let row = row.ok_or(ResponderError::BadRequest("chunks of an unknown state"))?;
    let (version, placement) = row
        .placed()
        .nth(usize::from(head.version))
        .ok_or(ResponderError::BadRequest("chunks of an unknown version"))?;
    part_of(view, (version, placement), &head.part)
}

/// The same for a content that a version of the state has, current or in history. One that is not
/// held is answered as one that cannot be read.
///
/// # Errors
/// [`ResponderError`].
pub fn pieces(view: &View, head: &PiecesRequest) -> Result<(ChunksReply, Vec<u8>), ResponderError> {
    let held = || {
        let Some(row) = record_at(view, head.state)? else {
            return Ok(None);
        };
        // Whether their time is over is for the asker to say.
        view.version(&row.leaf.key, &head.content, 0)
    };
    match held() {
        Ok(Some(Placed { version, placement })) => {
            part_of(view, (&version, &placement), &head.part)
        }
        Ok(None) | Err(StoreError::Damaged(_)) => Ok((ChunksReply { next: None }, Vec::new())),
        Err(error) => Err(error.into()),
    }
}

fn part_of(
    view: &View,
    (version, placement): (&Version, &Placement),
    asked: &PartRequest,
) -> Result<(ChunksReply, Vec<u8>), ResponderError> {
    let (from, count) = (asked.from as usize, asked.count as usize);
    if count > CHUNKS_MAX || !are_places(&asked.wanted, count) {
        return Err(ResponderError::BadRequest("chunks outside of their part"));
    }
    let read = || {
        let Some(list) = view.snapshot().chunks_of(version, placement)? else {
            return Ok(None);
        };
        let part = list.get(from..).unwrap_or_default();
        let part = part.get(..count).unwrap_or(part);
        let bytes = bytes_of(view, &version.content, part, &asked.wanted)?;
        let next = next_part(&list, from + count, u64::from(asked.bytes).min(PART_MAX));
        Ok(Some((next.to_vec(), bytes)))
    };
    match read() {
        Ok(Some((next, bytes))) => Ok((ChunksReply { next: Some(next) }, bytes)),
        // It has expired by our clock, and not yet by the receiver's.
        Ok(None) => Ok((ChunksReply { next: None }, Vec::new())),
        Err(StoreError::Damaged(what)) => {
            error!(%what, "cannot send a damaged version");
            Ok((ChunksReply { next: None }, Vec::new()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Keeps chunks that `peer` sends, and says which of the next ones are lacking. Blocks until what was
/// sent is durable.
///
/// # Errors
/// [`ResponderError`].
pub fn stage(
    stager: &dyn Stager,
    peer: ReplicaId,
    head: &StageRequest,
    blob: &[u8],
    limits: &Limits,
) -> Result<StageReply, ResponderError> {
    if head.size > limits.state_bytes || head.size <= WHOLE_BYTES_MAX as u64 {
        return Err(ResponderError::BadRequest(
            "a state of a size that does not travel in chunks here",
        ));
    }
    let is_part = head.chunks.len() <= CHUNKS_MAX && head.next.len() <= CHUNKS_MAX;
    if !is_part || !are_places(&head.sent, head.chunks.len()) {
        return Err(ResponderError::BadRequest("chunks outside of their part"));
    }
    let key = StageKey::of_transfer(&head.content, peer);
    let mut stage =
        admit(stager, key, head.content, head.size, limits).map_err(TransferError::from)?;
    if stage.chunks == head.from && !head.chunks.is_empty() {
        check_part(&head.chunks, &stage)?;
        let chunks = put_together(&head.chunks, &head.sent, blob)?;
        stage = grow(stager, key, &stage, chunks).map_err(TransferError::from)?;
    }
    let is_next = stage.chunks as usize == head.from as usize + head.chunks.len();
    let mut reply = StageReply {
        held: stage.chunks,
        lacking: Vec::new(),
    };
    if is_next && !head.next.is_empty() {
        check_part(&head.next, &stage)?;
        reply.lacking = lacking(&stager.newest(), &head.next)?;
    }
    Ok(reply)
}
