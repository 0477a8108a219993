//! Handing a large version over chunk by chunk: only what the peer lacks, from where it left off.

use tracing::error;

use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::RecordRow;
use crate::sync::chunks::{are_places, next_part, part_bytes};
use crate::sync::exchange::{Exchange, SessionError};
use crate::types::hash::ContentHash;
use crate::wire::chunk_messages::{ListedChunk, StageReply, StageRequest};
use crate::wire::messages::Endpoint;

/// How often the peer may say that it has come less far than it was told.
const DISTURBED_MAX: usize = 8;

/// Sends what the peer lacks of a version of a row. False when our copy cannot be read.
///
/// # Errors
/// [`SessionError`]; what the peer has it keeps.
pub fn send(
    exchange: &mut Exchange<'_>,
    view: &View,
    session: u64,
    row: &RecordRow,
    version: usize,
) -> Result<bool, SessionError> {
    let Some((version, placement)) = row.placed().nth(version) else {
        return Ok(false);
    };
    let list = match view.snapshot().chunks_of(version, placement) {
        Ok(Some(list)) => list,
        Ok(None) => return Ok(false),
        Err(damage @ StoreError::Damaged(_)) => return Ok(unreadable(row, &damage)),
        Err(error) => return Err(error.into()),
    };
    let (mut from, mut part): (usize, &[ListedChunk]) = (0, &[]);
    let (mut lacking, mut disturbed) = (Vec::new(), 0);
    // The first message only asks how far the peer is.
    let mut next: &[ListedChunk] = &[];
    loop {
        let blob = match bytes_of(view, &version.content, part, &lacking) {
            Ok(blob) => blob,
            Err(damage @ StoreError::Damaged(_)) => return Ok(unreadable(row, &damage)),
            Err(error) => return Err(error.into()),
        };
        let head = StageRequest {
            session,
            content: version.content,
            size: version.size,
            from: from as u32,
            chunks: part.to_vec(),
            sent: lacking,
            next: next.to_vec(),
        };
        let asked = exchange.ask("state_transfer", Endpoint::Stage, &head, &blob);
        let (reply, _): (StageReply, _) = asked?;
        let held = reply.held as usize;
        if held > list.len() {
            return Err(SessionError::Misfit(
                "more chunks have arrived than there are",
            ));
        }
        if held == list.len() {
            return Ok(true);
        }
        let is_due = held == from + part.len() && !next.is_empty();
        (from, part, lacking) = if is_due {
            (held, next, reply.lacking)
        } else {
            // The next part is offered first.
            disturbed += 1;
            (held, &[][..], Vec::new())
        };
        if disturbed > DISTURBED_MAX || !are_places(&lacking, part.len()) {
            return Err(SessionError::Misfit(
                "the peer does not keep what it is sent",
            ));
        }
        next = next_part(&list, from + part.len(), part_bytes(version.size));
    }
}

/// A copy that cannot be read is not offered as if it could; `samestate verify` names it.
fn unreadable(row: &RecordRow, damage: &StoreError) -> bool {
    error!(id = %row.record.id, what = %damage.bare(), "cannot send a damaged version");
    false
}

/// The bytes of some chunks of a part, one after the other.
///
/// # Errors
/// [`StoreError`] when one cannot be read.
pub fn bytes_of(
    view: &View,
    content: &ContentHash,
    part: &[ListedChunk],
    places: &[u32],
) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    for chunk in places.iter().filter_map(|place| part.get(*place as usize)) {
        bytes.extend(view.snapshot().chunk_of(content, chunk)?);
    }
    Ok(bytes)
}
