//! Backups that are not what was written: each fault is refused by name, by `check` and by
//! `restore`, and nothing that looks like a data directory is left.

use std::path::Path;

use samestate::backup::destination::folder_name;
use samestate::backup::entry::{Entry, Held, Run};
use samestate::backup::error::BackupError;
use samestate::backup::manifest::{FilePart, MANIFEST, Manifest, SUMS};
use samestate::backup::writer::DataWriter;
use samestate::replica::command::Command;
use samestate::types::hash::StateKey;
use samestate::types::id::{Namespace, WriterId};
use samestate::types::version::Version;

use crate::backup::{Vault, varied};
use crate::harness::Rng;
use crate::harness::replica::{Node, id, put};

/// Two backups of two namespaces; the second one uses the files of the first.
fn chain(rng: &mut Rng) -> (Vault, Node) {
    let (vault, node) = (Vault::new(), varied(rng));
    let eu = Namespace::new("eu").unwrap();
    node.replica.create_namespace(&eu).unwrap();
    for round in 0..2u8 {
        let namespace = node.replica.namespace(&eu).unwrap();
        let write = Command::Write(vec![put("a", &rng.bytes(40_000)), put("b", &[round])]);
        namespace.queue_blocking(write).unwrap().wait().unwrap();
        node.put("match/1", &rng.bytes(30_000));
        node.put(&format!("match/new-{round}"), &rng.bytes(100));
        vault.save_views(&node.replica, false).unwrap();
    }
    vault.check(None).unwrap();
    (vault, node)
}

fn data_files() -> Vec<&'static str> {
    vec![
        "000001/default.data",
        "000001/eu.data",
        "000002/default.data",
        "000002/eu.data",
    ]
}

fn all_files() -> Vec<String> {
    let own = [MANIFEST, SUMS].map(|name| format!("000002/{name}"));
    let data = data_files().into_iter().map(str::to_owned);
    data.chain(own).collect()
}

/// Fails unless backup 2 is refused with a message that names `told`, by both ways.
fn refused(vault: &Vault, told: &str, what: &str) {
    let target = vault.target("new");
    for error in [
        vault.check(None).map(drop),
        vault.restore(None, "new").map(drop),
    ] {
        let error = error.expect_err(what).to_string();
        assert!(error.contains(told), "{what}: no {told:?} in: {error}");
    }
    assert!(!target.exists(), "{what}");
    assert!(!target.with_added_extension("restoring").exists(), "{what}");
}

/// Runs `test` with a file changed, and puts it back.
fn with_changed(path: &Path, change: impl FnOnce(&mut Vec<u8>), test: impl FnOnce()) {
    let whole = std::fs::read(path).unwrap();
    let mut changed = whole.clone();
    change(&mut changed);
    std::fs::write(path, &changed).unwrap();
    test();
    std::fs::write(path, &whole).unwrap();
}

#[test]
fn a_flipped_byte_is_named_with_its_file() {
    let mut rng = Rng::seeded(30);
    let (vault, _node) = chain(&mut rng);
    for name in all_files() {
        let path = vault.folder().join(&name);
        let length = std::fs::metadata(&path).unwrap().len() as usize;
        let told = if name.ends_with(SUMS) { SUMS } else { &name };
        let mut places = vec![0, 16, 20, 21, 25, 40, length / 2, length - 1];
        places.extend((0..12).map(|_| rng.below(length)));
        for place in places {
            let place = place.min(length - 1);
            let flip = 1 + rng.below(255) as u8;
            let what = format!("{name}, byte {place} of {length}, {flip:#04x}");
            with_changed(
                &path,
                |bytes| bytes[place] ^= flip,
                || refused(&vault, told, &what),
            );
        }
    }
    vault.restore(None, "new").unwrap();
}

#[test]
fn a_damaged_block_is_named_with_its_place() {
    let mut rng = Rng::seeded(31);
    let (vault, _node) = chain(&mut rng);
    let path = vault.folder().join("000001/default.data");
    // The first block stands at byte 20.
    with_changed(
        &path,
        |bytes| bytes[60] ^= 1,
        || refused(&vault, "default.data is damaged at byte 20:", "first block"),
    );
}

#[test]
fn a_file_that_was_cut_or_grew_is_named() {
    let mut rng = Rng::seeded(32);
    let (vault, _node) = chain(&mut rng);
    for name in all_files() {
        let path = vault.folder().join(&name);
        let length = std::fs::metadata(&path).unwrap().len() as usize;
        let told = if name.ends_with(SUMS) { SUMS } else { &name };
        for left in [0, 1, 20, length / 2, length - 1] {
            let what = format!("{name} cut to {left} of {length}");
            with_changed(
                &path,
                |bytes| bytes.truncate(left),
                || refused(&vault, told, &what),
            );
        }
        let what = format!("{name} with a byte behind it");
        with_changed(
            &path,
            |bytes| bytes.push(b' '),
            || refused(&vault, told, &what),
        );
    }
}

