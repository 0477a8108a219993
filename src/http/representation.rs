//! How a version of a state looks in an answer: its headers, its bytes, or a part of them.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::clock::http_date;
use crate::http::problem::Problem;
use crate::http::range::Span;
use crate::replica::view::View;
use crate::store::rows::Placed;
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::GameId;
use crate::types::record::etag;

const SAMESTATE_VERSION: HeaderName = HeaderName::from_static("samestate-version");
const SAMESTATE_CONFLICTS: HeaderName = HeaderName::from_static("samestate-conflicts");

/// A version that answers a read.
pub struct Found {
    /// The version and where its bytes are.
    pub placed: Placed,
    /// Its entity tag: the state's, or its own when it was asked for by hash.
    pub etag: String,
    conflicts: usize,
}

impl Found {
    /// Finds the shown version of a state, or the one with a given content.
    ///
    /// # Errors
    /// [`Problem`] `not_found` when there is none, or when it cannot be read.
    pub fn look(view: &View, id: &GameId, version: Option<&ContentHash>) -> Result<Self, Problem> {
        let row = view.row(id)?;
        let row = row.ok_or_else(|| Problem::not_found(format!("there is no state {id:?}")))?;
        let conflicts = row.record.conflicts();
        if let Some(hash) = version {
            let placed = view.version(&StateKey::of(id), hash)?.ok_or_else(|| {
                Problem::not_found(format!(
                    "{id:?} has no such version (any more); see its history"
                ))
            })?;
            return Ok(Self {
                placed,
                // A version's bytes never change, and its tag must not pass for the state's.
                etag: format!("\"{hash}\""),
                conflicts,
            });
        }
        match row.placed().next() {
            Some((version, placement)) if !version.tombstone => Ok(Self {
                placed: Placed {
                    version: version.clone(),
                    placement: placement.clone(),
                },
                etag: etag(&row.leaf.digest),
                conflicts,
            }),
            _ => Err(Problem::not_found(format!("the state {id:?} is deleted"))),
        }
    }

    /// The answer with all bytes, or with a part of them; `body` makes a body of some.
    pub fn response(&self, bytes: Bytes, span: Span, body: impl FnOnce(Bytes) -> Body) -> Response {
        let size = bytes.len();
        let part = match span {
            Span::Part(part) => usize::try_from(part.start)
                .ok()
                .zip(usize::try_from(part.end).ok()),
            Span::Whole | Span::Outside => None,
        };
        let (mut response, length) = match part {
            Some((start, end)) if start < end && end <= size => {
                let range = format!("bytes {start}-{}/{size}", end - 1);
                let part = body(bytes.slice(start..end));
                let range = [(CONTENT_RANGE, range)];
                let response = (StatusCode::PARTIAL_CONTENT, range, part).into_response();
                (response, end - start)
            }
            _ => (body(bytes).into_response(), size),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        self.describe(headers);
        response
    }

    /// Puts in the headers that every answer about this version has.
    pub fn describe(&self, headers: &mut HeaderMap) {
        let version = &self.placed.version;
        let media_type = version.content_type.as_deref();
        let texts = [
            (ETAG, self.etag.as_str()),
            (
                CONTENT_TYPE,
                media_type.unwrap_or("application/octet-stream"),
            ),
            (LAST_MODIFIED, &http_date(version.stamp.millis)),
            (SAMESTATE_VERSION, &version.content.to_hex()),
            (SAMESTATE_CONFLICTS, &self.conflicts.to_string()),
            (ACCEPT_RANGES, "bytes"),
            // May be kept, but has to be asked for again each time, which a 304 answers.
            (CACHE_CONTROL, "no-cache"),
            // Anybody may store a page with scripts; browsers must not run it as one of ours.
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CONTENT_SECURITY_POLICY, "sandbox"),
        ];
        for (name, text) in texts {
            // All are printable ASCII: a content type was checked when it was stored.
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// The answer to a range behind the end.
pub fn outside(size: u64) -> Response {
    let detail = format!("the state has {size} bytes; ask for a range within them");
    let problem = Problem::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "range_not_satisfiable",
        detail,
    );
    ([(CONTENT_RANGE, format!("bytes */{size}"))], problem).into_response()
}
