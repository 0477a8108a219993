//! Large states in backups, restores and repairs: they go through chunk by chunk, in memory that does
//! not grow with them, and nothing of them is lost or left over.

use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::Method;
use samestate::delta::chunker::chunks;
use samestate::types::hash::ContentHash;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::damage::rows::{Hurt, chunks_of, hurt, hurt_row};
use crate::damage::stores::{file_of, segments_of};
use crate::harness::Rng;
use crate::harness::http::{send, wait_until};
use crate::harness::process::{Server, program, samestate, succeed, succeed_json};

/// Flags of servers that take large states.
const FLAGS: &[&str] = &["--max-state-bytes", "1GiB"];
/// Address space that a command may take, in KiB. Without large states it takes half of it: the program,
/// the cache of the engine's file (96 MiB) and rows in memory (up to 64 MiB).
const SPACE_KIB: u64 = 450_000;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn start(dir: &Path) -> Server {
    Server::start_having(dir, FLAGS)
}

/// Bytes that neither compress nor repeat.
fn noise(length: usize, rng: &mut Rng) -> Vec<u8> {
    let words = (0..length.div_ceil(8)).flat_map(|_| rng.next().to_le_bytes());
    words.take(length).collect()
}

/// Runs a command that gets no more address space, and returns its exit code and what it says.
fn in_little_memory(arguments: &[&str]) -> (Option<i32>, String) {
    let inner = program(arguments);
    let mut command = Command::new("sh");
    let limit = format!("ulimit -v {SPACE_KIB} && exec \"$0\" \"$@\"");
    command.arg("-c").arg(limit);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&told).into_owned(),
    )
}

fn verified(dir: &Path) -> Value {
    let report = succeed_json(&["verify", "--data", text(dir)]);
    assert_eq!(report["ok"], true, "{report}");
    report
}

/// Stages of large states that are on their way into a server.
fn staged(server: &Server) -> Value {
    let url = format!("{}/v1/stats", server.url);
    let stats = send(Method::GET, &url, &[], Vec::new()).json();
    stats["staged"].clone()
}

