//! Sync sessions between replicas within this process: whatever is written where, in whatever
//! order and with whatever strategy the replicas talk, they end with the same contents, and at a
//! cost that follows the difference.

mod model;

use std::collections::BTreeSet;
use std::sync::Arc;

use samestate::clock::WallClock;
use samestate::reconcile::strategy::StrategyName;
use samestate::replica::command::{Command, Incoming};
use samestate::replica::solo::Solo;
use samestate::runtime::replica::{Replica, ReplicaOptions};
use samestate::sketch::key::Secret;
use samestate::store::options::StoreOptions;
use samestate::sync::report::{Outcome, Report};
use samestate::sync::session::{Last, run};
use samestate::types::cursor::Epoch;
use samestate::types::hash::StateKey;
use samestate::types::id::ReplicaId;

use crate::harness::Rng;
use crate::harness::replica::{Direct, Node, Plan, assert_faultless, id, put};
use crate::sessions::model::Fleet;

fn round_trips(report: &Report) -> u32 {
    report.phases.iter().map(|phase| phase.round_trips).sum()
}

fn moved(report: &Report) -> u64 {
    report.bytes_sent + report.bytes_received
}

/// Every strategy, and the planner's choice.
fn choices() -> Vec<Option<StrategyName>> {
    let named = StrategyName::ALL.into_iter().map(Some);
    named.chain([None]).collect()
}

#[test]
fn random_writes_and_sessions_lead_to_what_causality_says() {
    for seed in 0..4 {
        let mut rng = Rng::seeded(seed);
        let replicas = 2 + seed as usize % 2;
        let mut fleet = Fleet::new(replicas);
        for _ in 0..14 {
            for replica in 0..replicas {
                fleet.write_at_random(replica, &mut rng);
            }
            let from = rng.below(replicas);
            let to = (from + 1 + rng.below(replicas - 1)) % replicas;
            let choices = choices();
            let plan = Plan {
                strategy: choices[rng.below(choices.len())],
                ..[
                    Plan::PULL,
                    Plan::BOTH,
                    Plan {
                        pull: false,
                        ..Plan::BOTH
                    },
                ][rng.below(3)]
            };
            fleet.sync(from, to, plan);
        }
        fleet.settle();
    }
}

#[test]
fn every_strategy_makes_two_replicas_equal_and_a_second_session_does_nothing() {
    for (index, strategy) in choices().into_iter().enumerate() {
        let mut rng = Rng::seeded(100 + index as u64);
        let mut fleet = Fleet::new(2);
        for _ in 0..6 {
            fleet.write_at_random(0, &mut rng);
            fleet.write_at_random(1, &mut rng);
        }
        let plan = Plan {
            strategy,
            ..Plan::BOTH
        };
        let first = fleet.sync(0, 1, plan);
        assert!(first.equal, "{strategy:?}: {first:?}");
        assert!(
            first.states_pulled > 0 && first.states_pushed > 0,
            "{first:?}"
        );
        for (from, to) in [(0, 1), (1, 0)] {
            let again = fleet.sync(from, to, plan);
            assert!(again.equal, "{again:?}");
            assert_eq!(again.strategy, "none");
            assert_eq!(round_trips(&again), 1);
            assert_eq!((again.states_pulled, again.states_pushed), (0, 0));
            assert_eq!(again.root_before, again.root_after);
        }
    }
}

#[test]
fn few_differences_are_known_when_the_session_is_open() {
    let (ours, theirs) = (Node::new(1), Node::new(2));
    for state in 0..500 {
        ours.put(&format!("match/{state}"), b"begun");
    }
    theirs.sync(&ours, Plan::PULL);
    assert_eq!(ours.root(), theirs.root());
    let eager = Plan {
        eager: true,
        ..Plan::BOTH
    };
    let nothing = ours.sync(&theirs, eager);
    assert_eq!((&nothing.strategy[..], round_trips(&nothing)), ("none", 1));
    ours.put("match/7", b"ours");
    ours.put("match/new", b"ours");
    theirs.put("match/8", b"theirs");
    theirs.put("match/newer", b"theirs");
    let report = ours.sync(&theirs, eager);
    assert!(report.equal, "{report:?}");
    assert_eq!(report.strategy, "sketch");
    let phases: Vec<&str> = report.phases.iter().map(|phase| phase.phase).collect();
    assert!(!phases.contains(&"sketch_exchange"), "{report:?}");
    assert_eq!((report.states_pulled, report.states_pushed), (2, 2));
    // More than the first cells tell is told by further ones.
    for state in 0..30 {
        theirs.put(&format!("match/{state}"), b"gone on");
    }
    let report = ours.sync(&theirs, eager);
    // Stamps and epochs are new in every run, and with them what the estimate says: near the number
    // at which a list is shorter, either may be chosen.
    let chosen = ["sketch", "list"].contains(&&report.strategy[..]);
    assert!(report.equal && chosen, "{report:?}");
    assert_eq!(report.states_pulled, 30);
    for node in [ours, theirs] {
        node.check();
    }
}

