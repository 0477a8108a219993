//! Data directories and addresses that cannot be used: exit code 1, one line that says why, and
//! nothing on stdout.

use std::path::Path;
use std::process::Output;

use redb::{Database, ReadableDatabase, TableDefinition};
use reqwest::Method;

use crate::harness::http::send;
use crate::harness::process::{Server, samestate};

/// Where the store keeps facts about a file.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

fn serve(dir: &Path) -> Output {
    let dir = dir.to_str().unwrap();
    samestate(&["serve", "--data", dir, "--listen", "127.0.0.1:0"])
}

/// Fails unless the program ended with 1 and one line that holds all of `words`.
fn refused(output: &Output, words: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(output.stdout, b"", "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("error: "), "{told}");
    for word in words {
        assert!(told.contains(word), "no {word:?} in: {told}");
    }
    for debug in ["panicked", "Err(", "Error {", "Os {", "RUST_BACKTRACE"] {
        assert!(!told.contains(debug), "{debug:?} in: {told}");
    }
}

/// A directory that a replica has used, with one state.
fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.put("match/1", b"state");
    server.terminate();
    dir
}

fn file_of(dir: &Path) -> std::path::PathBuf {
    dir.join("namespaces").join("default.redb")
}

#[test]
fn a_directory_that_another_process_uses() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let path = dir.path().to_str().unwrap();
    refused(&serve(dir.path()), &[path, "in use", "--data"]);
    refused(&samestate(&["verify", "--data", path]), &[path, "in use"]);
    server.put("match/1", b"not disturbed");
    assert_eq!(server.get("match/1").body, b"not disturbed");
}

#[test]
fn a_schema_newer_than_this_build() {
    let dir = used();
    let file = file_of(dir.path());
    let schema = |database: &Database| {
        let table = database.begin_read().unwrap().open_table(META).unwrap();
        let value = table.get("schema").unwrap().unwrap();
        u32::from_le_bytes(value.value().try_into().unwrap())
    };
    let known = {
        let database = Database::create(&file).unwrap();
        let known = schema(&database);
        let transaction = database.begin_write().unwrap();
        let newer = 4711u32.to_le_bytes();
        let mut table = transaction.open_table(META).unwrap();
        table.insert("schema", newer.as_slice()).unwrap();
        drop(table);
        transaction.commit().unwrap();
        known
    };
    let words = ["4711", &known.to_string(), "newer", file.to_str().unwrap()];
    refused(&serve(dir.path()), &words);
    refused(
        &samestate(&["verify", "--data", dir.path().to_str().unwrap()]),
        &words,
    );
    assert_eq!(
        schema(&Database::create(&file).unwrap()),
        4711,
        "left as it was"
    );
}

#[test]
fn a_path_that_cannot_be_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let below = file.join("data");
    refused(
        &serve(&below),
        &[below.to_str().unwrap(), "cannot use", "check that"],
    );
    refused(&serve(&file), &[file.to_str().unwrap(), "cannot use"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"not a directory");
}

#[test]
fn a_file_that_is_not_one_of_ours() {
    let dir = used();
    let file = file_of(dir.path());
    for damage in [&b"#!/bin/sh\necho hello\n"[..], &[0; 8192], b"redb"] {
        std::fs::write(&file, damage).unwrap();
        refused(&serve(dir.path()), &[file.to_str().unwrap(), "damaged"]);
        assert_eq!(std::fs::read(&file).unwrap(), damage, "left as it was");
    }
}

