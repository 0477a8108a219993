//! Disks without space, and files that give it back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use samestate::clock::{SystemClock, WallClock};
use samestate::replica::command::{Command, Write};
use samestate::replica::engine::Engine;
use samestate::replica::solo::Solo;
use samestate::runtime::namespace::OpenNamespace;
use samestate::runtime::queue::SubmitError;
use samestate::sketch::key::Secret;
use samestate::store::error::StoreError;
use samestate::store::options::StoreOptions;
use samestate::types::cursor::Epoch;
use samestate::types::id::{Namespace, ReplicaId};
use tokio::sync::Semaphore;

use crate::harness::replica::{TestClock, assert_faultless, delete, id, put, put_for, runtime};
use crate::simulated_disk::RecordingDisk;

const PATIENCE: Duration = Duration::from_secs(30);

fn start(disk: &RecordingDisk, reserve_bytes: u64) -> OpenNamespace {
    start_at(disk, reserve_bytes, Arc::new(SystemClock))
}

fn start_at(disk: &RecordingDisk, reserve_bytes: u64, wall: Arc<dyn WallClock>) -> OpenNamespace {
    let options = StoreOptions {
        reserve_bytes,
        compact_when_idle: false,
        ..StoreOptions::default()
    };
    let opened = Engine::open_on(
        Arc::new(disk.clone()),
        Path::new("/data/default.redb"),
        ReplicaId(1),
        Epoch(1),
        options,
        wall,
    );
    let name = Namespace::default_namespace();
    let readers = Arc::new(Semaphore::new(4));
    OpenNamespace::start(
        name,
        opened.unwrap(),
        readers,
        4,
        &options,
        &Secret::default(),
    )
    .unwrap()
}

fn submit(namespace: &OpenNamespace, write: Write) -> Result<(), SubmitError> {
    let submitted = namespace.submit(Command::Write(vec![write]));
    runtime().block_on(submitted).map(|_| ())
}

fn is_full(outcome: &Result<(), SubmitError>) -> bool {
    matches!(outcome, Err(SubmitError::Storage(error)) if matches!(**error, StoreError::Full))
}

fn bytes_of(namespace: &OpenNamespace, name: &str) -> Option<Vec<u8>> {
    let view = namespace.view();
    let row = view.row(&id(name)).unwrap()?;
    view.shown_content(&row).unwrap().map(|(_, bytes)| bytes)
}

/// Bytes that do not compress.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    (0..len).map(|_| byte()).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn below_the_reserve_only_deletions_are_taken_until_there_is_space_again() {
    let disk = RecordingDisk::new();
    let namespace = start(&disk, 64 << 20);
    submit(&namespace, put("match/1", b"one")).unwrap();
    submit(&namespace, put("match/2", b"two")).unwrap();
    disk.set_free_bytes(63 << 20);
    wait_until("the low disk is noticed", || namespace.is_low_on_space());
    let refused = submit(&namespace, put("match/3", b"three"));
    assert!(is_full(&refused), "{refused:?}");
    let told = refused.unwrap_err().to_string();
    assert_eq!(
        told,
        "the disk that holds the data directory is full, or has less free space than the setting \
         disk_reserve keeps; free some space"
    );
    assert_eq!(
        bytes_of(&namespace, "match/1").as_deref(),
        Some(&b"one"[..])
    );
    submit(&namespace, delete("match/2")).unwrap();
    // A little above the reserve it would be refused again with the next write.
    disk.set_free_bytes(65 << 20);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(namespace.is_low_on_space());
    disk.set_free_bytes(80 << 20);
    wait_until("the space is noticed", || !namespace.is_low_on_space());
    submit(&namespace, put("match/3", b"three")).unwrap();
    assert_eq!(namespace.view().head().live, 2);
    namespace.stop();
}

#[test]
fn what_is_over_is_collected_however_little_space_there_is() {
    const HOUR: u64 = 60 * 60 * 1000;
    let (disk, clock) = (RecordingDisk::new(), TestClock::new());
    let namespace = start_at(&disk, 64 << 20, clock.clone());
    for (part, free) in (0u32..).zip([63 << 20, 0]) {
        for n in 0..40 {
            let lobby = put_for(&format!("lobby/{n}"), &noise(n + 1, 20_000), HOUR);
            submit(&namespace, lobby).unwrap();
            submit(&namespace, put(&format!("match/{n}"), &noise(n + 1, 500))).unwrap();
            submit(&namespace, delete(&format!("match/{n}"))).unwrap();
        }
        disk.set_free_bytes(free);
        wait_until("the low disk is noticed", || namespace.is_low_on_space());
        for wait in [2 * HOUR, 26 * HOUR] {
            clock.advance(wait);
            assert_ne!(namespace.collect().unwrap().steps, 0, "{part}");
        }
        assert_eq!(namespace.view().head().root.leaves, 0);
        disk.set_free_bytes(80 << 20);
        wait_until("the space is noticed", || !namespace.is_low_on_space());
    }
    assert_faultless(&namespace.view());
    namespace.stop();
}

