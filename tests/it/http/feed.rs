//! The change feed: pages, long polls, streams of events.

use axum::body::Body;
use axum::http::{Method, Request};
use futures_util::StreamExt;
use serde_json::Value;

use crate::http::Face;

const CHANGES: &str = "/v1/ns/default/changes";

fn seqs(page: &Value) -> Vec<u64> {
    let changes = page["changes"].as_array().unwrap();
    changes
        .iter()
        .map(|change| change["seq"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn each_changed_state_is_told_once_with_its_newest_seq() {
    let face = Face::new();
    for id in ["a", "b", "a", "c"] {
        face.put(id, "x").await;
    }
    face.delete("/v1/ns/default/states/b").await;
    let all = face.get(CHANGES).await.ok(200);
    assert_eq!(seqs(&all), [3, 4, 5]);
    assert_eq!(all["changes"][0]["id"], "a");
    assert_eq!(all["changes"][0]["size"], 1);
    let read = face.get("/v1/ns/default/states/a").await;
    assert_eq!(all["changes"][0]["etag"], read.header("etag"));
    assert_eq!(
        all["changes"][0]["content_hash"],
        read.header("samestate-version")
    );
    let deleted = &all["changes"][2];
    assert_eq!(
        (&deleted["id"], &deleted["deleted"]),
        (&"b".into(), &true.into())
    );
    assert!(deleted["content_hash"].is_null());

    let first = face.get(&format!("{CHANGES}?limit=2")).await.ok(200);
    assert_eq!(seqs(&first), [3, 4]);
    let next = first["next"].as_str().unwrap();
    let second = face.get(&format!("{CHANGES}?since={next}")).await.ok(200);
    assert_eq!(seqs(&second), [5]);
    assert_eq!(second["next"], all["next"]);
    let next = second["next"].as_str().unwrap();
    let end = face.get(&format!("{CHANGES}?since={next}")).await.ok(200);
    assert_eq!((seqs(&end).len(), end["next"].as_str()), (0, Some(next)));
}

#[tokio::test]
async fn cursors_of_another_life_are_refused() {
    let face = Face::new();
    face.put("a", "x").await;
    let epoch = face.get("/v1/ns/default/root").await.json()["epoch"].clone();
    let epoch = epoch.as_str().unwrap();
    for expired in ["00000000000000ab-0".to_owned(), format!("{epoch}-2")] {
        face.get(&format!("{CHANGES}?since={expired}"))
            .await
            .problem(410, "cursor_expired");
        let resumed = [
            &*format!("Last-Event-ID: {expired}"),
            "Accept: text/event-stream",
        ];
        let stream = face
            .send(Method::GET, CHANGES, &resumed, Body::empty())
            .await;
        stream.problem(410, "cursor_expired");
    }
    face.get(&format!("{CHANGES}?since=12"))
        .await
        .problem(400, "bad_cursor");
    face.get(&format!("{CHANGES}?wait=soon"))
        .await
        .problem(400, "bad_query");
}

#[tokio::test]
async fn a_long_poll_ends_with_a_change_with_its_time_or_with_the_server() {
    let face = Face::new();
    face.put("a", "x").await;
    let cursor = face.get(CHANGES).await.json()["next"].clone();
    let path = |wait| format!("{CHANGES}?since={}&wait={wait}", cursor.as_str().unwrap());
    let (path, quiet) = (path("60s"), path("5ms"));
    let (woken, _) = tokio::join!(biased; face.get(&path), face.put("b", "x"));
    assert_eq!(seqs(&woken.ok(200)), [2]);

    let since = woken.json()["next"].as_str().unwrap().to_owned();
    let path = format!("{CHANGES}?since={since}&wait=5ms");
    assert_eq!(seqs(&face.get(&path).await.ok(200)), [0; 0]);
    assert_eq!(seqs(&face.get(&quiet).await.ok(200)), [2]);
    let path = format!("{CHANGES}?since={since}&wait=60s");
    let (ended, ()) = tokio::join!(biased; face.get(&path), async { face.app.shutdown.cancel() });
    assert_eq!(ended.ok(200)["next"], since);
}

#[tokio::test]
async fn a_stream_tells_changes_as_events_until_the_server_stops() {
    let face = Face::new();
    face.put("a", "x").await;
    face.put("b", "x").await;
    let cursor = face.get(&format!("{CHANGES}?limit=1")).await.json()["next"].clone();
    let request = Request::get(CHANGES)
        .header("Accept", "text/event-stream")
        .header("Last-Event-ID", cursor.as_str().unwrap());
    let response = face.answer(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let mut event = async || String::from_utf8(stream.next().await?.unwrap().to_vec()).ok();
    let first = event().await.unwrap();
    face.put("c", "x").await;
    let second = event().await.unwrap();
    for (event, id, seq) in [(first, "b", 2), (second, "c", 3)] {
        let field = |name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.strip_prefix(": ")).unwrap()
        };
        assert_eq!(field("event"), "change");
        assert!(field("id").ends_with(&format!("-{seq}")), "{event}");
        let change: Value = serde_json::from_str(field("data")).unwrap();
        assert_eq!((&change["id"], &change["seq"]), (&id.into(), &seq.into()));
    }
    face.app.shutdown.cancel();
    assert_eq!(event().await, None);
}
