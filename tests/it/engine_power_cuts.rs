//! The engine below the store, alone on the simulated disk: after any power cut, and another one
//! while it recovers, its file opens and is at a commit no older than the last acknowledged one.
//!
//! `POWER_CUTS=20000 cargo test --release --test it engine_power_cuts` looks longer.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
};
use samestate::store::disk::{Disk, DiskFile};

use crate::harness::Rng;
use crate::simulated_disk::{PowerCut, RecordingDisk};

const STATES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("states");
const VERSIONS: TableDefinition<'_, u64, u64> = TableDefinition::new("versions");
const COMMIT: TableDefinition<'_, (), u64> = TableDefinition::new("commit");

const FOLDER: &str = "/data";
const DRAFT: &str = "/data/game.redb.new";
const NAME: &str = "/data/game.redb";

const COMMITS: u64 = 16;
/// Images of one history.
const CUTS: u64 = 60;

/// A file as the engine uses it.
#[derive(Debug)]
struct EngineFile {
    file: Arc<dyn DiskFile>,
    syncs: bool,
}

impl StorageBackend for EngineFile {
    fn len(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.syncs { self.file.sync() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
}

fn open(file: Arc<dyn DiskFile>, syncs: bool) -> Result<Database, DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(1 << 20);
    builder.create_with_backend(EngineFile { file, syncs })
}

/// For each key the commit that wrote it last and the length of its value.
type Model = BTreeMap<u64, (u64, usize)>;

/// A life of the file, and what it promised when.
struct History {
    disk: RecordingDisk,
    /// Where the file had its name for good.
    named: usize,
    /// Where each commit was acknowledged. The first is commit 1.
    acknowledged: Vec<usize>,
    /// What the file holds after each commit. The first is commit 0.
    models: Vec<Model>,
}

fn value(key: u64, commit: u64, length: usize) -> Vec<u8> {
    Rng::quiet(key << 32 | commit).bytes(length)
}

fn any_length(rng: &mut Rng) -> usize {
    match rng.below(10) {
        0 => 20_000 + rng.below(100_000),
        1..=3 => rng.below(20_000),
        _ => 100 + rng.below(400),
    }
}

/// Makes the file under another name first, as the store does it, and writes to it.
fn live(rng: &mut Rng, syncs: bool) -> History {
    let disk = RecordingDisk::new();
    let file = disk.open(Path::new(DRAFT), true).unwrap();
    drop(open(Arc::clone(&file), syncs).unwrap());
    file.sync().unwrap();
    disk.rename(Path::new(DRAFT), Path::new(NAME)).unwrap();
    disk.sync_folder(Path::new(FOLDER)).unwrap();
    let mut history = History {
        named: disk.position(),
        disk: disk.clone(),
        acknowledged: Vec::new(),
        models: vec![Model::new()],
    };
    let database = open(file, syncs).unwrap();
    for commit in 1..=COMMITS {
        let mut model = history.models.last().unwrap().clone();
        write(&database, commit, &mut model, rng);
        history.models.push(model);
        history.acknowledged.push(disk.position());
    }
    history
}

fn write(database: &Database, commit: u64, model: &mut Model, rng: &mut Rng) {
    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    {
        let mut states = transaction.open_table(STATES).unwrap();
        let mut versions = transaction.open_table(VERSIONS).unwrap();
        for _ in 0..1 + rng.below(8) {
            let key = rng.below(24) as u64;
            if rng.one_in(4) {
                states.remove(key).unwrap();
                versions.remove(key).unwrap();
                model.remove(&key);
            } else {
                let length = any_length(rng);
                let bytes = value(key, commit, length);
                states.insert(key, &bytes[..]).unwrap();
                versions.insert(key, commit).unwrap();
                model.insert(key, (commit, length));
            }
        }
        let mut number = transaction.open_table(COMMIT).unwrap();
        number.insert((), commit).unwrap();
    }
    transaction.commit().unwrap();
}

/// What a file holds: its commit, its states, and their versions.
type Held = (u64, BTreeMap<u64, Vec<u8>>, BTreeMap<u64, u64>);

fn read(database: &Database) -> Result<Held, redb::Error> {
    let transaction = database.begin_read()?;
    let number = match transaction.open_table(COMMIT) {
        // No commit has made the tables yet.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Held::default()),
        table => table?.get(())?.map_or(0, |number| number.value()),
    };
    let mut states = BTreeMap::new();
    for entry in transaction.open_table(STATES)?.iter()? {
        let (key, bytes) = entry?;
        states.insert(key.value(), bytes.value().to_vec());
    }
    let mut versions = BTreeMap::new();
    for entry in transaction.open_table(VERSIONS)?.iter()? {
        let (key, commit) = entry?;
        versions.insert(key.value(), commit.value());
    }
    Ok((number, states, versions))
}

/// Opens the file on an image and returns its commit, or `None` when there is no file.
fn check(image: &RecordingDisk, history: &History) -> Result<Option<u64>, String> {
    let Ok(file) = image.open(Path::new(NAME), false) else {
        return Ok(None);
    };
    let mut database = open(file, true).map_err(|error| format!("does not open: {error}"))?;
    let held = read(&database).map_err(|error| format!("does not read: {error}"))?;
    let (commit, states, versions) = held;
    let model = &history.models[commit as usize];
    let expected = model.iter().map(|(key, (commit, _))| (*key, *commit));
    if versions != expected.collect() {
        return Err(format!("the versions are not those of commit {commit}"));
    }
    let expected = model
        .iter()
        .map(|(key, (commit, length))| (*key, value(*key, *commit, *length)));
    if states != expected.collect() {
        return Err(format!("the states are not those of commit {commit}"));
    }
    match database.check_integrity() {
        Ok(true) => Ok(Some(commit)),
        other => Err(format!("commit {commit} is not whole: {other:?}")),
    }
}

/// Checks the image of a cut, and that of a cut while the first one was opened. The engine may
/// panic on a disk that it cannot make sense of.
fn check_cuts(history: &History, cut: PowerCut, again: &mut Rng) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| check_both(history, cut, again)))
        .unwrap_or_else(|_| Err("the engine panics".into()))
}

