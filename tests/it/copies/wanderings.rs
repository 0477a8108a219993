//! Many random stories of copies: whatever was written is there in the end, unless somebody who
//! saw it wrote over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use samestate::runtime::replica::ReplicaOptions;
use tempfile::TempDir;

use crate::copies::{copy_over, forge};
use crate::harness::Rng;
use crate::harness::http::wait_until;
use crate::harness::replica::{Node, Plan};

/// States that are written; few, so that writes meet.
const STATES: usize = 6;

/// Replicas, and what was written anywhere.
struct Story {
    nodes: Vec<Node>,
    writes: usize,
    /// State and bytes of writes that somebody who saw them wrote over.
    replaced: BTreeSet<(String, Vec<u8>)>,
    written: BTreeSet<(String, Vec<u8>)>,
}

impl Story {
    fn write(&mut self, at: usize, rng: &mut Rng) {
        let id = format!("match/{}", rng.below(STATES));
        self.writes += 1;
        let bytes = format!("write {} at {at}", self.writes).into_bytes();
        let seen = self.nodes[at].contents().remove(&id).unwrap_or_default();
        let seen = seen.into_iter().flatten();
        self.replaced.extend(seen.map(|seen| (id.clone(), seen)));
        self.nodes[at].put(&id, &bytes);
        self.written.insert((id, bytes));
    }

    /// Sessions may break off while somebody takes another name.
    fn sync(&self, from: usize, to: usize, rng: &mut Rng) {
        let plan = if rng.one_in(2) {
            Plan::PULL
        } else {
            Plan::BOTH
        };
        let _ = self.nodes[from].try_sync(&self.nodes[to], plan);
        // As a server does every few seconds.
        for at in [from, to] {
            self.nodes[at].replica.sweep();
        }
    }

    fn restart(&mut self, at: usize) {
        let dir = self.nodes[at].dir();
        self.nodes[at].replica.stop();
        let node = self.nodes.remove(at);
        drop(node);
        let node = Node::open(dir, ReplicaOptions::default());
        self.nodes.insert(at, node);
    }

    /// A snapshot of a replica that is stopped, and started again.
    fn snapshot(&mut self, at: usize) -> Arc<TempDir> {
        let dir = self.nodes[at].dir();
        self.nodes[at].replica.stop();
        let node = self.nodes.remove(at);
        drop(node);
        let copy = tempfile::tempdir().unwrap();
        copy_over(dir.path(), copy.path());
        forge(copy.path());
        self.nodes
            .insert(at, Node::open(dir, ReplicaOptions::default()));
        Arc::new(copy)
    }

    fn ends_well(&self, seed: u64) {
        for _ in 0..6 {
            for from in 0..self.nodes.len() {
                for to in (0..self.nodes.len()).filter(|to| *to != from) {
                    let _ = self.nodes[from].try_sync(&self.nodes[to], Plan::BOTH);
                    self.nodes[from].replica.sweep();
                }
            }
        }
        let held = self.nodes[0].contents();
        for node in &self.nodes {
            assert_eq!(node.contents(), held, "seed {seed}");
            assert_eq!(node.root(), self.nodes[0].root(), "seed {seed}");
            node.check();
        }
        let held: BTreeMap<&str, BTreeSet<&[u8]>> = held
            .iter()
            .map(|(id, versions)| {
                (
                    id.as_str(),
                    versions.iter().flatten().map(Vec::as_slice).collect(),
                )
            })
            .collect();
        for (id, bytes) in self.written.difference(&self.replaced) {
            let is_held = held
                .get(id.as_str())
                .is_some_and(|held| held.contains(&bytes[..]));
            let bytes = String::from_utf8_lossy(bytes);
            assert!(is_held, "seed {seed}: {id} has lost {bytes:?}: {held:?}");
        }
    }
}

