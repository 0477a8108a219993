//! Connections: not more than there are places for, and none for clients that do nothing.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse;
use axum::serve::Listener;
use samestate::http::listener::{BoundedListener, Patience, PerConnection, places};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tower::service_fn;

const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(3600);

async fn bounded(places: usize, patience: Patience) -> (BoundedListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = BoundedListener::new(listener, places, patience, Arc::default());
    (listener, address)
}

/// A server whose only answer takes longer than connections are waited for.
async fn serve(places: usize, patience: Patience) -> SocketAddr {
    let (listener, address) = bounded(places, patience).await;
    let slow = service_fn(|_: Request| {
        Box::pin(async {
            sleep(SOON * 5).await;
            Ok::<_, Infallible>("done".into_response())
        })
    });
    tokio::spawn(axum::serve(listener, PerConnection(slow)).into_future());
    address
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // A connection may also end in a reset, after what was sent.
    drop(stream.read_to_string(&mut text).await);
    text
}

#[tokio::test]
async fn silent_connections_make_room_and_slow_answers_arrive() {
    let patience = Patience {
        first: SOON,
        next: SOON,
        stalled: LATE,
    };
    let address = serve(1, patience).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let mut dawdling = TcpStream::connect(address).await.unwrap();
    let mut asking = TcpStream::connect(address).await.unwrap();
    dawdling.write_all(b"GET / HT").await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    asking.write_all(request).await.unwrap();
    assert_eq!(read_to_end(silent).await, "");
    assert_eq!(read_to_end(dawdling).await, "");
    // It ends by itself, since no other request follows.
    let answer = read_to_end(asking).await;
    assert!(answer.ends_with("done"), "{answer}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let patience = Patience {
        first: LATE,
        next: LATE,
        stalled: SOON,
    };
    let (mut listener, address) = bounded(1, patience).await;
    let _client = TcpStream::connect(address).await.unwrap();
    let (mut connection, _) = listener.accept().await;
    let piece = vec![0; 1 << 20];
    let error = loop {
        if let Err(error) = connection.write_all(&piece).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn there_are_places() {
    assert!((1..=4096).contains(&places()));
}
