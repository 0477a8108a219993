//! A file of the schema version before: this build opens it with everything in it, whenever the
//! power goes off while it is brought up to date.
//!
//! `tests/fixtures/schema-1/` was written by the last build of that version.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use rustix::io::Errno;
use samestate::clock::SystemClock;
use samestate::merkle::row::Row;
use samestate::replica::check::check;
use samestate::replica::command::Command;
use samestate::replica::solo::Solo;
use samestate::replica::view::View;
use samestate::store::disk::Disk;
use samestate::store::migrate::SCHEMA_VERSION;
use samestate::store::options::StoreOptions;
use samestate::types::cursor::Epoch;
use samestate::types::hash::StateKey;
use samestate::types::id::{Namespace, ReplicaId};

use crate::crash_images::backend::Raw;
use crate::crash_images::number;
use crate::harness::process::{Server, succeed_json};
use crate::harness::replica::{id, put};
use crate::harness::{Rng, fixture};
use crate::simulated_disk::{Fault, PowerCut, RecordingDisk};

pub const PATH: &str = "/data/default.redb";

/// What the file holds, as the build that wrote it said.
struct Expected {
    replica: ReplicaId,
    epoch: Epoch,
    root: String,
    seq: u64,
    peer: ReplicaId,
    states: Vec<ExpectedState>,
}

struct ExpectedState {
    id: String,
    seq: u64,
    current: usize,
    /// Content hashes of all versions, current ones first; `-` for a deletion.
    versions: Vec<String>,
}

fn expected() -> Expected {
    let text = std::fs::read_to_string(fixture("schema-1/default.tsv")).unwrap();
    let lines = text
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let (states, facts): (Vec<_>, Vec<_>) = lines.partition(|line| line[0] == "state");
    let fact = |name: &str| {
        let line = facts.iter().find(|line| line[0] == name);
        line.unwrap()[1].to_owned()
    };
    let state = |line: &Vec<&str>| ExpectedState {
        id: line[1].to_owned(),
        seq: line[2].parse().unwrap(),
        current: line[3].parse().unwrap(),
        versions: line[4].split(',').map(str::to_owned).collect(),
    };
    Expected {
        replica: fact("replica").parse().unwrap(),
        epoch: Epoch(u64::from_str_radix(&fact("epoch"), 16).unwrap()),
        root: fact("root"),
        seq: fact("seq").parse().unwrap(),
        peer: fact("peer").parse().unwrap(),
        states: states.iter().map(state).collect(),
    }
}

fn file() -> Vec<u8> {
    let packed = std::fs::File::open(fixture("schema-1/default.redb.zst")).unwrap();
    zstd::decode_all(packed).unwrap()
}

/// A disk on which the file has been for long.
fn disk() -> RecordingDisk {
    let disk = RecordingDisk::new();
    let written = disk.open(Path::new(PATH), true).unwrap();
    written.write_at(0, &file()).unwrap();
    written.sync().unwrap();
    disk.sync_folder(Path::new("/data")).unwrap();
    disk.kill(disk.position())
}

fn open(disk: &RecordingDisk, expected: &Expected) -> Result<Solo, String> {
    let (disk, path) = (Arc::new(disk.clone()), Path::new(PATH));
    let (options, wall) = (StoreOptions::default(), Arc::new(SystemClock));
    let opened = Solo::open_on(disk, path, expected.replica, expected.epoch, options, wall);
    opened.map_err(|error| format!("does not open: {error}"))
}

/// Compares everything in a view with what the build before said.
fn compare(view: &View, expected: &Expected) -> Result<(), String> {
    let report = check(
        view.snapshot(),
        &Namespace::default_namespace(),
        &mut |_| {},
    )
    .map_err(|error| error.to_string())?;
    if !report.faults.is_empty() {
        return Err(format!("{:?}", report.faults));
    }
    let found = (report.root, view.head().root.hash.to_hex(), view.head().seq);
    if found != (expected.root.clone(), expected.root.clone(), expected.seq) {
        return Err(format!("{found:?}"));
    }
    if report.records != expected.states.len() as u64 {
        return Err(format!("{} records", report.records));
    }
    for state in &expected.states {
        let id = id(&state.id);
        let row = view.row(&id).unwrap().ok_or_else(|| format!("no {id}"))?;
        let held = view.versions(&StateKey::of(&id)).unwrap();
        let hashes = held.iter().map(|placed| match placed.version.tombstone {
            true => "-".to_owned(),
            false => placed.version.content.to_hex(),
        });
        let hashes: Vec<String> = hashes.collect();
        let current = row.record.versions().len();
        if (row.seq, current, &hashes) != (state.seq, state.current, &state.versions) {
            return Err(format!("{id} at {}: {current} of {hashes:?}", row.seq));
        }
    }
    let agreed = view.snapshot().agreement(expected.peer);
    match agreed.map_err(|error| error.to_string())? {
        Some(_) => Ok(()),
        None => Err("what was agreed with the peer is forgotten".into()),
    }
}

