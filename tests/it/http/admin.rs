//! `/v1/admin`: who may ask for a backup and where it may go, and jobs as clients see them.

use std::path::Path;

use axum::http::Method;
use samestate::http::app::HttpOptions;
use samestate::runtime::jobs::Steps;
use serde_json::{Value, json};

use crate::http::Face;

/// Waits until a job is over.
async fn over(face: &Face, started: &Value) -> Value {
    let path = format!("/v1/admin/jobs/{}", started["id"]);
    loop {
        let job = face.get(&path).await.ok(200);
        if job["state"] != "running" {
            return job;
        }
        tokio::task::yield_now().await;
    }
}

fn order(to: &Path) -> String {
    json!({"to": to}).to_string()
}

#[tokio::test]
async fn a_backup_is_a_job_with_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let face = Face::with_backup_dirs(HttpOptions::default(), vec![dir.path().to_path_buf()]);
    face.put("a", "one").await.ok(201);
    let to = dir.path().join("below/it");
    let reply = face.post("/v1/admin/backup", order(&to)).await;
    let started = reply.ok(202);
    assert_eq!(reply.header("location"), "/v1/admin/jobs/1");
    assert_eq!(
        (&started["id"], &started["kind"]),
        (&json!(1), &json!("backup"))
    );
    assert_eq!(
        started["progress"],
        json!({"done": 0, "total": 1, "unit": "states"})
    );
    let job = over(&face, &started).await;
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(job["result"]["backup"], "000001");
    let root = face.get("/v1/ns/default/root").await.ok(200)["root"].clone();
    assert_eq!(job["result"]["namespaces"][0]["root"], root);
    assert!(job["finished"].is_string() && job.get("error").is_none());
    assert!(to.join("000001/manifest.json").exists());

    // Not written at all, then in full.
    let again = face.post("/v1/admin/backup", order(&to)).await.ok(202);
    let again = over(&face, &again).await;
    assert_eq!(again["result"]["bytes"], 0, "{again}");
    let full = json!({"to": to, "full": true}).to_string();
    let full = face.post("/v1/admin/backup", full).await.ok(202);
    let full = over(&face, &full).await;
    assert_ne!(full["result"]["bytes"], 0, "{full}");
    let listed = face.get("/v1/admin/jobs").await.ok(200);
    assert_eq!(listed["jobs"], json!([full, again, job]));
}

#[tokio::test]
async fn backups_go_only_where_the_settings_allow() {
    let dir = tempfile::tempdir().unwrap();
    let closed = Face::new();
    let refused = closed.post("/v1/admin/backup", order(dir.path())).await;
    let refused = refused.problem(403, "forbidden");
    assert!(
        refused["detail"].as_str().unwrap().contains("backup_dirs"),
        "{refused}"
    );

    let allowed = dir.path().join("allowed");
    std::fs::create_dir(&allowed).unwrap();
    let face = Face::with_backup_dirs(HttpOptions::default(), vec![allowed.clone()]);
    let elsewhere = face
        .post("/v1/admin/backup", order(&dir.path().join("other")))
        .await;
    elsewhere.problem(403, "forbidden");
    let climbing = face
        .post("/v1/admin/backup", order(&allowed.join("../other")))
        .await;
    climbing.problem(400, "bad_destination");
    let url = face
        .post("/v1/admin/backup", order(Path::new("s3://bucket/x")))
        .await;
    let url = url.problem(400, "bad_destination");
    assert!(url["detail"].as_str().unwrap().contains("folders"), "{url}");
    face.post("/v1/admin/backup", "{}")
        .await
        .problem(400, "bad_json");
    let misspelt = r#"{"to": "/x", "ful": true}"#;
    face.post("/v1/admin/backup", misspelt)
        .await
        .problem(400, "bad_json");
    assert!(!dir.path().join("other").exists());
    assert_eq!(
        face.get("/v1/admin/jobs").await.ok(200),
        json!({"jobs": []})
    );
    let site = ["Sec-Fetch-Site: cross-site"];
    let from_a_page = face
        .send(Method::POST, "/v1/admin/backup", &site, order(&allowed))
        .await;
    from_a_page.problem(403, "forbidden");
}

#[tokio::test]
async fn a_backup_that_fails_says_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "in the way").unwrap();
    let face = Face::with_backup_dirs(HttpOptions::default(), vec![dir.path().to_path_buf()]);
    face.put("a", "one").await.ok(201);
    let to = dir.path().join("file");
    let started = face.post("/v1/admin/backup", order(&to)).await.ok(202);
    let job = over(&face, &started).await;
    assert_eq!(job["state"], "failed");
    assert!(job["error"].as_str().unwrap().contains("file"), "{job}");
    assert!(job.get("result").is_none());
}

#[tokio::test]
async fn a_full_check_is_a_job_too() {
    let face = Face::new();
    for id in ["a", "b"] {
        face.put(id, "state").await.ok(201);
    }
    let reply = face.post("/v1/admin/verify", "").await;
    let started = reply.ok(202);
    assert_eq!(reply.header("location"), "/v1/admin/jobs/1");
    let job = over(&face, &started).await;
    assert_eq!(
        job["progress"],
        json!({"done": 10, "total": 10, "unit": "bytes"})
    );
    let result = &job["result"];
    assert_eq!(
        (&result["ok"], &result["namespaces"][0]["states"]),
        (&json!(true), &json!(2))
    );
    face.post("/v1/admin/verify", r#"{"repair": true}"#)
        .await
        .problem(400, "bad_json");
    for path in ["/v1/admin/jobs/2", "/v1/admin/jobs/x"] {
        face.get(path).await.problem(404, "unknown_job");
    }
}

#[tokio::test]
async fn one_job_of_a_kind_runs_at_a_time() {
    let face = Face::new();
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let jobs = face.app.replica.jobs();
    let running = jobs.start("verify", Steps::of(1, "states"), move |_| {
        told.recv().map_err(|error| error.to_string())?;
        Ok(Value::Null)
    });
    let running = running.unwrap();
    let refused = face.post("/v1/admin/verify", "").await;
    let refused = refused.problem(409, "job_running");
    assert_eq!(refused["job"], running.id);
    go_on.send(()).unwrap();
    over(&face, &json!({"id": running.id})).await;
    face.post("/v1/admin/verify", "").await.ok(202);
    let replica = face.app.replica.clone();
    tokio::task::spawn_blocking(move || replica.stop())
        .await
        .unwrap();
    let late = face.post("/v1/admin/verify", "").await;
    late.problem(503, "shutting_down");
}
