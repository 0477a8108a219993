//! `/v1/ns/{ns}/states/{id}`: one state.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::parse_rfc3339;
use crate::delta::compress::decompress;
use crate::delta::error::DeltaError;
use crate::http::app::{App, blocking, commit};
use crate::http::body::{Bound, Received, receive};
use crate::http::budget::Reservation;
use crate::http::coding::{Accepted, Coding};
use crate::http::conditions;
use crate::http::extract::{Params, Target};
use crate::http::outgoing;
use crate::http::problem::Problem;
use crate::http::range::{self, Span};
use crate::http::representation::{Found, Which, outside};
use crate::replica::command::{Change, Command, Content, Receipt, Write};
use crate::replica::view::View;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::queue::Committed;
use crate::store::body::Body as Packed;
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::GameId;
use crate::types::ttl::{Ttl, span_millis};
use crate::types::version::check_content_type;

/// Bytes that are packed without leaving the async thread: some dozen microseconds.
const PACK_INLINE: usize = 16 << 10;
/// Bytes that are read without leaving the async thread.
const READ_INLINE: u64 = 64 << 10;
/// Content is assumed to compress no better than this; what does is decompressed a second time.
const EXPANSION: u64 = 16;

/// The query of a write.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteQuery {
    ttl: Option<String>,
    replicas: Option<String>,
    timeout: Option<String>,
}

/// The query of a read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadQuery {
    version: Option<String>,
    at: Option<String>,
}

/// What a client gets for a write.
#[derive(Debug, Serialize)]
pub struct ReceiptBody {
    id: GameId,
    etag: String,
    content_hash: Option<String>,
    size: u64,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
}

impl ReceiptBody {
    /// A receipt without the root, which all receipts of one commit share.
    pub fn new(receipt: Receipt) -> Self {
        let is_deletion = receipt.content_hash == ContentHash::NONE;
        Self {
            id: receipt.id,
            etag: receipt.etag,
            content_hash: (!is_deletion).then(|| receipt.content_hash.to_hex()),
            size: receipt.size,
            seq: receipt.seq,
            root: None,
        }
    }
}

/// Stores a state.
///
/// # Errors
/// [`Problem`] when nothing was stored.
pub async fn put(
    State(app): State<App>,
    target: Target,
    Params(query): Params<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    query.check()?;
    let ttl = query.ttl()?;
    let precondition = conditions::of_write(&headers)?;
    let content_type = content_type(&headers)?;
    let coding = Coding::of_body(&headers)?;
    if coding == Coding::Dcz {
        return Err(Coding::unsupported(
            "a delta replaces nothing: send it with PATCH",
        ));
    }
    let limit = app.replica.limits().state_bytes;
    let bound = Bound {
        bytes: limit,
        exceeded: Problem::state_too_large,
    };
    let mut received = receive(&app, &headers, body, bound).await?;
    if coding == Coding::Zstd {
        received = decoded(received, limit).await?;
    }
    let Received { bytes, reservation } = received;
    let content = Content {
        body: pack(bytes).await?,
        content_type,
        ttl,
    };
    let write = Write {
        id: target.id,
        precondition,
        change: Change::Put(content),
    };
    let command = Command::Write(vec![write]);
    stored(commit(target.namespace, command, reservation).await?)
}

