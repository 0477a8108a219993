//! The program on a disk that is really full: each command says so, leaves what was there as it was, and succeeds once
//! there is space; a server goes on, also when its log goes to that disk.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::Method;

use crate::damage::rows::{Hurt, hurt};
use crate::damage::stores::file_of;
use crate::harness::Rng;
use crate::harness::folder::files_in;
use crate::harness::http::{send, wait_until};
use crate::harness::process::{Server, program, samestate, succeed, succeed_json};
use crate::harness::small_disk::SmallDisk;

/// What is left of the disk: nothing, not enough to begin with, and enough to get half way.
const LEFT: [u64; 3] = [0, 200 << 10, 4 << 20];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn failure(arguments: &[&str]) -> String {
    let output = samestate(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
    assert!(!told.contains("panicked"), "{told}");
    assert!(
        told.contains("is full") || told.contains("no space left for"),
        "{arguments:?}: {told}"
    );
    assert!(told.contains("free some space"), "{arguments:?}: {told}");
    told
}

/// A stopped replica with a state in chunks and many small ones, and its root.
fn used(dir: &Path, rng: &mut Rng) -> String {
    let server = Server::start_having(dir, &["--disk-reserve", "0"]);
    server.put("large", &rng.bytes(5_000_000));
    for n in 0..40 {
        server.put(&format!("match/{n}"), &rng.bytes(50_000));
    }
    let root = server.root();
    server.terminate();
    root
}

#[test]
fn a_backup_without_space_leaves_the_earlier_ones() {
    let mut rng = Rng::seeded(90);
    let Some(disk) = SmallDisk::of_mib(96) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (data, backups) = (folder.path().join("data"), disk.path().join("backups"));
    let root = used(&data, &mut rng);
    let backup = ["backup", "--to", text(&backups), "--data", text(&data)];
    succeed(&backup);
    let before = files_in(&backups);
    let new = folder.path().join("new");
    for left in LEFT {
        disk.fill_but(left);
        let told = failure(&[&backup[..], &["--full"]].concat());
        assert!(told.contains("no space left for"), "{told}");
        assert!(files_in(&backups) == before, "with {left} left");
        // Taking all the space cannot keep anybody from restoring to another disk.
        succeed(&["restore", "--from", text(&backups), "--check"]);
    }
    let restored = succeed_json(&["restore", "--from", text(&backups), "--data", text(&new)]);
    assert_eq!(restored["namespaces"][0]["root"], root);
    disk.empty();
    succeed(&[&backup[..], &["--full"]].concat());
    let checked = succeed_json(&["restore", "--from", text(&backups), "--check"]);
    assert_eq!(checked["backup"], "000002", "{checked}");
}

#[test]
fn commands_on_a_directory_without_space_change_nothing() {
    let mut rng = Rng::seeded(91);
    let Some(disk) = SmallDisk::of_mib(128) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (data, backups) = (disk.path().join("data"), folder.path().join("backups"));
    let (hurt_dir, new) = (disk.path().join("hurt"), disk.path().join("new"));
    let root = used(&data, &mut rng);
    succeed(&["backup", "--to", text(&backups), "--data", text(&data)]);
    let hurt_root = used(&hurt_dir, &mut rng);
    assert!(hurt(&hurt_dir, "chunk_references", Hurt::Flip, &mut rng));
    let restore = ["restore", "--from", text(&backups), "--data", text(&new)];
    let shards = ["shards", "--data", text(&data), "--count", "4"];
    let repair = ["verify", "--data", text(&hurt_dir), "--repair"];
    let before = files_in(&hurt_dir);
    for left in LEFT {
        disk.fill_but(left);
        let told = failure(&restore);
        assert!(
            told.contains("nothing of the new replica is left"),
            "{told}"
        );
        let told = failure(&shards);
        assert!(told.contains("the namespace is as it was"), "{told}");
        let told = failure(&repair);
        assert!(
            told.contains("were not repaired are as they were"),
            "{told}"
        );
        let found = succeed_json(&["verify", "--data", text(&data)]);
        assert_eq!(
            found["namespaces"][0]["root"], root,
            "looking takes no space"
        );
        disk.empty();
        assert!(!new.exists() && !disk.path().join("new.restoring").exists());
        assert!(files_in(&hurt_dir) == before, "with {left} left");
    }
    let restored = succeed_json(&restore);
    assert_eq!(restored["namespaces"][0]["root"], root, "{restored}");
    succeed(&shards);
    succeed(&repair);
    for (dir, root) in [(&data, &root), (&new, &root), (&hurt_dir, &hurt_root)] {
        assert_eq!(succeed_json(&["verify", "--data", text(dir)])["ok"], true);
        let server = Server::start_having(dir, &["--disk-reserve", "0"]);
        assert_eq!(&server.root(), root);
    }
}

#[test]
fn a_server_without_space_takes_large_states_and_compacts_when_there_is_some() {
    let mut rng = Rng::seeded(92);
    let Some(disk) = SmallDisk::of_mib(160) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let data = disk.path().join("data");
    let root = used(&data, &mut rng);
    let file = folder.path().join("file");
    let bytes = rng.bytes(12_000_000);
    fs::write(&file, &bytes).unwrap();
    // Its log goes to the full disk as well.
    let server = Server::start_having(&data, &["--disk-reserve", "0"]);
    let at = |arguments: &[&str]| -> Vec<String> {
        let all = [arguments, &["--server", &server.url]].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let refused = |arguments: &[&str]| {
        let arguments = at(arguments);
        failure(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let before = server.get("large").body;
    for left in LEFT {
        disk.fill_but(left);
        let told = refused(&["put", "large", text(&file)]);
        assert!(told.contains("(storage_full)"), "{told}");
        let told = refused(&["compact"]);
        assert!(told.contains("the compaction failed"), "{told}");
        assert!(server.get("large").body == before, "with {left} left");
        assert_eq!(server.root(), root);
        assert!(!file_of(&data).with_added_extension("compact").exists());
    }
    disk.empty();
    wait_until("the space is found", || {
        let stored = send(Method::PUT, &server.at("states/large"), &[], bytes.clone());
        stored.status == 200
    });
    assert!(server.get("large").body == bytes);
    wait_until("what was given up is cleared away", || {
        let stats = format!("{}/v1/stats", server.url);
        let stats = send(Method::GET, &stats, &[], Vec::new()).json();
        stats["staged"] == 0
    });
    succeed(&["compact", "--server", &server.url]);
    let root = server.root();
    server.terminate();
    assert_eq!(succeed_json(&["verify", "--data", text(&data)])["ok"], true);
    let server = Server::start_having(&data, &["--disk-reserve", "0"]);
    assert_eq!(server.root(), root);
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Every write there fails as on a full disk.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let arguments = [
        "serve",
        "--data",
        text(dir.path()),
        "--listen",
        "127.0.0.1:0",
    ];
    let mut command = program(&[&arguments[..], &["--log-level", "debug"]].concat());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(full);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line
        .strip_prefix("listening on ")
        .and_then(|rest| rest.split(' ').next());
    let url = url.unwrap_or_else(|| panic!("not a ready line: {line:?}"));
    let states = format!("{url}/v1/ns/default/states");
    let mut rng = Rng::seeded(93);
    for n in 0..30 {
        let bytes = rng.bytes(100_000);
        let put = send(Method::PUT, &format!("{states}/{n}"), &[], bytes);
        assert_eq!(put.status, 201);
    }
    // Tells its log what it does, from the thread that checkpoints.
    succeed(&["compact", "--server", url]);
    assert_eq!(
        send(Method::PUT, &format!("{states}/a"), &[], vec![1]).status,
        201
    );
    let signal = format!("kill -TERM {}", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &signal])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(
        succeed_json(&["verify", "--data", text(dir.path())])["ok"],
        true
    );
}
