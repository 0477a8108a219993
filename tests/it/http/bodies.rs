//! Bodies: too long, too slow, broken off, compressed, and more of them than memory allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use samestate::delta::compress::compress;
use samestate::http::app::HttpOptions;
use samestate::http::budget::Budget;
use samestate::http::outgoing;
use samestate::replica::staging::staged;
use tokio::time::{sleep, timeout};

use crate::http::{Face, STATE_BYTES};

const A: &str = "/v1/ns/default/states/a";
const LARGEST: usize = STATE_BYTES as usize;

/// A body of unknown length.
fn pieces(pieces: Vec<Result<Bytes, std::io::Error>>) -> Body {
    Body::from_stream(stream::iter(pieces))
}

fn zeros(length: usize) -> Bytes {
    vec![0; length].into()
}

fn broken() -> std::io::Error {
    std::io::ErrorKind::UnexpectedEof.into()
}

#[tokio::test]
async fn pages_wait_for_memory_before_they_are_read() {
    let face = Face::with(HttpOptions {
        in_flight_bytes: 4 << 20,
        admission: Duration::from_millis(1),
        ..HttpOptions::default()
    });
    face.put("a", "x").await.ok(201);
    let pages = ["states", "changes", "conflicts", "roots"];
    let [small, large] = [1 << 20, 3 << 20].map(|bytes| face.app.downloads.try_reserve(bytes));
    assert!(small.is_some() && large.is_some());
    for page in pages {
        for limit in [1, 1000, 10_000] {
            let path = format!("/v1/ns/default/{page}?limit={limit}");
            face.get(&path).await.problem(503, "overloaded");
        }
    }
    drop((small, large));
    for page in pages {
        let reply = face.get(&format!("/v1/ns/default/{page}")).await;
        reply.ok(200);
    }
    assert!(
        face.app.downloads.try_reserve(3 << 20).is_some(),
        "all came back"
    );
}

