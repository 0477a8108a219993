//! Sessions between replicas of which one has collected what the other still holds.

use std::sync::Arc;

use samestate::clock::WallClock;
use samestate::reconcile::strategy::StrategyName;
use samestate::replica::collect::{COMMAND_ROWS, let_go};
use samestate::replica::command::{Command, Incoming, Meeting};
use samestate::runtime::replica::ReplicaOptions;
use samestate::sync::report::Report;
use samestate::types::hash::{ContentHash, StateKey};
use samestate::types::id::{ReplicaId, WriterId};
use samestate::types::record::StateRecord;
use samestate::types::seen::Seen;
use samestate::types::version::{Stamp, Version, VersionVector};

use crate::collection::{HOUR, LONG, MINUTE, assert_bounded, shown};
use crate::harness::Rng;
use crate::harness::replica::{Node, Plan, TestClock, delete, id, put, put_for};

const PUSH: Plan = Plan {
    pull: false,
    ..Plan::BOTH
};

fn node(replica: u64, clock: &Arc<TestClock>) -> Node {
    Node::with_clock(replica, ReplicaOptions::default(), clock.clone())
}

fn strategies() -> Vec<Option<StrategyName>> {
    let named = StrategyName::ALL.into_iter().map(Some);
    named.chain([None]).collect()
}

fn names(node: &Node, clock: &TestClock) -> Vec<String> {
    shown(node, clock.now_millis()).into_keys().collect()
}

fn moved(report: &Report) -> (u64, u64) {
    (report.states_pulled, report.states_pushed)
}

/// Two replicas that agree on some states, some of which are over.
fn agreed(clock: &Arc<TestClock>, seed: u64) -> (Node, Node) {
    let mut rng = Rng::seeded(seed);
    let (a, b) = (node(1, clock), node(2, clock));
    let writes = (0..60).map(|n| put(&format!("match/{n}"), &rng.bytes(300)));
    a.write(writes.collect()).unwrap();
    let writes = (0..20).map(|n| put_for(&format!("lobby/{n}"), &rng.bytes(300), HOUR));
    a.write(writes.collect()).unwrap();
    assert!(b.sync(&a, Plan::BOTH).equal);
    let writes = (0..30).map(|n| delete(&format!("match/{n}")));
    b.write(writes.collect()).unwrap();
    assert!(a.sync(&b, Plan::BOTH).equal);
    assert!(b.sync(&a, Plan::BOTH).equal);
    for node in [&a, &b] {
        assert_eq!(node.collect().steps, 0, "but what was learned is kept");
    }
    (a, b)
}

#[test]
fn what_only_one_side_has_collected_is_no_difference_to_any_strategy() {
    for (seed, strategy) in (2000..).zip(strategies()) {
        let clock = TestClock::new();
        let (a, b) = agreed(&clock, seed);
        clock.advance(HOUR + LONG);
        a.collect();
        assert_ne!(a.root(), b.root());
        // Writes go on meanwhile, so that there is something to be found.
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.put(
                "new",
                strategy.map_or("auto", StrategyName::as_str).as_bytes(),
            );
            for plan in [Plan::PULL, PUSH, Plan::BOTH, Plan::BOTH] {
                let report = from.sync(to, Plan { strategy, ..plan });
                let pushes = plan.push && from.view().row(&id("new")).unwrap().is_some();
                assert!(report.states_pulled == 0 && report.states_pushed <= u64::from(pushes));
                assert_eq!(report.equal, plan.push, "{plan:?} {strategy:?}: {report:?}");
            }
            assert_eq!(names(from, &clock), names(to, &clock));
            // Whoever asks is told what the other side has collected; nobody is made to collect.
            assert_eq!(a.root() == b.root(), std::ptr::eq(from, &b));
        }
        b.collect();
        assert_eq!(a.root(), b.root());
        assert_eq!(b.view().head().root.leaves, 31);
        a.check();
        b.check();
    }
}

