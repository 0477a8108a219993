//! Bodies of answers, handed over in pieces: a client that stops reading holds no memory for long.

use std::io;
use std::mem;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc::{self, Sender};
use tokio::task;
use tokio::time::timeout;

use crate::http::budget::Reservation;

/// Bytes a piece. A client has to take one in the time of one pause.
const PIECE: usize = 256 << 10;

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