/// Waits until it is so.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_waits_for_any_more_leaves_no_stage() {
    let face = Face::of_large_states();
    let namespace = face.namespace();
    let stages = || staged(&namespace.view()).0;
    let (size, body) = (6 << 20, zeros(6 << 20));
    let length = format!("Content-Length: {size}");
    let headers = [length.as_str()];
    tokio::select! {
        reply = face.send(Method::PUT, A, &headers, body) => panic!("too soon: {}", reply.status),
        () = until(|| stages() > 0) => {}
    }
    until(|| stages() == 0).await;
    face.get(A).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_largest_state_fits_and_one_byte_more_does_not() {
    let face = Face::new();
    let put = async |body: Body| face.send(Method::PUT, A, &[], body).await;
    let halves = || vec![Ok(zeros(LARGEST / 2)), Ok(zeros(LARGEST / 2))];
    put(pieces(halves())).await.ok(201);
    let more = [halves(), vec![Ok(zeros(1))]].into_iter().flatten();
    let refused = put(pieces(more.collect()))
        .await
        .problem(413, "state_too_large");
    assert_eq!(refused["limit"], STATE_BYTES);
    put(zeros(LARGEST).into()).await.ok(200);
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_the_body_is_read() {
    let face = Face::new();
    let touched = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&touched);
    let body = stream::poll_fn(move |_| {
        seen.store(true, Ordering::SeqCst);
        std::task::Poll::Ready(None::<Result<Bytes, std::io::Error>>)
    });
    let length = format!("Content-Length: {}", LARGEST + 1);
    let reply = face
        .send(Method::PUT, A, &[&length], Body::from_stream(body))
        .await;
    reply.problem(413, "state_too_large");
    assert!(!touched.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_body_that_ends_early_stores_nothing() {
    let face = Face::new();
    let cut = vec![Ok(zeros(5)), Err(broken())];
    let short = vec![Ok(zeros(5))];
    for (headers, body) in [(vec![], cut), (vec!["Content-Length: 10"], short)] {
        let reply = face.send(Method::PUT, A, &headers, pieces(body)).await;
        reply.problem(400, "incomplete_body");
    }
    face.get(A).await.problem(404, "not_found");
    assert_eq!(face.get("/v1/ns/default/root").await.json()["seq"], 0);
}

#[tokio::test]
async fn a_client_that_falls_silent_is_not_waited_for() {
    let face = Face::with(HttpOptions {
        idle: Duration::from_millis(1),
        ..HttpOptions::default()
    });
    let silent = stream::pending::<Result<Bytes, std::io::Error>>();
    let reply = face
        .send(Method::PUT, A, &[], Body::from_stream(silent))
        .await;
    reply.problem(408, "upload_timeout");
}

#[tokio::test]
async fn memory_is_shared_out_and_comes_back() {
    let face = Face::with(HttpOptions {
        in_flight_bytes: STATE_BYTES,
        admission: Duration::from_millis(1),
        ..HttpOptions::default()
    });
    let put = async |length| face.send(Method::PUT, A, &[], zeros(length)).await;
    put(LARGEST).await.ok(201);
    let held = face.app.uploads.try_reserve(STATE_BYTES / 2).unwrap();
    put(LARGEST).await.problem(503, "overloaded");
    let chunks = (0..LARGEST / 1024).map(|_| Ok(zeros(1024)));
    let chunked = face
        .send(Method::PUT, A, &[], pieces(chunks.collect()))
        .await;
    chunked.problem(503, "overloaded");
    // Small bodies do not wait for large ones.
    put(1024).await.ok(200);
    drop(held);
    put(LARGEST).await.ok(200);

    let get = || Request::get(A).body(Body::empty()).unwrap();
    let unread = face.answer(get()).await;
    assert_eq!(unread.status(), 200);
    face.get(A).await.problem(503, "overloaded");
    let head = face.send(Method::HEAD, A, &[], Body::empty()).await;
    assert_eq!(
        head.status, 200,
        "without the bytes there is nothing to wait for"
    );
    drop(unread);
    assert_eq!(face.get(A).await.body.len(), LARGEST);
    assert!(face.app.downloads.try_reserve(STATE_BYTES).is_some());
    assert!(face.app.uploads.try_reserve(STATE_BYTES).is_some());
}

#[tokio::test]
async fn a_length_that_is_only_declared_takes_no_memory() {
    let face = Face::with(HttpOptions {
        in_flight_bytes: STATE_BYTES,
        admission: Duration::from_millis(1),
        ..HttpOptions::default()
    });
    let length = format!("Content-Length: {LARGEST}");
    let silent = stream::pending::<Result<Bytes, std::io::Error>>();
    let headers = [length.as_str()];
    let silent = face.send(Method::PUT, A, &headers, Body::from_stream(silent));
    tokio::select! {
        biased;
        reply = silent => panic!("{}", reply.status),
        reply = face.send(Method::PUT, A, &[], zeros(LARGEST)) => reply.ok(201),
    };
}

#[tokio::test]
async fn a_client_that_stops_reading_holds_no_memory() {
    const LENGTH: u64 = 4 << 20;
    let budget = Budget::new(LENGTH, Duration::from_secs(60));
    let take = async |idle| {
        let share = budget.reserve(LENGTH).await.unwrap();
        let body = outgoing::body(zeros(LENGTH as usize), share, idle);
        body.into_data_stream()
    };
    let mut stalled = take(Duration::from_millis(1)).await;
    let first = stalled.next().await.unwrap().unwrap();
    assert!(first.len() < LENGTH as usize);
    drop(budget.reserve(LENGTH).await.unwrap());
    let rest: Vec<_> = stalled.collect().await;
    assert!(rest.last().unwrap().is_err(), "it must not pass for whole");

    let taken: Vec<_> = take(Duration::from_secs(60)).await.collect().await;
    let taken = taken.into_iter().map(|piece| piece.unwrap().len());
    assert_eq!(taken.sum::<usize>(), LENGTH as usize);
    assert!(budget.try_reserve(LENGTH).is_some());
}

#[tokio::test]
async fn compressed_states_are_stored_as_what_they_hold() {
    let face = Face::new();
    let put = async |coding: &str, body: Vec<u8>| {
        let coding = format!("Content-Encoding: {coding}");
        face.send(Method::PUT, A, &[&coding], body).await
    };
    let text = b"a state that repeats itself ".repeat(40);
    let receipt = put("zstd", compress(&text, 3).unwrap()).await.ok(201);
    assert_eq!(receipt["size"], text.len());
    assert_eq!(face.get(A).await.body, text);
    let largest = compress(&zeros(LARGEST), 3).unwrap();
    assert!(
        (largest.len() as u64) * 16 < STATE_BYTES,
        "it needs the second attempt"
    );
    assert_eq!(put("zstd", largest).await.ok(200)["size"], STATE_BYTES);
    let bomb = compress(&zeros(LARGEST + 1), 3).unwrap();
    put("zstd", bomb).await.problem(413, "state_too_large");
    put("zstd", b"no frame".to_vec())
        .await
        .problem(400, "bad_content_encoding");
    put("gzip", vec![1])
        .await
        .problem(415, "unsupported_content_encoding");
    assert_eq!(put("identity", vec![1]).await.ok(200)["size"], 1);
}

#[tokio::test]
async fn what_is_not_there_yet_is_said_and_what_is_wrong_is_named() {
    let face = Face::new();
    for query in ["replicas=2", "timeout=5s"] {
        let reply = face.put(&format!("a?{query}"), "x").await;
        let problem = reply.problem(400, "not_supported");
        let name = query.split('=').next().unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(name),
            "{problem}"
        );
        face.delete(&format!("{A}?{query}"))
            .await
            .problem(400, "not_supported");
    }
    let problem = face.put("a?tll=30m", "x").await.problem(400, "bad_query");
    assert!(
        problem["detail"].as_str().unwrap().contains("tll"),
        "{problem}"
    );
    for media_type in ["", &"x".repeat(256)] {
        let header = format!("Content-Type: {media_type}");
        let reply = face.send(Method::PUT, A, &[&header], "x").await;
        reply.problem(400, "bad_content_type");
    }
    face.get(A).await.problem(404, "not_found");
}
