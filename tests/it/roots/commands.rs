//! `samestate roots`, `verify-roots` and `verify` as people use them.

use std::path::Path;

use samestate::types::hash::LogHash;
use serde_json::Value;

use crate::harness::http::wait_until;
use crate::harness::process::{Server, samestate, succeed, succeed_json};
use crate::roots::edits::edit;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn says(arguments: &[&str]) -> String {
    String::from_utf8(succeed(arguments)).unwrap()
}

/// The message of a command that must fail.
fn refused(arguments: &[&str]) -> String {
    let output = samestate(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
    told
}

/// Writes states until the log has so many entries.
fn grow(server: &Server, size: u64) {
    for number in 0.. {
        let heads = succeed_json(&["roots", "--server", &server.url]);
        if heads["head"]["size"].as_u64() >= Some(size) {
            return;
        }
        server.put("match/1", format!("{number}").as_bytes());
        let root = server.root();
        wait_until("the root is written down", || {
            let told = succeed_json(&["roots", "--server", &server.url]);
            told["head"]["newest"]["root"] == root
        });
    }
}

/// What an answer that was kept proves, alone and with an older one.
fn answers_hold(monday: &Path, friday: &Path, key: &str) {
    let told = says(&["verify-roots", text(monday)]);
    assert!(
        told.contains(key) && told.contains("known from elsewhere"),
        "{told}"
    );
    let told = says(&["verify-roots", text(monday), "--key", key]);
    assert!(
        told.contains("proven: entry 1, at ") && told.contains("proven: entry 2"),
        "{told}"
    );
    assert!(!told.contains("known from elsewhere"), "{told}");
    let told = says(&["verify-roots", text(friday), "--older", text(monday)]);
    assert!(
        told.contains("the 3 logged roots of the older answer are the first"),
        "{told}"
    );
    let told = succeed_json(&["verify-roots", text(friday), "--older", text(monday)]);
    assert_eq!(
        (&told["valid"], &told["since"], &told["size"]),
        (&true.into(), &3.into(), &5.into())
    );
    assert_eq!(told["roots"][0]["place"], 4);
}

/// What does not go with an answer that was kept.
fn forgeries_are_refused(dir: &Path, monday: &Path, friday: &Path) {
    let other = LogHash([7; 32]).to_hex();
    let why = refused(&["verify-roots", text(monday), "--key", &other]);
    assert!(why.contains("not by the one that was expected"), "{why}");
    let why = refused(&["verify-roots", text(monday), "--ns", "other"]);
    assert!(why.contains("is not signed"), "{why}");
    let why = refused(&["verify-roots", text(monday), "--older", text(friday)]);
    assert!(why.contains("has more entries (5)"), "{why}");
    let changed = std::fs::read_to_string(monday)
        .unwrap()
        .replacen("\"seq\":", "\"seq\":1", 1);
    std::fs::write(dir.join("changed.json"), changed).unwrap();
    let why = refused(&["verify-roots", text(&dir.join("changed.json"))]);
    assert!(why.contains("entry 1 is not proven"), "{why}");
    let why = refused(&["verify-roots", text(&dir.join("missing.json"))]);
    assert!(why.contains("missing.json"), "{why}");
}

#[test]
fn answers_are_kept_and_checked_offline() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    let at = ["--server", &server.url];
    let roots = |more: &[&str]| succeed(&[&["roots"], &at[..], more].concat());
    let none = String::from_utf8(roots(&[])).unwrap();
    assert_eq!(none, "no root has been written down yet\n");
    grow(&server, 3);
    let (monday, friday) = (
        dir.path().join("monday.json"),
        dir.path().join("friday.json"),
    );
    std::fs::write(&monday, roots(&["--json", "--proofs", "--limit", "2"])).unwrap();
    grow(&server, 5);
    let since = ["--json", "--limit", "1", "--since", text(&monday)];
    std::fs::write(&friday, roots(&since)).unwrap();
    let listed = String::from_utf8(roots(&["--limit", "2"])).unwrap();
    assert!(listed.contains(&server.root()), "{listed}");
    assert!(listed.contains("5 logged roots, hash "), "{listed}");
    assert_eq!(
        listed.lines().filter(|line| line.contains(" 20")).count(),
        2,
        "{listed}"
    );
    let page: Value = serde_json::from_slice(&std::fs::read(&monday).unwrap()).unwrap();
    let key = page["head"]["key"].as_str().unwrap().to_owned();
    drop(server.terminate());

    // From here on there is no server.
    answers_hold(&monday, &friday, &key);
    forgeries_are_refused(dir.path(), &monday, &friday);

    // The operator changes the past; what was kept tells.
    edit(&data.join("namespaces/default.redb"), |log| {
        log[2].time += 1;
    });
    let server = Server::start(&data);
    let since = [
        "roots",
        "--server",
        &server.url,
        "--json",
        "--since",
        text(&monday),
    ];
    std::fs::write(&friday, succeed(&since)).unwrap();
    let why = refused(&["verify-roots", text(&friday), "--older", text(&monday)]);
    assert!(
        why.contains("does not show that its log goes on from the 3 entries"),
        "{why}"
    );
}

#[test]
fn before_the_first_entry_nothing_is_proven_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let at = ["roots", "--server", &server.url];
    let why = refused(&[&at[..], &["--json", "--proofs"]].concat());
    assert!(why.contains("nothing is proven yet"), "{why}");
    refused(&[&at[..], &["--proofs"]].concat());
    assert!(says(&at).contains("no root has been written down yet"));
    assert_eq!(succeed_json(&at)["roots"], serde_json::json!([]));
    grow(&server, 1);
    succeed(&[&at[..], &["--json", "--proofs"]].concat());
}

#[test]
fn verify_tells_the_key_and_the_length_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    grow(&server, 2);
    let told = succeed_json(&["roots", "--server", &server.url]);
    let key = told["head"]["key"].as_str().unwrap().to_owned();
    drop(server.terminate());
    let data = text(dir.path()).to_owned();
    let told = says(&["verify", "--data", &data]);
    assert!(told.contains("2 logged roots"), "{told}");
    assert!(told.contains(&format!("signs with key {key}")), "{told}");
    let file = dir.path().join("key");
    let seed = std::fs::read(&file).unwrap();
    std::fs::write(&file, "no key").unwrap();
    let output = samestate(&["verify", "--data", &data]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("is no key"), "{told}");
    assert_eq!(
        std::fs::read(&file).unwrap(),
        b"no key",
        "looking changes nothing"
    );
    std::fs::remove_file(&file).unwrap();
    let told = succeed_json(&["verify", "--data", &data]);
    assert_eq!((&told["ok"], &told["key"]), (&true.into(), &Value::Null));
    assert!(!file.exists(), "looking changes nothing");
    std::fs::write(&file, seed).unwrap();
}

#[test]
fn a_log_that_is_switched_off_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    grow(&server, 2);
    drop(server.terminate());
    let server = Server::start_having(dir.path(), &["--root-log-interval", "off"]);
    server.put("match/off", b"bytes");
    drop(server.terminate());
    let server = Server::start_having(dir.path(), &["--root-log-interval", "1d"]);
    let told = succeed_json(&["roots", "--server", &server.url]);
    assert_eq!(told["head"]["size"], 2);
    server.put("match/later", b"bytes");
    let root = server.root();
    drop(server.terminate());
    // A stop writes down what there is, whatever the interval.
    let server = Server::start(dir.path());
    let told = succeed_json(&["roots", "--server", &server.url]);
    assert_eq!(told["head"]["size"], 3);
    assert_eq!(told["head"]["newest"]["root"], root);
}
