//! The real program: a backup of a server that is being written to, of a stopped one, and what
//! comes of them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::Rng;
use crate::harness::process::{Server, samestate, succeed, succeed_json};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The message of a command that must fail.
fn failure(arguments: &[&str]) -> String {
    let output = samestate(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.starts_with("error: ") && !told.contains("panicked"),
        "{told}"
    );
    told
}

/// A server with 30 states whose backups may go below `dir/backups`.
fn serving(dir: &Path, rng: &mut Rng) -> Server {
    let allowed = dir.join("backups");
    std::fs::create_dir(&allowed).unwrap();
    let server = Server::start_having(&dir.join("data"), &["--backup-dir", text(&allowed)]);
    for n in 0..30 {
        server.put(&format!("match/{n}"), &rng.bytes(2_000 * (n % 5)));
    }
    server
}

#[test]
fn a_server_makes_backups_in_the_folders_that_it_allows() {
    let mut rng = Rng::seeded(40);
    let dir = tempfile::tempdir().unwrap();
    let server = serving(dir.path(), &mut rng);
    let to = dir.path().join("backups/eu-1");
    let backup = ["backup", "--to", text(&to), "--server", &server.url];
    let first = succeed_json(&backup);
    assert_eq!(first["backup"], "000001");
    assert_eq!(first["namespaces"][0]["states"], 30);
    assert_eq!(first["namespaces"][0]["root"], server.root());
    server.put("match/3", b"changed");
    let told = String::from_utf8(succeed(&backup)).unwrap();
    assert!(told.starts_with("backup 000002 is in "), "{told}");
    assert!(
        told.contains("1 state written, 0 gone since 000001"),
        "{told}"
    );
    let other = dir.path().join("other");
    let told = failure(&["backup", "--to", text(&other), "--server", &server.url]);
    assert!(
        told.contains("backup_dirs") && told.contains("forbidden"),
        "{told}"
    );

    let list = succeed_json(&["restore", "--from", text(&to), "--list"]);
    let backups = list["backups"].as_array().unwrap();
    let numbers: Vec<&Value> = backups.iter().map(|backup| &backup["backup"]).collect();
    assert_eq!(numbers, ["000001", "000002"]);
    assert_eq!(backups[1]["needs"], serde_json::json!(["000001"]));
    let checked = succeed_json(&["restore", "--from", text(&to), "--check"]);
    assert_eq!(checked["backup"], "000002");
    assert_eq!(checked["namespaces"][0]["root"], server.root());
    // Where the machine has the tool that the format is that of.
    let mut sums = Command::new("sha256sum");
    sums.args(["--quiet", "-c", "SHA256SUMS"]);
    if let Ok(output) = sums.current_dir(to.join("000002")).output() {
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_restored_replica_serves_and_syncs() {
    let mut rng = Rng::seeded(42);
    let dir = tempfile::tempdir().unwrap();
    let server = serving(dir.path(), &mut rng);
    let to = dir.path().join("backups");
    let from = ["restore", "--from", text(&to)];
    for bytes in [&b"first"[..], b"second"] {
        server.put("match/3", bytes);
        succeed(&["backup", "--to", text(&to), "--server", &server.url]);
    }
    let new = dir.path().join("new");
    let restored = succeed_json(&[&from[..], &["--data", text(&new)]].concat());
    assert_eq!(restored["of"], server.replica.as_str());
    assert_eq!(restored["data"], text(&new));
    let again = Server::start(&new);
    assert_eq!((again.root(), again.states), (server.root(), 30));
    assert_eq!(restored["replica"], again.replica.as_str());
    assert_ne!(again.replica, server.replica);
    assert_eq!(again.get("match/3").body, b"second");
    let session = ["sync", "--from", &server.url, "--to", &again.url, "--push"];
    let session = succeed_json(&session);
    assert_eq!(session["equal"], true, "{session}");
    assert_eq!(session["conflicts"], 0, "{session}");
    again.terminate();
    let verified = succeed_json(&["verify", "--data", text(&new)]);
    assert_eq!(verified["ok"], true, "{verified}");

    let occupied = failure(&[&from[..], &["--data", text(&new)]].concat());
    assert!(occupied.contains("holds files already"), "{occupied}");
    let old = dir.path().join("old");
    succeed(&[&from[..], &["--data", text(&old), "--at", "000001"]].concat());
    assert_eq!(Server::start(&old).get("match/3").body, b"first");
    let none = dir.path().join("none");
    let none = failure(&[&from[..], &["--data", text(&none), "--at", "7"]].concat());
    assert!(none.contains("no backup 000007"), "{none}");
}

#[test]
fn a_stopped_replica_is_backed_up_from_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backups"));
    let server = Server::start(&data);
    server.put("a", b"one");
    let backup = ["backup", "--to", text(&to), "--data", text(&data)];
    let busy = failure(&backup);
    assert!(busy.contains("in use"), "{busy}");
    assert!(!to.exists());
    let root = server.root();
    server.terminate();
    let saved = succeed_json(&backup);
    assert_eq!(saved["namespaces"][0]["root"], root);
    let missing = dir.path().join("missing");
    let none = failure(&["backup", "--to", text(&to), "--data", text(&missing)]);
    assert!(
        none.contains("not a data directory") && !missing.exists(),
        "{none}"
    );
    std::fs::write(to.join("000001/default.data"), "damaged").unwrap();
    let damaged = failure(&["restore", "--from", text(&to), "--check"]);
    assert!(
        damaged.contains("000001/default.data is damaged"),
        "{damaged}"
    );
    let data = dir.path().join("new");
    failure(&["restore", "--from", text(&to), "--data", text(&data)]);
    assert!(!data.exists());
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 2, "data and backups");
}

#[test]
fn a_server_that_stops_ends_its_jobs() {
    let mut rng = Rng::seeded(41);
    let dir = tempfile::tempdir().unwrap();
    let allowed = dir.path().join("backups");
    let server = serving(dir.path(), &mut rng);
    for n in 0..40 {
        server.put(&format!("match/{n}"), &rng.bytes(200_000));
    }
    let order = serde_json::json!({"to": allowed}).to_string().into_bytes();
    let url = format!("{}/v1/admin/backup", server.url);
    let started = crate::harness::http::send(reqwest::Method::POST, &url, &[], order);
    assert_eq!(started.status, 202, "{started:?}");
    let (status, told, _) = server.terminate();
    assert_eq!(status.code(), Some(0), "{told}");
    // It was whole, or it is not there.
    let names = std::fs::read_dir(&allowed).unwrap();
    let names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().all(|name| name == "lock" || name == "000001"),
        "{names:?}"
    );
    if names.contains(&"000001".to_owned()) {
        succeed(&["restore", "--from", text(&allowed), "--check"]);
    }
}