fn check_both(history: &History, cut: PowerCut, again: &mut Rng) -> Result<(), String> {
    let acknowledged = history.acknowledged.iter();
    let acknowledged = acknowledged.filter(|at| **at <= cut.position).count() as u64;
    let least = (cut.position >= history.named).then_some(acknowledged);
    let image = history.disk.cut_power(cut);
    let found = check(&image, history)?;
    if found < least {
        return Err(format!("{found:?} is older than {least:?}"));
    }
    let second = PowerCut::random(again, 0, image.position());
    let image_again = image.cut_power(second);
    let found_again = check(&image_again, history);
    let found_again = found_again.map_err(|fault| format!("at the second {second}: {fault}"))?;
    if found_again < found {
        return Err(format!(
            "at the second {second}: {found_again:?}, but it was {found:?} already\n{}",
            image.steps_before(second.position)
        ));
    }
    Ok(())
}

/// How many cuts to try.
fn wanted_cuts() -> u64 {
    let wanted = std::env::var("POWER_CUTS").ok();
    wanted.map_or(2 * CUTS, |count| count.parse().unwrap())
}

#[test]
fn acknowledged_commits_survive_any_power_cut() {
    let mut seeds = Rng::seeded(1);
    let histories = wanted_cuts().div_ceil(CUTS);
    let mut taken = Duration::ZERO;
    for _ in 0..histories {
        let seed = seeds.next();
        let mut rng = Rng::quiet(seed);
        let history = live(&mut rng, true);
        let started = Instant::now();
        for _ in 0..CUTS {
            let cut = PowerCut::random(&mut rng, 0, history.disk.position());
            if let Err(fault) = check_cuts(&history, cut, &mut rng) {
                let steps = history.disk.steps_before(cut.position);
                panic!("history {seed:#x}, {cut}: {fault}\n{steps}");
            }
        }
        taken += started.elapsed();
    }
    let images = 2 * histories * CUTS;
    println!("{images} images in {taken:.1?}");
}

/// An engine that does not wait for the disk loses commits, and the images show it.
#[test]
fn an_engine_that_does_not_sync_is_found_out() {
    let mut rng = Rng::seeded(2);
    let history = live(&mut rng, false);
    let mut faults = 0;
    for _ in 0..CUTS {
        let cut = PowerCut::random(&mut rng, history.named, history.disk.position());
        faults += u64::from(check_cuts(&history, cut, &mut rng).is_err());
    }
    assert!(
        faults > CUTS / 2,
        "{faults} of {CUTS} images lost something"
    );
}
