//! What operators do at a bad moment or with a slip of the hand: commands that are killed half way and run
//! again, two at once, and values that are none, with the message that each gets.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::damage::rows::{Hurt, hurt};
use crate::damage::stores::file_of;
use crate::harness::Rng;
use crate::harness::http::{send, wait_until};
use crate::harness::process::{Server, program, samestate, succeed, succeed_json};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The message of a command that must fail with this exit code.
fn failure(code: i32, arguments: &[&str]) -> String {
    let output = samestate(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    assert!(
        told.starts_with("error: ") && !told.contains("panicked"),
        "{told}"
    );
    told
}

fn at<'a>(server: &'a Server, arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--server", &server.url]].concat()
}

#[test]
fn an_old_version_is_read_and_becomes_the_newest_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for bytes in [&b"one"[..], b"two"] {
        server.put("match/1", bytes);
    }
    let history = succeed_json(&at(&server, &["history", "match/1"]));
    let first = history["versions"][1]["content_hash"].as_str().unwrap();
    let version = ["get", "match/1", "--version", first];
    assert_eq!(succeed(&at(&server, &version)), b"one");
    let stale = ["--if-match", &"0".repeat(64)];
    let revert = ["revert", "match/1", "--version", first];
    let told = failure(1, &at(&server, &[&revert[..], &stale].concat()));
    assert!(told.contains("precondition_failed"), "{told}");
    let receipt = succeed_json(&at(&server, &revert));
    assert_eq!(
        (&receipt["content_hash"], &receipt["seq"]),
        (&first.into(), &3.into())
    );
    assert_eq!(server.get("match/1").body, b"one");
    assert_eq!(
        succeed(&at(&server, &["get", "match/1", "--at", "-0s"])),
        b"one"
    );

    let unknown = "ab".repeat(32);
    let told = failure(
        1,
        &at(&server, &["revert", "match/1", "--version", &unknown]),
    );
    assert!(
        told.contains("has no such version (any more); see its history"),
        "{told}"
    );
    let told = failure(2, &at(&server, &["revert", "match/1", "--version", "12"]));
    assert!(told.contains("expected 64 hexadecimal digits"), "{told}");
    let told = failure(1, &at(&server, &["revert", "none", "--version", first]));
    assert!(told.contains("not_found"), "{told}");
}

#[test]
fn times_that_are_none_are_repeated_with_what_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "bytes").unwrap();
    let server = Server::start(&dir.path().join("data"));
    for (wrong, expected) in [
        (
            &["get", "a", "--at", "5m"][..],
            "such as -10m, with a unit ms, s, m, h or d; got \"5m\"",
        ),
        (
            &["get", "a", "--at", "tomorrow"],
            "(RFC 3339; write + as %2B)",
        ),
        (&["get", "a", "--at", "-5m"], "there is no state \"a\""),
        (
            &["put", "a", text(&file), "--ttl", "-5m"],
            "such as 30m or 36h; got \"-5m\"",
        ),
        (
            &["put", "a", text(&file), "--ttl", "5"],
            "from 1ms to 3650d",
        ),
    ] {
        let code = if wrong[0] == "put" { 2 } else { 1 };
        let told = failure(code, &at(&server, wrong));
        assert!(told.contains(expected), "{wrong:?}: {told}");
    }
    // A zone in front of ours is encoded on the way.
    server.put("a", b"now");
    let later = ["get", "a", "--at", "2100-01-31T12:00:00+01:00"];
    assert_eq!(succeed(&at(&server, &later)), b"now");
}

#[test]
fn files_become_smaller_while_they_are_served() {
    let mut rng = Rng::seeded(80);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for _ in 0..5 {
        for n in 0..20 {
            server.put(&format!("match/{n}"), &rng.bytes(20_000));
        }
    }
    for n in 2..20 {
        server.delete(&format!("match/{n}"));
    }
    let root = server.root();
    let result = succeed_json(&at(&server, &["compact"]));
    let part = &result[0];
    let bytes = |name: &str| part[name].as_u64().unwrap();
    assert_eq!(part["namespace"], "default");
    assert!(bytes("bytes_after") <= bytes("bytes_before"), "{part}");
    let told = String::from_utf8(succeed(&at(&server, &["compact"]))).unwrap();
    assert!(
        told.starts_with("compacted default: ") && told.ends_with(" now\n"),
        "{told}"
    );
    assert_eq!(server.root(), root);
    server.terminate();
    let told = failure(1, &["compact", "--server", "http://127.0.0.1:1"]);
    assert!(told.contains("samestate serve"), "{told}");
}

#[test]
fn below_the_reserve_a_server_says_what_it_lacks_and_takes_deletions() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    std::fs::write(&file, "bytes").unwrap();
    let server = Server::start(&data);
    server.put("a", b"one");
    server.put("b", b"two");
    server.terminate();
    let server = Server::start_having(&data, &["--disk-reserve", "1048576GiB"]);
    let url = server.at("states/c");
    wait_until("the low disk is noticed", || {
        let put = send(Method::PUT, &url, &[], b"three".to_vec());
        put.status == 507 && put.code() == "storage_full"
    });
    let told = failure(1, &at(&server, &["put", "c", text(&file)]));
    assert!(
        told.contains("less free space than the setting disk_reserve keeps; free some space"),
        "{told}"
    );
    assert_eq!(server.get("a").body, b"one");
    server.delete("b");
    server.terminate();
    let server = Server::start(&data);
    assert_eq!(server.get("b").status, 404);
    server.put("d", b"four");
}

