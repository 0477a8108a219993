//! Backups: what is restored is what was backed up, a backup costs what changed, and whatever is
//! wrong with one is named before anything usable is left.

mod chains;
mod damage;
mod programs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use samestate::backup::check::{Checked, check};
use samestate::backup::destination::Destination;
use samestate::backup::error::BackupError;
use samestate::backup::restore::{Restored, restore};
use samestate::backup::save::{SaveOptions, Saved, SavedNamespace, Source, save};
use samestate::backup::watch::Unwatched;
use samestate::clock::{SystemClock, WallClock};
use samestate::replica::view::View;
use samestate::runtime::replica::{Replica, ReplicaOptions};
use samestate::types::hash::StateKey;
use samestate::types::id::{Namespace, ReplicaId};
use samestate::types::version::Version;
use tempfile::TempDir;

use crate::harness::Rng;
use crate::harness::replica::{Node, Plan, TestClock, assert_faultless, delete, id, put, put_for};

/// A folder of backups, and others to restore into.
struct Vault {
    dir: TempDir,
}

impl Vault {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("backups")
    }

    fn destination(&self) -> Destination {
        Destination::at(&self.folder())
    }

    /// A path that nothing is at.
    fn target(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn save(&self, node: &Node) -> Saved {
        self.save_views(&node.replica, false).unwrap()
    }

    fn save_views(&self, replica: &Replica, full: bool) -> Result<Saved, BackupError> {
        let open = replica.namespaces();
        let sources = open.iter().map(|namespace| Source {
            namespace: namespace.name().clone(),
            view: namespace.view(),
        });
        self.save_sources(sources.collect(), replica.id(), full)
    }

    fn save_sources(
        &self,
        sources: Vec<Source>,
        replica: ReplicaId,
        full: bool,
    ) -> Result<Saved, BackupError> {
        let options = SaveOptions {
            replica,
            now: 1_700_000_000_000,
            full,
        };
        save(&self.folder(), sources, options, &Unwatched)
    }

    fn restore(&self, number: Option<u32>, name: &str) -> Result<Restored, BackupError> {
        let wall: Arc<dyn WallClock> = Arc::new(SystemClock);
        let target = self.target(name);
        restore(&self.destination(), number, &target, &wall, &Unwatched)
    }

    fn check(&self, number: Option<u32>) -> Result<Checked, BackupError> {
        check(&self.destination(), number, &Unwatched)
    }

    /// The length of a backup's folder.
    fn bytes(&self, backup: &str) -> u64 {
        let entries = std::fs::read_dir(self.folder().join(backup)).unwrap();
        entries
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum()
    }
}

/// The only namespace of a backup.
fn only(saved: &Saved) -> &SavedNamespace {
    assert_eq!(saved.namespaces.len(), 1, "{saved:?}");
    &saved.namespaces[0]
}

fn opened(path: &Path) -> Replica {
    Replica::open(path, ReplicaOptions::default()).unwrap()
}

fn view_of(replica: &Replica, name: &str) -> Arc<View> {
    let name = Namespace::new(name).unwrap();
    replica.namespace(&name).unwrap().view()
}

/// A version with its bytes.
type Kept = (Version, Option<Vec<u8>>);

/// Every version of every state, current ones first, then newest first.
fn everything(view: &View) -> BTreeMap<String, Vec<Kept>> {
    let mut all = BTreeMap::new();
    let visited = view.snapshot().visit_records(&mut |key, row| {
        let held = view.versions(&key).unwrap().into_iter();
        let held = held.map(|placed| {
            let bytes = view.content(&placed).unwrap();
            (placed.version, bytes)
        });
        all.insert(row.unwrap().record.id.to_string(), held.collect());
    });
    visited.unwrap();
    all
}

/// Fails unless the directory holds exactly what `view` shows, in one namespace.
fn assert_holds(path: &Path, view: &View) {
    let replica = opened(path);
    let restored = view_of(&replica, "default");
    assert_eq!(restored.head().root, view.head().root);
    assert_eq!(restored.head().live, view.head().live);
    assert!(everything(&restored) == everything(view), "other versions");
    assert_ne!(restored.identity().epoch, view.identity().epoch);
    assert_ne!(restored.identity().replica, view.identity().replica);
    assert_faultless(&restored);
    replica.stop();
}

