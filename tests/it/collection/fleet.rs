//! Replicas that write, talk and collect at random moments, beside a model that forgets nothing:
//! what they show is what it says, whoever has collected what already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use samestate::clock::WallClock;
use samestate::reconcile::strategy::StrategyName;
use samestate::runtime::replica::ReplicaOptions;

use crate::collection::{HOUR, LONG, MINUTE};
use crate::harness::Rng;
use crate::harness::replica::{Node, Plan, TestClock, delete, id, put, put_for};

type Event = usize;

struct Written {
    /// The events that it has seen, itself left out.
    seen: BTreeSet<Event>,
    bytes: Option<Vec<u8>>,
    expires_at: u64,
}

struct Fleet {
    clock: Arc<TestClock>,
    nodes: Vec<Node>,
    models: Vec<BTreeMap<String, BTreeSet<Event>>>,
    events: Vec<Written>,
}

impl Fleet {
    fn new(replicas: usize) -> Self {
        let clock = TestClock::new();
        let node = |replica| Node::with_clock(replica, ReplicaOptions::default(), clock.clone());
        Self {
            nodes: (1..=replicas as u64).map(node).collect(),
            models: vec![BTreeMap::new(); replicas],
            events: Vec::new(),
            clock,
        }
    }

    fn write_at_random(&mut self, at: usize, rng: &mut Rng) {
        let name = format!("match/{}", rng.below(9));
        let bytes = format!("event {}", self.events.len()).into_bytes();
        let (write, bytes) = match rng.below(5) {
            0 | 1 => (delete(&name), None),
            2 => (
                put_for(&name, &bytes, [MINUTE, 5 * HOUR][rng.below(2)]),
                Some(bytes),
            ),
            _ => (put(&name, &bytes), Some(bytes)),
        };
        if self.nodes[at].write(vec![write]).is_err() {
            return; // There was nothing to delete.
        }
        let row = self.nodes[at].view().row(&id(&name)).unwrap().unwrap();
        let current = self.models[at].entry(name).or_default();
        let mut seen = current.clone();
        for event in &*current {
            seen.extend(&self.events[*event].seen);
        }
        *current = BTreeSet::from([self.events.len()]);
        self.events.push(Written {
            seen,
            bytes,
            expires_at: row.record.shown().expires_at.unwrap_or(u64::MAX),
        });
    }

    fn merge(&mut self, at: usize, other: &BTreeMap<String, BTreeSet<Event>>) {
        for (name, theirs) in other {
            let current = self.models[at].entry(name.clone()).or_default();
            let all: BTreeSet<Event> = current.union(theirs).copied().collect();
            let unseen =
                |event: &&Event| !all.iter().any(|by| self.events[*by].seen.contains(event));
            *current = all.iter().filter(unseen).copied().collect();
        }
    }

    fn sync(&mut self, from: usize, to: usize, plan: Plan) -> bool {
        let report = self.nodes[from].sync(&self.nodes[to], plan);
        let (ours, theirs) = (self.models[from].clone(), self.models[to].clone());
        if plan.pull {
            self.merge(from, &theirs);
        }
        if plan.push {
            self.merge(to, &ours);
        }
        let after = format!("{plan:?} from {from} to {to}: {report:?}");
        self.compare(from, &after);
        self.compare(to, &after);
        report.equal
    }

    /// The bytes of all current versions that are not over, of each state that has any.
    fn compare(&self, at: usize, after: &str) {
        let now = self.clock.now_millis();
        let mut expected: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (name, current) in &self.models[at] {
            let current = current.iter().map(|event| &self.events[*event]);
            let alive = current.filter(|event| event.expires_at > now);
            let bytes: BTreeSet<_> = alive.filter_map(|event| event.bytes.clone()).collect();
            if !bytes.is_empty() {
                expected.insert(name.clone(), bytes);
            }
        }
        let view = self.nodes[at].view();
        let mut held: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
        let visited = view.snapshot().visit_records(&mut |_, row| {
            let row = row.unwrap();
            for (version, place) in row.placed().filter(|(version, _)| !version.is_dead(now)) {
                let bytes = view.snapshot().content(version, place).unwrap().unwrap();
                held.entry(row.record.id.to_string())
                    .or_default()
                    .insert(bytes);
            }
        });
        visited.unwrap();
        assert_eq!(held, expected, "replica {at}, after {after}");
    }

    fn collect(&self, at: usize) {
        self.nodes[at].collect();
        self.nodes[at].check();
        self.compare(at, "collecting");
    }

    /// Talks and collects until everybody has everything.
    fn settle(&mut self) {
        for round in 0..4 {
            for node in 1..self.nodes.len() {
                let equal = self.sync(0, node, Plan::BOTH);
                // What one round learns the next one can act on.
                assert!(equal || round < 2, "round {round}");
            }
            for node in 0..self.nodes.len() {
                self.collect(node);
            }
        }
    }
}

#[test]
fn whoever_collects_what_and_when_everybody_shows_what_was_written() {
    let named = StrategyName::ALL.into_iter().map(Some);
    let strategies: Vec<Option<StrategyName>> = named.chain([None]).collect();
    let plans = [
        Plan::PULL,
        Plan::BOTH,
        Plan {
            pull: false,
            ..Plan::BOTH
        },
    ];
    for seed in 0..12 {
        let mut rng = Rng::seeded(1000 + seed);
        let replicas = 2 + rng.below(3);
        let mut fleet = Fleet::new(replicas);
        for _ in 0..90 {
            let at = rng.below(replicas);
            match rng.below(10) {
                0..=4 => fleet.write_at_random(at, &mut rng),
                5 | 6 => {
                    let to = (at + 1 + rng.below(replicas - 1)) % replicas;
                    let strategy = strategies[rng.below(strategies.len())];
                    let plan = plans[rng.below(plans.len())];
                    fleet.sync(at, to, Plan { strategy, ..plan });
                }
                7 | 8 => fleet.collect(at),
                _ => fleet
                    .clock
                    .advance([MINUTE, 2 * HOUR, 13 * HOUR, LONG][rng.below(4)]),
            }
        }
        fleet.settle();
        fleet.clock.advance(LONG + 5 * HOUR);
        fleet.settle();
        for at in 0..replicas {
            assert_eq!(
                fleet.nodes[at].root(),
                fleet.nodes[0].root(),
                "replica {at}"
            );
            let (view, now) = (fleet.nodes[at].view(), fleet.clock.now_millis());
            let visited = view.snapshot().visit_records(&mut |_, row| {
                let record = row.unwrap().record;
                assert!(!record.has_departed(now), "replica {at}: {record:?}");
            });
            visited.unwrap();
        }
    }
}
