//! `GET /v1/ns/{ns}/states`: which states there are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use crate::http::app::App;
use crate::http::extract::{InNamespace, Params, accepts, page_limit};
use crate::http::outgoing;
use crate::http::problem::Problem;
use crate::replica::view::Page;
use crate::runtime::namespace::OpenNamespace;
use crate::store::error::StoreError;
use crate::store::rows::RecordRow;
use crate::types::record::etag;

/// States read at once for a streamed listing.
const STREAM_PAGE: usize = 1000;

/// The query of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
}

/// One state of a listing.
#[derive(Debug, Serialize)]
struct StateItem {
    id: String,
    size: u64,
    etag: String,
    content_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    updated_at: u64,
    /// When its time is over, in milliseconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

impl StateItem {
    fn new(row: RecordRow) -> Self {
        let shown = row.record.shown();
        Self {
            size: shown.size,
            etag: etag(&row.leaf.digest),
            content_hash: shown.content.to_hex(),
            content_type: shown.content_type.clone(),
            updated_at: shown.stamp.millis,
            expires_at: shown.expires_at,
            id: row.record.id.into(),
        }
    }
}

#[derive(Debug, Serialize)]
struct ListBody {
    states: Vec<StateItem>,
    next: Option<String>,
}

/// Lists states in order of id: one page as JSON, or all of them as NDJSON.
///
/// # Errors
/// [`Problem`] when they cannot be read.
pub async fn list(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Params(query): Params<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if accepts(&headers, "application/x-ndjson") {
        return Ok(streamed(namespace, query));
    }
    let limit = page_limit(query.limit);
    let share = outgoing::page_share(&app, limit).await?;
    let page = page(&namespace, query.prefix, query.after, limit).await?;
    let states = page.items.into_iter().map(StateItem::new).collect();
    let body = ListBody {
        states,
        next: page.next,
    };
    outgoing::page(&app, share, &body).await
}

async fn page(
    namespace: &OpenNamespace,
    prefix: String,
    after: Option<String>,
    limit: usize,
) -> Result<Page<RecordRow>, StoreError> {
    let now = namespace.now();
    let page = namespace.read(move |view| view.list(&prefix, after.as_deref(), limit, now));
    page.await
}

/// Where a streamed listing stands. Each page is read from the newest commit then, because a view
/// that a slow reader held for hours would keep the file from reusing its pages.
struct Streaming {
    namespace: Arc<OpenNamespace>,
    prefix: String,
    after: Option<String>,
    left: usize,
}

fn streamed(namespace: Arc<OpenNamespace>, query: ListQuery) -> Response {
    let start = Streaming {
        namespace,
        prefix: query.prefix,
        after: query.after,
        left: query.limit.unwrap_or(usize::MAX),
    };
    // A page that cannot be read breaks the stream off, which clients notice.
    let pages = stream::try_unfold(start, |mut at| async move {
        if at.left == 0 {
            return Ok::<_, StoreError>(None);
        }
        let limit = at.left.min(STREAM_PAGE);
        let page = page(&at.namespace, at.prefix.clone(), at.after.take(), limit).await?;
        at.left = if page.next.is_some() {
            at.left - page.items.len()
        } else {
            0
        };
        at.after = page.next;
        Ok(Some((lines(page.items), at)))
    });
    let media_type = [(CONTENT_TYPE, "application/x-ndjson")];
    (media_type, Body::from_stream(pages)).into_response()
}

fn lines(rows: Vec<RecordRow>) -> Bytes {
    let mut lines = Vec::with_capacity(rows.len() * 256);
    for row in rows {
        // Writing plain structs into memory does not fail.
        if serde_json::to_writer(&mut lines, &StateItem::new(row)).is_ok() {
            lines.push(b'\n');
        }
    }
    lines.into()
}
