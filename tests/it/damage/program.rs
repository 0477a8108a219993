//! `verify` and `verify --repair` as people use them: what they are told, and what they have
//! afterwards.

use std::fs;
use std::path::Path;

use redb::ReadableDatabase;
use reqwest::Method;
use samestate::types::hash::{ContentHash, StateKey};
use serde_json::Value;

use crate::damage::rows::{Hurt, hurt_row};
use crate::damage::stores::{file_of, segments_of};
use crate::harness::Rng;
use crate::harness::http::{send, wait_until};
use crate::harness::process::{Server, samestate, succeed};

fn verify(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&["verify", "--data", dir.to_str().unwrap()], more].concat();
    let output = samestate(&arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn verify_json(dir: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let (code, told, _) = verify(dir, &[more, &["--json"]].concat());
    (code, serde_json::from_str(&told).unwrap())
}

/// Fails unless a line of the text holds all words.
fn says(text: &str, words: &[&str]) {
    let found = text
        .lines()
        .any(|line| words.iter().all(|word| line.contains(word)));
    assert!(found, "no line with {words:?} in:\n{text}");
}

/// Changes bytes wherever they stand in a file, in pages that are in use and in older ones.
fn wipe(file: &Path, bytes: &[u8]) {
    let mut all = fs::read(file).unwrap();
    let part = &bytes[..64];
    let places: Vec<usize> = (0..all.len() - 64)
        .filter(|at| all[*at..].starts_with(part))
        .collect();
    places.into_iter().for_each(|at| all[at] ^= 1);
    fs::write(file, all).unwrap();
}

/// A record as it stands in a stopped replica's file.
fn record_row(dir: &Path, key: &[u8; 32]) -> Vec<u8> {
    let records: redb::TableDefinition<'_, &[u8; 32], &[u8]> =
        redb::TableDefinition::new("records");
    let database = redb::Database::create(file_of(dir)).unwrap();
    let transaction = database.begin_read().unwrap();
    let table = transaction.open_table(records).unwrap();
    table.get(key).unwrap().unwrap().value().to_vec()
}

/// A directory with some states, stopped in good order.
fn used(rng: &mut Rng) -> (tempfile::TempDir, Vec<(String, Vec<u8>)>) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let states: Vec<_> = (0..20)
        .map(|number| (format!("match/{number}"), rng.bytes(200 + number * 400)))
        .collect();
    for (id, bytes) in &states {
        server.put(id, bytes);
    }
    server.terminate();
    (dir, states)
}

