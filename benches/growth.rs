//! How a namespace's file grows: loaded with states of 1 KiB, after ten rewrites of a tenth of
//! them, after ten rewrites of all, and compacted; and how fast an empty namespace takes states in
//! order of key, as from a peer; and how long collecting what is over keeps the writer.
//!
//! `cargo bench --bench growth [STATES]`. Bytes are those that the disk has given the folder.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints its table and stops at the first surprise"
)]

#[path = "support/arguments.rs"]
mod arguments;
#[path = "support/states.rs"]
mod states;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use samestate::clock::{SystemClock, WallClock};
use samestate::replica::collect::due;
use samestate::replica::command::{Change, Command, Content, Incoming, Precondition, Write};
use samestate::replica::solo::Solo;
use samestate::store::body::Body;
use samestate::store::options::StoreOptions;
use samestate::types::cursor::Epoch;
use samestate::types::hash::StateKey;
use samestate::types::id::ReplicaId;

use arguments::first_number;
use states::{id, state};

fn main() {
    let states = first_number(100_000);
    println!("{states} states of 1 KiB; MB that the disk has given, by history kept");
    println!("history      loaded  +10 x a tenth  compacted  +10 x all  compacted");
    for history_versions in [0, 8] {
        grow(states, history_versions);
    }
    copy(states);
    collect(states / 10);
}

fn grow(states: u64, history_versions: usize) {
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let options = StoreOptions {
        history_versions,
        ..StoreOptions::default()
    };
    let mut solo = open(folder.path(), 1, options);
    put(&mut solo, 0..states, 0);
    let loaded = settled(&mut solo, folder.path());
    for round in 1..=10 {
        put(&mut solo, 0..states / 10, round);
    }
    let tenth = settled(&mut solo, folder.path());
    solo.compact().expect("a compaction");
    let compacted = megabytes(folder.path());
    for round in 11..=20 {
        put(&mut solo, 0..states, round);
    }
    let all = settled(&mut solo, folder.path());
    solo.compact().expect("a compaction");
    let again = megabytes(folder.path());
    println!(
        "{history_versions:>7} {loaded:>11.1} {tenth:>14.1} {compacted:>10.1} {all:>10.1} {again:>10.1}"
    );
}

fn settled(solo: &mut Solo, folder: &Path) -> f64 {
    solo.checkpoint().expect("a checkpoint");
    megabytes(folder)
}

fn megabytes(folder: &Path) -> f64 {
    let entries = std::fs::read_dir(folder).expect("the folder");
    let blocks = entries.map(|entry| entry.and_then(|e| e.metadata()).expect("a file").blocks());
    blocks.sum::<u64>() as f64 * 512.0 / 1e6
}

/// Hands the states of one namespace to an empty one, as a session that copies does.
fn copy(states: u64) {
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let mut from = open(folder.path(), 2, StoreOptions::default());
    put(&mut from, 0..states, 0);
    let view = from.view();
    let mut keys: Vec<(StateKey, u64)> = (0..states).map(|n| (StateKey::of(&id(n)), n)).collect();
    keys.sort_unstable();
    let mut to = open(folder.path(), 3, StoreOptions::default());
    let mut spent = 0.0;
    for part in keys.chunks(1024) {
        let incoming: Vec<Incoming> = part
            .iter()
            .map(|(_, n)| {
                let row = view.row(&id(*n)).expect("a readable row").expect("a state");
                Incoming {
                    record: row.record,
                    bodies: vec![Body::new(&state(*n, 0))],
                }
            })
            .collect();
        let begin = Instant::now();
        let merged = to.commit(vec![Command::Merge(incoming)], BTreeMap::new());
        merged.expect("a commit")[0].as_ref().expect("a merge");
        spent += begin.elapsed().as_secs_f64();
    }
    let begin = Instant::now();
    to.checkpoint().expect("a checkpoint");
    spent += begin.elapsed().as_secs_f64();
    assert_eq!(to.view().head().root, from.view().head().root);
    println!(
        "copy in order of key: {:.0} states/s merged, logged and in the file",
        states as f64 / spent
    );
}

/// A day and two hours after they were deleted, states with long histories, and ten of 16 MiB, are
/// forgotten: how long does each command keep the writer?
fn collect(states: u64) {
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let clock = Arc::new(Later::default());
    let wall = Arc::clone(&clock) as Arc<dyn WallClock>;
    let mut solo = open_at(folder.path(), 4, StoreOptions::default(), wall);
    for round in 0..9 {
        put(&mut solo, 0..states, round);
    }
    for number in states..states + 10 {
        let large: Vec<u8> = (0..16 << 10).flat_map(|n| state(number, n)).collect();
        write(
            &mut solo,
            vec![(number, Change::Put(Content::new(&large, None)))],
        );
    }
    for number in 0..states + 10 {
        write(&mut solo, vec![(number, Change::Delete)]);
    }
    clock.0.store(26 * 60 * 60 * 1000, Ordering::Relaxed);
    let (mut after, mut millis) = (None, Vec::new());
    while solo.view().head().root.leaves > 0 {
        let view = solo.view();
        let seen = view.seen().expect("a readable row");
        let plan = due(&view, &seen, clock.now_millis(), after).expect("a plan");
        let begin = Instant::now();
        let command = Command::Collect(plan.steps);
        let outcomes = solo.commit_logged(vec![command], BTreeMap::new());
        outcomes.expect("a commit")[0].as_ref().expect("steps");
        millis.push(begin.elapsed().as_secs_f64() * 1e3);
        // Of a server that is another thread's work.
        solo.checkpoint().expect("a checkpoint");
        after = plan.next;
    }
    millis.sort_by(f64::total_cmp);
    println!(
        "collect {states} states of 1 KiB with 9 old versions, and 10 of 16 MiB: {} commands, \
         median {:.1} ms, longest {:.1} ms, synced",
        millis.len(),
        millis[millis.len() / 2],
        millis[millis.len() - 1]
    );
}

/// A clock that can be put forward.
#[derive(Default)]
struct Later(AtomicU64);

impl WallClock for Later {
    fn now_millis(&self) -> u64 {
        SystemClock.now_millis() + self.0.load(Ordering::Relaxed)
    }
}

fn open(folder: &Path, replica: u64, options: StoreOptions) -> Solo {
    open_at(folder, replica, options, Arc::new(SystemClock))
}

fn open_at(folder: &Path, replica: u64, options: StoreOptions, clock: Arc<dyn WallClock>) -> Solo {
    let path = folder.join(format!("{replica}.redb"));
    let (id, epoch) = (ReplicaId(replica), Epoch(replica));
    Solo::open(&path, id, epoch, options, clock).expect("a fresh store")
}

fn put(solo: &mut Solo, numbers: std::ops::Range<u64>, round: u64) {
    let numbers: Vec<u64> = numbers.collect();
    for part in numbers.chunks(64) {
        let content = |number| Change::Put(Content::new(&state(number, round), None));
        let changes = part.iter().map(|number| (*number, content(*number)));
        write(solo, changes.collect());
    }
}

fn write(solo: &mut Solo, changes: Vec<(u64, Change)>) {
    let commands = changes.into_iter().map(|(number, change)| {
        Command::Write(vec![Write {
            id: id(number),
            precondition: Precondition::None,
            change,
        }])
    });
    let outcomes = solo.commit(commands.collect(), BTreeMap::new());
    assert!(outcomes.expect("a commit").iter().all(Result::is_ok));
}
