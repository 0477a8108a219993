//! What a full check finds in a log of roots that was changed, what a repair makes of it, and how much
//! is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use samestate::clock::SystemClock;
use samestate::replica::command::Command;
use samestate::replica::findings::Fault as Found;
use samestate::replica::inspect::inspect;
use samestate::replica::repair::repair;
use samestate::replica::solo::Solo;
use samestate::roots::entry::RootEntry;
use samestate::roots::head::{LogHead, SecretKey, SignedHead};
use samestate::roots::witness::{
    Accusation, Fault, KEYS_PER_REPLICA_MAX, WITNESSED_MAX, Witnessed,
};
use samestate::store::claim::Claim;
use samestate::store::disk::{Disk, MachineDisk};
use samestate::store::options::StoreOptions;
use samestate::store::root_log::RootLogMark;
use samestate::types::binary::encode;
use samestate::types::cursor::Epoch;
use samestate::types::hash::{LogHash, NodeHash};
use samestate::types::id::{Namespace, ReplicaId};
use tempfile::TempDir;

use crate::harness::replica::{delete, put};
use crate::roots::edits::{Rows, edit, edit_rows, set_mark, set_meta};

/// Entries of the log that is looked at: of the tree's nodes there are 7 then.
const SIZE: u64 = 11;

fn name() -> Namespace {
    Namespace::default_namespace()
}

fn claim() -> Claim {
    Claim::plain(ReplicaId(1), Epoch(99))
}

struct Kept(TempDir);

impl Kept {
    /// A log of so many entries, all of it in the file.
    fn new(entries: u64) -> Self {
        let kept = Self(tempfile::tempdir().unwrap());
        let mut solo = kept.open();
        for number in 0..entries {
            write(&mut solo, "s/1", Some(&number.to_le_bytes()));
            assert!(solo.seal().unwrap());
        }
        solo.checkpoint().unwrap();
        kept
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("default.redb")
    }

    fn open(&self) -> Solo {
        let (options, wall) = (StoreOptions::default(), Arc::new(SystemClock));
        Solo::open(&self.file(), ReplicaId(1), Epoch(1), options, wall).unwrap()
    }

    fn head(&self) -> Option<LogHead> {
        self.open().view().log_head().unwrap()
    }

    fn faults(&self) -> Vec<Found> {
        let disk: Arc<dyn Disk> = Arc::new(MachineDisk);
        let report = inspect(&disk, &self.file(), &name(), &claim(), &mut |_, _| {});
        report.unwrap().faults
    }
}

fn write(solo: &mut Solo, id: &str, bytes: Option<&[u8]>) {
    let write = bytes.map_or_else(|| delete(id), |bytes| put(id, bytes));
    let done = solo.commit(vec![Command::Write(vec![write])], BTreeMap::new());
    assert!(done.unwrap()[0].is_ok());
}

fn tell(solo: &mut Solo, command: Command) {
    assert!(solo.commit(vec![command], BTreeMap::new()).unwrap()[0].is_ok());
}

/// The head of a log of another replica with one entry.
fn foreign(replica: u64, key: u8, time: u64) -> SignedHead {
    let newest = RootEntry {
        root: NodeHash([3; 32]),
        seq: 1,
        epoch: Epoch(5),
        incarnation: 1,
        time,
    };
    let head = LogHead {
        replica: ReplicaId(replica),
        log: LogHash([8; 32]),
        size: 1,
        hash: newest.leaf(),
        newest,
    };
    let seed = [&[key; 24][..], &replica.to_le_bytes()].concat();
    SecretKey::from_seed(seed.as_slice().try_into().unwrap()).sign(&name(), head)
}

fn flip(rows: &mut Rows, at: (u8, u64)) {
    rows.get_mut(&at).unwrap()[0] ^= 1;
}