#[test]
fn a_replica_that_was_away_brings_nothing_back_and_loses_no_write_of_its_own() {
    for (seed, strategy) in (2100..).zip(strategies()) {
        for (pulls, pushes) in [(true, true), (true, false), (false, true)] {
            let clock = TestClock::new();
            let (a, b) = agreed(&clock, seed);
            // Away are both the replica and what happens meanwhile.
            a.write((30..40).map(|n| delete(&format!("match/{n}"))).collect())
                .unwrap();
            b.put("own", b"written while away");
            b.put("match/35", b"changed while away");
            b.write(vec![delete("match/50")]).unwrap();
            clock.advance(HOUR + LONG);
            a.collect();
            let plan = Plan {
                strategy,
                ..Plan::BOTH
            };
            let (first, then) = if pulls && pushes {
                ((&b, &a), (&a, &b))
            } else if pulls {
                // It fetches only, and is fetched from.
                ((&b, &a), (&b, &a))
            } else {
                // Whoever has collected tells it so.
                ((&a, &b), (&a, &b))
            };
            for _ in 0..2 {
                for (from, to) in [first, then] {
                    let report = from.sync(to, plan);
                    assert!(report.reason.is_none());
                    from.namespace().collect().unwrap();
                    to.namespace().collect().unwrap();
                }
            }
            let report = a.sync(&b, plan);
            assert!(report.equal, "{strategy:?}: {report:?}");
            assert_eq!(names(&a, &clock), names(&b, &clock));
            assert_eq!(a.root(), b.root());
            let held = shown(&b, clock.now_millis());
            assert_eq!(held["own"], b"written while away");
            assert_eq!(held["match/35"], b"changed while away");
            for gone in ["match/3", "match/32", "match/50", "lobby/1"] {
                assert!(!held.contains_key(gone), "{gone}");
            }
            assert_eq!(held.len(), 60 - 30 - 10 + 1 - 1 + 1);
            a.check();
            b.check();
        }
    }
}

#[test]
fn a_session_that_may_not_change_anything_tells_that_the_peer_shows_what_was_deleted() {
    let clock = TestClock::new();
    let (a, b) = agreed(&clock, 2200);
    a.write(vec![delete("match/40")]).unwrap();
    clock.advance(LONG);
    a.collect();
    let report = a.sync(&b, Plan::PULL);
    assert_eq!((moved(&report), report.equal), ((0, 0), false));
    assert!(names(&b, &clock).contains(&"match/40".to_owned()));
    assert!(!names(&a, &clock).contains(&"match/40".to_owned()));
    let report = a.sync(&b, PUSH);
    assert_eq!((moved(&report), report.equal), ((0, 0), true));
    assert!(!names(&b, &clock).contains(&"match/40".to_owned()));
}

#[test]
fn a_newcomer_is_not_burdened_with_what_is_over_and_is_not_fooled_later() {
    let clock = TestClock::new();
    let (a, b) = agreed(&clock, 2300);
    // Has a state that the others delete while it is away.
    let stale = node(3, &clock);
    stale.sync(&a, Plan::PULL);
    b.write(vec![delete("match/44")]).unwrap();
    a.sync(&b, Plan::BOTH);
    b.sync(&a, Plan::BOTH);
    assert_eq!(a.collect().steps, 0);
    clock.advance(HOUR + LONG);
    for strategy in strategies() {
        let newcomer = node(4, &clock);
        let plan = Plan {
            strategy,
            ..Plan::PULL
        };
        let report = newcomer.sync(&a, plan);
        assert!(report.equal, "{report:?}");
        assert_eq!(newcomer.view().head().root.leaves, 29, "{strategy:?}");
        newcomer.collect();
        let report = newcomer.sync(&stale, Plan::BOTH);
        assert_eq!(newcomer.view().head().root.leaves, 29, "{report:?}");
        assert_eq!(names(&newcomer, &clock), names(&a, &clock));
        newcomer.check();
    }
    assert!(stale.sync(&a, Plan::BOTH).equal);
    assert!(!names(&stale, &clock).contains(&"match/44".to_owned()));
}

#[test]
fn expired_bytes_do_not_travel() {
    for collect in [false, true] {
        let clock = TestClock::new();
        let (a, b) = (node(1, &clock), node(2, &clock));
        a.write(vec![
            put_for("lobby", &[7; 100_000], MINUTE),
            put("match", b"x"),
        ])
        .unwrap();
        clock.advance(3 * MINUTE);
        if collect {
            a.collect();
        }
        let report = b.sync(&a, Plan::PULL);
        assert!(report.equal, "{report:?}");
        assert_eq!(report.bytes_if_sent_whole, 1);
        assert_eq!(a.root(), b.root(), "the record did travel");
        assert_eq!(b.view().head().live, 1);
        b.check();
        // It travels on as well, both ways.
        let c = node(3, &clock);
        assert!(b.sync(&c, PUSH).equal);
        c.check();
        b.put("lobby", b"open again");
        assert!(a.sync(&b, Plan::BOTH).equal);
        assert_eq!(shown(&a, clock.now_millis())["lobby"], b"open again");
        a.check();
    }
}

