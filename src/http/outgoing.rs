//! Bodies of answers, handed over in pieces: a client that stops reading holds no memory for long.

use std::io;
use std::mem;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc::{self, Sender};
use tokio::task;
use tokio::time::timeout;

use crate::http::app::App;
use crate::http::budget::Reservation;
use crate::http::problem::Problem;

/// Bytes a piece. A client has to take one in the time of one pause.
const PIECE: usize = 256 << 10;

/// Memory for an item of a page, in bytes: its row while it is read, and its text. Few take more.
const ITEM: u64 = 1 << 10;

/// Waits for a share for a page of at most so many items.
///
/// # Errors
/// [`Problem`] `overloaded` when there was none in time.
pub async fn page_share(app: &App, items: usize) -> Result<Reservation, Problem> {
    app.downloads.reserve(items as u64 * ITEM).await
}

/// A page as JSON, with the share that was waited for before it was read.
///
/// # Errors
/// [`Problem`] `overloaded` when it is longer than expected, and there is no memory for that in time.
pub async fn page(
    app: &App,
    mut share: Reservation,
    page: &impl Serialize,
) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(page).map_err(|_| Problem::unexpected())?;
    share.cover(bytes.len() as u64).await?;
    share.shrink(bytes.len());
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONTENT_LENGTH, HeaderValue::from(bytes.len())),
    ];
    Ok((head, body(bytes.into(), share, app.idle)).into_response())
}

/// A body of these bytes. Their share is given back when all but the last piece are handed over,
/// or when the client took none for `idle`; that of the last piece once it is sent.
pub fn body(bytes: Bytes, share: Reservation, idle: Duration) -> Body {
    if bytes.len() <= PIECE {
        return Body::from(share.hold(bytes.into()));
    }
    let mut left = bytes.len();
    let (pieces, mut handed) = mpsc::channel(1);
    task::spawn(hand_over(bytes, share, idle, pieces));
    Body::from_stream(stream::poll_fn(move |context| {
        handed.poll_recv(context).map(|piece: Option<Bytes>| {
            let Some(piece) = piece else {
                // What ends early must not pass for the whole.
                let lacks = mem::take(&mut left) > 0;
                return lacks.then(|| Err(io::Error::from(io::ErrorKind::TimedOut)));
            };
            left -= piece.len();
            Some(Ok(piece))
        })
    }))
}

/// Hands over copies: a piece that waits in a connection must not keep all the others in memory.
async fn hand_over(mut rest: Bytes, share: Reservation, idle: Duration, pieces: Sender<Bytes>) {
    while rest.len() > PIECE {
        let piece = Bytes::copy_from_slice(&rest.split_to(PIECE));
        let Ok(Ok(())) = timeout(idle, pieces.send(piece)).await else {
            return;
        };
    }
    let last = share.hold(rest.to_vec());
    drop(rest);
    // Whether the client takes it is all the same here: nothing is left to be given back.
    drop(timeout(idle, pieces.send(last)).await);
}
