//! Damage by kind and place: what a start, reads, later writes, `verify` and `verify --repair` make of
//! it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use samestate::replica::command::Command;
use samestate::replica::findings::CheckReport;
use samestate::replica::inspect::inspect;
use samestate::replica::repair::{RepairReport, repair};
use samestate::replica::scrub::Scrub;
use samestate::replica::solo::Solo;
use samestate::store::claim::Claim;
use samestate::store::disk::{Disk, MachineDisk};
use samestate::types::cursor::Epoch;
use samestate::types::id::Namespace;

use crate::damage::rows::{Hurt, TABLES, hurt};
use crate::damage::stores::{
    EPOCH, Known, Original, REPLICA, file_of, open, read_all, segments_of,
};
use crate::harness::Rng;
use crate::harness::folder::files_in;
use crate::harness::replica::put;

/// What a repaired feed is called when it begins anew.
const ANEW: Epoch = Epoch(71);

fn claim() -> Claim {
    Claim::plain(REPLICA, ANEW)
}

fn name() -> Namespace {
    Namespace::default_namespace()
}

fn verify(dir: &Path) -> CheckReport {
    let disk: Arc<dyn Disk> = Arc::new(MachineDisk);
    let before = files_in(dir);
    let report = inspect(&disk, &file_of(dir), &name(), &claim(), &mut |_, _| {}).unwrap();
    assert!(before == files_in(dir), "looking changed something");
    report
}

fn mend(dir: &Path) -> RepairReport {
    repair(&file_of(dir), &name(), &claim(), &mut |_, _| {}).unwrap()
}

/// Fails unless an error says in words which file is hurt and what to do.
fn names_the_damage(error: &str) {
    assert!(error.contains("the store is damaged: "), "{error}");
    assert!(error.contains("default."), "no file in: {error}");
    assert!(
        error.contains("samestate verify --data DIR --repair"),
        "{error}"
    );
    assert!(!error.contains("panicked"), "{error}");
}

/// A later write to a state that is not among the known ones.
fn write_on(solo: &mut Solo) -> Result<(), String> {
    let write = Command::Write(vec![put("later", b"written onto damage")]);
    let outcomes = solo.commit(vec![write], BTreeMap::new());
    let outcome = outcomes.map_err(|error| error.to_string())?.remove(0);
    outcome.map_err(|error| error.to_string())?;
    solo.checkpoint().map_err(|error| error.to_string())
}

/// Faults that a pass of the scrub finds, which ends whatever it meets.
fn scrub(solo: &Solo) -> usize {
    let view = solo.view();
    let mut scrub = Scrub::new(Arc::clone(&view));
    let mut found = 0;
    for _ in 0..100_000 {
        let step = scrub.step(&view, 1 << 20).unwrap();
        found += step.found.len();
        if step.is_done {
            return found;
        }
    }
    panic!("the scrub goes on for ever");
}

/// Opens what was damaged, reads everything and writes on. True when anybody was told of damage.
fn use_it(dir: &Path, known: &Known, what: &str) -> bool {
    let mut solo = match open(dir) {
        Ok(solo) => solo,
        Err(error) => {
            names_the_damage(&error.to_string());
            let before = segments_of(dir);
            assert!(open(dir).is_err());
            assert_eq!(before, segments_of(dir), "{what}: each start adds to it");
            return true;
        }
    };
    let read = read_all(&solo.view(), known);
    assert_eq!(read.missing, Vec::<String>::new(), "{what}");
    assert_eq!(read.stale, Vec::<String>::new(), "{what}");
    let found = scrub(&solo);
    assert!(
        found > 0 || read.errors.is_empty(),
        "{what}: the scrub found nothing"
    );
    let written = write_on(&mut solo);
    if let Err(error) = &written {
        assert!(error.contains("damaged"), "{what}: {error}");
    }
    let read_again = read_all(&solo.view(), known);
    assert_eq!(
        read_again.missing,
        Vec::<String>::new(),
        "{what}, after a write"
    );
    !read.errors.is_empty() || !read_again.errors.is_empty() || written.is_err()
}