/// Hurts one state of a directory in its record and another one in its bytes, and says so.
fn lose_two(dir: &Path, states: &[(String, Vec<u8>)]) {
    let (record, bytes) = (&states[3], &states[15]);
    let key = StateKey::of_text(&record.0).0;
    let row = record_row(dir, &key);
    hurt_row(dir, "records", &key, Hurt::Remove);
    wipe(&file_of(dir), &row);
    let content = ContentHash::of(&bytes.1).0;
    hurt_row(dir, "contents", &content, Hurt::Remove);
    wipe(&file_of(dir), &bytes.1);
    let (code, told, _) = verify(dir, &[]);
    assert_eq!(code, Some(1));
    says(&told, &["head counts", "20 leaves", "19 records"]);
    says(&told, &["id match/3", "has no record"]);
    says(&told, &["content match/15", "is missing"]);
    says(&told, &["default: ", "faults"]);
    let refused = samestate(&["serve", "--data", dir.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8(refused.stderr).unwrap();
    says(&why, &["error: the store is damaged: ", "default.redb"]);
    says(&why, &["run `samestate verify --data DIR --repair`"]);
}

/// Repairs what [`lose_two`] did.
fn repair_two(dir: &Path) {
    let before = fs::read(file_of(dir)).unwrap();
    let (code, told, _) = verify(dir, &["--repair"]);
    assert_eq!(code, Some(1), "{told}");
    says(&told, &["default: repaired, 18 records saved"]);
    says(
        &told,
        &["2 parts lost; a peer that holds it brings it back"],
    );
    says(&told, &["record match/3: its record cannot be read"]);
    says(&told, &["record match/15: its bytes are lost"]);
    says(&told, &["its change feed begins anew"]);
    says(&told, &["default: kept ", "default.redb.broken-1"]);
    let kept = file_of(dir).with_added_extension("broken-1");
    assert!(fs::read(kept).unwrap() == before);
    let (code, told, _) = verify(dir, &["--repair"]);
    assert_eq!(code, Some(0), "{told}");
    says(&told, &["default: no faults"]);
}

#[test]
fn lost_states_are_listed_and_come_back_from_a_peer() {
    let mut rng = Rng::seeded(31);
    let (dir, states) = used(&mut rng);
    let other = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let cursor = {
        let root = send(Method::GET, &server.at("root"), &[], Vec::new()).json();
        format!("{}-{}", root["epoch"].as_str().unwrap(), root["seq"])
    };
    let join = |server: &Server| {
        let named = format!("one={}", server.url);
        Server::start_with(other.path(), "127.0.0.1:0", &[&named])
    };
    let peer = join(&server);
    wait_until("both hold the same", || peer.root() == server.root());
    let root = server.root();
    server.terminate();
    peer.terminate();

    lose_two(dir.path(), &states);
    repair_two(dir.path());

    let server = Server::start(dir.path());
    assert_eq!((server.states, server.get("match/3").status), (18, 404));
    let since = server.at(&format!("changes?since={cursor}"));
    let expired = send(Method::GET, &since, &[], Vec::new());
    assert_eq!(expired.code(), "cursor_expired");
    let peer = join(&server);
    wait_until("the lost states are back", || server.root() == root);
    for (id, bytes) in &states {
        assert_eq!(server.get(id).body, *bytes, "{id}");
    }
    assert_eq!(peer.root(), root);
    assert_eq!(peer.get("match/3").header("samestate-conflicts"), "0");
}

#[test]
fn what_is_derived_is_rebuilt_and_nothing_else_changes() {
    let mut rng = Rng::seeded(32);
    let (dir, states) = used(&mut rng);
    let server = Server::start(dir.path());
    let root = send(Method::GET, &server.at("root"), &[], Vec::new()).json();
    server.terminate();
    {
        let database = redb::Database::create(file_of(dir.path())).unwrap();
        let transaction = database.begin_write().unwrap();
        let ids: redb::TableDefinition<'_, &str, ()> = redb::TableDefinition::new("ids");
        transaction
            .open_table(ids)
            .unwrap()
            .remove("match/7")
            .unwrap();
        let nodes: redb::TableDefinition<'_, (u8, u64), &[u8]> =
            redb::TableDefinition::new("nodes");
        transaction
            .open_table(nodes)
            .unwrap()
            .retain(|_, _| false)
            .unwrap();
        transaction.commit().unwrap();
    }
    let (code, told) = verify_json(dir.path(), &[]);
    assert_eq!((code, &told["ok"]), (Some(1), &Value::Bool(false)));
    let (code, told) = verify_json(dir.path(), &["--repair"]);
    assert_eq!((code, &told["ok"]), (Some(0), &Value::Bool(true)), "{told}");
    let repair = &told["namespaces"][0]["repair"];
    assert_eq!(
        (&repair["records"], &repair["new_epoch"]),
        (&20.into(), &false.into())
    );
    assert_eq!(repair["lost"], serde_json::json!([]));
    let server = Server::start(dir.path());
    let after = send(Method::GET, &server.at("root"), &[], Vec::new()).json();
    for member in [
        "root",
        "count",
        "total_size",
        "latest_update",
        "seq",
        "epoch",
    ] {
        assert_eq!(root[member], after[member], "{member}");
    }
    for (id, bytes) in &states {
        assert_eq!(server.get(id).body, *bytes, "{id}");
    }
}

#[test]
fn one_namespace_that_is_hurt_does_not_keep_the_others_from_being_checked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for name in ["a", "z"] {
        let at = format!("{}/v1/ns/{name}", server.url);
        assert_eq!(send(Method::PUT, &at, &[], Vec::new()).status, 201);
        let state = format!("{at}/states/x");
        assert_eq!(
            send(Method::PUT, &state, &[], b"state".to_vec()).status,
            201
        );
    }
    server.put("x", b"state");
    server.terminate();
    fs::write(file_of(dir.path()), b"no file of ours").unwrap();
    let (code, told, _) = verify(dir.path(), &[]);
    assert_eq!(code, Some(1));
    says(&told, &["a: 1 state"]);
    says(&told, &["a: no faults"]);
    says(&told, &["file ", "default.redb", "is not a samestate file"]);
    says(&told, &["default: 2 faults"]);
    says(&told, &["z: no faults"]);
    let (_, told, _) = verify(dir.path(), &["--repair"]);
    says(&told, &["default: repaired, 0 records saved"]);
    assert!(!told.contains("a: repaired"), "{told}");
    assert_eq!(Server::start(dir.path()).namespaces, 3);
}

#[test]
fn a_file_that_is_missing_beside_its_log_is_told_and_made_anew_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    server.put("x", b"in the log alone");
    server.kill();
    drop(server);
    fs::remove_file(file_of(dir.path())).unwrap();
    let refused = samestate(&["serve", "--data", dir.path().to_str().unwrap()]);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{why}");
    says(
        &why,
        &["default.redb: it is missing, but its log is there; put it back"],
    );
    assert!(
        !segments_of(dir.path()).is_empty(),
        "the log was thrown away"
    );
    let (code, told, _) = verify(dir.path(), &[]);
    assert_eq!(code, Some(1));
    says(
        &told,
        &[
            "file ",
            "default.redb: it is missing, but its log or its shards are there",
        ],
    );
    let (code, told, _) = verify(dir.path(), &["--repair"]);
    assert_eq!(code, Some(1), "its end may be lost: {told}");
    says(&told, &["log commits: its end may be lost"]);
    says(&told, &["default: repaired, 1 record saved"]);
    says(&told, &["default: kept ", ".log.", ".broken-1"]);
    assert_eq!(Server::start(dir.path()).get("x").body, b"in the log alone");
}