/// Deletes a state.
///
/// # Errors
/// [`Problem`] when nothing was deleted.
pub async fn delete(
    State(app): State<App>,
    target: Target,
    Params(query): Params<WriteQuery>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    query.check()?;
    if query.ttl.is_some() {
        return Err(Problem::bad_query("ttl goes with PUT; a deletion has none"));
    }
    let write = Write {
        id: target.id,
        precondition: conditions::of_write(&headers)?,
        change: Change::Delete,
    };
    let nothing = app.uploads.reserve(0).await?;
    commit(target.namespace, Command::Write(vec![write]), nothing).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads a state.
///
/// # Errors
/// [`Problem`] when there is none, or it cannot be read.
pub async fn get(
    State(app): State<App>,
    target: Target,
    Params(query): Params<ReadQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = Wanted::new(&target, query, headers)?;
    let mut reservation = app.downloads.reserve(0).await?;
    loop {
        match wanted.read(&app, &target.namespace, reservation).await? {
            Answer::Ready(response) => return Ok(response),
            Answer::Lacks(bytes) => reservation = app.downloads.reserve(bytes).await?,
        }
    }
}

/// Reads what there is to say of a state without its bytes.
///
/// # Errors
/// [`Problem`] when there is none, or it cannot be read.
pub async fn head(
    target: Target,
    Params(query): Params<ReadQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = Wanted::new(&target, query, headers)?;
    let view = target.namespace.view();
    let found = Found::look(&view, &wanted.id, wanted.which, wanted.now)?;
    let mut response = if conditions::is_held(&wanted.headers, &found.etag)? {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let length = HeaderValue::from(found.placed.version.size);
        [(CONTENT_LENGTH, length)].into_response()
    };
    found.describe(response.headers_mut());
    Ok(response)
}

impl WriteQuery {
    /// Refuses what is promised and not there yet.
    ///
    /// # Errors
    /// [`Problem`] `not_supported`.
    pub fn check(&self) -> Result<(), Problem> {
        let promised = [("replicas", &self.replicas), ("timeout", &self.timeout)];
        match promised.iter().find(|(_, value)| value.is_some()) {
            None => Ok(()),
            Some((name, _)) => Err(Problem::bad_request(
                "not_supported",
                format!("this version does not know the parameter {name} yet; leave it out"),
            )),
        }
    }

    /// How long the state is to live.
    ///
    /// # Errors
    /// [`Problem`] `bad_ttl`.
    pub fn ttl(&self) -> Result<Option<Ttl>, Problem> {
        Ok(self.ttl.as_deref().map(str::parse).transpose()?)
    }
}

/// What a client asks for.
struct Wanted {
    id: GameId,
    which: Which,
    /// Milliseconds since 1970-01-01 UTC.
    now: u64,
    headers: HeaderMap,
}

/// How far a read came.
enum Answer {
    Ready(Response),
    /// This many bytes have to be reserved first.
    Lacks(u64),
}

impl Wanted {
    fn new(target: &Target, query: ReadQuery, headers: HeaderMap) -> Result<Self, Problem> {
        let now = target.namespace.now();
        let which = match (query.version, query.at) {
            (None, None) => Which::Shown,
            (Some(hash), None) => Which::Content(hash.parse()?),
            (None, Some(moment)) => Which::At(parse_moment(&moment, now)?),
            (Some(_), Some(_)) => {
                return Err(Problem::bad_query("take one of version and at, not both"));
            }
        };
        Ok(Self {
            id: target.id.clone(),
            which,
            now,
            headers,
        })
    }

    /// Looks the state up and loads its bytes, if there is room for them.
    ///
    /// Small states are read right here: handing over to another thread and back takes longer.
    async fn read(
        &self,
        app: &App,
        namespace: &OpenNamespace,
        reservation: Reservation,
    ) -> Result<Answer, Problem> {
        let view = namespace.view();
        let found = Found::look(&view, &self.id, self.which, self.now)?;
        if conditions::is_held(&self.headers, &found.etag)? {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            found.describe(response.headers_mut());
            return Ok(Answer::Ready(response));
        }
        let size = found.placed.version.size;
        let span = range::of_request(&self.headers, size, &found.etag);
        if span == Span::Outside {
            return Ok(Answer::Ready(outside(size)));
        }
        let accepted = Accepted::of_request(&self.headers, size);
        let base = match accepted.dictionary {
            Some(hash) => view.version(&StateKey::of(&self.id), &hash, self.now)?,
            None => None,
        };
        let memory = size + base.as_ref().map_or(0, |base| base.version.size);
        let reservation = match reservation {
            held if held.covers(memory) => held,
            _ => match app.downloads.try_reserve(memory) {
                Some(share) => share,
                None => return Ok(Answer::Lacks(memory)),
            },
        };
        let placed = found.placed.clone();
        let content = move |view: &View| {
            let bytes = view.content(&placed)?.unwrap_or_default();
            let base = match base {
                // A dictionary that cannot be read is none.
                Some(base) => view.content(&base).ok().flatten(),
                None => None,
            };
            Ok::<_, Problem>(accepted.encode(base.as_deref(), bytes))
        };
        let (coding, bytes) = if memory <= READ_INLINE {
            content(&view)?
        } else {
            namespace.read_view(view, content).await?
        };
        let body = |bytes| outgoing::body(bytes, reservation, app.idle);
        let response = match coding {
            Coding::Identity => found.response(bytes.into(), span, body),
            _ => found.coded(bytes.into(), coding, body),
        };
        Ok(Answer::Ready(response))
    }
}

/// A moment as `?at=` takes it, in milliseconds since 1970-01-01 UTC.
fn parse_moment(text: &str, now: u64) -> Result<u64, Problem> {
    let moment = match text.strip_prefix('-') {
        Some(ago) => span_millis(ago).map(|ago| now.saturating_sub(ago)),
        None => parse_rfc3339(text),
    };
    moment.ok_or_else(|| {
        Problem::bad_query(
            "at takes a time such as 2026-01-31T12:00:00Z (RFC 3339; write + as %2B), or how long \
             ago it was, such as -10m, with a unit ms, s, m, h or d",
        )
    })
}

/// The answer to a command that wrote one state.
///
/// # Errors
/// [`Problem::unexpected`] when the writer gave no receipt.
pub fn stored(committed: Committed) -> Result<Response, Problem> {
    let mut receipts = committed.accepted.receipts.into_iter();
    let receipt = receipts.next().ok_or_else(Problem::unexpected)?;
    let status = if receipt.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let tag = [(ETAG, receipt.etag.clone())];
    let body = ReceiptBody {
        root: Some(committed.view.head().root.hash.to_hex()),
        ..ReceiptBody::new(receipt)
    };
    Ok((status, tag, Json(body)).into_response())
}

/// Hashes and packs a state.
///
/// # Errors
/// [`Problem::unexpected`] when the thread that does it fails.
pub async fn pack(bytes: Bytes) -> Result<Packed, Problem> {
    if bytes.len() <= PACK_INLINE {
        return Ok(Packed::new(&bytes));
    }
    blocking(move || Ok(Packed::new(&bytes))).await
}

/// The media type to be kept, if the client names one.
///
/// # Errors
/// [`Problem`] `bad_content_type`.
pub fn content_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    check_content_type(&text)?;
    Ok(Some(text.into_owned()))
}

/// Decompresses a body. Memory is set aside before it is taken.
async fn decoded(received: Received, limit: u64) -> Result<Received, Problem> {
    let Received {
        bytes,
        mut reservation,
    } = received;
    let length = bytes.len() as u64;
    let likely = (length * EXPANSION).min(limit);
    for bound in [likely, limit] {
        reservation.cover(length + bound).await?;
        let compressed = bytes.clone();
        let bound = usize::try_from(bound).unwrap_or(usize::MAX);
        match blocking(move || Ok(decompress(&compressed, bound))).await? {
            Err(DeltaError::TooLarge { .. }) if (bound as u64) < limit => {}
            Err(error) => return Err(error.into()),
            Ok(content) => {
                let bytes = content.into();
                return Ok(Received { bytes, reservation });
            }
        }
    }
    Err(Problem::state_too_large(limit))
}
