//! Taking a large version over chunk by chunk. What has arrived is durable with every message, so
//! that a transfer that was broken off goes on where it was.

use crate::replica::staging::{admit, completed, grow};
use crate::store::body::Body;
use crate::store::stage::StageKey;
use crate::sync::chunks::{check_part, lacking, part_bytes, put_together};
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::news::Wanted;
use crate::sync::transfer::TransferError;
use crate::sync::transport::Home;
use crate::types::id::ReplicaId;
use crate::wire::chunk_messages::{ChunksReply, ChunksRequest, ListedChunk};
use crate::wire::messages::Endpoint;

/// How often others may get in the way of one version.
const DISTURBED_MAX: usize = 8;

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
    let key = StageKey::of_transfer(&content, peer);
    let mut stage = admit(home, key, content, size, exchange.limits())?;
    let mut part: Vec<ListedChunk> = Vec::new();
    let mut disturbed = 0;
    while stage.bytes < size {
        let lacking = lacking(&home.newest(), &part)?;
        let head = ChunksRequest {
            session,
            state: wanted.want.state,
            version: wanted.want.version,
            from: stage.chunks,
            count: part.len() as u32,
            wanted: lacking,
            bytes: part_bytes(size) as u32,
        };
        let asked = exchange.ask("state_transfer", Endpoint::Chunks, &head, &[]);
        let (reply, blob): (ChunksReply, _) = asked?;
        let Some(next) = reply.next else {
            return Ok(None);
        };
        let chunks = put_together(&part, &head.wanted, &blob)?;
        if !chunks.is_empty() {
            let due = stage.chunks + head.count;
            stage = grow(home, key, &stage, chunks)?;
            home.progress(exchange.report);
            if stage.chunks != due {
                disturbed += 1;
                if disturbed > DISTURBED_MAX {
                    return Err(SessionError::Impossible(
                        "another session takes over the same state; sync again",
                    ));
                }
                part.clear();
                continue;
            }
        }
        check_part(&next, &stage)?;
        part = next;
    }
    exchange.report.bytes_if_sent_whole += size;
    match completed(home, key, &content)? {
        Some(body) => Ok(Some(body)),
        None => Err(TransferError::WrongHash(wanted.id.clone()).into()),
    }
}