/// A replica with everything that a state can be: conflicts, deletions, histories, empty states,
/// states in the row, whole and in chunks, and chunks that states share.
fn varied(rng: &mut Rng) -> Node {
    let (a, b) = (Node::new(1), Node::new(2));
    let large = rng.bytes(300_000);
    for n in 0..60 {
        let length = [0, 5, 300, 3_000, 15_800, 15_801, 60_000][n % 7];
        a.put(&format!("match/{n}"), &rng.bytes(length));
    }
    for n in 0..4 {
        let mut like = large.clone();
        like[rng.below(300_000)] ^= 1;
        a.put(&format!("save/{n}"), &like);
    }
    b.sync(&a, Plan::PULL);
    for n in (0..60).step_by(3) {
        for _ in 0..1 + n % 11 {
            a.put(&format!("match/{n}"), &rng.bytes(200 + n * 50));
        }
    }
    for n in (0..60).step_by(5) {
        b.put(&format!("match/{n}"), &rng.bytes(20_000));
    }
    b.write(vec![delete("match/7"), delete("match/10")])
        .unwrap();
    a.write(vec![delete("match/7"), delete("match/11")])
        .unwrap();
    a.put("match/11", b"once more");
    b.sync(&a, Plan::BOTH);
    // A write that saw a conflict, whose versions go into history together.
    a.put("match/15", b"resolved");
    assert!(view_of(&a.replica, "default").head().root.leaves > 60);
    a
}

#[test]
fn what_is_restored_is_what_was_backed_up() {
    let mut rng = Rng::seeded(1);
    let (vault, node) = (Vault::new(), varied(&mut rng));
    let saved = vault.save(&node);
    let part = only(&saved);
    assert_eq!((saved.backup.as_str(), &part.parent), ("000001", &None));
    assert_eq!(part.written.states, node.view().head().root.leaves);
    assert_eq!(part.root, node.root());
    let checked = vault.check(None).unwrap();
    assert_eq!(checked.namespaces[0].root, node.root());
    let restored = vault.restore(None, "new").unwrap();
    assert_eq!(restored.namespaces[0].root, node.root());
    assert_eq!(
        restored.namespaces[0].versions,
        checked.namespaces[0].versions
    );
    assert_holds(&vault.target("new"), &node.view());
    assert!(!vault.target("new.restoring").exists());
}

#[test]
fn a_restored_replica_syncs_with_the_one_it_was_made_from() {
    let mut rng = Rng::seeded(2);
    let (vault, node) = (Vault::new(), varied(&mut rng));
    vault.save(&node);
    node.put("match/1", b"after the backup");
    let dir = tempfile::tempdir().unwrap();
    vault.restore(None, "new").unwrap();
    let path = dir.path().join("moved");
    std::fs::rename(vault.target("new"), &path).unwrap();
    let again = Node::at(dir, &path);
    assert_ne!(again.replica.id(), node.replica.id());
    again.put("match/2", b"written by the new one");
    let report = again.sync(&node, Plan::BOTH);
    assert!(report.equal, "{report:?}");
    assert_eq!(report.conflicts, 0, "{report:?}");
    assert_eq!((report.states_pulled, report.states_pushed), (1, 1));
    assert_eq!(again.root(), node.root());
    let row = node.view().row(&id("match/2")).unwrap().unwrap();
    assert_eq!(row.record.conflicts(), 0);
    assert_eq!(again.contents(), node.contents());
    again.check();
}