#[test]
fn a_log_that_is_hurt_in_front_of_acknowledged_writes_costs_those_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    for number in 0..5 {
        server.put(&format!("match/{number}"), &[number; 100]);
    }
    server.kill();
    drop(server);
    let segment = segments_of(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes
        .windows(8)
        .position(|part| part == b"match/1\x01")
        .unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let refused = samestate(&["serve", "--data", dir.path().to_str().unwrap()]);
    let why = String::from_utf8(refused.stderr).unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap();
    says(
        &why,
        &[
            "the log is broken in ",
            name,
            "in front of writes that were acknowledged",
        ],
    );
    let (code, told, _) = verify(dir.path(), &[]);
    assert_eq!(code, Some(1));
    says(
        &told,
        &[
            "log ",
            "default.redb",
            "what stands in the log alone was not checked",
        ],
    );
    let (_, told, _) = verify(dir.path(), &["--repair"]);
    says(&told, &["log commits: at least one commit is lost"]);
    says(&told, &["default: repaired, 4 records saved"]);
    let server = Server::start(dir.path());
    for number in [0, 2, 3, 4] {
        assert_eq!(server.get(&format!("match/{number}")).body, [number; 100]);
    }
    assert_eq!(server.get("match/1").status, 404);
}

#[test]
fn a_namespace_that_was_dropped_leaves_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let at = format!("{}/v1/ns/eu", server.url);
    for _ in 0..2 {
        assert_eq!(send(Method::PUT, &at, &[], Vec::new()).status, 201);
        let state = format!("{at}/states/x");
        assert_eq!(
            send(Method::PUT, &state, &[], b"state".to_vec()).status,
            201
        );
        let dropped = send(Method::DELETE, &format!("{at}?confirm=eu"), &[], Vec::new());
        assert_eq!(dropped.status, 204);
        let left = fs::read_dir(dir.path().join("namespaces")).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.filter(|name| name.starts_with("eu.")).count(), 0);
    }
    server.terminate();
    // A crash in the middle of a drop: the file has its other name, and the log is there.
    let folder = dir.path().join("namespaces");
    fs::write(folder.join("eu.redb.dropped"), b"").unwrap();
    fs::write(folder.join("eu.log.0000000000000001"), b"").unwrap();
    assert!(succeed(&["verify", "--data", dir.path().to_str().unwrap()]).starts_with(b"default"));
    assert_eq!(Server::start(dir.path()).namespaces, 1);
    let left = fs::read_dir(folder).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with("eu.")).count(), 0);
}
