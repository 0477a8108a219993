//! What a state remembers of its past: bounded by number, age and bytes, and readable by time.

use samestate::clock::WallClock;
use samestate::runtime::replica::ReplicaOptions;
use samestate::types::hash::StateKey;

use crate::collection::{HOUR, MINUTE};
use crate::harness::Rng;
use crate::harness::replica::{Node, TestClock, delete, id, put_for};

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
