//! What is over goes, at each replica by itself and in small steps; nothing that went comes back, and
//! nothing that anybody wrote since is lost.

mod crashes;
mod fleet;
mod history;
mod sessions;

use std::collections::BTreeMap;

use samestate::clock::WallClock;
use samestate::replica::collect::{COMMAND_ROWS, due};
use samestate::replica::command::{Command, Incoming, Step};
use samestate::runtime::replica::ReplicaOptions;
use samestate::store::body::Body;
use samestate::store::read::Snapshot;

use crate::harness::Rng;
use crate::harness::replica::{Node, TestClock, delete, id, put, put_for};

pub const MINUTE: u64 = 60 * 1000;
pub const HOUR: u64 = 60 * MINUTE;
/// Longer than anything that is over stays, however unlucky the moment.
pub const LONG: u64 = 26 * HOUR;

/// Rows of every kind that a namespace may be left with: records, ids, feed entries, changes in
/// history, contents, chunks, deadlines.
fn rows(snapshot: &Snapshot) -> [usize; 7] {
    let mut rows = [0; 7];
    snapshot.visit_records(&mut |_, _| rows[0] += 1).unwrap();
    snapshot.visit_ids(&mut |_, _| rows[1] += 1).unwrap();
    rows[2] = snapshot.changes_after(0, usize::MAX).unwrap().len();
    snapshot.visit_history(&mut |_, _| rows[3] += 1).unwrap();
    snapshot.visit_contents(&mut |_, _| rows[4] += 1).unwrap();
    snapshot.visit_chunks(&mut |_, _| rows[5] += 1).unwrap();
    snapshot.visit_deadlines(&mut |_, _| rows[6] += 1).unwrap();
    rows
}

/// The states that are shown, with their bytes.
pub fn shown(node: &Node, now: u64) -> BTreeMap<String, Vec<u8>> {
    let view = node.view();
    let page = view.list("", None, usize::MAX, now).unwrap();
    let rows = page.items.into_iter();
    rows.map(|row| {
        let (_, bytes) = view.shown_content(&row).unwrap().unwrap();
        (row.record.id.to_string(), bytes)
    })
    .collect()
}

#[test]
fn states_are_there_until_their_time_is_over_and_leave_nothing_behind() {
    for seed in 0..6 {
        let mut rng = Rng::seeded(seed);
        let (clock, mut options) = (TestClock::new(), ReplicaOptions::default());
        options.store.history_versions = rng.below(4);
        options.store.history_bytes = [None, Some(50_000)][rng.below(2)];
        let node = Node::with_clock(1, options, clock.clone());
        // Bytes, and when they are over.
        let mut model: BTreeMap<String, (Vec<u8>, u64)> = BTreeMap::new();
        for _ in 0..120 {
            let now = clock.now_millis();
            let name = format!("match/{}", rng.below(12));
            let length = [0, 40, 3_000, 30_000, 200_000][rng.below(5)];
            let bytes = rng.bytes(length);
            match rng.below(8) {
                0 | 1 => {
                    node.put(&name, &bytes);
                    model.insert(name, (bytes, u64::MAX));
                }
                2..=4 => {
                    let ttl = [1, MINUTE, HOUR, 30 * HOUR][rng.below(4)];
                    node.write(vec![put_for(&name, &bytes, ttl)]).unwrap();
                    // Several writes within a millisecond are stamped later than that.
                    let row = node.view().row(&id(&name)).unwrap().unwrap();
                    let at = row.record.shown().expires_at.unwrap();
                    assert!((now + ttl..now + ttl + 1000).contains(&at));
                    model.insert(name, (bytes, at));
                }
                5 => {
                    let there = model.get(&name).is_some_and(|(_, at)| *at > now);
                    assert_eq!(node.write(vec![delete(&name)]).is_ok(), there);
                    model.remove(&name);
                }
                6 => clock.advance([1, MINUTE, HOUR, 9 * HOUR][rng.below(4)]),
                _ => {
                    let collected = node.collect();
                    assert!(collected.rows_max <= COMMAND_ROWS + 64, "{collected:?}");
                    node.check();
                }
            }
            let now = clock.now_millis();
            let expected = model.iter().filter(|(_, (_, at))| *at > now);
            let expected: BTreeMap<String, Vec<u8>> = expected
                .map(|(name, (bytes, _))| (name.clone(), bytes.clone()))
                .collect();
            assert_eq!(shown(&node, now), expected);
        }
        for name in (0..12).map(|n| format!("match/{n}")) {
            // There may be nothing to delete.
            let _ = node.write(vec![delete(&name)]);
        }
        clock.advance(30 * HOUR + LONG);
        node.collect();
        node.check();
        assert_eq!(rows(node.view().snapshot()), [0; 7]);
        let head = *node.view().head();
        assert_eq!((head.live, head.root.leaves), (0, 0));
        assert_eq!(node.collect().steps, 0);
    }
}

