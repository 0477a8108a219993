//! `GET /v1/ns/{ns}/root`: the Merkle root and what it covers.

use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::clock::rfc3339;
use crate::http::conditions::is_held;
use crate::http::extract::InNamespace;
use crate::http::problem::Problem;

#[derive(Debug, Serialize)]
struct RootBody {
    root: String,
    /// States that are not deleted.
    count: u64,
    total_size: u64,
    latest_update: Option<String>,
    seq: u64,
    epoch: String,
    replica: String,
}

/// Tells the root of the newest commit.
///
/// # Errors
/// [`Problem`] when a condition is malformed.
pub async fn get(
    InNamespace(namespace): InNamespace,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = namespace.view();
    let (head, identity) = (view.head(), view.identity());
    let root = head.root.hash.to_hex();
    // Equal roots mean equal contents, but the answer also tells the replica's own position.
    let etag = format!("\"{}-{}-{}\"", root, identity.epoch, head.seq);
    if is_held(&headers, &etag)? {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response());
    }
    let body = RootBody {
        root,
        count: head.live,
        total_size: head.root.size,
        latest_update: (head.root.leaves > 0).then(|| rfc3339(head.root.updated_at)),
        seq: head.seq,
        epoch: identity.epoch.to_string(),
        replica: identity.replica.to_string(),
    };
    Ok(([(ETAG, etag)], Json(body)).into_response())
}