#[test]
fn every_change_of_a_log_is_named() {
    let untouched = Kept::new(SIZE);
    assert_eq!(untouched.faults(), []);
    type ChangeRows = fn(&mut Rows);
    let by_rows: [(&str, &str, ChangeRows); 7] = [
        ("entry 4", "is missing", |rows| drop(rows.remove(&(0, 4)))),
        ("entry 4", "does not decode", |rows| {
            rows.get_mut(&(0, 4)).unwrap().truncate(63);
        }),
        ("size and hash", "there were 11 entries", |rows| {
            drop(rows.remove(&(0, 10)));
        }),
        ("size and hash", "there are 11 entries", |rows| {
            flip(rows, (0, 10));
        }),
        (
            "node 0 at height 3",
            "is not what the entries give",
            |rows| {
                flip(rows, (3, 0));
            },
        ),
        ("node 4 at height 1", "is missing", |rows| {
            drop(rows.remove(&(1, 4)));
        }),
        ("node 5 at height 1", "entries that are not there", |rows| {
            rows.insert((1, 5), vec![0; 32]);
        }),
    ];
    for (what, detail, change) in by_rows {
        let kept = Kept::new(SIZE);
        edit_rows(&kept.file(), change);
        named(&kept, what, detail);
    }
    type Change = fn(&mut Vec<RootEntry>);
    let whole: [(&str, &str, Change); 5] = [
        ("entry 6", "time is before", |log| log[6].time = 7),
        ("entry 6", "position in the feed is before", |log| {
            log[6].seq = 0;
        }),
        ("newest entry", "the namespace stands at change 11", |log| {
            log[10].seq = 12;
        }),
        ("newest entry", "in incarnation 9", |log| {
            log[10].incarnation = 9;
        }),
        (
            "newest entry",
            "says that the root at change 11 was",
            |log| {
                log[10].root.0[0] ^= 1;
            },
        ),
    ];
    for (what, detail, change) in whole {
        let kept = Kept::new(SIZE);
        edit(&kept.file(), change);
        named(&kept, what, detail);
    }
}

fn named(kept: &Kept, what: &str, detail: &str) {
    let faults = kept.faults();
    let found = |fault: &Found| {
        (fault.kind, fault.what.as_str()) == ("roots", what) && fault.detail.contains(detail)
    };
    assert!(faults.iter().any(found), "{what} {detail}: {faults:?}");
}

#[test]
fn a_log_that_lost_its_end_is_not_gone_on_with() {
    let kept = Kept::new(SIZE);
    edit_rows(&kept.file(), |rows| drop(rows.remove(&(0, 10))));
    let (options, wall) = (StoreOptions::default(), Arc::new(SystemClock));
    let opened = Solo::open(&kept.file(), ReplicaId(1), Epoch(1), options, wall);
    let refused = opened.err().unwrap().to_string();
    assert!(
        refused.contains("has 10 entries where there were 11"),
        "{refused}"
    );
}

#[test]
fn removals_since_the_newest_entry_are_no_fault() {
    let kept = Kept::new(SIZE);
    let hash = kept.head().unwrap().hash;
    edit(&kept.file(), |log| log[10].root.0[0] ^= 1);
    assert_eq!(kept.faults().len(), 1);
    let mark = |hash, is_past| RootLogMark {
        size: SIZE,
        hash,
        is_past,
    };
    let edited = kept.head().unwrap().hash;
    set_mark(&kept.file(), &mark(edited, true));
    assert_eq!(kept.faults(), []);
    set_mark(&kept.file(), &mark(hash, true));
    named(&kept, "size and hash", "there were 11 entries");
}

#[test]
fn what_a_repair_keeps_of_a_log() {
    // Nodes follow from entries.
    let kept = Kept::new(SIZE);
    let before = kept.head().unwrap();
    edit_rows(&kept.file(), |rows| flip(rows, (2, 1)));
    let report = mend(&kept.file());
    assert_eq!((report.new_root_log, report.lost.len()), (false, 0));
    assert_eq!(kept.faults(), []);
    assert_eq!(kept.head(), Some(before));
    // Entries follow from nothing.
    edit_rows(&kept.file(), |rows| flip(rows, (0, 3)));
    let report = mend(&kept.file());
    assert!(report.new_root_log && !report.new_epoch);
    assert_eq!(report.lost[0].kind, "roots");
    assert!(
        report.lost[0]
            .detail
            .contains("its 11 entries are not the 11"),
        "{report:?}"
    );
    assert_eq!(kept.faults(), []);
    let mut solo = kept.open();
    assert_eq!(solo.view().log_head().unwrap(), None);
    assert!(solo.seal().unwrap());
    let anew = solo.view().log_head().unwrap().unwrap();
    assert_eq!(anew.size, 1);
    assert_ne!(anew.log, before.log);
    // What is in the write-ahead log alone is kept as well.
    write(&mut solo, "s/2", Some(b"more"));
    assert!(solo.seal().unwrap());
    let later = solo.view().log_head().unwrap().unwrap();
    drop(solo);
    let report = mend(&kept.file());
    assert_eq!((report.new_root_log, report.lost.len()), (false, 0));
    assert_eq!(kept.head(), Some(later));
    assert_eq!(kept.faults(), []);
}