#[test]
fn a_state_larger_than_memory_is_restored_and_repaired() {
    let mut rng = Rng::seeded(70);
    let (data, vault) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let state = noise(160 << 20, &mut rng);
    let server = start(data.path());
    server.put("world", &state);
    server.put("small", b"one");
    let root = server.root();
    server.terminate();
    let backups = vault.path().join("backups");
    let backup = [
        "backup",
        "--to",
        text(&backups),
        "--data",
        text(data.path()),
    ];
    succeed(&backup);
    let from = ["restore", "--from", text(&backups)];
    let (code, told) = in_little_memory(&[&from[..], &["--check"]].concat());
    assert_eq!(code, Some(0), "{told}");
    let new = vault.path().join("new");
    let (code, told) = in_little_memory(&[&from[..], &["--data", text(&new)]].concat());
    assert_eq!(code, Some(0), "{told}");
    std::fs::remove_dir_all(&backups).unwrap();
    drop(data);

    hurt_derived(&new, &mut rng);
    let (code, told) = in_little_memory(&["verify", "--data", text(&new), "--repair"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("repaired, 2 records saved"), "{told}");
    let server = start(&new);
    assert_eq!(server.root(), root);
    assert!(server.get("world").body == state);
    server.terminate();
    verified(&new);
}

/// Hurts nothing but what a repair makes anew.
fn hurt_derived(dir: &Path, rng: &mut Rng) {
    assert!(hurt(dir, "chunk_references", Hurt::Flip, rng));
    let code = samestate(&["verify", "--data", text(dir)]).status.code();
    assert_eq!(code, Some(1));
}

fn history(server: &Server, id: &str) -> Value {
    let history = server.at(&format!("history/{id}"));
    send(Method::GET, &history, &[], Vec::new()).json()
}

/// A stopped replica: three large contents as four versions of two states, another one that was deleted, and
/// short ones.
fn used(rng: &mut Rng) -> (TempDir, Vec<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let contents: Vec<Vec<u8>> = (0..4).map(|n| noise((5 << 20) + n, rng)).collect();
    let server = start(dir.path());
    for content in [0, 1] {
        server.put("a", &contents[content]);
    }
    let old = ContentHash::of(&contents[0]).to_hex();
    let order = json!({"version": old}).to_string().into_bytes();
    let again = send(Method::POST, &server.at("restore/a"), &[], order);
    assert_eq!(again.status, 200, "{again:?}");
    server.put("b", &contents[2]);
    server.put("gone", &contents[3]);
    server.delete("gone");
    for n in 0..20 {
        server.put(&format!("match/{n}"), &rng.bytes(700 * n));
    }
    server.terminate();
    (dir, contents)
}

#[test]
fn large_versions_come_back_with_their_histories_and_leave_nothing_behind() {
    let mut rng = Rng::seeded(71);
    let (data, contents) = used(&mut rng);
    let vault = tempfile::tempdir().unwrap();
    let (backups, new) = (vault.path().join("backups"), vault.path().join("new"));
    succeed(&[
        "backup",
        "--to",
        text(&backups),
        "--data",
        text(data.path()),
    ]);
    let restore = ["restore", "--from", text(&backups), "--data", text(&new)];
    let restored = succeed_json(&restore);
    assert_eq!(restored["namespaces"][0]["states"], 22, "{restored}");
    let before = start(data.path());
    let (root, of_a) = (before.root(), history(&before, "a"));
    before.terminate();
    hurt_derived(data.path(), &mut rng);
    let repaired = ["verify", "--data", text(data.path()), "--repair"];
    let repaired = succeed_json(&repaired);
    assert_eq!(repaired["ok"], true, "{repaired}");
    for dir in [data.path(), &new] {
        verified(dir);
        let server = start(dir);
        assert_eq!(server.root(), root, "{}", dir.display());
        assert_eq!(history(&server, "a"), of_a);
        for (id, content) in [("a", 0), ("b", 2)] {
            assert!(server.get(id).body == contents[content], "{id}");
        }
        for (id, content) in [("a", 1), ("gone", 3)] {
            let hash = ContentHash::of(&contents[content]).to_hex();
            let version = server.at(&format!("states/{id}?version={hash}"));
            let version = send(Method::GET, &version, &[], Vec::new());
            assert!(
                version.body == contents[content],
                "{id}: {}",
                version.status
            );
        }
        assert_eq!(staged(&server), 0);
        server.terminate();
    }
}

#[test]
fn a_large_state_that_misses_a_chunk_is_lost_by_name_and_no_other_one() {
    let mut rng = Rng::seeded(72);
    let (data, contents) = used(&mut rng);
    take_away(data.path(), &contents[2], 7);
    let repair = ["verify", "--data", text(data.path()), "--repair"];
    let output = samestate(&repair);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("1 part lost"), "{told}");
    assert!(
        told.contains("record b: its bytes are lost, and with them the state (content "),
        "{told}"
    );
    verified(data.path());
    let server = start(data.path());
    assert_eq!((server.states, staged(&server)), (21, json!(0)));
    assert_eq!(server.get("b").status, 404);
    assert!(server.get("a").body == contents[0]);
}

#[test]
fn a_large_state_that_only_the_log_has_survives_a_repair() {
    let mut rng = Rng::seeded(73);
    let (data, contents) = used(&mut rng);
    let newest = noise(9 << 20, &mut rng);
    let mut server = start(data.path());
    server.put("b", &newest);
    let root = server.root();
    server.kill();
    assert!(!segments_of(data.path()).is_empty());
    hurt_derived(data.path(), &mut rng);
    let repaired = succeed_json(&["verify", "--data", text(data.path()), "--repair"]);
    assert_eq!(repaired["ok"], true, "{repaired}");
    verified(data.path());
    let server = start(data.path());
    assert_eq!(server.root(), root);
    assert!(server.get("b").body == newest);
    assert!(server.get("a").body == contents[0]);
}

