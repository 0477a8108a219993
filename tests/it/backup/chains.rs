//! Backups that build on earlier ones: what they cost, and that each of them gives back what it is of.

use std::path::Path;
use std::sync::Mutex;

use samestate::backup::error::BackupError;
use samestate::backup::save::{SaveOptions, Source, save};
use samestate::backup::watch::Watch;
use samestate::runtime::replica::ReplicaOptions;
use samestate::types::id::ReplicaId;

use crate::backup::{Vault, assert_holds, everything, only, opened, varied, view_of};
use crate::harness::Rng;
use crate::harness::replica::{Node, Plan, TestClock, assert_faultless, delete, put, put_for};

#[test]
fn an_unchanged_store_adds_a_few_kilobytes_and_no_file() {
    let mut rng = Rng::seeded(10);
    let (vault, node) = (Vault::new(), varied(&mut rng));
    vault.save(&node);
    for number in 2..=4 {
        let saved = vault.save(&node);
        let part = only(&saved);
        assert_eq!((saved.bytes, part.written.states), (0, 0), "{saved:?}");
        assert_eq!(part.parent, Some(format!("{:06}", number - 1)));
        let bytes = vault.bytes(&saved.backup);
        assert!(bytes < 4096, "{bytes}");
    }
    vault.restore(Some(4), "new").unwrap();
    assert_holds(&vault.target("new"), &node.view());
}

#[test]
fn expired_states_are_backed_up_with_or_without_their_bytes() {
    let (vault, clock) = (Vault::new(), TestClock::new());
    let node = Node::with_clock(1, ReplicaOptions::default(), clock.clone());
    let mut rng = Rng::seeded(18);
    let large = rng.bytes(100_000);
    let lobbies = [("empty", &b""[..]), ("small", b"x"), ("large", &large)];
    let writes = lobbies.map(|(name, bytes)| put_for(name, bytes, 60_000));
    node.write(writes.to_vec()).unwrap();
    // The same bytes under another name, which stays, and in an old version.
    node.put("match", &large);
    node.put("match", b"on");
    vault.save(&node);
    vault.restore(None, "alive").unwrap();
    clock.advance(600_000);
    node.collect();
    assert_eq!(node.view().head().live, 1);
    for (name, full) in [("later", false), ("bare", true)] {
        let saved = vault.save_views(&node.replica, full).unwrap();
        vault.check(None).unwrap();
        let restored = vault.restore(None, name).unwrap();
        assert_eq!(restored.namespaces[0].root, node.root(), "{saved:?}");
        let replica = opened(&vault.target(name));
        assert_faultless(&view_of(&replica, "default"));
        replica.stop();
    }
}

#[test]
fn one_changed_chunk_of_a_large_state_costs_about_that_chunk() {
    let mut rng = Rng::seeded(11);
    let (vault, node) = (Vault::new(), Node::new(1));
    let mut state = rng.bytes(5 << 20);
    node.put("region/1", &state);
    let first = vault.save(&node);
    assert!(first.bytes > 5 << 20, "noise does not shrink: {first:?}");
    for at in [3_000_000, 10, (5 << 20) - 10] {
        state[at] ^= 1;
        node.put("region/1", &state);
        let saved = vault.save(&node);
        // A chunk has at most 15,800 bytes, and a byte may move the end of the next one as well.
        assert!(saved.bytes < 40_000, "{saved:?}");
        assert!(only(&saved).written.pieces <= 3, "{saved:?}");
    }
    // Another state with the same chunks in it, and one that is the same.
    let longer = [&b"in front"[..], &state].concat();
    node.write(vec![put("region/2", &longer), put("region/3", &state)])
        .unwrap();
    let saved = vault.save(&node);
    assert!(saved.bytes < 40_000, "{saved:?}");
    vault.restore(None, "new").unwrap();
    assert_holds(&vault.target("new"), &node.view());
}

#[test]
fn a_small_change_in_a_large_store_costs_what_changed() {
    let mut rng = Rng::seeded(12);
    let (vault, node) = (Vault::new(), Node::new(1));
    for part in 0..10 {
        let writes = (0..1_000).map(|n| put(&format!("match/{part}/{n}"), &rng.bytes(1_000)));
        node.write(writes.collect()).unwrap();
    }
    let full = vault.save(&node);
    let changed = (0..50).map(|n| put(&format!("match/3/{n}"), &rng.bytes(1_000)));
    node.write(changed.collect()).unwrap();
    let watch = Steps::default();
    let saved = save_watched(&vault, &node, &watch).unwrap();
    assert_eq!(only(&saved).written.states, 50);
    assert!(saved.bytes < full.bytes / 100, "{saved:?}, full {full:?}");
    // The feed led to what changed; nothing else was looked at.
    assert_eq!(watch.begun(), [("saving", 50)]);
    vault.restore(None, "new").unwrap();
    assert_holds(&vault.target("new"), &node.view());
}

