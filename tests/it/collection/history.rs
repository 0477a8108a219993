//! What a state remembers of its past: bounded by number, age and bytes, and readable by time.

use samestate::clock::WallClock;
use samestate::runtime::replica::ReplicaOptions;
use samestate::types::hash::StateKey;

use crate::collection::{HOUR, MINUTE};
use crate::harness::Rng;
use crate::harness::replica::{Node, TestClock, delete, id, put, put_for};

#[test]
fn history_is_what_a_list_of_all_writes_says() {
    for seed in 0..8 {
        let mut rng = Rng::seeded(3000 + seed);
        let (clock, mut options) = (TestClock::new(), ReplicaOptions::default());
        let versions = rng.below(6);
        let bytes = [None, Some(0), Some(10_000), Some(90_000)][rng.below(4)];
        let age = [None, Some(3 * HOUR)][rng.below(2)];
        options.store.history_versions = versions;
        options.store.history_bytes = bytes;
        options.store.history_age = age;
        let node = Node::with_clock(1, options, clock.clone());
        let key = StateKey::of(&id("match"));
        // Every write: when, and what it left.
        let mut writes: Vec<(u64, Option<Vec<u8>>)> = Vec::new();
        // When something was superseded, from the oldest that must still be there.
        let mut kept: Vec<usize> = Vec::new();
        for _ in 0..60 {
            clock.advance(1 + [0, MINUTE, HOUR][rng.below(3)]);
            let now = clock.now_millis();
            let is_there = writes.last().is_some_and(|(_, bytes)| bytes.is_some());
            if is_there && rng.one_in(6) {
                node.write(vec![delete("match")]).unwrap();
                writes.push((now, None));
            } else {
                let length = [10, 4_000, 40_000][rng.below(3)];
                let bytes = rng.bytes(length);
                node.put("match", &bytes);
                writes.push((now, Some(bytes)));
            }
            if writes.len() > 1 {
                kept.push(writes.len() - 2);
            }
            let size = |at: &usize| writes[*at].1.as_ref().map_or(0, |bytes| bytes.len() as u64);
            while kept.len() > versions
                || bytes.is_some_and(|bound| kept.iter().map(size).sum::<u64>() > bound)
            {
                kept.remove(0);
            }
            if rng.one_in(4) {
                node.collect();
                node.check();
                if let Some(age) = age {
                    // A pass begins an eighth of the age after the last one, or later.
                    clock.advance(age / 8);
                    node.collect();
                    let now = clock.now_millis();
                    kept.retain(|at| writes[at + 1].0 > now - age);
                }
            }
            let held = node.view().snapshot().history(&key).unwrap();
            let held: Vec<u64> = held.iter().map(|old| old.version.stamp.millis).collect();
            let expected: Vec<u64> = kept.iter().rev().map(|at| writes[*at].0).collect();
            assert_eq!(held, expected, "{versions} {bytes:?} {age:?}");
            // Whatever moment is asked for, the answer is right or there is none.
            let moment = writes[0].0 + rng.next() % (now - writes[0].0 + 1);
            let then = writes.iter().rposition(|(at, _)| *at <= moment).unwrap();
            let found = node.view().at(&key, moment).unwrap();
            let first = kept.first().copied().unwrap_or(writes.len() - 1);
            assert_eq!(found.is_some(), then >= first);
            if let Some(found) = found {
                assert_eq!(node.view().content(&found).unwrap(), writes[then].1);
            }
        }
        node.check();
    }
}

