//! Peers, sessions that users ask for, and the messages of the replication protocol.

use std::time::Duration;

use axum::http::Method;
use samestate::http::app::HttpOptions;
use samestate::reconcile::strategy::StrategyName;
use samestate::types::hash::NodeHash;
use samestate::types::id::ReplicaId;
use samestate::types::seen::Seen;
use samestate::wire::frame::{open, seal};
use samestate::wire::messages::{CloseRequest, Endpoint, OpenReply, OpenRequest, Testimony};
use serde_json::json;

use crate::harness::replica::stranger;
use crate::http::{Face, Reply};

const RUN: &str = "/v1/ns/default/sync/run";
const DIFF: &str = "/v1/ns/default/sync/diff";

#[tokio::test]
async fn peers_are_listed_changed_and_forgotten() {
    let face = Face::new();
    let put = async |name: &str, body: &str| {
        let path = format!("/v1/peers/{name}");
        face.send(Method::PUT, &path, &[], body.to_owned()).await
    };
    assert_eq!(
        put("eu", r#"{"url":"http://a"}"#).await.ok(201)["url"],
        "http://a"
    );
    assert_eq!(
        put("eu", r#"{"url":"http://b"}"#).await.ok(200)["url"],
        "http://b"
    );
    let listed = face.get("/v1/peers").await.ok(200);
    assert_eq!(listed["peers"].as_array().unwrap().len(), 1);
    assert_eq!(listed["peers"][0]["name"], "eu");
    put("eu", r#"{"uri":"http://b"}"#)
        .await
        .problem(400, "bad_json");
    put("eu", "url").await.problem(400, "bad_json");
    put("eu", &" ".repeat((64 << 10) + 1))
        .await
        .problem(413, "body_too_large");
    put("bad_name", r#"{"url":""}"#)
        .await
        .problem(400, "bad_peer_name");
    put("eu", r#"{"url":"bad_url"}"#)
        .await
        .problem(400, "bad_peer_url");
    put("surplus", r#"{"url":""}"#)
        .await
        .problem(409, "too_many_peers");
    assert_eq!(face.delete("/v1/peers/eu").await.status, 204);
    face.delete("/v1/peers/eu")
        .await
        .problem(404, "peer_not_found");
}

#[tokio::test]
async fn sessions_run_as_they_are_ordered() {
    let face = Face::new();
    let order = json!({"from": "http://peer", "pull": true, "push": true, "strategy": "list"});
    assert_eq!(
        face.post(RUN, order.to_string()).await.ok(200)["outcome"],
        "complete"
    );
    face.post(RUN, r#"{"from":"eu","strategy":"auto"}"#)
        .await
        .ok(200);
    face.post(RUN, r#"{"from":"eu","push":true}"#).await.ok(200);
    let diff = face.post(DIFF, r#"{"peer":"eu"}"#).await.ok(200);
    assert_eq!(
        diff["differences"],
        json!([{"id": "a", "key": "00", "left": "11"}])
    );
    let sync = "/v1/peers/eu/sync";
    face.post(sync, "").await.problem(404, "peer_not_found");
    face.send(Method::PUT, "/v1/peers/eu", &[], r#"{"url":"http://a"}"#)
        .await
        .ok(201);
    face.post(sync, "").await.ok(200);
    face.post(sync, r#"{"pull":false,"namespace":"us"}"#)
        .await
        .ok(200);

    let asked = face.peering.asked.lock().unwrap();
    let told: Vec<_> = asked
        .iter()
        .map(|asked| {
            (
                asked.peer.as_str(),
                asked.namespace.as_str(),
                asked.pull,
                asked.push,
            )
        })
        .collect();
    let expected = [
        ("http://peer", "default", true, true),
        ("eu", "default", true, false),
        ("eu", "default", false, true),
        ("eu", "default", true, true),
        ("eu", "us", false, true),
    ];
    assert_eq!(told, expected);
    assert_eq!(asked[0].strategy, Some(StrategyName::List));
    assert!(asked[1..].iter().all(|asked| asked.strategy.is_none()));
}

#[tokio::test]
async fn what_peers_cannot_do_is_a_problem() {
    let face = Face::new();
    for (peer, status, code) in [
        ("busy", 429, "too_many_sessions"),
        ("banned", 503, "peer_banned"),
        ("failed", 502, "peer_failed"),
        ("panicked", 500, "internal"),
        ("stopping", 503, "shutting_down"),
        ("elsewhere", 404, "namespace_not_found"),
        ("unknown", 404, "peer_not_found"),
    ] {
        let run = face.post(RUN, json!({"from": peer}).to_string()).await;
        run.problem(status, code);
        if peer == "banned" {
            assert_eq!(run.header("retry-after"), "7");
        }
        face.post(DIFF, json!({"peer": peer}).to_string())
            .await
            .problem(status, code);
    }
    face.post(RUN, r#"{"from":"eu","strategy":"magic"}"#)
        .await
        .problem(400, "bad_strategy");
    face.post(RUN, "{}").await.problem(400, "bad_json");
    face.post("/v1/ns/eu/sync/run", r#"{"from":"eu"}"#)
        .await
        .problem(404, "namespace_not_found");
}

async fn message(face: &Face, endpoint: Endpoint, frame: Vec<u8>) -> Reply {
    let path = format!("/v1/ns/default/sync/{}", endpoint.name());
    face.post(&path, frame).await
}

async fn open_session(face: &Face, replica: u64) -> Reply {
    let request = OpenRequest {
        replica: ReplicaId(replica),
        root: NodeHash([7; 32]),
        follows: false,
        lineage: stranger(),
        seq: 0,
        seen: None,
        testimony: Testimony::new(&NodeHash([7; 32]), Seen::default()),
    };
    message(
        face,
        Endpoint::Open,
        seal(Endpoint::Open.kind(), &request, &[]),
    )
    .await
}

#[tokio::test]
async fn messages_of_the_protocol_are_answered() {
    let face = Face::new();
    face.put("a", "x").await;
    let reply = open_session(&face, 1).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "application/octet-stream")
    );
    let (told, _): (OpenReply, _) = open(Endpoint::Open.kind(), &reply.body, 1 << 20).unwrap();
    assert_eq!(told.replica, face.app.replica.id());
    assert_eq!(told.seq, 1);
    assert!(told.session.is_some());
    for replica in 2..=16 {
        assert_eq!(open_session(&face, replica).await.status, 200);
    }
    open_session(&face, 17)
        .await
        .problem(429, "too_many_sessions");

    message(&face, Endpoint::Open, b"nonsense".to_vec())
        .await
        .problem(400, "bad_message");
    face.post("/v1/ns/default/sync/other", "")
        .await
        .problem(404, "unknown_message");
    let surplus = face.send(
        Method::POST,
        "/v1/ns/default/sync/open",
        &["Content-Length: 99999999999"],
        "",
    );
    surplus.await.problem(413, "body_too_large");
    let close = CloseRequest {
        session: 0,
        root: None,
        complete: false,
    };
    let close = seal(Endpoint::Close.kind(), &close, &[]);
    assert_eq!(message(&face, Endpoint::Close, close).await.status, 200);
}

#[tokio::test]
async fn messages_and_answers_count_against_the_bytes_in_flight() {
    let face = Face::with(HttpOptions {
        in_flight_bytes: 1 << 20,
        admission: Duration::from_millis(1),
        ..HttpOptions::default()
    });
    // Half a mebibyte once it is decompressed, and next to nothing before.
    let close = CloseRequest {
        session: 0,
        root: None,
        complete: false,
    };
    let kind = Endpoint::Close.kind();
    let (small, dense) = (seal(kind, &close, &[]), seal(kind, &close, &[0; 512 << 10]));
    assert!(dense.len() < 4096);
    let most = face.app.uploads.reserve(768 << 10).await.unwrap();
    let refused = message(&face, Endpoint::Close, dense.clone()).await;
    refused.problem(503, "overloaded");
    let taken = message(&face, Endpoint::Close, small.clone()).await;
    assert_eq!(taken.status, 200);
    drop(most);
    assert_eq!(message(&face, Endpoint::Close, dense).await.status, 200);

    // All that is kept for small ones.
    let all = face.app.downloads.reserve(256 << 10).await.unwrap();
    let refused = message(&face, Endpoint::Close, small.clone()).await;
    refused.problem(503, "overloaded");
    drop(all);
    assert_eq!(message(&face, Endpoint::Close, small).await.status, 200);
}

#[tokio::test]
async fn sessions_are_listed() {
    let face = Face::new();
    let log = face.app.replica.sessions();
    let report = log.begin("http://peer".into(), "default".into(), "00".into());
    let listed = face.get("/v1/sessions").await.ok(200);
    assert_eq!(listed["sessions"][0]["session"], report.session);
    assert_eq!(listed["sessions"][0]["outcome"], "running");
    assert_eq!(face.get("/v1/stats").await.ok(200)["sessions_running"], 1);
}