pub const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub const NODES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("nodes");

/// The file as the engine alone sees it.
fn engine(disk: &RecordingDisk) -> Database {
    engine_at(disk, Path::new(PATH))
}

pub fn engine_at(disk: &RecordingDisk, path: &Path) -> Database {
    let file = disk.open(path, false).unwrap();
    Database::builder().create_with_backend(Raw(file)).unwrap()
}

/// The schema version of the file, read without the store.
fn schema(disk: &RecordingDisk) -> u32 {
    let database = engine(disk);
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    let version = meta.get("schema").unwrap().unwrap();
    u32::from_le_bytes(version.value().try_into().unwrap())
}

#[test]
fn a_file_of_schema_1_is_brought_up_to_date_with_everything_in_it() {
    let (disk, expected) = (disk(), expected());
    assert!(expected.states.iter().any(|state| state.current > 1));
    assert_eq!(schema(&disk.kill(0)), 1);
    let mut solo = open(&disk, &expected).unwrap();
    compare(&solo.view(), &expected).unwrap();
    let feed = solo.view().changes(0, 1000).unwrap();
    let mut seqs: Vec<u64> = expected.states.iter().map(|state| state.seq).collect();
    seqs.sort_unstable();
    assert!(feed.iter().map(|row| row.seq).eq(seqs));
    let write = Command::Write(vec![put("after", b"the migration")]);
    let outcomes = solo.commit(vec![write], [].into()).unwrap();
    let receipt = &outcomes[0].as_ref().unwrap().receipts[0];
    assert_eq!(receipt.seq, expected.seq + 1);
    solo.checkpoint().unwrap();
    drop(solo);
    assert_eq!(schema(&disk), SCHEMA_VERSION);
    let solo = open(&disk, &expected).unwrap();
    assert_eq!(solo.view().head().seq, expected.seq + 1);
}

#[test]
fn a_power_cut_while_a_file_is_brought_up_to_date_leaves_one_of_the_versions() {
    let (disk, expected) = (disk(), expected());
    drop(open(&disk, &expected).unwrap());
    let mut rng = Rng::seeded(5);
    let mut versions = [0; SCHEMA_VERSION as usize + 1];
    for _ in 0..number("CRASH_IMAGES", 2_000) / 50 {
        let cut = PowerCut::random(&mut rng, 0, disk.position());
        let image = disk.cut_power(cut);
        versions[schema(&image.kill(0)) as usize] += 1;
        let checked = open(&image, &expected).and_then(|solo| compare(&solo.view(), &expected));
        checked.unwrap_or_else(|fault| panic!("{cut}: {fault}"));
        let again = PowerCut::random(&mut rng, 0, image.position());
        let second = image.cut_power(again);
        assert!((1..=SCHEMA_VERSION).contains(&schema(&second.kill(0))));
        let checked = open(&second, &expected).and_then(|solo| compare(&solo.view(), &expected));
        checked.unwrap_or_else(|fault| panic!("{cut}, {again}: {fault}"));
    }
    println!("images by schema version: {versions:?}");
    assert_eq!(versions[0], 0);
    assert!(versions[1..].iter().all(|&images| images > 0));
}

#[test]
fn a_disk_that_is_full_or_fails_while_a_file_is_brought_up_to_date_costs_nothing() {
    let expected = expected();
    let mut refused = 0;
    for error in [Errno::NOSPC, Errno::IO] {
        for after in 0.. {
            let disk = disk();
            disk.fail(Fault::after(after, error).partial().sticky());
            let opened = open(&disk, &expected);
            if disk.failed() == 0 {
                opened.unwrap();
                break;
            }
            if let Err(told) = opened {
                let says = match error {
                    Errno::NOSPC => "is full, or has less free space than",
                    _ => "Input/output error",
                };
                assert!(told.contains(says), "after {after}: {told}");
                refused += 1;
            }
            disk.work_again();
            // Of what was not synced nothing has to be there.
            let position = disk.position();
            let seed = after;
            for image in [
                disk.kill(position),
                disk.cut_power(PowerCut { position, seed }),
            ] {
                let opened = open(&image, &expected);
                let compared = opened.and_then(|solo| compare(&solo.view(), &expected));
                compared.unwrap_or_else(|fault| panic!("{error} after {after}: {fault}"));
            }
        }
    }
    println!("{refused} starts refused");
    assert!(refused > 20, "{refused}");
}