#[test]
fn history_of_many_states_is_gone_through_in_pages() {
    let (clock, mut options) = (TestClock::new(), ReplicaOptions::default());
    options.store.history_age = Some(HOUR);
    let node = Node::with_clock(1, options, clock.clone());
    let write = |bytes: &[u8]| {
        for part in 0..4 {
            let writes = (0..1000).map(|n| put_for(&format!("{part}/{n}"), bytes, 100 * HOUR));
            node.write(writes.collect()).unwrap();
        }
    };
    write(b"one");
    write(b"two");
    clock.advance(HOUR / 2);
    write(b"three");
    let held = || {
        let (view, mut changes) = (node.view(), 0);
        view.snapshot()
            .visit_history(&mut |_, _| changes += 1)
            .unwrap();
        changes
    };
    assert_eq!(held(), 8000);
    clock.advance(HOUR / 2 + MINUTE);
    node.collect();
    assert_eq!(
        held(),
        4000,
        "what the first write left was superseded an hour ago"
    );
    clock.advance(HOUR);
    node.collect();
    assert_eq!(held(), 0);
    node.check();
}

#[test]
fn a_version_that_expired_between_two_others_is_not_passed_over() {
    let clock = TestClock::new();
    let node = Node::with_clock(1, ReplicaOptions::default(), clock.clone());
    let key = StateKey::of(&id("match"));
    // The first two are the oldest of the history and go when they have expired; the last one does not.
    let lives = [
        Some(MINUTE),
        Some(2 * MINUTE),
        None,
        Some(MINUTE),
        Some(MINUTE),
    ];
    let mut stamps = Vec::new();
    for (n, ttl) in lives.iter().enumerate() {
        clock.advance(1000);
        let bytes = [n as u8; 5000];
        let write = ttl.map_or_else(|| put("match", &bytes), |ttl| put_for("match", &bytes, ttl));
        node.write(vec![write]).unwrap();
        stamps.push(clock.now_millis());
    }
    clock.advance(5 * MINUTE);
    assert_eq!(node.collect().steps, 1);
    node.check();
    let found = |moment: u64| {
        let found = node.view().at(&key, moment).unwrap();
        found.map(|placed| placed.version.stamp.millis)
    };
    assert_eq!(found(stamps[0]), None);
    assert_eq!(found(stamps[1]), None);
    for stamp in &stamps[2..] {
        assert_eq!(found(*stamp), Some(*stamp));
    }
}

#[test]
fn a_clock_that_was_ahead_for_a_while_does_not_keep_history_from_going() {
    let (clock, mut options) = (TestClock::new(), ReplicaOptions::default());
    options.store.history_age = Some(8 * HOUR);
    let node = Node::with_clock(1, options, clock.clone());
    let year = 365 * 24 * HOUR;
    clock.advance(year);
    node.collect();
    clock.turn_back(year);
    node.put("match", b"1");
    node.put("match", b"2");
    clock.advance(9 * HOUR);
    node.collect();
    let history = node.view().snapshot().history(&StateKey::of(&id("match")));
    assert_eq!(history.unwrap().len(), 0);
}

#[test]
fn a_damaged_row_of_history_keeps_no_other_from_going() {
    let (clock, mut options) = (TestClock::new(), ReplicaOptions::default());
    options.store.history_age = Some(HOUR);
    let node = Node::with_clock(1, options, clock.clone());
    for bytes in [b"1", b"2"] {
        let writes = (0..20).map(|n| put(&format!("match/{n}"), bytes));
        node.write(writes.collect()).unwrap();
    }
    let dir = node.dir();
    drop(node);
    let file = dir.path().join("namespaces").join("default.redb");
    let database = redb::Database::create(file).unwrap();
    let history: redb::TableDefinition<'_, (&[u8; 32], u64), &[u8]> =
        redb::TableDefinition::new("history");
    let hurt = StateKey::of(&id("match/7")).0;
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(history)
        .unwrap()
        .insert((&hurt, 28), &[0xff_u8; 3][..])
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let path = dir.path().to_owned();
    let node = Node::open_at(dir, &path, options, clock.clone());
    clock.advance(2 * HOUR);
    node.collect();
    let (view, mut left) = (node.view(), Vec::new());
    let visited = view.snapshot().visit_history(&mut |key, _| left.push(key));
    visited.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
}