#[test]
fn a_file_that_was_cut_off() {
    let dir = used();
    let file = file_of(dir.path());
    let whole = std::fs::read(&file).unwrap();
    for length in [whole.len() / 2, 4096, 100] {
        std::fs::write(&file, &whole[..length]).unwrap();
        refused(&serve(dir.path()), &[file.to_str().unwrap()]);
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(Server::start(dir.path()).get("match/1").body, b"state");
}

#[test]
fn a_directory_whose_files_belong_to_another_replica() {
    let (one, other) = (used(), used());
    std::fs::copy(file_of(one.path()), file_of(other.path())).unwrap();
    let file = file_of(other.path());
    refused(
        &serve(other.path()),
        &[file.to_str().unwrap(), "belongs to replica"],
    );
    std::fs::write(one.path().join("replica"), "no hexadecimal digits\n").unwrap();
    refused(&serve(one.path()), &["does not hold a replica id"]);
}

#[test]
fn an_address_that_is_taken_and_one_that_is_none() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path());
    let other = other.path().to_str().unwrap();
    let arguments = ["serve", "--data", other, "--listen"];
    let taken = samestate(&[&arguments[..], &[server.address()]].concat());
    refused(&taken, &[server.address(), "cannot listen"]);
    let none = samestate(&[&arguments[..], &["256.1.1.1:0"]].concat());
    let told = String::from_utf8_lossy(&none.stderr);
    assert!(matches!(none.status.code(), Some(1 | 2)), "{told}");
    assert!(told.contains("256.1.1.1"), "{told}");
}

#[test]
fn what_a_crash_left_of_a_namespace_is_no_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("namespaces");
    std::fs::create_dir(&folder).unwrap();
    let drafts = ["default", "eu"].map(|name| folder.join(format!("{name}.redb.new")));
    for draft in &drafts {
        std::fs::write(draft, b"redb, as far as the disk had room").unwrap();
    }
    let server = Server::start(dir.path());
    assert_eq!(server.namespaces, 1);
    assert!(drafts.iter().all(|draft| !draft.exists()));
    std::fs::write(&drafts[1], b"left while the replica runs").unwrap();
    let eu = format!("{}/v1/ns/eu", server.url);
    assert_eq!(send(Method::PUT, &eu, &[], Vec::new()).status, 201);
    assert!(!drafts[1].exists());
    server.terminate();
    assert_eq!(Server::start(dir.path()).namespaces, 2);
}

#[test]
fn a_namespace_that_cannot_be_made_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let folder = dir.path().join("namespaces");
    // Something that cannot be removed stands where the file is made.
    let draft = folder.join("eu.redb.new");
    std::fs::create_dir(&draft).unwrap();
    let eu = format!("{}/v1/ns/eu", server.url);
    assert_eq!(send(Method::PUT, &eu, &[], Vec::new()).status, 500);
    let states = send(Method::GET, &format!("{eu}/states"), &[], Vec::new());
    assert_eq!(states.status, 404);
    assert!(!folder.join("eu.redb").exists());
    server.terminate();
    let server = Server::start(dir.path());
    assert_eq!(server.namespaces, 1);
    std::fs::remove_dir(&draft).unwrap();
    let eu = format!("{}/v1/ns/eu", server.url);
    assert_eq!(send(Method::PUT, &eu, &[], Vec::new()).status, 201);
}

#[test]
fn settings_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("settings.toml"), dir.path().join("data"));
    let told = |text: &str, flags: &[&str], words: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let (file, data) = (file.to_str().unwrap(), data.to_str().unwrap());
        let arguments = ["serve", "--data", data, "--config", file];
        let listen = ["--listen", "127.0.0.1:0"];
        refused(
            &samestate(&[&arguments[..], &listen, flags].concat()),
            words,
        );
    };
    let file = file.to_str().unwrap();
    told(
        "liste = \"a:1\"",
        &[],
        &[file, "\"liste\"", "did you mean listen?", "max_state_bytes"],
    );
    told("cache-mib = 1", &[], &[file, "did you mean cache_mib?"]);
    told("\ndata = ", &[], &[file, "line 2"]);
    told(
        "cache_mib = [1]",
        &[],
        &[file, "cache_mib takes a whole number of MiB"],
    );
    told(
        "disk_reserve = \"lots\"",
        &[],
        &["disk_reserve = \"lots\"", file, "it takes a size from 0"],
    );
    told(
        "",
        &["--disk-reserve", "-5"],
        &["disk_reserve = \"-5\" (--disk-reserve)", "it takes a size"],
    );
    told(
        "",
        &["--scrub-interval", "1w"],
        &["scrub_interval = \"1w\" (--scrub-interval)"],
    );
    assert!(!data.exists(), "nothing was made");
    let missing = samestate(&["serve", "--config", "/nowhere/settings.toml"]);
    refused(
        &missing,
        &["/nowhere/settings.toml", "cannot read the settings"],
    );
}