#[test]
fn every_backup_of_a_chain_gives_back_what_it_is_of() {
    for seed in 20..22 {
        let mut rng = Rng::seeded(seed);
        let (vault, node) = (Vault::new(), Node::new(1));
        let other = Node::new(2);
        let mut kept = Vec::new();
        for round in 0..8 {
            for _ in 0..rng.below(40) {
                let name = format!("match/{}", rng.below(30));
                let known = node.contents().get(&name).cloned();
                match (known.and_then(|versions| versions[0].clone()), rng.below(6)) {
                    (Some(_), 0) => drop(node.write(vec![delete(&name)])),
                    (Some(mut bytes), 1..4) if !bytes.is_empty() => {
                        let at = rng.below(bytes.len());
                        bytes[at] ^= 1;
                        node.put(&name, &bytes);
                    }
                    _ => {
                        let length = [0, 40, 2_000, 9_000, 80_000][rng.below(5)];
                        node.put(&name, &rng.bytes(length));
                    }
                }
            }
            if round % 3 == 1 {
                other.sync(&node, Plan::PULL);
                other.put(&format!("match/{}", rng.below(30)), &rng.bytes(500));
                node.put(&format!("match/{}", rng.below(30)), &rng.bytes(500));
                node.sync(&other, Plan::BOTH);
            }
            let saved = vault.save_views(&node.replica, rng.one_in(6)).unwrap();
            kept.push((saved, node.view()));
        }
        for (number, (saved, view)) in (1..).zip(kept) {
            assert_eq!(saved.backup, format!("{number:06}"));
            vault.check(Some(number)).unwrap();
            let name = format!("new-{number}");
            vault.restore(Some(number), &name).unwrap();
            assert_holds(&vault.target(&name), &view);
        }
    }
}

#[test]
fn a_full_backup_needs_no_other_one() {
    let mut rng = Rng::seeded(13);
    let (vault, node) = (Vault::new(), varied(&mut rng));
    let first = vault.save(&node);
    node.put("match/1", b"changed");
    vault.save(&node);
    let full = vault.save_views(&node.replica, true).unwrap();
    assert_eq!(only(&full).parent, None);
    assert!(full.bytes > first.bytes * 9 / 10, "{full:?}");
    for number in ["000001", "000002"] {
        std::fs::remove_dir_all(vault.folder().join(number)).unwrap();
    }
    vault.restore(None, "new").unwrap();
    assert_holds(&vault.target("new"), &node.view());
    node.put("match/2", b"changed");
    let next = vault.save(&node);
    assert_eq!(
        (next.backup.as_str(), only(&next).parent.as_deref()),
        ("000004", Some("000003"))
    );
}

#[test]
fn a_chain_does_not_become_longer_than_restoring_can_bear() {
    let (vault, node) = (Vault::new(), Node::new(1));
    for n in 0..66u32 {
        node.put("match/1", &n.to_le_bytes());
        let saved = vault.save(&node);
        let full = matches!(n, 0 | 64);
        assert_eq!(only(&saved).full_because.is_some(), full, "{saved:?}");
        assert_eq!(only(&saved).parent.is_none(), full);
    }
    vault.restore(Some(64), "longest").unwrap();
    let replica = opened(&vault.target("longest"));
    let all = everything(&view_of(&replica, "default"));
    assert_eq!(
        all["match/1"][0].1.as_deref(),
        Some(&63u32.to_le_bytes()[..])
    );
    vault.restore(None, "new").unwrap();
    assert_holds(&vault.target("new"), &node.view());
}