/// Repairs and fails unless everything that was not called lost is there.
fn mend_and_compare(dir: &Path, known: &Known, what: &str) -> RepairReport {
    let before = fs::read(file_of(dir)).unwrap_or_default();
    let report = mend(dir);
    assert_eq!(verify(dir).faults, [], "{what}: {report:?}");
    if let Some(kept) = report.kept.first().filter(|_| !before.is_empty()) {
        assert!(
            fs::read(kept).unwrap() == before,
            "{what}: not kept as it was"
        );
    }
    let solo = open(dir).unwrap();
    let read = read_all(&solo.view(), known);
    assert_eq!(read.errors, Vec::<String>::new(), "{what}");
    let has_log = !report.lost.iter().any(|lost| lost.kind == "log");
    for name in read.missing.iter().chain(&read.stale) {
        let listed = report.lost.iter().any(|lost| lost.what == *name);
        assert!(
            listed || !has_log,
            "{what}: {name} is lost in silence: {report:?}"
        );
    }
    let epoch = solo.view().identity().epoch;
    assert_eq!(epoch == ANEW, report.new_epoch, "{what}");
    let mut lost = report.lost.iter();
    assert!(
        report.new_epoch || lost.all(|lost| lost.kind == "roots"),
        "{what}: {report:?}"
    );
    let has_new_log = report.lost.iter().any(|lost| lost.kind == "roots");
    assert_eq!(report.new_root_log, has_new_log, "{what}");
    report
}

/// Damages copies, uses one, and verifies and repairs another.
fn go_through(original: &Original, what: &str, damage: &dyn Fn(&Path)) -> RepairReport {
    let used = original.copy();
    damage(used.path());
    let was_told = use_it(used.path(), &original.known, what);
    let untouched = original.copy();
    damage(untouched.path());
    let report = verify(untouched.path());
    assert!(!was_told || !report.faults.is_empty(), "{what}: not found");
    mend_and_compare(untouched.path(), &original.known, what)
}

