//! How a version of a state looks in an answer: its headers, its bytes, or a part of them.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::clock::{http_date, rfc3339};
use crate::http::coding::Coding;
use crate::http::problem::Problem;
use crate::http::range::Span;
use crate::http::streamed::part_of;
use crate::replica::view::View;
use crate::store::rows::{Placed, RecordRow};
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::GameId;
use crate::types::record::etag;

const SAMESTATE_VERSION: HeaderName = HeaderName::from_static("samestate-version");
const SAMESTATE_EXPIRES: HeaderName = HeaderName::from_static("samestate-expires");
const SAMESTATE_CONFLICTS: HeaderName = HeaderName::from_static("samestate-conflicts");

/// Most headers of an answer with a state.
const HEADERS_MAX: usize = 13;

/// Which version of a state is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that is shown.
    Shown,
    /// One with this content.
    Content(ContentHash),
    /// The one that was shown at this moment, in milliseconds since 1970-01-01 UTC.
    At(u64),
}

/// A version that answers a read.
pub struct Found {
    /// The version and where its bytes are.
    pub placed: Placed,
    /// Its entity tag: the state's, or its own when it was asked for by hash.
    pub etag: String,
    conflicts: usize,
}

impl Found {
    /// Finds a version of a state at the moment `now`.
    ///
    /// # Errors
    /// [`Problem`] `not_found` when there is none, or when it cannot be read.
    pub fn look(view: &View, id: &GameId, which: Which, now: u64) -> Result<Self, Problem> {
        let row = view.row(id)?;
        let row = row.ok_or_else(|| Problem::not_found(format!("there is no state {id:?}")))?;
        let conflicts = row.record.conflicts();
        let placed = match which {
            Which::Shown => {
                return Ok(Self {
                    placed: shown(&row, now)?,
                    etag: etag(&row.leaf.digest),
                    conflicts,
                });
            }
            Which::Content(hash) => with_content(view, id, &hash, now)?,
            Which::At(moment) => at(view, id, moment, now)?,
        };
        Ok(Self {
            // A version's bytes never change, and its tag must not pass for the state's.
            etag: format!("\"{}\"", placed.version.content),
            placed,
            conflicts,
        })
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
        headers.reserve(HEADERS_MAX);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        self.describe(headers);
        response
    }

    /// The answer with a body of all bytes, or of a part of them.
    pub fn streamed(&self, span: &Span, body: Body) -> Response {
        let size = self.placed.version.size;
        let (mut response, length) = match part_of(span) {
            Some(part) => {
                let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
                let range = [(CONTENT_RANGE, range)];
                let response = (StatusCode::PARTIAL_CONTENT, range, body).into_response();
                (response, part.end - part.start)
            }
            None => (body.into_response(), size),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        self.describe(headers);
        response
    }

    /// The answer with bytes in a content coding.
    pub fn coded(
        &self,
        bytes: Bytes,
        coding: Coding,
        body: impl FnOnce(Bytes) -> Body,
    ) -> Response {
        let length = HeaderValue::from(bytes.len());
        let mut response = body(bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, length);
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
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
        ];
        let expires_at = version.expires_at.map(rfc3339);
        let expiry = expires_at.iter().map(|at| (SAMESTATE_EXPIRES, at.as_str()));
        for (name, text) in texts.into_iter().chain(expiry) {
            // All are printable ASCII: a content type was checked when it was stored.
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
        headers.insert(SAMESTATE_CONFLICTS, HeaderValue::from(self.conflicts));
        for (name, text) in [
            (ACCEPT_RANGES, "bytes"),
            (VARY, "accept-encoding, available-dictionary"),
            // May be kept, but has to be asked for again each time, which a 304 answers.
            (CACHE_CONTROL, "no-cache"),
            // Anybody may store a page with scripts; browsers must not run it as one of ours.
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CONTENT_SECURITY_POLICY, "sandbox"),
        ] {
            headers.insert(name, HeaderValue::from_static(text));
        }
    }
}

fn shown(row: &RecordRow, now: u64) -> Result<Placed, Problem> {
    let id = &row.record.id;
    match row.placed().next() {
        Some((version, placement)) if row.is_shown(now) => Ok(Placed::of((version, placement))),
        Some((version, _)) if !version.tombstone => {
            Err(Problem::not_found(format!("the state {id:?} has expired")))
        }
        _ => Err(Problem::not_found(format!("the state {id:?} is deleted"))),
    }
}

fn with_content(view: &View, id: &GameId, hash: &ContentHash, now: u64) -> Result<Placed, Problem> {
    let placed = view.version(&StateKey::of(id), hash, now)?;
    placed.ok_or_else(|| {
        Problem::not_found(format!(
            "{id:?} has no such version (any more); see its history"
        ))
    })
}

fn at(view: &View, id: &GameId, moment: u64, now: u64) -> Result<Placed, Problem> {
    let then = rfc3339(moment);
    let Some(placed) = view.at(&StateKey::of(id), moment)? else {
        return Err(Problem::not_found(format!(
            "no version of {id:?} is as old as {then}: it was not there yet, or what it was is not \
             kept any more; its history tells what is"
        )));
    };
    let version = &placed.version;
    if version.is_dead(moment) {
        let what = if version.tombstone {
            "was deleted"
        } else {
            "had expired"
        };
        return Err(Problem::not_found(format!("{id:?} {what} at {then}")));
    }
    if !placed.is_readable(now) {
        return Err(Problem::not_found(format!(
            "the version of {id:?} that was shown at {then} has expired since; its bytes are not \
             given out any more"
        )));
    }
    Ok(placed)
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