#[test]
fn what_cannot_be_built_on_is_left_alone() {
    let mut rng = Rng::seeded(14);
    let (vault, node) = (Vault::new(), varied(&mut rng));
    vault.save(&node);
    node.put("match/1", b"changed");
    vault.save(&node);
    // The newest manifest is unreadable: the one before is built on.
    let manifest = vault.folder().join("000002/manifest.json");
    std::fs::write(&manifest, "{").unwrap();
    let saved = vault.save(&node);
    assert_eq!(only(&saved).parent.as_deref(), Some("000001"));
    assert_eq!(only(&saved).written.states, 1);
    // A file of the chain is missing: everything is written, and said why.
    std::fs::remove_file(vault.folder().join("000001/default.data")).unwrap();
    node.put("match/1", b"changed again");
    let saved = vault.save(&node);
    let why = only(&saved).full_because.clone().unwrap();
    assert!(why.contains("000001/default.data"), "{why}");
    vault.restore(None, "new").unwrap();
    assert_holds(&vault.target("new"), &node.view());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn states_that_are_gone_are_not_brought_back() {
    let mut rng = Rng::seeded(15);
    let vault = Vault::new();
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("data"), dir.path().join("old"));
    let node = Node::at(tempfile::tempdir().unwrap(), &path);
    let writes = (0..50).map(|n| put(&format!("match/{n}"), &rng.bytes(5_000)));
    node.write(writes.collect()).unwrap();
    drop(node);
    copy(&path, &old);
    let node = Node::at(tempfile::tempdir().unwrap(), &path);
    let writes = (50..90).map(|n| put(&format!("match/{n}"), &rng.bytes(5_000)));
    node.write(writes.collect()).unwrap();
    node.put("match/3", b"changed");
    vault.save(&node);
    drop(node);
    // The directory of before: the feed seems to go on behind the backup, and is another one.
    let node = Node::at(tempfile::tempdir().unwrap(), &old);
    let writes = (90..150).map(|n| put(&format!("match/{n}"), &rng.bytes(5_000)));
    node.write(writes.collect()).unwrap();
    let saved = vault.save(&node);
    let part = only(&saved);
    assert_eq!(part.parent.as_deref(), Some("000001"));
    assert_eq!(
        (part.written.states, part.written.removed),
        (61, 40),
        "{saved:?}"
    );
    vault.restore(None, "new").unwrap();
    assert_holds(&vault.target("new"), &node.view());
    // They may come back by being written.
    node.put("match/60", b"back");
    assert_eq!(only(&vault.save(&node)).written.states, 1);
    vault.restore(None, "newer").unwrap();
    assert_holds(&vault.target("newer"), &node.view());
    vault.restore(Some(1), "older").unwrap();
    assert!(
        everything(&view_of(&opened(&vault.target("older")), "default")).contains_key("match/60")
    );
}

#[test]
fn another_replica_with_the_same_states_adds_what_differs() {
    let mut rng = Rng::seeded(16);
    let (vault, node) = (Vault::new(), varied(&mut rng));
    let first = vault.save(&node);
    let other = Node::new(9);
    other.sync(&node, Plan::PULL);
    other.put("match/1", b"written by the other one");
    let saved = vault.save(&other);
    assert_eq!(only(&saved).written.states, 1);
    assert!(saved.bytes < first.bytes / 50, "{saved:?}");
    let restored = vault.restore(None, "new").unwrap();
    assert_eq!(restored.of, ReplicaId(9).to_string());
    assert_eq!(restored.namespaces[0].root, other.root());
}

/// Notes what begins, and stops after so many states.
#[derive(Default)]
struct Steps {
    begun: Mutex<Vec<(&'static str, u64)>>,
    done: Mutex<u64>,
    stop_after: Option<u64>,
}

impl Steps {
    fn begun(&self) -> Vec<(&'static str, u64)> {
        self.begun.lock().unwrap().clone()
    }
}

impl Watch for Steps {
    fn begin(&self, doing: &'static str, total: u64, _unit: &'static str) {
        self.begun.lock().unwrap().push((doing, total));
    }

    fn advance(&self, by: u64) {
        *self.done.lock().unwrap() += by;
    }

    fn stopped(&self) -> bool {
        self.stop_after
            .is_some_and(|most| *self.done.lock().unwrap() >= most)
    }
}

fn save_watched(
    vault: &Vault,
    node: &Node,
    watch: &Steps,
) -> Result<samestate::backup::save::Saved, BackupError> {
    let options = SaveOptions {
        replica: node.replica.id(),
        now: 0,
        full: false,
    };
    let source = Source {
        namespace: node.namespace().name().clone(),
        view: node.view(),
    };
    save(&vault.folder(), vec![source], options, watch)
}

#[test]
fn a_backup_that_is_stopped_leaves_nothing() {
    let mut rng = Rng::seeded(17);
    let (vault, node) = (Vault::new(), varied(&mut rng));
    let watch = Steps {
        stop_after: Some(20),
        ..Steps::default()
    };
    let stopped = save_watched(&vault, &node, &watch).unwrap_err();
    assert!(matches!(stopped, BackupError::Stopped));
    let left = std::fs::read_dir(vault.folder()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    assert_eq!(vault.save(&node).backup, "000001");
}