#[test]
fn a_restored_replica_brings_back_what_was_lost_and_nothing_that_was_deleted() {
    let day = 24 * 60 * 60 * 1000;
    for plans in [
        [(true, Plan::BOTH), (true, Plan::BOTH)],
        [(false, Plan::BOTH), (false, Plan::BOTH)],
        [(true, Plan::PULL), (false, Plan::PULL)],
    ] {
        let (vault, clock) = (Vault::new(), TestClock::new());
        let node = |replica| Node::with_clock(replica, ReplicaOptions::default(), clock.clone());
        let (a, b) = (node(1), node(2));
        a.write(vec![
            put("kept", b"1"),
            put("lost", b"1"),
            put("gone", b"1"),
        ])
        .unwrap();
        a.write(vec![put_for("lobby", b"1", day)]).unwrap();
        assert!(b.sync(&a, Plan::BOTH).equal);
        vault.save(&a);
        a.put("lost", b"2, which only b still has");
        a.write(vec![delete("gone")]).unwrap();
        assert!(b.sync(&a, Plan::BOTH).equal);
        drop(a);
        clock.advance(3 * day);
        b.collect();
        assert_eq!(b.view().head().root.leaves, 2);
        b.put("new", b"1");
        let dir = Arc::new(tempfile::tempdir().unwrap());
        vault.restore(None, "new").unwrap();
        let path = vault.target("new");
        let again = Node::open_at(dir, &path, ReplicaOptions::default(), clock.clone());
        again.put("own", b"1");
        for _ in 0..2 {
            for (restored_begins, plan) in plans {
                if restored_begins {
                    again.sync(&b, plan);
                } else {
                    b.sync(&again, plan);
                }
                again.collect();
                b.collect();
            }
        }
        assert_eq!(again.root(), b.root(), "{plans:?}");
        let contents = b.contents();
        let names: Vec<&str> = contents.keys().map(String::as_str).collect();
        assert_eq!(names, ["kept", "lost", "new", "own"]);
        assert_eq!(
            contents["lost"],
            [Some(b"2, which only b still has".to_vec())]
        );
        again.check();
    }
}

#[test]
fn a_backup_while_a_writer_writes_is_of_one_commit() {
    let (vault, node) = (Vault::new(), Node::new(1));
    let mut rng = Rng::seeded(3);
    let writes = (0..2_000).map(|n| put(&format!("region/{n}"), &rng.bytes(300)));
    node.write(writes.collect()).unwrap();
    let mut roots = vec![node.root()];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut rng, mut roots) = (Rng::quiet(4), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let name = format!("region/{}", rng.below(2_500));
                node.put(&name, &rng.bytes(300));
                roots.push(node.root());
            }
            roots
        });
        let saved = [(); 4].map(|()| vault.save_views(&node.replica, false));
        stop.store(true, Ordering::Relaxed);
        roots.extend(writer.join().unwrap());
        assert!(saved.iter().all(Result::is_ok), "{saved:?}");
    });
    for number in 1..=4 {
        let name = format!("restored-{number}");
        let restored = vault.restore(Some(number), &name).unwrap();
        assert!(roots.contains(&restored.namespaces[0].root), "{restored:?}");
    }
}

#[test]
fn every_namespace_is_restored_and_one_that_was_dropped_is_not() {
    let (vault, node) = (Vault::new(), Node::new(1));
    let names = ["default", "eu", "empty", "us"];
    for name in &names[1..] {
        let name = Namespace::new(name).unwrap();
        node.replica.create_namespace(&name).unwrap();
    }
    let write = |name: &str, bytes: &[u8]| {
        let namespace = node
            .replica
            .namespace(&Namespace::new(name).unwrap())
            .unwrap();
        let write = samestate::replica::command::Command::Write(vec![put("a", bytes)]);
        namespace.queue_blocking(write).unwrap().wait().unwrap();
    };
    write("default", b"one");
    write("eu", b"two");
    write("us", b"three");
    vault.save(&node);
    node.replica
        .drop_namespace(&Namespace::new("us").unwrap())
        .unwrap();
    write("eu", b"four");
    vault.save(&node);
    for (number, expected) in [
        (1, &["default", "empty", "eu", "us"][..]),
        (2, &["default", "empty", "eu"]),
    ] {
        let name = format!("restored-{number}");
        vault.restore(Some(number), &name).unwrap();
        let replica = opened(&vault.target(&name));
        let open = replica.namespaces();
        let names: Vec<&str> = open.iter().map(|open| open.name().as_str()).collect();
        assert_eq!(names, expected);
        let row = view_of(&replica, "eu").row(&id("a")).unwrap().unwrap();
        let (_, bytes) = view_of(&replica, "eu")
            .shown_content(&row)
            .unwrap()
            .unwrap();
        assert_eq!(bytes, [&b"two"[..], b"four"][number as usize - 1]);
        assert_eq!(view_of(&replica, "empty").head().root.leaves, 0);
    }
}