#[test]
fn a_missing_file_is_named() {
    let mut rng = Rng::seeded(33);
    let (vault, _node) = chain(&mut rng);
    for name in all_files() {
        let path = vault.folder().join(&name);
        let away = vault.target("away");
        std::fs::rename(&path, &away).unwrap();
        refused(&vault, &name, &format!("{name} is missing"));
        std::fs::rename(&away, &path).unwrap();
    }
    std::fs::rename(vault.folder().join("000001"), vault.target("away")).unwrap();
    refused(&vault, "000001/", "a folder is missing");
}

fn swap(vault: &Vault, one: &str, other: &str) {
    let at = |name: &str| vault.folder().join(name);
    let away = vault.target("away");
    std::fs::rename(at(one), &away).unwrap();
    std::fs::rename(at(other), at(one)).unwrap();
    std::fs::rename(&away, at(other)).unwrap();
}

#[test]
fn swapped_files_are_named() {
    let mut rng = Rng::seeded(34);
    let (vault, _node) = chain(&mut rng);
    for (one, other, told) in [
        (
            "000001/default.data",
            "000001/eu.data",
            "000001/default.data",
        ),
        (
            "000001/default.data",
            "000002/default.data",
            "000001/default.data",
        ),
        ("000002/eu.data", "000001/eu.data", "000001/eu.data"),
        (
            "000001/manifest.json",
            "000002/manifest.json",
            "000002/manifest.json",
        ),
        (
            "000001/SHA256SUMS",
            "000002/SHA256SUMS",
            "000002/manifest.json",
        ),
        ("000001", "000002", "manifest of backup 000001"),
    ] {
        swap(&vault, one, other);
        refused(&vault, told, &format!("{one} and {other} swapped"));
        swap(&vault, one, other);
    }
    vault.restore(None, "new").unwrap();
}

/// Changes the manifest of backup 2 and its sums with it, as somebody would who knows how.
fn forge(vault: &Vault, change: impl FnOnce(&mut Manifest)) {
    let mut manifest = vault.destination().manifest(2).unwrap();
    change(&mut manifest);
    put_manifest(vault, &manifest);
}

fn put_manifest(vault: &Vault, manifest: &Manifest) {
    let folder = vault.folder().join(folder_name(2));
    let bytes = manifest.to_bytes();
    std::fs::write(folder.join(MANIFEST), &bytes).unwrap();
    std::fs::write(folder.join(SUMS), manifest.sums(&bytes)).unwrap();
}

#[test]
fn a_forged_manifest_does_not_get_past_the_states() {
    let mut rng = Rng::seeded(35);
    let (vault, _node) = chain(&mut rng);
    let honest = vault.destination().manifest(2).unwrap();
    type Forgery = (&'static str, fn(&mut Manifest), &'static str);
    let forgeries: [Forgery; 9] = [
        (
            "root",
            |m| m.namespaces[0].root.0[0] ^= 1,
            "namespace default in backup 000002 give root",
        ),
        (
            "root of the other",
            |m| m.namespaces[1].root.0[31] ^= 1,
            "namespace eu",
        ),
        (
            "records",
            |m| m.namespaces[0].records += 1,
            "namespace default",
        ),
        (
            "states",
            |m| m.namespaces[0].states -= 1,
            "namespace default",
        ),
        ("size", |m| m.namespaces[0].size += 1, "namespace default"),
        (
            "updated_at",
            |m| m.namespaces[0].updated_at += 1,
            "namespace default",
        ),
        (
            "an older state",
            |m| m.namespaces[0].files.truncate(1),
            "namespace default",
        ),
        (
            "only the changes",
            |m| m.namespaces[0].files = m.namespaces[0].files.split_off(1),
            "namespace default",
        ),
        (
            "tables",
            |m| m.namespaces[0].files[0].tables -= 1,
            "000001/default.data is damaged at byte",
        ),
    ];
    for (what, change, told) in forgeries {
        forge(&vault, change);
        refused(&vault, told, what);
        put_manifest(&vault, &honest);
    }
    forge(&vault, |manifest| manifest.format = 2);
    refused(&vault, "backup format 2", "a newer format");
    put_manifest(&vault, &honest);
    vault.restore(None, "new").unwrap();
}

/// A data file with all its checksums right, in place of the only one of backup 2.
fn put_data(vault: &Vault, pieces: &[&[u8]], entries: &[Entry]) -> FilePart {
    let path = vault.folder().join("000002/default.data");
    let _ = std::fs::remove_file(&path);
    let mut writer = DataWriter::create(&path, 2).unwrap();
    for piece in pieces {
        writer.put_piece(piece).unwrap();
    }
    for entry in entries {
        writer.put_entry(&StateKey::of(&entry.id), entry).unwrap();
    }
    writer.finish().unwrap()
}

