//! Asking a peer for bytes by their hash, outside of sessions: what heals damage. Both sides.

use std::collections::HashSet;

use crate::delta::codec::{CodecId, Effort};
use crate::delta::registry::{decode, encode_smallest};
use crate::replica::view::View;
use crate::store::body::Body;
use crate::store::error::StoreError;
use crate::store::rows::Placed;
use crate::sync::decode::each_body;
use crate::sync::exchange::{SessionError, reply_limit};
use crate::sync::responder::{LONGEST, ResponderError};
use crate::sync::transfer::{TransferError, record_at};
use crate::sync::transport::Transport;
use crate::types::hash::{ContentHash, StateKey};
use crate::types::limits::{Limits, WHOLE_STATE_MAX};
use crate::wire::frame::{HEADER_BYTES, open, seal};
use crate::wire::head::Head;
use crate::wire::healing_messages::{CONTENTS_MAX, ContentWant, ContentsRequest};
use crate::wire::messages::{BodyHead, BodyHeads, Endpoint};

/// State bytes that are read for one answer.
const WORK_BYTES: u64 = 128 << 20;

/// Bytes that are lacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// A state that has them.
    pub key: StateKey,
    /// Their hash.
    pub content: ContentHash,
    /// Their length.
    pub size: u64,
}

/// Answers from the newest view. What is not held, or is damaged here as well, is answered as
/// missing. Only the first content may exceed [`LONGEST`].
///
/// # Errors
/// [`ResponderError`].
pub fn contents(
    view: &View,
    head: &ContentsRequest,
    limits: &Limits,
) -> Result<(BodyHeads, Vec<u8>), ResponderError> {
    let mut seen = HashSet::new();
    let mut twice = head.wants.iter().filter(|want| !seen.insert(want.content));
    if head.wants.len() > CONTENTS_MAX || twice.next().is_some() {
        return Err(ResponderError::BadRequest(
            "too many contents, or one twice",
        ));
    }
    let (mut heads, mut blob, mut work) = (Vec::new(), Vec::new(), 0);
    for want in &head.wants {
        let is_full = blob.len() as u64 >= limits.transfer_bytes || work >= WORK_BYTES;
        if is_full && !heads.is_empty() {
            break;
        }
        let Some(placed) = held(view, want)? else {
            heads.push(BodyHead::missing());
            continue;
        };
        if placed.version.size > LONGEST && !heads.is_empty() {
            break;
        }
        let Some(bytes) = readable(view.content(&placed))? else {
            heads.push(BodyHead::missing());
            continue;
        };
        work += bytes.len() as u64;
        let encoded = encode_smallest(&[], &bytes, Effort::Fast);
        blob.extend_from_slice(&encoded.payload);
        heads.push(BodyHead {
            codec: encoded.codec.0,
            base: None,
            length: encoded.payload.len() as u32,
        });
    }
    Ok((BodyHeads { heads }, blob))
}

fn held(view: &View, want: &ContentWant) -> Result<Option<Placed>, StoreError> {
    let look = || {
        let Some(row) = record_at(view, want.state)? else {
            return Ok(None);
        };
        // Whether their time is over is for the asker to say.
        let placed = view.version(&row.leaf.key, &want.content, 0)?;
        Ok(placed.filter(|placed| placed.version.size <= WHOLE_STATE_MAX))
    };
    readable(look())
}

/// What is damaged is not held.
fn readable<T>(read: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(StoreError::Damaged(_)) => Ok(None),
        read => read,
    }
}

/// Bytes of the first content that is asked for.
///
/// # Errors
/// [`StoreError`] when it cannot be looked up.
pub fn first_size(view: &View, head: &ContentsRequest) -> Result<u64, StoreError> {
    let first = head.wants.first().map(|want| held(view, want));
    let first = first.transpose()?.flatten();
    Ok(first.map_or(0, |placed| placed.version.size))
}

/// Asks for bytes; in the order of `lacking`, `None` for what the peer does not have. Stops asking
/// at the first answer that is none.
///
/// # Errors
/// [`SessionError`] when the peer cannot be asked, or answers with anything but the bytes that have
/// the hashes.
pub fn fetch_contents(
    transport: &mut dyn Transport,
    lacking: &[Lacking],
    limits: &Limits,
) -> Result<Vec<Option<Body>>, SessionError> {
    let mut fetched: Vec<Option<Body>> = Vec::with_capacity(lacking.len());
    while fetched.len() < lacking.len() {
        let rest = &lacking[fetched.len()..];
        let part = &rest[..rest.len().min(CONTENTS_MAX)];
        fetched.extend(ask(transport, part, limits)?);
    }
    Ok(fetched)
}

fn ask(
    transport: &mut dyn Transport,
    part: &[Lacking],
    limits: &Limits,
) -> Result<Vec<Option<Body>>, SessionError> {
    let (endpoint, want) = (Endpoint::Contents, |one: &Lacking| ContentWant {
        state: one.key.prefix64(),
        content: one.content,
    });
    let head = ContentsRequest {
        wants: part.iter().map(want).collect(),
    };
    let asked = ask_outside(transport, endpoint, &head, limits);
    let (BodyHeads { heads }, blob): (BodyHeads, Vec<u8>) = asked?;
    Ok(each_body(part, &heads, &blob, checked)?)
}

/// Sends a message that belongs to no session, and opens the answer.
///
/// # Errors
/// [`SessionError`] when there is none, or one that cannot be opened.
pub fn ask_outside<H: Head>(
    transport: &mut dyn Transport,
    endpoint: Endpoint,
    head: &impl Head,
    limits: &Limits,
) -> Result<(H, Vec<u8>), SessionError> {
    let limit = reply_limit(limits, endpoint);
    let request = seal(endpoint.kind(), head, &[]);
    let reply = transport.call(endpoint, request, limit + HEADER_BYTES)?;
    Ok(open(endpoint.kind(), &reply, limit)?)
}

fn checked(one: &Lacking, head: &BodyHead, payload: &[u8]) -> Result<Body, TransferError> {
    let size = usize::try_from(one.size)
        .map_err(|_| TransferError::Malformed("a state is too large for this machine"))?;
    let bytes = decode(CodecId(head.codec), None, payload, size);
    let bytes = bytes.map_err(|_| TransferError::Malformed("a content does not decode"))?;
    if !ContentHash::of(&bytes).matches(&one.content) {
        return Err(TransferError::Malformed("a content does not have its hash"));
    }
    Ok(Body::of_hashed(one.content, &bytes))
}