#[test]
fn bytes_go_soon_after_the_end_and_the_record_at_the_full_hour_a_day_later() {
    let (clock, mut rng) = (TestClock::new(), Rng::seeded(7));
    let node = Node::with_clock(1, ReplicaOptions::default(), clock.clone());
    let bytes = rng.bytes(100_000);
    for _ in 0..3 {
        node.write(vec![put_for("lobby", &bytes, MINUTE)]).unwrap();
    }
    let root = node.root();
    clock.advance(MINUTE + 10);
    assert_eq!(shown(&node, clock.now_millis()).len(), 0);
    assert_eq!(
        node.collect().steps,
        0,
        "peers with slow clocks may ask for them"
    );
    assert_eq!(node.view().head().live, 1);
    clock.advance(MINUTE);
    assert_eq!(node.collect().steps, 1);
    node.check();
    assert_eq!(node.view().head().live, 0);
    assert_eq!(
        node.root(),
        root,
        "the record is the same without its bytes"
    );
    assert_eq!(rows(node.view().snapshot()), [1, 1, 1, 0, 0, 0, 1]);
    assert_eq!(node.collect().steps, 0);

    let row = node.view().row(&id("lobby")).unwrap().unwrap();
    let departs = row.record.departs_at().unwrap();
    assert_eq!(departs % HOUR, 0);
    clock.advance(departs - 1 - clock.now_millis());
    assert_eq!(node.collect().steps, 0);
    clock.advance(1);
    assert_eq!(node.collect().steps, 1);
    assert_eq!(rows(node.view().snapshot()), [0; 7]);

    // An ordinary write brings it back, before or after.
    let receipt = node.write(vec![put("lobby", b"again")]).unwrap().remove(0);
    assert!(receipt.created);
    node.check();
}

#[test]
fn no_command_gives_up_more_than_a_part_of_a_large_state() {
    let (clock, mut rng) = (TestClock::new(), Rng::seeded(8));
    let node = Node::with_clock(1, ReplicaOptions::default(), clock.clone());
    // More chunks than one step gives up, in the history and current, and a crowd of small ones.
    node.put("large", &rng.bytes(20 << 20));
    node.put("large", &rng.bytes(20 << 20));
    node.check();
    for part in 0..4 {
        let writes = (0..200).map(|n| put(&format!("{part}/{n}"), &rng.bytes(50)));
        node.write(writes.collect()).unwrap();
        let writes = (0..200).map(|n| delete(&format!("{part}/{n}")));
        node.write(writes.collect()).unwrap();
    }
    node.write(vec![delete("large")]).unwrap();
    clock.advance(LONG);
    let collected = node.collect();
    node.check();
    assert_eq!(rows(node.view().snapshot()), [0; 7]);
    assert!(collected.commands >= 10, "{collected:?}");
    assert!(collected.rows_max <= COMMAND_ROWS + 64, "{collected:?}");
}

#[test]
fn a_large_state_that_is_written_anew_while_it_is_given_up_is_whole() {
    let (clock, mut rng) = (TestClock::new(), Rng::seeded(9));
    let mut options = ReplicaOptions::default();
    options.store.history_versions = 0;
    let node = Node::with_clock(1, options, clock);
    let bytes = rng.bytes(20 << 20);
    node.put("large", &bytes);
    // Its chunks are on their way out from here on.
    node.put("large", b"small");
    node.check();
    assert!(rows(node.view().snapshot())[6] > 0);
    node.put("other", &bytes);
    node.check();
    node.collect();
    node.check();
    let row = node.view().row(&id("other")).unwrap().unwrap();
    assert_eq!(node.view().shown_content(&row).unwrap().unwrap().1, bytes);
}