fn mend(file: &Path) -> samestate::replica::repair::RepairReport {
    repair(file, &name(), &claim(), &mut |_, _| {}).unwrap()
}

#[test]
fn heads_and_evidence_are_checked_and_survive_a_repair() {
    let kept = Kept::new(3);
    let mut solo = kept.open();
    let seen = Witnessed {
        head: foreign(2, 2, 1000),
        heard_at: 5,
    };
    let held = Accusation {
        fault: Fault::TwoHeads,
        first: foreign(2, 2, 1000),
        second: foreign(2, 2, 1001),
        found_at: 6,
    };
    tell(&mut solo, Command::Witness(Arc::new(seen.clone())));
    tell(&mut solo, Command::Accuse(Arc::new(held.clone())));
    solo.checkpoint().unwrap();
    drop(solo);
    assert_eq!(kept.faults(), []);
    mend(&kept.file());
    let solo = kept.open();
    let view = solo.view();
    assert_eq!(
        view.snapshot().witnessed().unwrap(),
        std::slice::from_ref(&seen)
    );
    assert_eq!(
        view.snapshot().accusations().unwrap(),
        std::slice::from_ref(&held)
    );
    drop((view, solo));

    let key = seen.head.key.to_string();
    let witness = format!("witnessed/{key}");
    let accused = format!("accused/{key}/two_heads");
    let mut forged = seen;
    forged.head.head.size += 1;
    let mut empty = held.clone();
    empty.second = empty.first.clone();
    let mut unsigned = held;
    unsigned.second.signature[9] ^= 1;
    let cases = [
        (&witness, encode(&forged), "not signed by the key"),
        (
            &accused,
            encode(&empty),
            "do not show what they are kept for",
        ),
        (&accused, encode(&unsigned), "not signed by the key"),
        (&witness, b"rubbish".to_vec(), "does not decode"),
    ];
    for (row, bytes, detail) in cases {
        set_meta(&kept.file(), row, &bytes);
        let faults = kept.faults();
        let found = |fault: &Found| fault.what == *row && fault.detail.contains(detail);
        assert!(faults.iter().any(found), "{row} {detail}: {faults:?}");
    }
    // Of what shows nothing a repair keeps nothing.
    mend(&kept.file());
    assert_eq!(kept.faults(), []);
    let solo = kept.open();
    assert_eq!(solo.view().snapshot().accusations().unwrap(), []);
}

#[test]
fn what_is_kept_of_others_is_bounded_and_nobody_crowds_others_out() {
    let kept = Kept::new(1);
    let mut solo = kept.open();
    let mut witness = |replica, key, heard_at| {
        let head = foreign(replica, key, 1000);
        tell(
            &mut solo,
            Command::Witness(Arc::new(Witnessed { head, heard_at })),
        );
        solo.view().snapshot().witnessed().unwrap()
    };
    witness(1, 1, 10);
    for key in 0..40 {
        let seen = witness(2, key, 100 + u64::from(key));
        assert!(seen.len() <= 1 + KEYS_PER_REPLICA_MAX);
        assert!(
            seen.iter()
                .any(|seen| seen.head.head.replica == ReplicaId(1))
        );
    }
    let seen = (10..200)
        .map(|replica| witness(replica, 1, 1000 + replica))
        .last()
        .unwrap();
    assert_eq!(seen.len(), WITNESSED_MAX);
    assert!(
        seen.iter()
            .all(|seen| seen.head.head.replica.0 >= 200 - WITNESSED_MAX as u64)
    );
}

#[test]
fn a_log_takes_two_rows_an_entry_and_one_row_beside_them() {
    let kept = Kept::new(40);
    edit_rows(&kept.file(), |rows| {
        // Each entry, and the nodes that are complete: n - popcount(n) of them.
        assert_eq!(rows.len(), 40 + 40 - 2);
        let bytes: usize = rows.values().map(Vec::len).sum();
        assert_eq!(bytes, 40 * 64 + 38 * 32);
    });
    let mut solo = kept.open();
    assert!(
        !solo.seal().unwrap(),
        "the same root is not written down again"
    );
}