/// Starts a command and kills it once a file has become as long as told; false when it ended before.
fn kill_at(arguments: &[&str], file: &Path, length: u64) -> bool {
    let mut command = program(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if std::fs::metadata(file).is_ok_and(|found| found.len() >= length) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{arguments:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

/// Kills a command when its draft has begun, is half there, and is nearly whole. On a busy machine it may have
/// ended before anybody looks: then everything is made ready again for another try.
fn at_three_moments(kill: impl Fn(u64) -> bool, mut again: impl FnMut()) {
    for length in [0, 2_000_000, 4_000_000] {
        let killed = (0..30).any(|_| {
            let killed = kill(length);
            if !killed {
                again();
            }
            killed
        });
        assert!(killed, "ended before {length} bytes were seen each time");
    }
}

/// A stopped replica with some megabytes, and its root.
fn used(dir: &Path, rng: &mut Rng) -> String {
    let server = Server::start(dir);
    for n in 0..60 {
        server.put(&format!("match/{n}"), &rng.bytes(100_000));
    }
    let root = server.root();
    server.terminate();
    root
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

fn verified(dir: &Path) -> Value {
    let report = succeed_json(&["verify", "--data", text(dir)]);
    assert_eq!(report["ok"], true, "{report}");
    report
}

#[test]
fn a_restore_that_is_killed_leaves_no_replica_and_is_done_again() {
    let mut rng = Rng::seeded(81);
    let dir = tempfile::tempdir().unwrap();
    let (data, backups) = (dir.path().join("data"), dir.path().join("backups"));
    let root = used(&data, &mut rng);
    succeed(&["backup", "--to", text(&backups), "--data", text(&data)]);
    let new = dir.path().join("new");
    let draft = dir.path().join("new.restoring");
    let restore = ["restore", "--from", text(&backups), "--data", text(&new)];
    let kill = |length| kill_at(&restore, &file_of(&draft), length) && !new.exists();
    at_three_moments(kill, || std::fs::remove_dir_all(&new).unwrap());
    assert!(!new.exists());
    let told = failure(1, &["verify", "--data", text(&new)]);
    assert!(told.contains("is not a data directory"), "{told}");
    let restored = succeed_json(&restore);
    assert_eq!(restored["namespaces"][0]["root"], root, "{restored}");
    assert_eq!(names(dir.path()), [backups, data, new.clone()]);
    verified(&new);
}

#[test]
fn a_repair_that_is_killed_changes_nothing_and_is_done_again() {
    let mut rng = Rng::seeded(82);
    let dir = tempfile::tempdir().unwrap();
    let root = used(dir.path(), &mut rng);
    let repair = ["verify", "--data", text(dir.path()), "--repair"];
    let draft = file_of(dir.path()).with_added_extension("repair");
    let mut hurt_again = || assert!(hurt(dir.path(), "chunk_references", Hurt::Flip, &mut rng));
    hurt_again();
    let kill = |length| {
        let before = std::fs::read(file_of(dir.path())).unwrap();
        let killed = kill_at(&repair, &draft, length);
        // The kill may have come behind the change of names, and then nothing was left to do.
        killed && std::fs::read(file_of(dir.path())).unwrap() == before || {
            verified(dir.path());
            false
        }
    };
    at_three_moments(kill, hurt_again);
    let code = samestate(&repair).status.code();
    assert_eq!(code, Some(0));
    assert!(!draft.exists());
    verified(dir.path());
    assert_eq!(Server::start(dir.path()).root(), root);
}

#[test]
fn two_commands_on_one_directory_do_not_meet() {
    let mut rng = Rng::seeded(83);
    let dir = tempfile::tempdir().unwrap();
    let (data, backups) = (dir.path().join("data"), dir.path().join("backups"));
    used(&data, &mut rng);
    succeed(&["backup", "--to", text(&backups), "--data", text(&data)]);
    let server = Server::start(&data);
    for command in [
        &["verify", "--data", text(&data)][..],
        &["verify", "--data", text(&data), "--repair"],
        &["backup", "--to", text(&backups), "--data", text(&data)],
        &[
            "shards",
            "--ns",
            "default",
            "--count",
            "2",
            "--data",
            text(&data),
        ],
        &["serve", "--data", text(&data), "--listen", "127.0.0.1:0"],
    ] {
        let told = failure(1, command);
        assert!(
            told.contains("is in use by another samestate process"),
            "{told}"
        );
    }
    let into = ["restore", "--from", text(&backups), "--data", text(&data)];
    let told = failure(1, &into);
    assert!(told.contains("holds files already"), "{told}");
    let told = failure(2, &[&into[..], &["--at", "newest"]].concat());
    assert!(
        told.contains("a backup is named by its number, such as 000003"),
        "{told}"
    );
    server.terminate();
    verified(&data);
}
