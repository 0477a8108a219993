//! A namespace that is cut into shards, as people see it: nothing changes but its files. Files that
//! are missing, exchanged or damaged are told, and what is left of them is saved.
//!
//! Power cuts and failing disks at any moment of this are in `crash_images`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use samestate::replica::command::Command;
use samestate::replica::solo::Solo;
use samestate::store::cut::Cut;
use samestate::store::disk::MachineDisk;
use samestate::store::options::StoreOptions;
use samestate::store::reshard::reshard;
use samestate::types::cursor::Epoch;
use samestate::types::id::ReplicaId;
use serde_json::Value;
use std::sync::Arc;

use crate::harness::Rng;
use crate::harness::http::send;
use crate::harness::process::{Server, samestate};
use crate::harness::replica::{delete, put};

/// Runs a command on a data directory: exit code, standard output, standard error.
fn run(words: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let arguments = [words, &["--data", dir.to_str().unwrap()]].concat();
    let output = samestate(&arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn cut(dir: &Path, count: &str) -> String {
    let words = ["shards", "--ns", "default", "--count", count];
    let (code, told, why) = run(&words, dir);
    assert_eq!(code, Some(0), "{told}{why}");
    told
}

/// The files of the default namespace's shards besides the first.
fn shard_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("namespaces")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_shard = |path: &PathBuf| path.to_string_lossy().contains(".redb.shard-");
    let mut found: Vec<PathBuf> = paths.filter(is_shard).collect();
    found.sort();
    found
}

fn verify(dir: &Path) -> (bool, Vec<String>) {
    let (_, told, why) = run(&["verify", "--json"], dir);
    let found: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}{why}"));
    let faults = found["namespaces"][0]["faults"].as_array().unwrap();
    let told = faults.iter().map(ToString::to_string).collect();
    (found["ok"] == true, told)
}

/// A directory with some states, and their root.
fn used(rng: &mut Rng) -> (tempfile::TempDir, BTreeMap<String, Vec<u8>>, String) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let states: BTreeMap<String, Vec<u8>> = (0..60)
        .map(|number| (format!("match/{number}"), rng.bytes(100 + number * 500)))
        .collect();
    for (id, bytes) in &states {
        server.put(id, bytes);
    }
    let root = server.root();
    server.terminate();
    (dir, states, root)
}

#[test]
fn nothing_changes_but_the_files() {
    let mut rng = Rng::seeded(51);
    let (dir, mut states, root) = used(&mut rng);
    let (code, told, _) = run(&["shards"], dir.path());
    assert_eq!((code, told.trim()), (Some(0), "default: 1 shard"));
    for (count, before) in [("4", "1 before"), ("16", "4 before"), ("2", "16 before")] {
        let told = cut(dir.path(), count);
        assert!(
            told.contains(&format!("default: {count} shards, {before}; ")),
            "{told}"
        );
        assert_eq!((shard_files(dir.path()).len() + 1).to_string(), count);
        assert_eq!(verify(dir.path()), (true, Vec::new()));
    }
    assert!(cut(dir.path(), "2").contains("2 shards already"));

    let server = Server::start(dir.path());
    assert_eq!(server.root(), root);
    for (id, bytes) in &states {
        assert_eq!(server.get(id).body, *bytes, "{id}");
    }
    for number in 0..40 {
        let (id, bytes) = (format!("match/{number}"), rng.bytes(90 + number * 400));
        server.put(&id, &bytes);
        states.insert(id, bytes);
    }
    let compacted = send(
        Method::POST,
        &format!("{}/v1/admin/compact", server.url),
        &[],
        Vec::new(),
    );
    assert!(compacted.status < 300, "{}", compacted.status);
    let root = server.root();
    drop(server);

    let server = Server::start(dir.path());
    assert_eq!(server.root(), root);
    server.terminate();
    assert_eq!(verify(dir.path()), (true, Vec::new()));
    assert!(cut(dir.path(), "1").contains("1 shard, 2 before"));
    assert_eq!(shard_files(dir.path()), Vec::<PathBuf>::new());
    let server = Server::start(dir.path());
    assert_eq!(server.root(), root);
    for (id, bytes) in &states {
        assert_eq!(server.get(id).body, *bytes, "{id}");
    }
}

#[test]
fn what_cannot_be_done_is_told_and_changes_nothing() {
    let mut rng = Rng::seeded(52);
    let (dir, _, root) = used(&mut rng);
    for (words, expected) in [
        (
            &["shards", "--ns", "default", "--count", "3"][..],
            "1, 2, 4, 8, 16, 32 or 64",
        ),
        (
            &["shards", "--ns", "none", "--count", "2"],
            "there is no namespace none in",
        ),
    ] {
        let (code, _, why) = run(words, dir.path());
        assert!(code == Some(1) || code == Some(2), "{words:?}");
        assert!(why.contains(expected), "{why}");
    }
    let server = Server::start(dir.path());
    let (code, _, why) = run(&["shards", "--ns", "default", "--count", "2"], dir.path());
    assert_eq!(code, Some(1));
    assert!(why.contains("in use"), "{why}");
    assert_eq!(server.root(), root);
}