#[test]
fn the_program_serves_and_verifies_a_file_of_schema_1() {
    let expected = expected();
    let folder = tempfile::tempdir().unwrap();
    let namespaces = folder.path().join("namespaces");
    std::fs::create_dir(&namespaces).unwrap();
    std::fs::write(namespaces.join("default.redb"), file()).unwrap();
    let replica = format!("{}\n", expected.replica);
    std::fs::write(folder.path().join("replica"), replica).unwrap();
    let data = folder.path().to_str().unwrap();
    let verified = succeed_json(&["verify", "--data", data]);
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(verified["namespaces"][0]["root"], expected.root.as_str());
    let server = Server::start(folder.path());
    assert_eq!(server.root(), expected.root);
}

/// A Merkle row as builds of schema 5 wrote it.
pub fn old_form(row: &[u8]) -> Vec<u8> {
    let mut old = row[..2].to_vec();
    let children = Row::decode(row).unwrap().0;
    for child in children.iter().filter(|child| child.leaves > 0) {
        let mut summary = [0; 56];
        child.write(&mut summary);
        old.extend_from_slice(&summary);
    }
    old
}

/// Gives a file the Merkle rows that builds of schema 5 wrote: 56 bytes a child. The row at depth 16
/// is one that this build would not keep there.
fn age(disk: &RecordingDisk) {
    let database = engine(disk);
    let transaction = database.begin_write().unwrap();
    let mut nodes = transaction.open_table(NODES).unwrap();
    let rows: Vec<((u8, u64), Vec<u8>)> = nodes
        .iter()
        .unwrap()
        .map(|entry| {
            entry
                .map(|(at, row)| (at.value(), row.value().to_vec()))
                .unwrap()
        })
        .collect();
    assert!(rows.len() > 200);
    for (at, row) in &rows {
        nodes.insert(at, old_form(row).as_slice()).unwrap();
    }
    let ((_, bits), row) = &rows[7];
    nodes.insert((16, *bits), row.as_slice()).unwrap();
    drop(nodes);
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert("schema", 5u32.to_le_bytes().as_slice())
        .unwrap();
    drop(meta);
    transaction.commit().unwrap();
}

#[test]
fn the_tree_of_a_file_of_schema_5_is_made_anew_whenever_the_power_goes_off() {
    let new = RecordingDisk::new();
    let open = |disk: &RecordingDisk| {
        let (disk, path) = (Arc::new(disk.clone()), Path::new(PATH));
        let (options, wall) = (StoreOptions::default(), Arc::new(SystemClock));
        Solo::open_on(disk, path, ReplicaId(1), Epoch(1), options, wall).unwrap()
    };
    let mut solo = open(&new);
    let write = |n: u32| Command::Write(vec![put(&format!("match/{n}"), &n.to_le_bytes())]);
    solo.commit((0..600).map(write).collect(), [].into())
        .unwrap();
    solo.checkpoint().unwrap();
    // What the log alone has is carried out on the new rows.
    solo.commit((500..700).map(write).collect(), [].into())
        .unwrap();
    let root = solo.view().head().root;
    drop(solo);
    age(&new);
    let disk = new.kill(new.position());
    assert_eq!(schema(&disk.kill(0)), 5);
    drop(open(&disk));
    let mut rng = Rng::seeded(6);
    let mut due = [0; 3];
    for _ in 0..number("CRASH_IMAGES", 2_000) / 50 {
        let cut = PowerCut::random(&mut rng, 0, disk.position());
        let image = disk.cut_power(cut);
        let marked = engine(&image.kill(0));
        let meta = marked.begin_read().unwrap().open_table(META).unwrap();
        let is_due = meta.get("tree_is_due").unwrap().is_some();
        due[usize::from(is_due) + usize::from(schema(&image.kill(0)) == 6)] += 1;
        let solo = open(&image);
        let view = solo.view();
        let namespace = Namespace::default_namespace();
        let report = check(view.snapshot(), &namespace, &mut |_| {}).unwrap();
        assert!(report.faults.is_empty(), "{cut}: {:?}", report.faults);
        assert_eq!(view.head().root, root, "{cut}");
    }
    println!("images before the migration, done with it, and between it and the new rows: {due:?}");
    assert!(due.iter().all(|&images| images > 0), "{due:?}");
}