/// Replica 0 is copied; the copy runs beside it, and all meet in any order.
fn two_at_once(seed: u64) {
    let mut rng = Rng::quiet(seed);
    let nodes = (1..=2).map(Node::new).collect();
    let mut story = Story {
        nodes,
        writes: 0,
        replaced: BTreeSet::new(),
        written: BTreeSet::new(),
    };
    for _ in 0..rng.below(12) {
        let at = rng.below(2);
        match rng.below(3) {
            0 => story.sync(at, 1 - at, &mut rng),
            _ => story.write(at, &mut rng),
        }
    }
    let copy = story.snapshot(0);
    let copy = Node::open(copy, ReplicaOptions::default());
    story.nodes.push(copy);
    for _ in 0..40 {
        let (at, to) = (rng.below(3), rng.below(3));
        match rng.below(10) {
            0 => story.restart(at),
            1..4 if at != to => story.sync(at, to, &mut rng),
            // The two of one name write most.
            _ => story.write([0, 2, 0, 2, 1][rng.below(5)], &mut rng),
        }
    }
    story.ends_well(seed);
}

/// Replica 0 goes back to a snapshot of itself once its peer has seen what it wrote since.
fn put_back(seed: u64) {
    let mut rng = Rng::quiet(seed);
    let nodes = (1..=2).map(Node::new).collect();
    let mut story = Story {
        nodes,
        writes: 0,
        replaced: BTreeSet::new(),
        written: BTreeSet::new(),
    };
    let mut snapshot = None;
    for _ in 0..rng.below(30) {
        match rng.below(8) {
            0 => story.restart(0),
            1 => snapshot = Some(story.snapshot(0)),
            2 => story.sync(rng.below(2), 1, &mut rng),
            _ => story.write(rng.below(2), &mut rng),
        }
    }
    let snapshot = snapshot.unwrap_or_else(|| story.snapshot(0));
    for _ in 0..rng.below(12) {
        story.write(0, &mut rng);
    }
    story.nodes[0].sync(&story.nodes[1], Plan::BOTH);
    story.nodes[0] = Node::open(snapshot, ReplicaOptions::default());
    for _ in 0..rng.below(20) {
        match rng.below(8) {
            0 => story.restart(0),
            _ => story.write(rng.below(2), &mut rng),
        }
    }
    story.ends_well(seed);
}

#[test]
fn nothing_is_lost_when_two_of_one_name_run_at_once() {
    let mut rng = Rng::seeded(1);
    for _ in 0..8 {
        two_at_once(rng.next());
    }
}

#[test]
fn nothing_is_lost_when_a_snapshot_is_put_back() {
    let mut rng = Rng::seeded(2);
    for _ in 0..8 {
        put_back(rng.next());
    }
}

#[test]
fn a_copy_that_meets_only_those_who_never_met_the_original_loses_nothing() {
    let [original, peer, far] = [1, 2, 3].map(Node::new);
    original.put("both", b"before the snapshot");
    let nodes = vec![original, peer, far];
    let mut story = Story {
        nodes,
        writes: 0,
        replaced: BTreeSet::new(),
        written: BTreeSet::new(),
    };
    let copy = Node::open(story.snapshot(0), ReplicaOptions::default());
    let [original, peer, far] = &story.nodes[..] else {
        panic!("three replicas");
    };
    for n in 0..9 {
        original.put("both", format!("{n} at the original").as_bytes());
    }
    copy.put("both", b"at the copy");
    copy.put("more", b"at the copy");
    peer.sync(original, Plan::PULL);
    far.sync(peer, Plan::PULL);
    let epoch = copy.view().cursor().epoch;
    let (_, first) = copy.try_sync(far, Plan::BOTH);
    let told = first.unwrap_err().to_string();
    assert!(told.contains("takes another name now"), "{told}");
    // The peer is answered before the new name is durable, and a session has to wait for that.
    let is_equal = |node: &Node| {
        let (report, ended) = node.try_sync(far, Plan::BOTH);
        ended.is_ok() && report.equal
    };
    wait_until("the copy has taken another name", || is_equal(&copy));
    assert_ne!(copy.view().cursor().epoch, epoch);
    // The original takes another name too, once it hears of the copy.
    wait_until("the original is in step", || is_equal(original));
    for _ in 0..2 {
        for node in [original, peer, &copy] {
            assert!(node.sync(far, Plan::BOTH).equal);
        }
    }
    for node in [original, peer, far, &copy] {
        let mut held = node.contents();
        held.values_mut().for_each(Vec::dedup);
        let both = [&b"8 at the original"[..], b"at the copy"].map(|b| Some(b.to_vec()));
        assert_eq!(held["both"], both);
        assert_eq!(held["more"], [Some(b"at the copy".to_vec())]);
        node.check();
    }
}
