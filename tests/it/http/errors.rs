//! Paths and methods that do not exist, health, and a replica that stops.

use axum::body::Body;
use axum::http::Method;

use crate::harness::http::send;
use crate::harness::process::Server;
use crate::http::Face;

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let face = Face::new();
    for path in [
        "/",
        "/v1",
        "/v2/ns",
        "/v1/ns/default/",
        "/v1/ns/default/stats",
        "/v1/ns/default/states/",
    ] {
        face.get(path).await.problem(404, "unknown_path");
    }
    for (method, path, allowed) in [
        (Method::POST, "/v1/ns/default/states/a", "PUT"),
        (Method::DELETE, "/v1/ns/default/states", "GET"),
        (Method::GET, "/v1/ns/default/batch", "POST"),
        (Method::PUT, "/healthz", "GET"),
    ] {
        let reply = face.send(method, path, &[], Body::empty()).await;
        reply.problem(405, "method_not_allowed");
        assert!(
            reply.header("allow").contains(allowed),
            "{path}: {:?}",
            reply.headers
        );
    }
    face.get("/v1/ns/eu/root")
        .await
        .problem(404, "namespace_not_found");
    face.get("/v1/ns/E/root")
        .await
        .problem(400, "bad_namespace");
    face.get("/v1/ns/%FF/root").await.problem(400, "bad_id");
}

#[tokio::test]
async fn a_replica_that_stops_says_so() {
    let face = Face::new();
    assert_eq!(face.get("/healthz").await.ok(200)["status"], "alive");
    assert_eq!(face.get("/readyz").await.ok(200)["status"], "ready");
    face.put("a", "x").await.ok(201);
    face.app.shutdown.cancel();
    face.get("/readyz").await.problem(503, "shutting_down");
    face.get("/healthz").await.ok(200);
    face.put("a", "y").await.ok(200);
    let replica = face.app.replica.clone();
    tokio::task::spawn_blocking(move || replica.stop())
        .await
        .unwrap();
    face.put("a", "z").await.problem(503, "shutting_down");
    assert_eq!(face.get("/v1/ns/default/states/a").await.text(), "y");
}

#[tokio::test]
async fn pages_of_other_sites_may_only_read() {
    let face = Face::new();
    face.put("a", "x").await.ok(201);
    let path = "/v1/ns/default/states/a";
    for site in ["cross-site", "same-site"] {
        let header = format!("Sec-Fetch-Site: {site}");
        let from = [header.as_str()];
        let write = face.send(Method::PUT, path, &from, Body::from("y")).await;
        write.problem(403, "forbidden");
        let read = face.send(Method::GET, path, &from, Body::empty()).await;
        assert_eq!(read.text(), "x");
    }
    // Browsers tell the site to few addresses without TLS, and the origin to all.
    for origin in ["http://evil.example", "http://replica.example:7401", "null"] {
        let header = format!("Origin: {origin}");
        let from = [header.as_str(), "Host: replica.example:7400"];
        for (method, path) in [(Method::PUT, path), (Method::POST, "/v1/ns/default/batch")] {
            let text = r#"{"op":"delete","id":"a"}"#;
            let write = face.send(method, path, &from, Body::from(text)).await;
            write.problem(403, "forbidden");
        }
        let read = face.send(Method::GET, path, &from, Body::empty()).await;
        assert_eq!(read.text(), "x");
    }
    for origin in [
        "http://replica.example:7400",
        "https://Replica.example:7400",
    ] {
        let header = format!("Origin: {origin}");
        let from = [header.as_str(), "Host: replica.example:7400"];
        let write = face.send(Method::PUT, path, &from, Body::from("x")).await;
        write.ok(200);
    }
    for site in ["same-origin", "none"] {
        let header = format!("Sec-Fetch-Site: {site}");
        let from = [header.as_str()];
        let write = face.send(Method::PUT, path, &from, Body::from("y")).await;
        write.ok(200);
    }
}

#[test]
fn a_replica_on_loopback_does_not_go_by_names_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_having(dir.path(), &["--allowed-host", "replica.example"]);
    server.put("a", b"x");
    let url = server.at("states/a");
    let by_name = |method: Method, name: &str| send(method, &url, &[("host", name)], b"y".to_vec());
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        let reply = by_name(method.clone(), "evil.example:7400");
        assert_eq!(reply.status, 403, "{method}: {reply:?}");
    }
    let told = by_name(Method::GET, "evil.example:7400").json();
    assert_eq!(told["code"], "forbidden");
    assert!(
        told["detail"].as_str().unwrap().contains("allowed_hosts"),
        "{told}"
    );
    for name in [
        "localhost:7400",
        "127.0.0.1",
        "[::1]:7400",
        "replica.example:7400",
    ] {
        assert_eq!(by_name(Method::GET, name).body, b"x", "{name}");
    }
}