#[test]
fn nothing_new_takes_one_trip_of_sixty_bytes() {
    let (ours, theirs) = (Node::new(1), Node::new(2));
    for state in 0..50 {
        ours.put(&format!("match/{state}"), b"begun");
    }
    let mut options = Plan::BOTH.options();
    let mut session = |last: Option<Last>| {
        let mut report = Report::begin(1, "peer".into(), "default".into(), ours.root());
        options.last = last;
        let seen = run(
            &mut Direct::to(&theirs),
            &ours.home(),
            &options,
            &mut report,
        );
        (seen.unwrap(), report)
    };
    let (seen, _) = session(None);
    assert_eq!(seen.last, None, "states were moved");
    let (seen, report) = session(None);
    assert!(seen.last.is_some() && report.equal, "{report:?}");
    // What was learned from each other is said once more.
    let (seen, _) = session(seen.last);
    let (again, report) = session(seen.last);
    assert_eq!((round_trips(&report), again), (1, seen), "{report:?}");
    assert!(report.equal && report.strategy == "none", "{report:?}");
    assert!(moved(&report) <= 60, "{} bytes", moved(&report));
    // A change anywhere is not missed.
    theirs.put("match/7", b"gone on");
    let (seen, report) = session(seen.last);
    assert!(report.equal && report.states_pulled == 1, "{report:?}");
    assert_eq!(seen.last, None);
    assert_eq!(ours.root(), theirs.root());
    ours.put("match/8", b"gone on");
    let (_, report) = session(again.last);
    assert!(report.equal && report.states_pushed == 1, "{report:?}");
}

#[test]
fn different_secrets_and_unready_sketches_only_make_it_slower() {
    let secret = ReplicaOptions {
        secret: Secret::of("another"),
        ..ReplicaOptions::default()
    };
    let (ours, theirs) = (Node::new(1), Node::with_options(2, secret));
    for state in 0..300 {
        ours.put(&format!("match/{state}"), b"begun");
        theirs.put(&format!("match/{}", state + 100), b"begun");
    }
    let plan = Plan::BOTH.with(StrategyName::Sketch);
    let report = ours.sync(&theirs, plan);
    assert!(report.equal && report.strategy == "merkle", "{report:?}");
    assert!(
        report.why.contains("different cluster secrets"),
        "{report:?}"
    );
    // A namespace that is not served has none.
    let dir = theirs.dir();
    drop(theirs);
    let unready = Replica::open(dir.path(), ReplicaOptions::default()).unwrap();
    let unready = Node::of(Arc::new(unready), dir);
    unready.put("match/1", b"gone on");
    let report = ours.sync(&unready, plan);
    assert!(report.equal && report.strategy == "merkle", "{report:?}");
    assert!(report.why.contains("not ready"), "{report:?}");
}

#[test]
fn a_pull_leaves_the_peer_as_it_is_and_a_push_us() {
    let mut rng = Rng::seeded(200);
    for (plan, index) in [
        (Plan::PULL, 0),
        (
            Plan {
                pull: false,
                ..Plan::BOTH
            },
            1,
        ),
    ] {
        let mut fleet = Fleet::new(2);
        for _ in 0..4 {
            fleet.write_at_random(0, &mut rng);
            fleet.write_at_random(1, &mut rng);
        }
        let unchanged = if plan.pull { 1 } else { 0 };
        let before = fleet.node(unchanged).root();
        fleet.sync(0, 1, plan);
        assert_eq!(fleet.node(unchanged).root(), before, "case {index}");
    }
}

#[test]
fn both_versions_of_a_conflict_are_kept_until_a_write_that_saw_both() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.put("match/1", b"start");
    b.sync(&a, Plan::PULL);
    a.put("match/1", b"left");
    b.put("match/1", b"right");
    let report = b.sync(&a, Plan::BOTH);
    assert_eq!((report.conflicts, report.equal), (1, true));
    let both = vec![Some(b"left".to_vec()), Some(b"right".to_vec())];
    for node in [&a, &b] {
        assert_eq!(node.contents()["match/1"], both);
        let row = node.view().row(&id("match/1")).unwrap().unwrap();
        assert_eq!(row.record.conflicts(), 1);
    }
    a.put("match/1", b"resolved");
    b.sync(&a, Plan::PULL);
    for node in [&a, &b] {
        assert_eq!(node.contents()["match/1"], vec![Some(b"resolved".to_vec())]);
        node.check();
    }
    let history = b.view().versions(&StateKey::of(&id("match/1"))).unwrap();
    assert!(history.len() >= 3, "what was in conflict is in the history");
}

/// A clock that only the test moves.
struct StoppedClock;