/// Such a file, and a manifest that speaks of it.
fn forged(vault: &Vault, pieces: &[&[u8]], entries: &[Entry]) {
    let file = put_data(vault, pieces, entries);
    forge(vault, |manifest| manifest.namespaces[0].files = vec![file]);
}

fn run(backup: u32, first: u64, count: u32) -> Run {
    Run {
        backup,
        first,
        count,
    }
}

/// Two full backups of one state, and its entry with other pieces.
fn one_state() -> (Vault, Node, impl Fn(Vec<Run>) -> Entry) {
    let (vault, node) = (Vault::new(), Node::new(1));
    node.put("a", b"honest bytes");
    vault.save(&node);
    vault.save_views(&node.replica, true).unwrap();
    let row = node.view().row(&id("a")).unwrap().unwrap();
    let entry = move |pieces| Entry {
        id: id("a"),
        history: Vec::new(),
        current: vec![Held {
            version: row.record.shown().clone(),
            pieces,
        }],
    };
    (vault, node, entry)
}

#[test]
fn forged_bytes_do_not_get_past_their_hash() {
    let (vault, _node, entry) = one_state();
    let pieces = [&b"honest "[..], b"bytes"];
    forged(&vault, &pieces, &[entry(vec![run(2, 0, 2)])]);
    vault.restore(None, "honest").unwrap();
    let wrong = "the bytes of \"a\"";
    for (what, runs, told) in [
        ("others", vec![run(2, 1, 1), run(2, 0, 1)], wrong),
        ("too few", vec![run(2, 0, 1)], wrong),
        ("none", vec![], wrong),
        ("too many", vec![run(2, 0, 2), run(2, 0, 1)], wrong),
        ("without end", vec![run(2, 0, u32::MAX)], wrong),
        ("behind the last", vec![run(2, 2, 1)], wrong),
        ("behind any", vec![run(2, u64::MAX, 2)], wrong),
        (
            "of a file that is not listed",
            vec![run(1, 0, 1)],
            "refers to backup 000001",
        ),
    ] {
        forged(&vault, &pieces, &[entry(runs)]);
        refused(&vault, told, what);
    }
    forged(&vault, &[], &[entry(vec![run(2, 0, 1)])]);
    refused(&vault, "it has no piece 0", "no pieces at all");
    forged(&vault, &[&b""[..]; 3], &[entry(vec![run(2, 0, 3)])]);
    refused(&vault, "000002/default.data is damaged at", "empty pieces");
}

#[test]
fn another_whole_file_of_the_same_length_is_noticed() {
    let (vault, _node, entry) = one_state();
    let one = entry(vec![run(2, 0, 1)]);
    forged(&vault, &[b"honest bytes"], std::slice::from_ref(&one));
    vault.restore(None, "honest").unwrap();
    put_data(&vault, &[b"Honest bytes"], &[one]);
    refused(
        &vault,
        "000002/default.data is damaged: it does not have the SHA-256",
        "other",
    );
}

#[test]
fn forged_entries_do_not_become_records() {
    let (vault, _node, entry) = one_state();
    let pieces = [&b"honest "[..], b"bytes"];
    let one = entry(vec![run(2, 0, 2)]);
    forged(&vault, &pieces, &[one.clone(), one.clone()]);
    refused(&vault, "out of order", "a state twice");
    let with = |change: fn(&mut Version)| {
        let mut version = one.current[0].version.clone();
        change(&mut version);
        let mut entry = one.clone();
        entry.current.push(Held {
            version,
            pieces: Vec::new(),
        });
        entry
    };
    for (what, change, told) in [
        (
            "a version without a writer",
            (|version| version.vector = Default::default()) as fn(&mut Version),
            "superseded",
        ),
        (
            "a version of another writer",
            |version| {
                version.vector = Default::default();
                version.vector.set(WriterId(7), 1);
            },
            "give root",
        ),
        ("a version twice", |_| {}, "superseded"),
    ] {
        forged(&vault, &pieces, &[with(change)]);
        refused(&vault, told, what);
    }
    // History is not part of the root. What the current version has not seen would become current.
    let mut entry = one.clone();
    let mut unseen = one.current[0].clone();
    unseen.version.vector = Default::default();
    unseen.version.vector.set(WriterId(7), 1);
    entry.history.push(unseen);
    forged(&vault, &pieces, &[entry]);
    refused(&vault, "no current one has seen", "history of others");
}

#[test]
fn a_file_of_a_newer_layout_is_told() {
    let (vault, node) = (Vault::new(), Node::new(1));
    node.put("a", b"x");
    vault.save(&node);
    let path = vault.folder().join("000001/default.data");
    with_changed(
        &path,
        |bytes| bytes[16] = 9,
        || {
            let error = vault.check(None).unwrap_err();
            assert!(
                matches!(error, BackupError::TooNew { found: 9, .. }),
                "{error}"
            );
        },
    );
}