#[test]
fn a_log_without_space_refuses_writes_and_goes_on_by_itself() {
    let disk = RecordingDisk::new();
    let namespace = start(&disk, 0);
    let large = noise(1, 3_000_000);
    submit(&namespace, put("match/1", b"one")).unwrap();
    let root = namespace.view().head().root;
    disk.set_free_bytes(256 << 10);
    let refused = submit(&namespace, put("match/large", &large));
    assert!(is_full(&refused), "{refused:?}");
    assert_eq!(namespace.view().head().root, root);
    assert_eq!(bytes_of(&namespace, "match/large"), None);
    // What fits into the log's file still goes.
    submit(&namespace, put("match/2", b"two")).unwrap();
    disk.set_free_bytes(64 << 20);
    submit(&namespace, put("match/large", &large)).unwrap();
    assert_eq!(bytes_of(&namespace, "match/large"), Some(large.clone()));
    namespace.stop();
    drop(namespace);
    let again = start(&disk, 0);
    assert_eq!(bytes_of(&again, "match/large"), Some(large));
    assert_eq!(bytes_of(&again, "match/2").as_deref(), Some(&b"two"[..]));
    assert_faultless(&again.view());
    again.stop();
}

#[test]
fn a_checkpoint_without_space_is_tried_again_and_reads_go_on() {
    let disk = RecordingDisk::new();
    let namespace = start(&disk, 0);
    for number in 0..200 {
        let bytes = noise(number, 10_000);
        submit(&namespace, put(&format!("match/{number}"), &bytes)).unwrap();
    }
    // The log has its space already, the file of the engine has to grow.
    disk.set_free_bytes(0);
    let mut more = 0;
    wait_until("a checkpoint fails", || {
        more += 1;
        // The log may be full as well; whether it is, is not the question here.
        let _ = submit(
            &namespace,
            put(&format!("more/{more}"), &noise(more, 3_000)),
        );
        namespace.is_stalled()
    });
    for number in 0..200 {
        let expected = noise(number, 10_000);
        wait_until("reads go on", || {
            let view = namespace.view();
            let row = view.row(&id(&format!("match/{number}")));
            let bytes = row.and_then(|row| view.shown_content(&row.unwrap()));
            bytes.is_ok_and(|found| found.map(|(_, bytes)| bytes).as_deref() == Some(&expected))
        });
    }
    disk.set_free_bytes(1 << 30);
    submit(&namespace, put("match/last", b"last")).unwrap();
    wait_until("checkpoints go on", || !namespace.is_stalled());
    let head = *namespace.view().head();
    namespace.stop();
    drop(namespace);
    let again = start(&disk, 0);
    assert_eq!(again.view().head().root, head.root);
    assert_faultless(&again.view());
    again.stop();
}

#[test]
fn a_file_that_was_rewritten_often_is_compacted_to_little_more_than_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("default.redb");
    let options = StoreOptions {
        history_versions: 0,
        ..StoreOptions::default()
    };
    let (replica, epoch, wall) = (ReplicaId(1), Epoch(1), Arc::new(SystemClock));
    let mut solo = Solo::open(&path, replica, epoch, options, wall).unwrap();
    for round in 0..10 {
        for part in 0..20u32 {
            let states = part * 300..(part + 1) * 300;
            let put = |n| Command::Write(vec![put(&format!("match/{n}"), &noise(n + round, 600))]);
            solo.commit(states.map(put).collect(), BTreeMap::new())
                .unwrap();
        }
        solo.checkpoint().unwrap();
    }
    let progress = solo.compact().unwrap();
    // Key, header, record, id, feed entry and tree row of a state, beside its 601 bytes.
    let live = 6000 * (601 + 32 + 56 + 90 + 15 + 40 + 40);
    let (before, after) = (progress.bytes_before, progress.bytes_after);
    assert!(before > 3 * live / 2, "{before} of {live}");
    assert!(after < live * 13 / 10, "{after} of {live}");
    assert_faultless(&solo.view());
}

#[test]
fn compaction_goes_on_while_writes_do() {
    let disk = RecordingDisk::new();
    let namespace = Arc::new(start(&disk, 0));
    for round in 0..6u8 {
        for number in 0..1500u32 {
            let bytes: Vec<u8> = (0..700).map(|n| (n * number) as u8 ^ round).collect();
            submit(&namespace, put(&format!("match/{number}"), &bytes)).unwrap();
        }
    }
    let stop = Arc::<AtomicBool>::default();
    let (writer, stopped) = (Arc::clone(&namespace), Arc::clone(&stop));
    let writing = std::thread::spawn(move || {
        let mut written = 0u32;
        while !stopped.load(Ordering::Relaxed) {
            let name = format!("match/{}", written % 2000);
            submit(&writer, put(&name, &written.to_le_bytes())).unwrap();
            written += 1;
        }
        written
    });
    let progress = namespace.compact(&mut |_| {}).unwrap();
    stop.store(true, Ordering::Relaxed);
    let written = writing.join().unwrap();
    assert!(written > 0);
    assert!(
        progress.rows >= 4 * 1500 && progress.bytes_after > 0,
        "{progress:?}"
    );
    let last = written - 1;
    let found = bytes_of(&namespace, &format!("match/{}", last % 2000));
    assert_eq!(found.as_deref(), Some(&last.to_le_bytes()[..]));
    let head = *namespace.view().head();
    namespace.stop();
    drop(namespace);
    let again = start(&disk, 0);
    assert_eq!(again.view().head().root, head.root);
    assert_faultless(&again.view());
    again.stop();
}