impl WallClock for StoppedClock {
    fn now_millis(&self) -> u64 {
        1_700_000_000_000
    }
}

fn engine(dir: &std::path::Path, replica: u64) -> Solo {
    let path = dir.join(format!("{replica}.redb"));
    let options = StoreOptions::default();
    Solo::open(
        &path,
        ReplicaId(replica),
        Epoch(100 + replica),
        options,
        Arc::new(StoppedClock),
    )
    .unwrap()
}

/// Every record that ever was current on replicas that write and merge at random, with its bytes.
fn every_record_ever(dir: &std::path::Path, rng: &mut Rng) -> Vec<Incoming> {
    let mut engines: Vec<Solo> = (1..=3).map(|replica| engine(dir, replica)).collect();
    let mut records: Vec<Incoming> = Vec::new();
    for _ in 0..60 {
        let at = rng.below(engines.len());
        let name = format!("match/{}", rng.below(12));
        let commands = if rng.one_in(3) && !records.is_empty() {
            let known = records[rng.below(records.len())].clone();
            vec![Command::Merge(vec![known])]
        } else {
            let length = [5, 300, 5_000, 40_000][rng.below(4)];
            vec![Command::Write(vec![put(&name, &rng.bytes(length))])]
        };
        engines[at].commit(commands, Default::default()).unwrap();
        let view = engines[at].view();
        for row in view.changes(view.head().seq - 1, 1).unwrap() {
            let bodies = row.placed().map(|(version, placement)| {
                let bytes = view.snapshot().content(version, placement).unwrap();
                samestate::store::body::Body::of_hashed(version.content, &bytes.unwrap())
            });
            records.push(Incoming {
                bodies: bodies.collect(),
                record: row.record.clone(),
            });
        }
    }
    records
}

#[test]
fn the_root_depends_on_the_records_and_not_on_order_batches_or_detours() {
    let mut rng = Rng::seeded(300);
    let dir = tempfile::tempdir().unwrap();
    let records = every_record_ever(dir.path(), &mut rng);
    let mut roots = Vec::new();
    for replica in 10..16 {
        let mut engine = engine(dir.path(), replica);
        let mut order = records.clone();
        rng.shuffle(&mut order);
        let most = [1, 3, 10, order.len()][rng.below(4)];
        while !order.is_empty() {
            let rest = order.split_off(order.len().min(1 + rng.below(most)));
            let commands = order.chunks(2).map(|part| Command::Merge(part.to_vec()));
            let outcomes = engine
                .commit(commands.collect(), Default::default())
                .unwrap();
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            order = rest;
        }
        assert_faultless(&engine.view());
        roots.push(engine.view().head().root);
    }
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");
    let states: BTreeSet<_> = records.iter().map(|one| &one.record.id).collect();
    assert_eq!(roots[0].leaves, states.len() as u64);
}

#[test]
fn equal_replicas_find_out_in_one_round_trip_below_a_kibibyte() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut rng = Rng::seeded(400);
    let writes = (0..500).map(|n| put(&format!("match/{n}"), &rng.bytes(200)));
    a.write(writes.collect()).unwrap();
    b.sync(&a, Plan::PULL);
    for (from, to) in [(&a, &b), (&b, &a)] {
        for strategy in choices() {
            let report = from.sync(
                to,
                Plan {
                    strategy,
                    ..Plan::BOTH
                },
            );
            assert!(report.equal);
            assert_eq!(round_trips(&report), 1);
            assert!(moved(&report) < 1024, "{report:?}");
        }
    }
}

#[test]
fn a_descent_costs_what_differs_and_not_what_is_held() {
    const STATES: usize = 20_000;
    const CHANGED: usize = 200;
    let mut rng = Rng::seeded(500);
    let (a, b) = (Node::new(1), Node::new(2));
    let mut names: Vec<String> = (0..STATES).map(|n| format!("region/{n}")).collect();
    for part in names.chunks(2_000) {
        let writes = part.iter().map(|name| put(name, &rng.bytes(1024)));
        a.write(writes.collect()).unwrap();
    }
    let full = b.sync(&a, Plan::PULL.with(StrategyName::Full));
    assert_eq!(full.states_pulled, STATES as u64);
    assert!(full.equal);

    rng.shuffle(&mut names);
    let changed = names[..CHANGED].iter();
    a.write(changed.map(|name| put(name, &rng.bytes(1024))).collect())
        .unwrap();
    let merkle = b.sync(&a, Plan::PULL.with(StrategyName::Merkle));
    assert_eq!(merkle.states_pulled, CHANGED as u64);
    assert_eq!(merkle.outcome, Outcome::Complete);
    assert!(merkle.equal);
    let share = moved(&merkle) as f64 / moved(&full) as f64;
    assert!(
        share < 0.02,
        "{share}: {} of {}",
        moved(&merkle),
        moved(&full)
    );
}
