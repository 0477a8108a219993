//! A namespace in several files that a build of schema 5 left behind, with rows that wait in its first file:
//! they are carried to their files before the tree is made anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use samestate::clock::SystemClock;
use samestate::merkle::node::Summary;
use samestate::replica::check::check;
use samestate::replica::command::Command;
use samestate::replica::solo::Solo;
use samestate::store::cut::Cut;
use samestate::store::disk::Disk;
use samestate::store::options::StoreOptions;
use samestate::store::reshard::reshard;
use samestate::store::shard_set::shard_files;
use samestate::types::cursor::Epoch;
use samestate::types::id::{Namespace, ReplicaId};

use crate::crash_images::migration::{META, NODES, PATH, engine_at, old_form};
use crate::harness::Rng;
use crate::harness::replica::put;
use crate::simulated_disk::{PowerCut, RecordingDisk};

const SHARDS: usize = 4;
const PENDING: TableDefinition<'_, (u8, u32), &[u8]> = TableDefinition::new("pending");
/// Length of the key of a Merkle row: depth and bits. No other row that waits for a shard has such a key.
const NODE_KEY: usize = 9;

/// Rows on their way into other files, in the form that builds of schema 5 gave them.
fn old_part(mut part: &[u8]) -> Vec<u8> {
    let mut old = Vec::new();
    let take = |part: &mut &[u8]| {
        let (length, rest) = part.split_first_chunk().unwrap();
        let length = u32::from_le_bytes(*length);
        let (bytes, rest) = rest.split_at(if length == u32::MAX {
            0
        } else {
            length as usize
        });
        *part = rest;
        (length, bytes.to_vec())
    };
    while let Some((table, rest)) = part.split_first() {
        part = rest;
        let (key_length, key) = take(&mut part);
        let (mut length, mut row) = take(&mut part);
        if key.len() == NODE_KEY && length != u32::MAX {
            row = old_form(&row);
            length = row.len() as u32;
        }
        old.push(*table);
        for (length, bytes) in [(key_length, key), (length, row)] {
            old.extend_from_slice(&length.to_le_bytes());
            old.extend_from_slice(&bytes);
        }
    }
    old
}

/// What the file says of itself.
fn facts_of(database: &Database) -> Vec<(String, Vec<u8>)> {
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    let rows = meta.iter().unwrap().map(|row| row.unwrap());
    rows.map(|(name, fact)| (name.value().to_owned(), fact.value().to_vec()))
        .collect()
}

/// The files of the namespace, the first one first.
fn files_of(disk: &RecordingDisk) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from(PATH)];
    files.extend(shard_files(disk, Path::new(PATH)).unwrap());
    assert_eq!(files.len(), SHARDS);
    files
}

/// Makes all files those of a build of schema 5, those rows included that wait in the first one.
fn age_shards(disk: &RecordingDisk) {
    for path in files_of(disk) {
        let database = engine_at(disk, &path);
        let transaction = database.begin_write().unwrap();
        let mut nodes = transaction.open_table(NODES).unwrap();
        let rows = nodes.iter().unwrap().map(|entry| entry.unwrap());
        let rows = rows.map(|(at, row)| (at.value(), old_form(row.value())));
        let rows: Vec<((u8, u64), Vec<u8>)> = rows.collect();
        assert!(rows.len() > 30, "{}", path.display());
        for (at, row) in rows {
            nodes.insert(at, row.as_slice()).unwrap();
        }
        drop(nodes);
        if path == Path::new(PATH) {
            let mut pending = transaction.open_table(PENDING).unwrap();
            let parts: Vec<((u8, u32), Vec<u8>)> = pending
                .range((1, 0)..)
                .unwrap()
                .map(|part| part.unwrap())
                .map(|(at, part)| (at.value(), old_part(part.value())))
                .collect();
            assert_eq!(parts.len(), SHARDS - 1);
            for (at, part) in parts {
                pending.insert(at, part.as_slice()).unwrap();
            }
        }
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("schema", 5u32.to_le_bytes().as_slice())
            .unwrap();
        drop(meta);
        transaction.commit().unwrap();
    }
}

/// How many of the shards' files still lack the checkpoint that the first one has; `None` when it has not.
fn waiting(image: &RecordingDisk, done: &RecordingDisk) -> Option<usize> {
    let same =
        |path: &PathBuf| facts_of(&engine_at(image, path)) == facts_of(&engine_at(done, path));
    let files = files_of(image);
    same(&files[0]).then(|| files[1..].iter().filter(|path| !same(path)).count())
}

#[test]
fn rows_of_schema_5_that_wait_for_their_shards_are_carried_there_first() {
    let disk = RecordingDisk::new();
    let options = StoreOptions {
        flush_threads: 1,
        ..StoreOptions::default()
    };
    let open = |disk: &RecordingDisk| {
        let (disk, path) = (Arc::new(disk.clone()), Path::new(PATH));
        let wall = Arc::new(SystemClock);
        Solo::open_on(disk, path, ReplicaId(1), Epoch(1), options, wall).unwrap()
    };
    let write = |n: u32| Command::Write(vec![put(&format!("match/{n}"), &n.to_le_bytes())]);
    let mut solo = open(&disk);
    solo.commit((0..600).map(write).collect(), [].into())
        .unwrap();
    solo.checkpoint().unwrap();
    drop(solo);
    let seam: Arc<dyn Disk> = Arc::new(disk.clone());
    let cut = Cut::of_count(SHARDS).unwrap();
    reshard(&seam, Path::new(PATH), cut, 1, options, &mut |_, _| {}).unwrap();
    let mut solo = open(&disk);
    solo.commit((500..700).map(write).collect(), [].into())
        .unwrap();
    let before = disk.position();
    solo.checkpoint().unwrap();
    let after = disk.position();
    let root = solo.view().head().root;
    drop(solo);

    let (mut rng, done) = (Rng::seeded(7), disk.kill(after));
    let mut images = [0; SHARDS];
    for position in before..=after {
        let image = disk.kill(position);
        let Some(lacking) = waiting(&image.kill(image.position()), &done) else {
            continue;
        };
        // A few of each: most steps of a checkpoint change nothing that a start would see.
        if images[lacking] == 3 {
            continue;
        }
        images[lacking] += 1;
        age_shards(&image);
        let old = image.kill(image.position());
        check_opened(&open(&old), root, position);
        for _ in 0..8 {
            let cut = PowerCut::random(&mut rng, 0, old.position());
            check_opened(&open(&old.cut_power(cut)), root, position);
        }
    }
    println!("images by the number of files that lack a checkpoint: {images:?}");
    assert!(images.iter().all(|&images| images > 0), "{images:?}");
}

fn check_opened(solo: &Solo, root: Summary, position: usize) {
    let view = solo.view();
    let namespace = Namespace::default_namespace();
    let report = check(view.snapshot(), &namespace, &mut |_| {}).unwrap();
    assert!(
        report.faults.is_empty(),
        "at {position}: {:?}",
        report.faults
    );
    assert_eq!(view.head().root, root, "at {position}");
}
