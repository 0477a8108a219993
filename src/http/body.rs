//! Reading request bodies: bounded in size, in memory over all requests, and in time.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::task;
use tokio::time::{Instant, timeout, timeout_at};

use crate::http::app::App;
use crate::http::budget::Reservation;
use crate::http::members::from_json;
use crate::http::problem::Problem;

/// Bytes a second that a client has to manage at every point of an upload, once it had the time of
/// one pause, so that nobody can hold memory for ever by sending a byte now and then.
const PACE: u64 = 32 << 10;
/// Bytes and time for which a refused body is read on.
const DISCARD_BYTES: usize = 256 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(10);
/// Most bytes of a JSON body that gives an order.
const ORDER_BYTES_MAX: u64 = 64 << 10;

/// A body and the memory set aside for it.
#[derive(Debug)]
pub struct Received {
    /// The bytes.
    pub bytes: Bytes,
    /// Their share of the upload budget.
    pub reservation: Reservation,
}

/// Largest body that is taken, and how a larger one is refused.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Bytes.
    pub bytes: u64,
    /// The problem told to the client, given the bound.
    pub exceeded: fn(u64) -> Problem,
}

/// Refuses a body that is declared to be too long, before anything of it is read.
///
/// # Errors
/// [`Problem`] when it is.
pub fn refuse_declared(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    bound: Bound,
) -> Result<Body, Problem> {
    if content_length(headers).is_none_or(|declared| declared <= bound.bytes) {
        return Ok(body);
    }
    // Whoever asks first has not begun to send; reading would tell it to go ahead.
    if !headers.contains_key(EXPECT) {
        discard(app, body.into_data_stream());
    }
    Err((bound.exceeded)(bound.bytes))
}

/// Reads a whole body. A declared length over the bound is refused before anything is read.
///
/// # Errors
/// [`Problem`] when it is too long, too slow, ends early, or there is no memory for it.
pub async fn receive(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    bound: Bound,
) -> Result<Received, Problem> {
    let body = refuse_declared(app, headers, body, bound)?;
    let mut pieces = Pieces::new(headers, body, bound);
    receive_pieces(app, &mut pieces, u64::MAX).await
}

/// Reads a body into memory, all of it or until there are more than `enough` bytes.
///
/// # Errors
/// As [`receive`].
pub async fn receive_pieces(
    app: &App,
    pieces: &mut Pieces,
    enough: u64,
) -> Result<Received, Problem> {
    let mut reservation = app.uploads.reserve(0).await?;
    let mut bytes = Vec::new();
    while bytes.len() as u64 <= enough
        && let Some(piece) = pieces.next(app).await?
    {
        let length = bytes.len() as u64 + piece.len() as u64;
        if length > bytes.capacity() as u64 {
            // A length that is only declared must not keep others out: at most twice what came.
            let most = pieces.declared.unwrap_or(pieces.bound.bytes);
            let room = (length * 2).min(most).max(length);
            let asked = Instant::now();
            reservation.cover(room).await?;
            pieces.paused(asked.elapsed());
            bytes.reserve_exact(room as usize - bytes.len());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Received {
        bytes: bytes.into(),
        reservation,
    })
}

/// A body as it arrives.
pub struct Pieces {
    stream: Option<BodyDataStream>,
    declared: Option<u64>,
    bound: Bound,
    received: u64,
    start: Instant,
}

impl Pieces {
    /// The body of a request. A declared length over the bound is for [`receive`] or
    /// [`refuse_declared`] to refuse.
    pub fn new(headers: &HeaderMap, body: Body, bound: Bound) -> Self {
        Self {
            stream: Some(body.into_data_stream()),
            declared: content_length(headers),
            bound,
            received: 0,
            start: Instant::now(),
        }
    }

    /// The next piece; `None` behind the last one.
    ///
    /// # Errors
    /// [`Problem`] when the body is too long, too slow, or ends early.
    pub async fn next(&mut self, app: &App) -> Result<Option<Bytes>, Problem> {
        let due = self.start + app.idle + Duration::from_secs(self.received / PACE);
        let deadline = due.min(Instant::now() + app.idle);
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let piece = match timeout_at(deadline, stream.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(None) if self.declared.is_none_or(|length| length == self.received) => {
                self.stream = None;
                return Ok(None);
            }
            Ok(Some(Err(_)) | None) => return Err(Problem::incomplete_body()),
            Err(_) => return Err(Problem::slow_body()),
        };
        self.received += piece.len() as u64;
        if self.received > self.bound.bytes {
            if let Some(stream) = self.stream.take() {
                discard(app, stream);
            }
            return Err((self.bound.exceeded)(self.bound.bytes));
        }
        Ok(Some(piece))
    }

    /// True once the last piece was read.
    pub fn is_over(&self) -> bool {
        self.stream.is_none()
    }

    /// Takes note of a pause for which the client is not to blame.
    pub fn paused(&mut self, time: Duration) {
        self.start += time;
    }
}

/// Reads a small JSON body, whatever its content type; nothing at all counts as `{}`.
///
/// # Errors
/// [`Problem`] as [`receive`], or when it is not JSON of the expected form.
pub async fn receive_json<T: DeserializeOwned>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let bound = Bound {
        bytes: ORDER_BYTES_MAX,
        exceeded: Problem::body_too_large,
    };
    let received = receive(app, headers, body, bound).await?;
    let json: &[u8] = match &received.bytes[..] {
        [] => b"{}",
        json => json,
    };
    from_json(json).map_err(|mistake| Problem::bad_json(&mistake))
}

/// Reads on for a while, keeping nothing, while the refusal is on its way: a client that is still
/// sending when the connection closes loses the answer.
fn discard(app: &App, mut pieces: BodyDataStream) {
    let (idle, shutdown) = (app.idle.min(DISCARD_TIME), app.shutdown.clone());
    task::spawn(async move {
        let surplus = async {
            let mut left = DISCARD_BYTES;
            while let Some(Ok(piece)) = pieces.next().await {
                left = left.saturating_sub(piece.len());
                if left == 0 {
                    break;
                }
            }
        };
        let bounded = timeout(idle, surplus);
        shutdown.run_until_cancelled(bounded).await
    });
}

/// The length that a request declares.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
