//! Taking a large version over chunk by chunk. What has arrived is durable with every message, so
//! that a transfer that was broken off goes on where it was.

use crate::replica::staging::{Stager, admit, completed, grow};
use crate::store::body::Body;
use crate::store::stage::StageKey;
use crate::sync::chunks::{check_part, lacking, part_bytes, put_together};
use crate::sync::contents::{Lacking, ask_outside, fetch_contents};
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::news::Wanted;
use crate::sync::transfer::{STREAMED_FROM, TransferError};
use crate::sync::transport::{Home, Transport};
use crate::types::hash::ContentHash;
use crate::types::id::ReplicaId;
use crate::types::limits::Limits;
use crate::wire::chunk_messages::{ChunksReply, ChunksRequest, ListedChunk, PartRequest};
use crate::wire::healing_messages::PiecesRequest;
use crate::wire::messages::Endpoint;

/// How often others may get in the way of one version.
const DISTURBED_MAX: usize = 8;

/// What came back: the answer, and the bytes of the chunks.
type Answered = Result<(ChunksReply, Vec<u8>), SessionError>;

/// A content that is to be taken over, and the stage in which it arrives.
struct Arriving {
    key: StageKey,
    content: ContentHash,
    size: u64,
}

/// Fetches what is lacking of a version from `peer`, and checks the whole. `None` when the peer cannot
/// read its copy.
///
/// # Errors
/// [`SessionError`]; what has arrived stays for the next session with this peer, unless it turns out
/// not to be what its record says.
pub fn fetch(
    exchange: &mut Exchange<'_>,
    home: &dyn Home,
    (session, peer): (u64, ReplicaId),
    wanted: &Wanted,
) -> Result<Option<Body>, SessionError> {
    let (content, size) = (wanted.version.content, wanted.version.size);
    let arriving = Arriving {
        key: StageKey::of_transfer(&content, peer),
        content,
        size,
    };
    let limits = *exchange.limits();
    let arrived = arrive(home, &arriving, &limits, &mut |part| {
        home.progress(exchange.report);
        let head = ChunksRequest {
            session,
            state: wanted.want.state,
            version: wanted.want.version,
            part,
        };
        exchange.ask("state_transfer", Endpoint::Chunks, &head, &[])
    });
    if matches!(arrived, Ok(Some(_)) | Err(Stopped::WrongHash)) {
        exchange.report.bytes_if_sent_whole += size;
    }
    arrived.map_err(|stopped| match stopped {
        Stopped::By(error) => error,
        Stopped::WrongHash => TransferError::WrongHash(wanted.id.clone()).into(),
    })
}

/// Asks a peer for bytes by their hash, outside of sessions: for large contents chunk by chunk. In
/// the order of `lacking`, `None` for what the peer does not have. `source` names the peer.
///
/// # Errors
/// [`SessionError`], as for [`fetch_contents`] and [`fetch_pieces`].
pub fn fetch_lacking(
    transport: &mut dyn Transport,
    stager: &dyn Stager,
    source: &str,
    lacking: &[Lacking],
    limits: &Limits,
) -> Result<Vec<Option<Body>>, SessionError> {
    let is_large = |one: &Lacking| one.size > STREAMED_FROM;
    let (large, small): (Vec<Lacking>, Vec<Lacking>) =
        lacking.iter().partition(|one| is_large(one));
    let mut bodies = fetch_contents(transport, &small, limits)?.into_iter();
    let mut pieces = Vec::with_capacity(large.len());
    for one in &large {
        pieces.push(fetch_pieces(transport, stager, source, one, limits)?);
    }
    let mut pieces = pieces.into_iter();
    let next = |one: &Lacking| {
        if is_large(one) {
            pieces.next()
        } else {
            bodies.next()
        }
    };
    Ok(lacking.iter().map(next).map(Option::flatten).collect())
}

/// Fetches what is lacking or damaged of a large content, outside of sessions. `source` names the
/// peer. Where the content's list of chunks is whole, it is whole itself when this returns. `None`
/// when the peer does not have it, or cannot read its copy.
///
/// # Errors
/// [`SessionError`]; what has arrived stays for the next time.
pub fn fetch_pieces(
    transport: &mut dyn Transport,
    stager: &dyn Stager,
    source: &str,
    lacking: &Lacking,
    limits: &Limits,
) -> Result<Option<Body>, SessionError> {
    let arriving = Arriving {
        key: StageKey::of_healing(&lacking.content, source),
        content: lacking.content,
        size: lacking.size,
    };
    let arrived = arrive(stager, &arriving, limits, &mut |part| {
        let head = PiecesRequest {
            state: lacking.key.prefix64(),
            content: lacking.content,
            part,
        };
        ask_outside(transport, Endpoint::Pieces, &head, limits)
    });
    arrived.map_err(|stopped| match stopped {
        Stopped::By(error) => error,
        Stopped::WrongHash => TransferError::Malformed("a content does not have its hash").into(),
    })
}

/// Why a content has not arrived.
enum Stopped {
    By(SessionError),
    /// The chunks are those of another one.
    WrongHash,
}

impl<E: Into<SessionError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::By(error.into())
    }
}

fn arrive(
    stager: &dyn Stager,
    arriving: &Arriving,
    limits: &Limits,
    ask: &mut dyn FnMut(PartRequest) -> Answered,
) -> Result<Option<Body>, Stopped> {
    let Arriving { key, content, size } = *arriving;
    let mut stage = admit(stager, key, content, size, limits)?;
    let mut part: Vec<ListedChunk> = Vec::new();
    let mut disturbed = 0;
    while stage.bytes < size {
        let wanted = lacking(&stager.newest(), &part)?;
        let (reply, blob) = ask(PartRequest {
            from: stage.chunks,
            count: part.len() as u32,
            wanted: wanted.clone(),
            bytes: part_bytes(size) as u32,
        })?;
        let Some(next) = reply.next else {
            return Ok(None);
        };
        let chunks = put_together(&part, &wanted, &blob)?;
        if !chunks.is_empty() {
            let due = stage.chunks + part.len() as u32;
            stage = grow(stager, key, &stage, chunks)?;
            if stage.chunks != due {
                disturbed += 1;
                if disturbed > DISTURBED_MAX {
                    return Err(Stopped::By(SessionError::Impossible(
                        "another session takes over the same state; sync again",
                    )));
                }
                part.clear();
                continue;
            }
        }
        check_part(&next, &stage)?;
        part = next;
    }
    match completed(stager, key, &content)? {
        Some(body) => Ok(Some(body)),
        None => Err(Stopped::WrongHash),
    }
}