/// Takes a chunk of a content away wherever it stands in a file; its hash.
fn take_away(dir: &Path, content: &[u8], number: usize) -> [u8; 32] {
    let chunk = &content[chunks(content).nth(number).unwrap()];
    let hash = ContentHash::of(chunk).0;
    for how in [Hurt::Flip, Hurt::Remove] {
        hurt_row(dir, "chunks", &hash, how);
    }
    wipe(&file_of(dir), chunk);
    hash
}

fn stat(server: &Server, name: &str) -> Value {
    let url = format!("{}/v1/stats", server.url);
    send(Method::GET, &url, &[], Vec::new()).json()[name].clone()
}

#[test]
fn what_peers_have_healed_of_a_large_state_survives_a_repair() {
    let mut rng = Rng::seeded(74);
    let (data, contents) = used(&mut rng);
    let other = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let named = format!("one={}", server.url);
    let peer = Server::start_having(other.path(), &[FLAGS, &["--peer", &named]].concat());
    wait_until("both hold the same", || peer.root() == server.root());
    let root = server.root();
    peer.terminate();
    server.terminate();
    let lost = [7, 100].map(|number| take_away(data.path(), &contents[2], number));

    let peer = start(other.path());
    let named = format!("peer={}", peer.url);
    let eager = ["--scrub-interval", "1s", "--scrub-mib-per-second", "1000"];
    let mut server =
        Server::start_having(data.path(), &[FLAGS, &eager, &["--peer", &named]].concat());
    wait_until("it is healed", || stat(&server, "faults_healed") == 1);
    assert!(server.get("b").body == contents[2]);
    server.kill();
    let there = chunks_of(data.path());
    let in_log_only = lost.iter().all(|chunk| !there.contains(chunk));
    assert!(
        in_log_only,
        "a checkpoint came in between: nothing is shown"
    );
    hurt_derived(data.path(), &mut rng);
    let repaired = succeed_json(&["verify", "--data", text(data.path()), "--repair"]);
    assert_eq!(repaired["ok"], true, "{repaired}");
    verified(data.path());
    let server = start(data.path());
    assert_eq!((server.root(), staged(&server)), (root, json!(0)));
    assert!(server.get("b").body == contents[2]);
}

#[test]
fn a_large_state_in_the_log_may_share_chunks_with_one_that_is_lost() {
    let mut rng = Rng::seeded(75);
    let (data, contents) = used(&mut rng);
    // What the log says of it counts on the chunks that the store has.
    let (old, mut newer) = (&contents[2], contents[2].clone());
    newer.extend(noise(100_000, &mut rng));
    let mut server = start(data.path());
    server.put("c", &newer);
    server.kill();
    let last = chunks(old).count() - 1;
    let of_newer: Vec<_> = chunks(&newer)
        .map(|range| ContentHash::of(&newer[range]).0)
        .collect();
    let lost = take_away(data.path(), old, last);
    assert!(!of_newer.contains(&lost), "the last chunk is not shared");
    let output = samestate(&["verify", "--data", text(data.path()), "--repair"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.contains("1 part lost") && told.contains("record b: its bytes are lost"),
        "{told}"
    );
    verified(data.path());
    let server = start(data.path());
    assert_eq!((server.get("b").status, staged(&server)), (404, json!(0)));
    assert!(server.get("c").body == newer);
}

/// Changes bytes wherever they stand in a file.
fn wipe(file: &Path, bytes: &[u8]) {
    let mut all = std::fs::read(file).unwrap();
    let part = &bytes[..64];
    let places: Vec<usize> = (0..all.len() - 64)
        .filter(|at| all[*at] == part[0] && all[*at..].starts_with(part))
        .collect();
    places.into_iter().for_each(|at| all[at] ^= 1);
    std::fs::write(file, all).unwrap();
}
