//! Collecting that is broken off at any moment, and log entries that are carried out again.

use std::path::Path;
use std::sync::Arc;

use samestate::clock::WallClock;
use samestate::replica::collect::due;
use samestate::replica::command::{Command, Write};
use samestate::replica::solo::Solo;
use samestate::store::options::StoreOptions;
use samestate::types::cursor::Epoch;
use samestate::types::id::ReplicaId;

use crate::collection::{HOUR, LONG, rows};
use crate::harness::Rng;
use crate::harness::replica::{TestClock, assert_faultless, delete, put, put_for};

fn open(path: &Path, clock: &Arc<TestClock>) -> Solo {
    let (replica, epoch) = (ReplicaId(1), Epoch(7));
    Solo::open(path, replica, epoch, StoreOptions::default(), clock.clone()).unwrap()
}

fn write(solo: &mut Solo, writes: Vec<Write>) {
    let outcomes = solo.commit_logged(vec![Command::Write(writes)], Default::default());
    assert!(outcomes.unwrap()[0].is_ok());
}

/// One command of collecting; false when there was nothing to do.
fn collect_once(solo: &mut Solo, clock: &TestClock) -> bool {
    let (view, mut after) = (solo.view(), None);
    loop {
        let seen = view.seen().unwrap();
        let plan = due(&view, &seen, clock.now_millis(), after).unwrap();
        if !plan.steps.is_empty() {
            let collect = vec![Command::Collect(plan.steps)];
            solo.commit_logged(collect, Default::default()).unwrap();
            return true;
        }
        after = plan.next;
        if after.is_none() {
            return false;
        }
    }
}

/// States of all kinds, most of them over.
fn fill(solo: &mut Solo, clock: &TestClock) {
    let mut rng = Rng::seeded(4000);
    for part in 0..6 {
        let name = |n: usize| format!("{part}/{n}");
        write(
            solo,
            (0..60).map(|n| put(&name(n), &rng.bytes(200))).collect(),
        );
        let large = rng.bytes(60_000);
        write(
            solo,
            vec![put("large", &large), put_for(&name(99), &large, HOUR)],
        );
        write(solo, (0..50).map(|n| delete(&name(n))).collect());
    }
    write(solo, vec![put_for("huge", &rng.bytes(12 << 20), HOUR)]);
    clock.advance(3 * HOUR);
}

#[test]
fn collecting_goes_on_after_a_crash_behind_any_command() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let (crashing, steady) = (folder.path().join("crashing"), folder.path().join("steady"));
    let mut solo = open(&crashing, &clock);
    fill(&mut solo, &clock);
    drop(solo);
    let later = TestClock::new();
    let mut solo = open(&steady, &later);
    fill(&mut solo, &later);
    let mut commands = 0;
    for round in 0..2 {
        loop {
            // The log is all that is left of the last command.
            let mut solo = open(&crashing, &clock);
            assert_faultless(&solo.view());
            if commands % 3 == 2 {
                solo.checkpoint().unwrap();
            }
            if !collect_once(&mut solo, &clock) {
                break;
            }
            commands += 1;
            let head = *solo.view().head();
            drop(solo);
            let again = open(&crashing, &clock);
            let known = *again.view().head();
            assert_eq!(
                (known.root, known.live, known.seq),
                (head.root, head.live, head.seq)
            );
        }
        clock.advance(LONG * (1 - round));
    }
    assert!(commands >= 6, "{commands}");
    later.advance(LONG);
    while collect_once(&mut solo, &later) {}
    let solo_again = open(&crashing, &clock);
    assert_eq!(solo_again.view().head().root, solo.view().head().root);
    assert_eq!(
        rows(solo_again.view().snapshot()),
        rows(solo.view().snapshot())
    );
    assert_eq!(solo.view().head().root.leaves, 6 * 10 + 1);
    assert_faultless(&solo.view());
}

#[test]
fn what_was_learned_is_known_again_after_a_crash() {
    use samestate::types::id::WriterId;
    use samestate::types::seen::Seen;

    let folder = tempfile::tempdir().unwrap();
    let (path, clock) = (folder.path().join("t.redb"), TestClock::new());
    let mut solo = open(&path, &clock);
    let own = solo.view().identity().writer();
    let mut seen = Seen::default();
    seen.raise(WriterId(99), 5);
    seen.raise(own, 1000);
    let learn = vec![Command::Learn(Arc::new(seen))];
    solo.commit_logged(learn.clone(), Default::default())
        .unwrap();
    write(&mut solo, vec![put("a", b"x")]);
    for checkpoint in [false, true] {
        if checkpoint {
            solo.checkpoint().unwrap();
        }
        drop(solo);
        solo = open(&path, &clock);
        let known = solo.view().seen().unwrap();
        assert_eq!((known.get(WriterId(99)), known.get(own)), (5, 1));
        let commit = solo.view().head().log.commit;
        solo.commit_logged(learn.clone(), Default::default())
            .unwrap();
        assert_eq!(solo.view().head().log.commit, commit, "nothing new");
    }
}
