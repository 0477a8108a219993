//! Times to live, and states as they were at some time.

use axum::http::Method;
use samestate::clock::WallClock;
use samestate::clock::rfc3339;
use serde_json::json;

use crate::harness::replica::TestClock;
use crate::http::Face;

const A: &str = "/v1/ns/default/states/a";

#[tokio::test]
async fn a_state_with_a_time_to_live_is_gone_for_every_reader_when_it_is_over() {
    let clock = TestClock::new();
    let face = Face::at(clock.clone());
    let receipt = face.put("a?ttl=30m", "lobby").await.ok(201);
    face.put("b", "stays").await.ok(201);
    let got = face.get(A).await;
    assert_eq!((got.status, got.text()), (200, "lobby"));
    let over = clock.now_millis() + 30 * 60_000;
    assert_eq!(got.header("samestate-expires"), rfc3339(over));
    let tag = format!("If-Match: {}", receipt["etag"].as_str().unwrap());
    let hash = receipt["content_hash"].as_str().unwrap().to_owned();
    let listed = face.get("/v1/ns/default/states").await.ok(200);
    assert_eq!(listed["states"][0]["expires_at"], over);
    assert_eq!(listed["states"][1].get("expires_at"), None);

    clock.advance(30 * 60_000 - 1);
    assert_eq!(face.get(A).await.status, 200);
    clock.advance(1);
    let gone = face.get(A).await.problem(404, "not_found");
    assert!(
        gone["detail"].as_str().unwrap().contains("has expired"),
        "{gone}"
    );
    assert_eq!(face.send(Method::HEAD, A, &[], "").await.status, 404);
    for version in [format!("{A}?version={hash}"), format!("{A}?at=-1m")] {
        face.get(&version).await.problem(404, "not_found");
    }
    let listed = face.get("/v1/ns/default/states").await.ok(200);
    assert_eq!(listed["states"].as_array().unwrap().len(), 1);
    let changes = face.get("/v1/ns/default/changes").await.ok(200);
    let change = &changes["changes"][0];
    assert_eq!(
        (&change["id"], &change["deleted"]),
        (&json!("a"), &json!(true))
    );
    assert_eq!(change["content_hash"], json!(null));
    let history = face.get("/v1/ns/default/history/a").await.ok(200);
    assert_eq!(history["versions"][0]["expires_at"], over);
    face.send(Method::PUT, A, &[&tag], "x")
        .await
        .problem(412, "precondition_failed");
    face.delete(A).await.problem(404, "not_found");
    let order = json!({"version": hash}).to_string();
    face.post("/v1/ns/default/restore/a", order)
        .await
        .problem(404, "not_found");

    let receipt = face
        .send(Method::PUT, A, &["If-None-Match: *"], "again")
        .await;
    receipt.ok(201);
    let got = face.get(A).await;
    assert_eq!((got.text(), got.header("samestate-expires")), ("again", ""));
}

#[tokio::test]
async fn times_to_live_that_are_none_are_refused_with_what_is_expected() {
    let face = Face::new();
    for bad in [
        "",
        "30",
        "0s",
        "-1m",
        "1.5h",
        "1w",
        "3651d",
        "30M",
        "99999999999999999999d",
    ] {
        let problem = face
            .put(&format!("a?ttl={bad}"), "x")
            .await
            .problem(400, "bad_ttl");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("unit ms, s, m, h or d, from 1ms to 3650d")
                && detail.ends_with(&format!("got {bad:?}")),
            "{detail}"
        );
        let line = json!({"op": "put", "id": "a", "content": "", "ttl": bad}).to_string();
        let problem = face
            .post("/v1/ns/default/batch", line)
            .await
            .problem(400, "bad_ttl");
        assert_eq!(problem["line"], 1);
    }
    face.get(A).await.problem(404, "not_found");
    let problem = face
        .delete(&format!("{A}?ttl=1h"))
        .await
        .problem(400, "bad_query");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("ttl goes with PUT"),
        "{problem}"
    );
    for good in ["1ms", "90s", "36h", "3650d"] {
        face.put(&format!("a?ttl={good}"), "x").await;
    }
    let line = json!({"op": "put", "id": "b", "content": "aGk=", "ttl": "1h"}).to_string();
    face.post("/v1/ns/default/batch", line).await.ok(200);
    assert_ne!(
        face.get("/v1/ns/default/states/b")
            .await
            .header("samestate-expires"),
        ""
    );
}

#[tokio::test]
async fn a_state_is_read_as_it_was_at_some_time() {
    let clock = TestClock::new();
    let face = Face::at(clock.clone());
    let begin = clock.now_millis();
    clock.advance(1000);
    face.put("a", "one").await.ok(201);
    clock.advance(60_000);
    face.put("a?ttl=1m", "two").await.ok(200);
    clock.advance(120_000);
    face.put("a", "three").await.ok(201);
    clock.advance(60_000);
    face.delete(A).await;
    clock.advance(60_000);
    let at = |millis: u64| format!("{A}?at={}", rfc3339(begin + millis));
    for (millis, text) in [
        (1000, "one"),
        (60_999, "one"),
        (181_000, "three"),
        (240_999, "three"),
    ] {
        let got = face.get(&at(millis)).await;
        assert_eq!((got.status, got.text()), (200, text), "{millis}");
        assert_eq!(got.header("etag").len(), 66, "the version's own tag");
    }
    assert_eq!(face.get(&format!("{A}?at=-61s")).await.text(), "three");
    for (millis, said) in [
        (999, "not kept any more"),
        (61_000, "has expired since"),
        (121_000, "had expired at"),
        (241_000, "was deleted at"),
        (999_000, "was deleted at"),
    ] {
        let problem = face.get(&at(millis)).await.problem(404, "not_found");
        assert!(
            problem["detail"].as_str().unwrap().contains(said),
            "{millis}: {problem}"
        );
    }
}

#[tokio::test]
async fn times_that_are_none_are_refused_with_what_is_expected() {
    let face = Face::new();
    for bad in [
        "",
        "now",
        "-10",
        "10m",
        "2026-01-31",
        "1700000000000",
        "2026-13-01T00:00:00Z",
    ] {
        let problem = face
            .get(&format!("{A}?at={bad}"))
            .await
            .problem(400, "bad_query");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("(RFC 3339; write + as %2B), or how long ago")
                && detail.ends_with(&format!("got {bad:?}")),
            "{detail}"
        );
    }
    let both = format!("{A}?at=-1m&version={}", "0".repeat(64));
    face.get(&both).await.problem(400, "bad_query");
    face.get("/v1/ns/default/states/none?at=-1m")
        .await
        .problem(404, "not_found");
}
