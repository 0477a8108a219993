//! A namespace with everything that one can hold, to be damaged over and over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use samestate::clock::WallClock;
use samestate::replica::command::{Command, Write};
use samestate::replica::solo::Solo;
use samestate::replica::view::View;
use samestate::store::error::StoreError;
use samestate::store::options::StoreOptions;
use samestate::types::cursor::Epoch;
use samestate::types::id::ReplicaId;
use tempfile::TempDir;

use crate::harness::Rng;
use crate::harness::replica::{delete, id, name_replica, put};

pub const REPLICA: ReplicaId = ReplicaId(7);
pub const EPOCH: Epoch = Epoch(70);

/// A clock that does not run.
struct Noon;

impl WallClock for Noon {
    fn now_millis(&self) -> u64 {
        1_700_000_000_000
    }
}

/// Opens the namespace of a data directory as a server does.
pub fn open(dir: &Path) -> Result<Solo, StoreError> {
    let options = StoreOptions {
        cache_bytes: 1 << 20,
        ..StoreOptions::default()
    };
    Solo::open(&file_of(dir), REPLICA, EPOCH, options, Arc::new(Noon))
}

pub fn file_of(dir: &Path) -> PathBuf {
    dir.join("namespaces").join("default.redb")
}

/// The segments of the log, in order.
pub fn segments_of(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("namespaces")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_segment = |path: &PathBuf| path.to_string_lossy().contains(".log.");
    let mut segments: Vec<PathBuf> = paths.filter(is_segment).collect();
    segments.sort();
    segments
}

/// What a state's versions are, the newest one first; `None` for a deletion.
pub type Known = BTreeMap<String, Vec<Option<Vec<u8>>>>;

/// A data directory, and what was acknowledged of it.
pub struct Original {
    dir: TempDir,
    /// Everything up to the last write.
    pub known: Known,
    /// Bytes of the file at the checkpoint before.
    pub older_file: Vec<u8>,
    /// The log at the checkpoint before, by name.
    pub older_log: Vec<(String, Vec<u8>)>,
}

/// Bytes of every size that is stored in a way of its own.
fn contents(rng: &mut Rng) -> Vec<u8> {
    let length = match rng.below(10) {
        0 => 30_000 + rng.below(60_000),
        1 | 2 => 2_500 + rng.below(12_000),
        _ => rng.below(400),
    };
    rng.bytes(length)
}

fn write(solo: &mut Solo, known: &mut Known, name: &str, bytes: Option<Vec<u8>>) {
    let one: Write = match &bytes {
        Some(bytes) => put(name, bytes),
        None => delete(name),
    };
    let outcomes = solo.commit_logged(vec![Command::Write(vec![one])], BTreeMap::new());
    outcomes.unwrap().remove(0).unwrap();
    known.entry(name.to_owned()).or_default().insert(0, bytes);
}

impl Original {
    /// States of all kinds, with history, of which the last writes stand in the log alone.
    pub fn new(seed: u64) -> Self {
        let (mut rng, dir) = (Rng::seeded(seed), tempfile::tempdir().unwrap());
        name_replica(dir.path(), REPLICA);
        std::fs::create_dir(dir.path().join("namespaces")).unwrap();
        let mut original = Self {
            dir,
            known: Known::new(),
            older_file: Vec::new(),
            older_log: Vec::new(),
        };
        let mut solo = open(original.dir.path()).unwrap();
        for round in 0..3 {
            for state in 0..40 {
                if round > 0 && !rng.one_in(3) {
                    continue;
                }
                let name = format!("match/{state}");
                let bytes = (round == 0 || !rng.one_in(8)).then(|| contents(&mut rng));
                let is_there = original.known.get(&name).is_none_or(|v| v[0].is_some());
                if bytes.is_some() || is_there {
                    write(&mut solo, &mut original.known, &name, bytes);
                }
                if state % 8 == 0 {
                    solo.seal().unwrap();
                }
            }
            match round {
                0 => solo.checkpoint().unwrap(),
                1 => {
                    original.older_file = std::fs::read(file_of(original.dir.path())).unwrap();
                    original.older_log = original.log();
                    solo.checkpoint().unwrap();
                }
                _ => {}
            }
        }
        original
    }

    fn log(&self) -> Vec<(String, Vec<u8>)> {
        let named = |path: PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        };
        segments_of(self.dir.path())
            .into_iter()
            .map(named)
            .collect()
    }

    /// A copy to be damaged.
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        name_replica(copy.path(), REPLICA);
        std::fs::create_dir(copy.path().join("namespaces")).unwrap();
        std::fs::copy(file_of(self.dir.path()), file_of(copy.path())).unwrap();
        for (name, bytes) in self.log() {
            std::fs::write(copy.path().join("namespaces").join(name), bytes).unwrap();
        }
        copy
    }
}

/// What reading everything came to.
#[derive(Debug, Default)]
pub struct Read {
    pub right: usize,
    /// What the errors said.
    pub errors: Vec<String>,
    /// Acknowledged states of which nothing was found.
    pub missing: Vec<String>,
    /// States whose newest version is not the newest one that was acknowledged.
    pub stale: Vec<String>,
}

/// Reads every known state with its history. Fails on bytes that were never written.
pub fn read_all(view: &View, known: &Known) -> Read {
    let mut read = Read::default();
    for (name, versions) in known {
        let row = match view.row(&id(name)) {
            Ok(Some(row)) => row,
            Ok(None) => {
                read.missing.push(name.clone());
                continue;
            }
            Err(error) => {
                read.errors.push(error.to_string());
                continue;
            }
        };
        match view.shown_content(&row) {
            Ok(shown) => {
                let shown = shown.map(|(_, bytes)| bytes);
                assert!(versions.contains(&shown), "{name} has other bytes");
                if versions[0] == shown {
                    read.right += 1;
                } else {
                    read.stale.push(name.clone());
                }
            }
            Err(error) => read.errors.push(error.to_string()),
        }
        for placed in view.versions(&row.leaf.key).unwrap_or_default() {
            match view.content(&placed) {
                Ok(bytes) => assert!(versions.contains(&bytes), "{name} had other bytes"),
                Err(error) => read.errors.push(error.to_string()),
            }
        }
    }
    read
}
