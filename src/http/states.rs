//! `/v1/ns/{ns}/states/{id}`: one state.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::clock::parse_rfc3339;
use crate::http::app::{App, commit};
use crate::http::budget::Reservation;
use crate::http::coding::{Accepted, Coding};
use crate::http::conditions;
use crate::http::extract::{Headers, Params, Target};
use crate::http::outgoing;
use crate::http::problem::Problem;
use crate::http::range::{self, Span};
use crate::http::representation::{Found, Which, outside};
use crate::http::streamed::{self, PART_STREAMED_FROM, STREAMED_FROM, Source};
use crate::http::upload;
use crate::replica::command::{Change, Command, Content, Receipt, Write};
use crate::replica::view::View;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::queue::Committed;
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::GameId;
use crate::types::limits::WHOLE_STATE_MAX;
use crate::types::ttl::{Ttl, span_millis};
use crate::types::version::check_content_type;

/// Bytes that are read without leaving the async thread.
const READ_INLINE: u64 = 64 << 10;

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
    Headers(headers): Headers,
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
    let taken = upload::take(&app, &target.namespace, &headers, body, coding).await?;
    let content = Content {
        body: taken.body,
        content_type,
        ttl,
    };
    let write = Write {
        id: target.id,
        precondition,
        change: Change::Put(content),
    };
    let held = (taken.reservation, taken.stage);
    stored(commit(target.namespace, Command::Write(vec![write]), held).await?)
}

/// Deletes a state.
///
/// # Errors
/// [`Problem`] when nothing was deleted.
pub async fn delete(
    State(app): State<App>,
    target: Target,
    Params(query): Params<WriteQuery>,
    Headers(headers): Headers,
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
    Headers(headers): Headers,
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
    Headers(headers): Headers,
) -> Result<Response, Problem> {
    let wanted = Wanted::new(&target, query, headers)?;
    let view = target.namespace.view();
    let found = wanted.look(&target.namespace, &view).await?;
    let mut response = if conditions::of_read(&wanted.headers, &wanted.id, &found.etag)? {
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

    /// Finds the version that is wanted. For an old one all that the state remembers is read, up to some
    /// megabytes, which no thread that serves others too should wait for.
    async fn look(&self, namespace: &OpenNamespace, view: &Arc<View>) -> Result<Found, Problem> {
        let (id, which, now) = (self.id.clone(), self.which, self.now);
        if which == Which::Shown {
            return Found::look(view, &id, which, now);
        }
        let look = move |view: &View| Found::look(view, &id, which, now);
        namespace.read_view(Arc::clone(view), look).await
    }

    /// Answers with a body that is read while it is sent, if there is room for it.
    async fn stream(
        &self,
        app: &App,
        namespace: &Arc<OpenNamespace>,
        view: Arc<View>,
        found: Found,
        (reservation, span): (Reservation, Span),
    ) -> Result<Answer, Problem> {
        let memory = streamed::memory(found.placed.version.size);
        let reservation = match reservation {
            held if held.covers(memory) => held,
            _ => match app.downloads.try_reserve(memory) {
                Some(share) => share,
                None => return Ok(Answer::Lacks(memory)),
            },
        };
        let (placed, part) = (found.placed.clone(), span.clone());
        // The share goes with the read, which goes on when the client hangs up.
        let open =
            move |view: &View| Ok::<_, Problem>((Source::open(view, placed, &part)?, reservation));
        let (source, reservation) = namespace.read_view(Arc::clone(&view), open).await?;
        let source = source.ok_or_else(Problem::unexpected)?;
        let namespace = Arc::clone(namespace);
        let body = streamed::body(namespace, view, source, reservation, app.idle);
        Ok(Answer::Ready(found.streamed(&span, body)))
    }

    /// Looks the state up and loads its bytes, if there is room for them.
    ///
    /// Small states are read right here: handing over to another thread and back takes longer.
    async fn read(
        &self,
        app: &App,
        namespace: &Arc<OpenNamespace>,
        reservation: Reservation,
    ) -> Result<Answer, Problem> {
        let view = namespace.view();
        let found = self.look(namespace, &view).await?;
        if conditions::of_read(&self.headers, &self.id, &found.etag)? {
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
        if is_streamed(size, &span, accepted) {
            let held = (reservation, span);
            return self.stream(app, namespace, view, found, held).await;
        }
        let base = match accepted.dictionary {
            Some(hash) => {
                let (key, now) = (StateKey::of(&self.id), self.now);
                let version = move |view: &View| view.version(&key, &hash, now);
                namespace.read_view(Arc::clone(&view), version).await?
            }
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
            // The share goes with the read, which goes on when the client hangs up.
            Ok::<_, Problem>((accepted.encode(base.as_deref(), bytes), reservation))
        };
        let ((coding, bytes), reservation) = if memory <= READ_INLINE {
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

/// True when a state is read while it is sent. Those that the client takes in a content coding are
/// not, as long as they fit into memory.
fn is_streamed(size: u64, span: &Span, accepted: Accepted) -> bool {
    match span {
        Span::Part(_) => size > PART_STREAMED_FROM,
        Span::Whole | Span::Outside => {
            size > WHOLE_STATE_MAX || (size > STREAMED_FROM && accepted == Accepted::default())
        }
    }
}

/// A moment as `?at=` takes it, in milliseconds since 1970-01-01 UTC.
fn parse_moment(text: &str, now: u64) -> Result<u64, Problem> {
    let moment = match text.strip_prefix('-') {
        Some(ago) => span_millis(ago).map(|ago| now.saturating_sub(ago)),
        None => parse_rfc3339(text),
    };
    moment.ok_or_else(|| {
        Problem::bad_query(format!(
            "at takes a time such as 2026-01-31T12:00:00Z (RFC 3339; write + as %2B), or how long \
             ago it was, such as -10m, with a unit ms, s, m, h or d; got {text:?}"
        ))
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
