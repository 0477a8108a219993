//! Many states at once: listings, batches, namespaces, totals.

use axum::body::Body;
use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Face, STATE_BYTES};

const STATES: &str = "/v1/ns/default/states";
const BATCH: &str = "/v1/ns/default/batch";

fn ids(page: &Value) -> Vec<&str> {
    let states = page["states"].as_array().unwrap();
    states
        .iter()
        .map(|state| state["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn listings_go_page_by_page_in_order() {
    let face = Face::new();
    for id in ["b/2", "a/1", "b/1", "c", "b/3", "b/4"] {
        face.put(id, id).await.ok(201);
    }
    face.delete(&format!("{STATES}/b/3")).await;
    let all = face.get(STATES).await.ok(200);
    assert_eq!(ids(&all), ["a/1", "b/1", "b/2", "b/4", "c"]);
    assert!(all["next"].is_null());
    let read = face.get(&format!("{STATES}/a/1")).await;
    let first = &all["states"][0];
    assert_eq!(first["etag"], read.header("etag"));
    assert_eq!(first["content_hash"], read.header("samestate-version"));
    assert_eq!(first["size"], 3);
    assert!(first["updated_at"].as_u64().unwrap() > 1_700_000_000_000);

    assert_eq!(
        ids(&face.get(&format!("{STATES}?prefix=b/")).await.ok(200)),
        ["b/1", "b/2", "b/4"]
    );
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = face
            .get(&format!("{STATES}?limit=2&prefix=b/{after}"))
            .await
            .ok(200);
        assert!(page["states"].as_array().unwrap().len() <= 2);
        found.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(found, ["b/1", "b/2", "b/4"]);
    face.get(&format!("{STATES}?limit=many"))
        .await
        .problem(400, "bad_query");
    face.get(&format!("{STATES}?prefx=b"))
        .await
        .problem(400, "bad_query");
}

#[tokio::test]
async fn a_streamed_listing_has_a_line_for_each_state() {
    let face = Face::new();
    let lines: Vec<String> = (0..2500)
        .map(|number| {
            json!({"op": "put", "id": format!("s/{number:04}"), "content": ""}).to_string()
        })
        .collect();
    face.post(BATCH, lines.join("\n")).await.ok(200);
    let accept = ["Accept: application/x-ndjson"];
    let all = face.send(Method::GET, STATES, &accept, Body::empty()).await;
    assert_eq!(all.header("content-type"), "application/x-ndjson");
    let found: Vec<Value> = all
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(found.len(), 2500);
    assert!((0..2500).all(|number| found[number]["id"] == format!("s/{number:04}")));
    let some = format!("{STATES}?prefix=s/1&after=s/1200&limit=1100");
    let some = face.send(Method::GET, &some, &accept, Body::empty()).await;
    assert_eq!(some.text().lines().count(), 799);
}

#[tokio::test]
async fn a_batch_happens_as_a_whole() {
    let face = Face::new();
    let tag = face.put("old", "x").await.header("etag").to_owned();
    let content = STANDARD.encode("zwei");
    let lines = [
        json!({"op": "put", "id": "a", "content": "", "if_none_match": "*"}),
        json!({"op": "put", "id": "b", "content": content, "content_type": "text/b"}),
        json!({"op": "put", "id": "b", "content": content, "if_match": "*"}),
        json!({"op": "delete", "id": "old", "if_match": tag}),
    ];
    let done = face
        .post(BATCH, lines.map(|line| line.to_string()).join("\n\n"))
        .await
        .ok(200);
    let seqs: Vec<_> = done["receipts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["seq"].clone())
        .collect();
    assert_eq!(seqs, [2, 3, 4, 5]);
    assert_eq!(done["seq"], 5);
    assert_eq!(
        done["root"],
        face.get("/v1/ns/default/root").await.json()["root"]
    );
    assert!(done["receipts"][3]["content_hash"].is_null());
    assert_eq!(face.get(&format!("{STATES}/b")).await.text(), "zwei");
    face.get(&format!("{STATES}/old"))
        .await
        .problem(404, "not_found");
}

/// Lines that make a batch fail, with the status and code that they get.
fn bad_lines() -> Vec<(Value, u16, &'static str)> {
    let put = |member: &str, value: Value| {
        let mut line = json!({"op": "put", "id": "b", "content": ""});
        line[member] = value;
        line
    };
    let large = STANDARD.encode(vec![0; STATE_BYTES as usize + 1]);
    vec![
        (json!("no object"), 400, "bad_batch"),
        (json!({"op": "put", "id": "b"}), 400, "bad_batch"),
        (put("op", "get".into()), 400, "bad_batch"),
        (put("ttl", 1.into()), 400, "bad_batch"),
        (put("ttl", "30".into()), 400, "bad_ttl"),
        (put("content", "?".into()), 400, "bad_batch"),
        (put("id", "".into()), 400, "bad_id"),
        (put("content_type", "".into()), 400, "bad_content_type"),
        (put("if_match", "x".into()), 400, "bad_header"),
        (put("if_none_match", "x".into()), 400, "bad_batch"),
        (put("content", large.into()), 413, "state_too_large"),
        (put("if_match", "*".into()), 412, "precondition_failed"),
        (json!({"op": "delete", "id": "b"}), 404, "not_found"),
    ]
}

#[tokio::test]
async fn a_batch_that_fails_names_the_line_and_does_nothing() {
    let face = Face::new();
    let good = json!({"op": "put", "id": "a", "content": ""}).to_string();
    for (bad, status, code) in bad_lines() {
        let reply = face.post(BATCH, format!("{good}\n{bad}\n")).await;
        let problem = reply.problem(status, code);
        assert_eq!(problem["line"], 2, "{bad}: {problem}");
    }
    let taken = json!({"op": "put", "id": "a", "content": "", "if_none_match": "*"});
    let same_id = face.post(BATCH, format!("{good}\n{good}\n\n{taken}"));
    let same_id = same_id.await.problem(412, "precondition_failed");
    assert_eq!(same_id["line"], 4);
    let cut = face.post(BATCH, format!("{good}\n\n{{")).await;
    assert_eq!(cut.problem(400, "bad_batch")["line"], 3);
    face.post(BATCH, "\n \n").await.problem(400, "bad_batch");
    let surplus = format!("{good}\n").repeat(10_001);
    let surplus = face.post(BATCH, surplus).await;
    surplus.problem(413, "batch_too_large");
    let long = face.post(BATCH, " ".repeat(8 << 20)).await;
    long.problem(413, "body_too_large");
    let root = face.get("/v1/ns/default/root").await.json();
    assert_eq!(root["seq"], 0);
}

#[tokio::test]
async fn namespaces_come_and_go() {
    let face = Face::new();
    let put = async |name: &str| {
        let path = format!("/v1/ns/{name}");
        face.send(Method::PUT, &path, &[], Body::empty()).await
    };
    put("eu").await.ok(201);
    put("eu").await.ok(200);
    put("us").await.ok(201);
    put("one-more").await.problem(409, "too_many_namespaces");
    put("Not-A-Name").await.problem(400, "bad_namespace");
    let there = "/v1/ns/eu/states/a";
    face.send(Method::PUT, there, &[], "x").await.ok(201);
    face.get("/v1/ns/us/states/a")
        .await
        .problem(404, "not_found");
    let listed = face.get("/v1/ns").await.ok(200);
    let names: Vec<_> = listed["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ns| &ns["name"])
        .collect();
    assert_eq!(names, ["default", "eu", "us"]);
    assert_eq!(listed["namespaces"][1]["count"], 1);

    face.delete("/v1/ns/eu")
        .await
        .problem(400, "confirmation_required");
    face.delete("/v1/ns/eu?confirm=us")
        .await
        .problem(400, "confirmation_required");
    assert_eq!(face.delete("/v1/ns/eu?confirm=eu").await.status, 204);
    face.delete("/v1/ns/eu?confirm=eu")
        .await
        .problem(404, "namespace_not_found");
    face.get(there).await.problem(404, "namespace_not_found");
    face.delete("/v1/ns/default?confirm=default")
        .await
        .problem(409, "default_namespace");
    put("eu").await.ok(201);
    face.get(there).await.problem(404, "not_found");
}

#[tokio::test]
async fn roots_and_totals_tell_what_is_held() {
    let face = Face::new();
    let root = "/v1/ns/default/root";
    let empty = face.get(root).await.ok(200);
    assert_eq!((&empty["count"], &empty["seq"]), (&0.into(), &0.into()));
    assert!(empty["latest_update"].is_null());
    face.put("a", "123").await;
    face.put("b", "45").await;
    face.put("b", "4").await;
    face.put("c", "").await;
    face.delete(&format!("{STATES}/c")).await;
    let told = face.get(root).await;
    let body = told.ok(200);
    for (name, value) in [("count", 2), ("total_size", 4), ("seq", 5)] {
        assert_eq!(body[name], value, "{name}");
    }
    assert_ne!(body["root"], empty["root"]);
    assert_eq!(body["epoch"], empty["epoch"]);
    assert_eq!(body["replica"], face.app.replica.id().to_string());
    assert!(body["latest_update"].as_str().unwrap().ends_with('Z'));
    let held = format!("If-None-Match: {}", told.header("etag"));
    let again = face.send(Method::GET, root, &[&held], Body::empty()).await;
    assert_eq!((again.status, again.body.len()), (304, 0));

    let stats = face.get("/v1/stats").await.ok(200);
    for (name, value) in [
        ("count", 2),
        ("total_size", 4),
        ("namespaces", 1),
        ("sessions_running", 0),
    ] {
        assert_eq!(stats[name], value, "{name}");
    }
}
