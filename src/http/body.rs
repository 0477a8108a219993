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
    let declared = content_length(headers);
    if declared.is_some_and(|declared| declared > bound.bytes) {
        // Whoever asks first has not begun to send; reading would tell it to go ahead.
        if !headers.contains_key(EXPECT) {
            discard(app, body.into_data_stream());
        }
        return Err((bound.exceeded)(bound.bytes));
    }
    let mut reservation = app.uploads.reserve(0).await?;
    let mut bytes = Vec::new();
    let mut pieces = body.into_data_stream();
    let mut start = Instant::now();
    loop {
        let due = start + app.idle + Duration::from_secs(bytes.len() as u64 / PACE);
        let deadline = due.min(Instant::now() + app.idle);
        let piece = match timeout_at(deadline, pieces.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(_))) => return Err(Problem::incomplete_body()),
            Ok(None) => break,
            Err(_) => return Err(Problem::slow_body()),
        };
        let length = bytes.len() as u64 + piece.len() as u64;
        if length > bound.bytes {
            discard(app, pieces);
            return Err((bound.exceeded)(bound.bytes));
        }
        if length > bytes.capacity() as u64 {
            // A length that is only declared must not keep others out: at most twice what came.
            let most = declared.unwrap_or(bound.bytes);
            let room = (length * 2).min(most).max(length);
            let asked = Instant::now();
            reservation.cover(room).await?;
            // The client is not to blame for this pause.
            start += asked.elapsed();
            bytes.reserve_exact(room as usize - bytes.len());
        }
        bytes.extend_from_slice(&piece);
    }
    if declared.is_some_and(|declared| declared != bytes.len() as u64) {
        return Err(Problem::incomplete_body());
    }
    Ok(Received {
        bytes: bytes.into(),
        reservation,
    })
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
    serde_json::from_slice(json).map_err(|error| Problem::bad_json(&error))
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

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