#[test]
fn bytes_go_although_the_record_has_to_stay_beyond_its_day() {
    let clock = TestClock::new();
    let (a, b) = (
        Node::with_clock(1, ReplicaOptions::default(), clock.clone()),
        Node::with_clock(2, ReplicaOptions::default(), clock.clone()),
    );
    b.write(vec![put_for("lobby", &[7; 30_000], HOUR)]).unwrap();
    // Not from a session, which alone could tell what else there is of b's.
    let view = b.view();
    let row = view.row(&id("lobby")).unwrap().unwrap();
    let incoming = Incoming {
        bodies: vec![Body::new(&[7; 30_000])],
        record: row.record,
    };
    let merge = Command::Merge(vec![incoming]);
    a.namespace().queue_blocking(merge).unwrap().wait().unwrap();
    // Nobody collects until the record has departed.
    clock.advance(HOUR + LONG);
    a.collect();
    a.check();
    assert_eq!(rows(a.view().snapshot()), [1, 1, 1, 0, 0, 0, 1]);
    assert_eq!(a.collect().steps, 0);
}

#[test]
fn a_namespace_that_is_closed_does_not_wait_until_everything_is_collected() {
    let clock = TestClock::new();
    let node = Node::with_clock(1, ReplicaOptions::default(), clock.clone());
    for part in 0..10 {
        let puts = (0..1000).map(|n| put(&format!("{part}/{n}"), b"x"));
        node.write(puts.collect()).unwrap();
        let deletions = (0..1000).map(|n| delete(&format!("{part}/{n}")));
        node.write(deletions.collect()).unwrap();
    }
    clock.advance(LONG);
    let namespace = node.namespace();
    let collecting = {
        let namespace = node.namespace();
        std::thread::spawn(move || namespace.collect())
    };
    while namespace.view().head().root.leaves == 10_000 {
        std::thread::yield_now();
    }
    namespace.stop();
    assert!(collecting.join().unwrap().is_err());
    assert!(namespace.view().head().root.leaves > 0);
}

#[test]
fn no_command_removes_more_rows_than_its_plan_says() {
    let (clock, mut rng) = (TestClock::new(), Rng::seeded(10));
    let mut options = ReplicaOptions::default();
    options.store.history_versions = 1000;
    let node = Node::with_clock(1, options, clock.clone());
    node.put("large", &rng.bytes(20 << 20));
    for n in 0..700 {
        // Rows of their own, contents that are shared, chunks.
        let length = [50, 5_000, 40_000][rng.below(3)];
        let bytes = rng.bytes(length);
        let writes = vec![
            put("match", &bytes),
            put_for(&format!("lobby/{n}"), &bytes, HOUR),
        ];
        node.write(writes).unwrap();
    }
    node.write(vec![delete("match"), delete("large")]).unwrap();
    for wait in [2 * HOUR, LONG] {
        clock.advance(wait);
        let mut after = None;
        loop {
            let view = node.view();
            let plan = due(&view, &view.seen().unwrap(), clock.now_millis(), after).unwrap();
            after = plan.next;
            assert!(plan.rows <= COMMAND_ROWS + 64, "{}", plan.rows);
            let trims = |step: &&Step| matches!(step, Step::Trim(..));
            assert!(
                plan.steps.iter().filter(trims).count() <= 1,
                "one for a state"
            );
            assert_bounded(&node, Command::Collect(plan.steps), plan.rows);
            if after.is_none() {
                break;
            }
        }
    }
    node.collect();
    assert_eq!(rows(node.view().snapshot()), [0; 7]);
    node.check();
}

/// Carries a command out and counts what it removes: chunks twice, for their reference counts.
fn assert_bounded(node: &Node, command: Command, most: usize) {
    let count = || {
        let rows = rows(node.view().snapshot());
        rows.iter().sum::<usize>() + rows[5]
    };
    let before = count();
    let queued = node.namespace().queue_blocking(command).unwrap();
    queued.wait().unwrap();
    let removed = before.saturating_sub(count());
    assert!(removed <= most, "{removed} rows, planned were {most}");
}