fn change_file(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn bits_that_flip_anywhere_in_the_file() {
    let original = Original::new(101);
    let mut rng = Rng::seeded(1);
    let length = fs::metadata(file_of(original.copy().path())).unwrap().len();
    for _ in 0..24 {
        let bit = rng.below(length as usize * 8);
        go_through(&original, &format!("bit {bit}"), &|dir| {
            change_file(&file_of(dir), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        });
    }
}

#[test]
fn pages_of_zeros_anywhere_in_the_file() {
    let original = Original::new(102);
    let mut rng = Rng::seeded(2);
    let length = fs::metadata(file_of(original.copy().path())).unwrap().len();
    let mut pages: Vec<usize> = (0..length as usize / 4096).collect();
    rng.shuffle(&mut pages);
    // The engine's header always.
    for page in [0].into_iter().chain(pages.into_iter().take(20)) {
        go_through(&original, &format!("page {page}"), &|dir| {
            change_file(&file_of(dir), |bytes| bytes[page * 4096..][..4096].fill(0));
        });
    }
}

#[test]
fn files_that_are_cut_off() {
    let original = Original::new(103);
    for share in [0, 1, 10, 50, 90] {
        let report = go_through(&original, &format!("{share} percent"), &|dir| {
            change_file(&file_of(dir), |bytes| {
                bytes.truncate(bytes.len() * share / 100);
            });
        });
        assert!(report.new_epoch);
    }
    for share in [0, 10, 50] {
        go_through(&original, &format!("{share} percent of the log"), &|dir| {
            for segment in segments_of(dir) {
                change_file(&segment, |bytes| bytes.truncate(bytes.len() * share / 100));
            }
        });
    }
}

/// Bytes of the newest segment up to the end of its last group.
fn used_of(segment: &Path) -> usize {
    let bytes = fs::read(segment).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap()
}

#[test]
fn bits_that_flip_in_the_log() {
    let original = Original::new(104);
    let (mut rng, copy) = (Rng::seeded(4), original.copy());
    let segments = segments_of(copy.path());
    let last = segments.last().unwrap().file_name().unwrap().to_owned();
    let used = used_of(segments.last().unwrap());
    // In the header, in the first group, and behind it.
    let places = [0, 17, 40, 70, 100].into_iter();
    let places = places.chain((0..10).map(|_| 64 + rng.below(used / 2)));
    for at in places {
        let report = go_through(&original, &format!("byte {at} of {used}"), &|dir| {
            let segment = dir.join("namespaces").join(&last);
            change_file(&segment, |bytes| bytes[at] ^= 16);
        });
        // What one group brought is lost at most.
        assert!(report.lost_commits <= 1, "{report:?}");
        assert!(
            report
                .lost
                .iter()
                .filter(|lost| lost.kind == "record")
                .count()
                <= 1
        );
    }
}

#[test]
fn copies_of_another_time_and_files_that_are_missing() {
    let original = Original::new(105);
    let tell = |what: &str, damage: &dyn Fn(&Path)| go_through(&original, what, damage);
    let log_lost = |report: &RepairReport| report.lost.iter().any(|lost| lost.kind == "log");
    let older_file = tell("an older file", &|dir| {
        fs::write(file_of(dir), &original.older_file).unwrap();
    });
    assert!(log_lost(&older_file), "{older_file:?}");
    let no_log = tell("no log", &|dir| {
        segments_of(dir)
            .iter()
            .for_each(|path| fs::remove_file(path).unwrap());
    });
    assert!(log_lost(&no_log), "{no_log:?}");
    let no_file = tell("no file", &|dir| fs::remove_file(file_of(dir)).unwrap());
    assert!(log_lost(&no_file) && no_file.records > 0, "{no_file:?}");
    let garbage = tell("garbage", &|dir| {
        fs::write(file_of(dir), b"#!/bin/sh\n").unwrap();
    });
    assert!(garbage.new_epoch && garbage.records > 0, "{garbage:?}");
}

/// The kinds of fault that `verify` gives a hurt row of a table.
fn kinds(table: &str) -> &'static [&'static str] {
    match table {
        "records" => &[
            "record", "content", "id", "feed", "head", "node", "log", "history",
        ],
        "ids" => &["id", "head", "log"],
        "contents" => &["content", "chunk", "history", "log"],
        "chunks" => &["content", "chunk", "history", "log"],
        "chunk_references" => &["chunk", "log"],
        "history" => &["history", "content", "log"],
        "changes" => &["feed", "head", "log"],
        "nodes" => &["node", "log"],
        "roots" => &["roots", "head", "log"],
        _ => &["head", "log", "file", "node", "roots"],
    }
}

#[test]
fn rows_that_are_hurt_in_every_table() {
    let original = Original::new(106);
    let mut rng = Rng::seeded(6);
    for table in TABLES {
        for how in [Hurt::Flip, Hurt::Remove, Hurt::Flip] {
            let what = format!("{how:?} in {table}");
            let seed = rng.next();
            let damage = |dir: &Path| {
                assert!(
                    hurt(dir, table, how, &mut Rng::quiet(seed)),
                    "{table} is empty"
                );
            };
            let copy = original.copy();
            damage(copy.path());
            for fault in verify(copy.path()).faults {
                assert!(kinds(table).contains(&fault.kind), "{what}: {fault:?}");
            }
            let report = go_through(&original, &what, &damage);
            let derived = ["ids", "chunk_references", "changes", "nodes"].contains(&table);
            if derived {
                assert_eq!(
                    (&report.lost[..], report.new_epoch),
                    (&[][..], false),
                    "{what}"
                );
            }
            if table == "roots" {
                // Nodes follow from the entries; a log that lacks one of these begins anew.
                assert_eq!(report.new_root_log, report.lost.len() == 1, "{what}");
                assert!(report.lost.len() <= 1 && !report.new_epoch, "{what}");
            }
        }
    }
}

#[test]
fn a_healthy_file_is_made_anew_as_it_was() {
    let original = Original::new(107);
    let copy = original.copy();
    let before = open(original.copy().path()).unwrap();
    assert_eq!(verify(copy.path()).faults, []);
    let report = mend_and_compare(copy.path(), &original.known, "healthy");
    assert_eq!((&report.lost[..], report.new_epoch), (&[][..], false));
    let after = open(copy.path()).unwrap();
    let (before, after) = (before.view(), after.view());
    assert_eq!(before.head().root, after.head().root);
    assert_eq!(before.log_head().unwrap(), after.log_head().unwrap());
    assert!(before.log_head().unwrap().unwrap().size > 5);
    assert_eq!(
        (before.head().seq, before.head().live),
        (after.head().seq, after.head().live)
    );
    assert_eq!(after.identity().epoch, EPOCH);
    let all = |view: &samestate::replica::view::View| {
        let changes = view.changes(0, 10_000).unwrap().into_iter();
        changes.map(|row| (row.seq, row.record)).collect::<Vec<_>>()
    };
    assert_eq!(all(&before), all(&after));
    for name in original.known.keys() {
        let key = samestate::types::hash::StateKey::of_text(name);
        let versions = |view: &samestate::replica::view::View| {
            let held = view.versions(&key).unwrap().into_iter();
            held.map(|placed| placed.version).collect::<Vec<_>>()
        };
        assert_eq!(versions(&before), versions(&after), "{name}");
    }
}