#[test]
fn nothing_is_restored_over_something() {
    let (vault, node) = (Vault::new(), Node::new(1));
    node.put("a", b"x");
    let none = vault.restore(None, "new").unwrap_err();
    assert!(matches!(none, BackupError::File { .. }), "{none}");
    vault.save(&node);
    let target = vault.target("new");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("precious"), "data").unwrap();
    let refused = vault.restore(None, "new").unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");
    assert_eq!(std::fs::read(target.join("precious")).unwrap(), b"data");
    std::fs::remove_file(target.join("precious")).unwrap();

    // Somebody's folder under the name that an unfinished one would have.
    let unfinished = vault.target("new.restoring");
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::write(unfinished.join("precious"), "data").unwrap();
    let refused = vault.restore(None, "new").unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");
    assert!(unfinished.join("precious").exists());

    // One that a killed restore left is begun anew.
    std::fs::write(unfinished.join("restoring"), "").unwrap();
    std::fs::create_dir(unfinished.join("namespaces")).unwrap();
    std::fs::write(unfinished.join("namespaces/old.redb"), "half").unwrap();
    let busy = std::fs::File::open(unfinished.join("restoring")).unwrap();
    busy.lock().unwrap();
    let refused = vault.restore(None, "new").unwrap_err();
    assert!(matches!(refused, BackupError::InUse(_)), "{refused}");
    drop(busy);
    vault.restore(None, "new").unwrap();
    assert!(!unfinished.exists() && !target.join("restoring").exists());
    assert_holds(&target, &node.view());
    let key = StateKey::of(&id("a"));
    assert_eq!(node.view().versions(&key).unwrap().len(), 1);
}

/// Flips a bit of `bytes` in every file below `dir` that holds them.
fn damage(dir: &Path, bytes: &[u8]) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found += damage(&path, bytes);
            continue;
        }
        let mut content = std::fs::read(&path).unwrap();
        let places: Vec<usize> = content
            .windows(bytes.len())
            .enumerate()
            .filter_map(|(at, window)| (window == bytes).then_some(at))
            .collect();
        for place in &places {
            content[place + bytes.len() / 2] ^= 1;
        }
        if !places.is_empty() {
            std::fs::write(&path, content).unwrap();
        }
        found += places.len();
    }
    found
}

#[test]
fn old_bytes_that_are_damaged_do_not_stand_in_the_way_and_current_ones_do() {
    let mut rng = Rng::seeded(5);
    let vault = Vault::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (old, new) = (rng.bytes(5_000), rng.bytes(5_000));
    let node = Node::at(tempfile::tempdir().unwrap(), &path);
    node.put("a", &old);
    node.put("a", &new);
    node.put("b", b"intact");
    drop(node);
    assert!(damage(&path, &old) > 0);
    let node = Node::at(tempfile::tempdir().unwrap(), &path);
    let saved = vault.save(&node);
    assert_eq!(only(&saved).written.unreadable, 1, "{saved:?}");
    let restored = vault.restore(None, "new").unwrap();
    assert_eq!(restored.namespaces[0].root, node.root());
    assert_eq!(restored.namespaces[0].versions, 2);
    drop(node);
    assert!(damage(&path, &new) > 0);
    let node = Node::at(tempfile::tempdir().unwrap(), &path);
    let failed = vault
        .save_views(&node.replica, true)
        .unwrap_err()
        .to_string();
    assert!(failed.contains("damaged"), "{failed}");
    assert_eq!(vault.destination().numbers().unwrap(), [1]);
}