#[test]
fn files_that_are_missing_or_older_are_told_and_the_rest_is_saved() {
    let mut rng = Rng::seeded(53);
    let (dir, states, _) = used(&mut rng);
    cut(dir.path(), "4");
    let files = shard_files(dir.path());
    let older: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    // What one checkpoint lacks the first file still has, so it takes two to be older.
    let mut root = String::new();
    for bytes in [&b"something newer"[..], b"something newer still"] {
        let server = Server::start(dir.path());
        server.put("match/new", bytes);
        root = server.root();
        server.terminate();
    }
    let newer: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();

    let refused = |expected: &str, file: &Path| {
        let (code, _, why) = run(&["serve"], dir.path());
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(code, Some(1));
        assert!(why.contains(expected) && why.contains(name), "{why}");
        let (ok, faults) = verify(dir.path());
        assert!(
            !ok && faults.iter().any(|fault| fault.contains(name)),
            "{faults:?}"
        );
    };
    fs::write(&files[1], &older[1]).unwrap();
    refused("is an older copy; put the right one back", &files[1]);
    fs::write(&files[1], &newer[2]).unwrap();
    refused("it is not shard 2 of", &files[1]);
    fs::write(&files[1], []).unwrap();
    refused("it is empty", &files[1]);
    fs::remove_file(&files[1]).unwrap();
    refused("shard 2 of", &files[1]);
    fs::write(&files[1], &newer[1]).unwrap();
    assert_eq!(verify(dir.path()), (true, Vec::new()));

    fs::remove_file(&files[1]).unwrap();
    let (code, told, _) = run(&["verify", "--repair"], dir.path());
    assert_eq!(code, Some(1), "{told}");
    let (ok, faults) = verify(dir.path());
    assert!(ok, "{faults:?}");
    let server = Server::start(dir.path());
    let kept = states.iter().filter(|(id, bytes)| {
        let answer = server.get(id);
        assert!(answer.status == 404 || answer.body == **bytes, "{id}");
        answer.status == 200
    });
    let kept = kept.count();
    assert!(
        // Records and large bodies are spread each by hashes of their own.
        (20..50).contains(&kept),
        "{kept} of 60 states with one of four files missing"
    );
    assert_ne!(server.root(), root);
    assert_eq!(
        shard_files(dir.path())
            .iter()
            .filter(|f| is_live(f))
            .count(),
        0
    );
}

fn is_live(file: &Path) -> bool {
    !file.to_string_lossy().contains("broken")
}

#[test]
fn a_namespace_that_is_dropped_takes_its_shards_along() {
    let mut rng = Rng::seeded(54);
    let (dir, _, _) = used(&mut rng);
    let server = Server::start(dir.path());
    let at = |server: &Server| format!("{}/v1/ns/other", server.url);
    assert!(send(Method::PUT, &at(&server), &[], Vec::new()).status < 300);
    server.terminate();
    let words = ["shards", "--ns", "other", "--count", "8"];
    assert_eq!(run(&words, dir.path()).0, Some(0));
    assert_eq!(shard_files(dir.path()).len(), 7);
    let server = Server::start(dir.path());
    let dropped = send(
        Method::DELETE,
        &format!("{}?confirm=other", at(&server)),
        &[],
        Vec::new(),
    );
    assert!(dropped.status < 300, "{}", dropped.status);
    assert_eq!(shard_files(dir.path()).len(), 0);
    assert!(send(Method::PUT, &at(&server), &[], Vec::new()).status < 300);
    server.terminate();
    let (_, told, _) = run(&["shards", "--json"], dir.path());
    assert!(
        told.contains(r#"{"namespace":"other","shards":1}"#),
        "{told}"
    );
}

/// Rows of every kind, deep Merkle rows among them, in order and by key, whatever the cut.
#[test]
fn many_states_read_the_same_from_any_number_of_files() {
    let mut rng = Rng::seeded(55);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("game.redb");
    let options = StoreOptions::default();
    let open = || {
        let clock = Arc::new(samestate::clock::SystemClock);
        Solo::open(&path, ReplicaId(7), Epoch(7), options, clock).unwrap()
    };
    let mut solo = open();
    let mut round = |solo: &mut Solo, from: u64, to: u64| {
        let writes: Vec<_> = (from..to)
            .map(|number| put(&format!("match/{number:05}"), &rng.bytes(20)))
            .collect();
        let outcomes = solo.commit(vec![Command::Write(writes)], BTreeMap::new());
        outcomes.unwrap().remove(0).unwrap();
    };
    for from in 0..8 {
        round(&mut solo, from * 1000, (from + 1) * 1000);
    }
    drop(solo);
    let disk: Arc<dyn samestate::store::disk::Disk> = Arc::new(MachineDisk);
    let mut seen = Vec::new();
    for (set, count) in [(1, 64), (2, 4), (3, 1)] {
        let cut = Cut::of_count(count).unwrap();
        reshard(&disk, &path, cut, set, options, &mut |_, _| {}).unwrap();
        let mut solo = open();
        let gone = vec![delete(&format!("match/{set:05}"))];
        let outcomes = solo.commit(vec![Command::Write(gone)], BTreeMap::new());
        outcomes.unwrap().remove(0).unwrap();
        round(&mut solo, set * 100, set * 100 + 50);
        solo.checkpoint().unwrap();
        let view = solo.view();
        let namespace = samestate::types::id::Namespace::default_namespace();
        let report = samestate::replica::check::check(view.snapshot(), &namespace, &mut |_| {});
        assert_eq!(report.unwrap().faults, Vec::new());
        let compacted = solo.compact().unwrap();
        assert!(compacted.bytes_after > 0 && compacted.rows == compacted.rows_total);
        assert_eq!(solo.view().head().root, view.head().root);
        seen.push(view.head().root.leaves);
    }
    assert_eq!(seen, [8000, 8000, 8000]);
}