#[test]
fn a_tombstone_stays_until_everything_it_knows_of_is_known_for_good() {
    let clock = TestClock::new();
    let (a, b, c) = (node(1, &clock), node(2, &clock), node(3, &clock));
    // Of b's two states c gets only the second one, from a, which has it from a session that broke
    // off in spirit: a does not know the first one.
    b.put("first", b"1");
    b.put("second", b"2");
    let view = b.view();
    let row = view.row(&id("second")).unwrap().unwrap();
    let (_, bytes) = view.shown_content(&row).unwrap().unwrap();
    let incoming = Incoming {
        record: row.record,
        bodies: vec![samestate::store::body::Body::new(&bytes)],
    };
    let merge = Command::Merge(vec![incoming]);
    let queued = a.namespace().queue_blocking(merge).unwrap();
    queued.wait().unwrap_or_else(|error| panic!("{error}"));
    a.write(vec![delete("second")]).unwrap();
    assert!(c.sync(&a, Plan::BOTH).equal);
    clock.advance(LONG);
    for node in [&a, &c] {
        node.collect();
        assert_eq!(node.view().head().root.leaves, 1, "b may come back with it");
        node.check();
    }
    assert!(a.sync(&c, Plan::BOTH).equal);
    // It does, and learns that the state was deleted; then all may forget it.
    assert!(b.sync(&a, Plan::BOTH).equal);
    assert_eq!(names(&b, &clock), ["first"]);
    for _ in 0..2 {
        for (from, to) in [(&a, &b), (&c, &a), (&a, &c)] {
            assert!(from.sync(to, Plan::BOTH).equal);
            from.collect();
            to.collect();
        }
    }
    for node in [&a, &b, &c] {
        assert_eq!(names(node, &clock), ["first"]);
        assert_eq!(node.view().head().root.leaves, 1);
        assert_eq!(node.root(), a.root());
    }
}

#[test]
fn sizes_of_what_has_expired_keep_no_record_from_travelling() {
    let clock = TestClock::new();
    let (a, b) = (node(1, &clock), node(2, &clock));
    // Larger together than any message; nobody asks for bytes of either.
    let version = |writer: u64| {
        let mut vector = VersionVector::default();
        vector.set(WriterId(writer), 1);
        Version {
            vector,
            stamp: Stamp {
                millis: clock.now_millis() - MINUTE,
                logical: 0,
                replica: ReplicaId(writer),
            },
            content: ContentHash::of(&writer.to_le_bytes()),
            size: u64::MAX,
            content_type: None,
            expires_at: Some(clock.now_millis() - 1),
            tombstone: false,
            lease_epoch: 0,
        }
    };
    let versions = vec![version(77), version(78)];
    let (record, _) = StateRecord::from_versions(id("lobby"), versions).unwrap();
    let incoming = Incoming {
        record,
        bodies: Vec::new(),
    };
    let merge = Command::Merge(vec![incoming]);
    let queued = a.namespace().queue_blocking(merge).unwrap();
    assert_eq!(queued.wait().unwrap().accepted.refused, []);
    let report = a.sync(&b, PUSH);
    assert_eq!(
        (report.states_pushed, report.equal),
        (1, true),
        "{report:?}"
    );
    assert_eq!(a.root(), b.root());
    b.check();
}

#[test]
fn letting_go_of_long_histories_is_done_in_small_commands() {
    let (clock, mut rng) = (TestClock::new(), Rng::seeded(2400));
    let mut options = ReplicaOptions::default();
    options.store.history_versions = 1000;
    let open = |replica| Node::with_clock(replica, options, clock.clone());
    let (a, b) = (open(1), open(2));
    let states: Vec<String> = (0..6).map(|n| format!("match/{n}")).collect();
    for _ in 0..400 {
        let writes = states.iter().map(|name| put(name, &rng.bytes(20)));
        a.write(writes.collect()).unwrap();
    }
    a.put("large", &rng.bytes(20 << 20));
    a.put("large", &rng.bytes(20 << 20));
    a.put("stays", b"1");
    assert!(b.sync(&a, Plan::BOTH).equal);
    assert!(a.sync(&b, Plan::BOTH).equal);
    let gone = states.iter().map(String::as_str).chain(["large"]);
    b.write(gone.clone().map(delete).collect()).unwrap();
    clock.advance(LONG);
    b.collect();
    assert_eq!(b.view().head().root.leaves, 1);
    // What a has to let go of, once it knows as much as b.
    let meeting = || Meeting {
        absent: gone
            .clone()
            .chain(["none"])
            .map(|n| StateKey::of(&id(n)))
            .collect(),
        seen: Arc::new(b.view().seen().unwrap()),
        ..Meeting::default()
    };
    let ours = a.view().seen().unwrap();
    let kept = let_go(&a.view(), &Seen::default(), meeting()).unwrap();
    assert!(
        kept.iter()
            .all(|command| matches!(command, Command::Meet(_)))
    );
    assert_eq!(kept.len(), 1, "nothing of what stays is touched");
    let planned = let_go(&a.view(), &ours, meeting()).unwrap();
    assert!(planned.len() > 3, "{}", planned.len());
    for command in planned {
        assert_bounded(&a, command, COMMAND_ROWS + 64);
        a.check();
    }
    assert_eq!(names(&a, &clock), ["stays"]);
}
