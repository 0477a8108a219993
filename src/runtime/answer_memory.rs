//! How much memory the answer to a message of the replication protocol takes, so that it can be set
//! aside before anything is read.

use std::sync::Arc;

use bytes::Bytes;

use crate::runtime::namespace::OpenNamespace;
use crate::runtime::sync_error::SyncError;
use crate::runtime::sync_service::opened;
use crate::store::error::StoreError;
use crate::sync::contents;
use crate::sync::responder::{self, LONGEST};
use crate::types::limits::Limits;
use crate::wire::healing_messages::ContentsRequest;
use crate::wire::messages::{BodiesRequest, Endpoint};

/// The longest state of an answer is in memory this many times at once, at most: as it is, with a base
/// of up to twice its length, encoded, and in the finished message.
const COPIES: u64 = 5;

/// Bytes of memory that the answer to a message takes, at most. `None` for answers that are short
/// whatever was asked, or that wait for the writer.
///
/// # Errors
/// [`SyncError`] when the message is malformed, or names a session that is not open.
pub async fn answer_memory(
    namespace: &Arc<OpenNamespace>,
    endpoint: Endpoint,
    body: &Bytes,
    limits: &Limits,
) -> Result<Option<u64>, SyncError> {
    let first = match endpoint {
        Endpoint::Offer
        | Endpoint::Store
        | Endpoint::Stage
        | Endpoint::Forget
        | Endpoint::Close
        | Endpoint::Probe
        | Endpoint::Dictionary => return Ok(None),
        Endpoint::Open
        | Endpoint::Compare
        | Endpoint::Records
        | Endpoint::Subtrees
        | Endpoint::Range
        | Endpoint::Chunks
        | Endpoint::Pieces => 0,
        Endpoint::Bodies => {
            let (head, _): (BodiesRequest, _) = opened(namespace, endpoint, body, limits).await?;
            let (view, _) = namespace.pins().get(head.session)?;
            let size = namespace.read_view(view, move |view| responder::first_size(view, &head));
            size.await?
        }
        Endpoint::Contents => {
            let (head, _): (ContentsRequest, _) = opened(namespace, endpoint, body, limits).await?;
            let size = namespace.read(move |view| contents::first_size(view, &head));
            let size: Result<u64, StoreError> = size.await;
            size?
        }
    };
    Ok(Some(first.max(LONGEST) * COPIES))
}
