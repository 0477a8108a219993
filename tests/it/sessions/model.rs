//! What replicas must hold, worked out without version vectors: every write is an event, a state
//! is the set of events that no other known event has seen, and which events an event has seen is
//! written down in full.

use std::collections::{BTreeMap, BTreeSet};

use samestate::replica::command::{Refusal, Write};
use samestate::runtime::queue::SubmitError;
use samestate::sync::report::{Outcome, Report};

use crate::harness::Rng;
use crate::harness::replica::{Node, Plan, delete, put};

type Event = usize;

/// What one replica must hold of one state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    current: BTreeSet<Event>,
}

/// Replicas, and what each of them must hold.
pub struct Fleet {
    nodes: Vec<Node>,
    models: Vec<BTreeMap<String, State>>,
    /// For each event what it has seen, itself not counted, and the bytes it wrote.
    events: Vec<(BTreeSet<Event>, Option<Vec<u8>>)>,
}

impl Fleet {
    pub fn new(replicas: usize) -> Self {
        Self {
            nodes: (1..=replicas as u64).map(Node::new).collect(),
            models: vec![BTreeMap::new(); replicas],
            events: Vec::new(),
        }
    }

    pub fn node(&self, replica: usize) -> &Node {
        &self.nodes[replica]
    }

    /// One command of a few puts and deletions, which may touch a state more than once.
    pub fn write_at_random(&mut self, replica: usize, rng: &mut Rng) {
        let mut drafts: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        for _ in 0..1 + rng.below(5) {
            let name = format!("match/{}", rng.below(25));
            let bytes = (!rng.one_in(5)).then(|| self.bytes_at_random(replica, &name, rng));
            drafts.push((name, bytes));
        }
        let writes: Vec<Write> = drafts
            .iter()
            .map(|(name, bytes)| match bytes {
                Some(bytes) => put(name, bytes),
                None => delete(name),
            })
            .collect();
        match self.nodes[replica].write(writes) {
            Ok(receipts) => {
                assert_eq!(receipts.len(), drafts.len());
                for (name, bytes) in drafts {
                    self.note(replica, name, bytes);
                }
            }
            // All or nothing: there is nothing to delete, so nothing was written.
            Err(SubmitError::Refused(refused))
                if matches!(refused.refusal, Refusal::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        self.compare(replica, "a write");
    }

    /// New bytes, small or large, fresh or resembling what is there.
    fn bytes_at_random(&self, replica: usize, name: &str, rng: &mut Rng) -> Vec<u8> {
        let state = self.models[replica].get(name);
        let held = state.and_then(|state| state.current.iter().next());
        let held = held.and_then(|event| self.events[*event].1.clone());
        match held {
            Some(mut bytes) if rng.one_in(2) && !bytes.is_empty() => {
                for _ in 0..3 {
                    let at = rng.below(bytes.len());
                    bytes[at] ^= 1 + rng.below(255) as u8;
                }
                bytes.extend(rng.bytes(rng.clone().below(40)));
                bytes
            }
            _ if rng.one_in(6) => b"the same everywhere".to_vec(),
            _ => {
                let length = [0, 30, 3_000, 12_000, 60_000][rng.below(5)];
                rng.bytes(length)
            }
        }
    }

    fn note(&mut self, replica: usize, name: String, bytes: Option<Vec<u8>>) {
        let state = self.models[replica].entry(name).or_default();
        let mut seen = state.current.clone();
        for event in &state.current {
            seen.extend(&self.events[*event].0);
        }
        state.current = BTreeSet::from([self.events.len()]);
        self.events.push((seen, bytes));
    }

    /// Runs a session that `from` starts with `to`, and compares both with the model.
    pub fn sync(&mut self, from: usize, to: usize, plan: Plan) -> Report {
        let report = self.nodes[from].sync(&self.nodes[to], plan);
        assert_eq!(report.outcome, Outcome::Complete);
        let (ours, theirs) = (self.models[from].clone(), self.models[to].clone());
        if plan.pull {
            self.merge(from, &theirs);
        }
        if plan.push {
            self.merge(to, &ours);
        }
        self.compare(from, &format!("{plan:?}: {report:?}"));
        self.compare(to, &format!("{plan:?}: {report:?}"));
        assert_eq!(report.root_after, self.nodes[from].root());
        let equal = self.nodes[from].root() == self.nodes[to].root();
        assert_eq!(report.equal, equal, "{plan:?}: {report:?}");
        assert_eq!(equal, self.models[from] == self.models[to], "{plan:?}");
        assert!(equal || !(plan.pull && plan.push), "{plan:?}: {report:?}");
        report
    }

    fn merge(&mut self, replica: usize, other: &BTreeMap<String, State>) {
        for (name, theirs) in other {
            let state = self.models[replica].entry(name.clone()).or_default();
            let all: BTreeSet<Event> = state.current.union(&theirs.current).copied().collect();
            let events = &self.events;
            let unseen = |event: &&Event| !all.iter().any(|by| events[*by].0.contains(event));
            state.current = all.iter().filter(unseen).copied().collect();
        }
    }

    /// Talks until everybody holds everything, and checks every byte and count.
    pub fn settle(&mut self) {
        for _ in 0..2 {
            for replica in 1..self.nodes.len() {
                self.sync(0, replica, Plan::BOTH);
            }
        }
        for node in &self.nodes {
            assert_eq!(node.root(), self.nodes[0].root());
            node.check();
        }
    }

    /// `after` is what happened last.
    fn compare(&self, replica: usize, after: &str) {
        let expected: BTreeMap<String, Vec<Option<Vec<u8>>>> = self.models[replica]
            .iter()
            .map(|(name, state)| {
                let bytes = state
                    .current
                    .iter()
                    .map(|event| self.events[*event].1.clone());
                let mut bytes: Vec<_> = bytes.collect();
                bytes.sort();
                (name.clone(), bytes)
            })
            .collect();
        let held = self.nodes[replica].contents();
        let names: Vec<&String> = held.keys().collect();
        assert_eq!(
            names,
            expected.keys().collect::<Vec<_>>(),
            "replica {replica}, after {after}"
        );
        for (name, versions) in &expected {
            assert!(
                held[name] == *versions,
                "replica {replica}, {name}, after {after}"
            );
        }
    }
}
