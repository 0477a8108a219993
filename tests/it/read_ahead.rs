//! A start with a long log, and writes whose rows are on a slow disk: what will be read is read by several threads
//! first.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;

use samestate::reconcile::view::SetView;
use samestate::replica::command::Command;
use samestate::replica::engine::Engine;
use samestate::replica::solo::Solo;
use samestate::runtime::checkpoints::Upkeep;
use samestate::runtime::writer::{PeerNotes, spawn};
use samestate::store::disk::{Disk, DiskFile, MachineDisk};
use samestate::store::options::StoreOptions;
use samestate::types::cursor::Epoch;
use samestate::types::id::ReplicaId;

use crate::harness::Rng;
use crate::harness::replica::{TestClock, put};

/// Bytes of the engine's file that each thread read, by the thread's name.
type ReadBy = Arc<Mutex<BTreeMap<String, u64>>>;

#[derive(Debug, Clone, Default)]
struct Counting {
    read_by: ReadBy,
    /// How long a read takes at least, in microseconds.
    slowness: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountingFile {
    file: Arc<dyn DiskFile>,
    disk: Counting,
}

impl Counting {
    /// Bytes that the threads read whose job is reading ahead.
    fn read_ahead(&self) -> u64 {
        let read_by = self.read_by.lock().unwrap();
        read_by.get("read-ahead").copied().unwrap_or_default()
    }
}

impl Disk for Counting {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = MachineDisk.open(path, create)?;
        if path.extension().is_none_or(|extension| extension != "redb") {
            return Ok(file);
        }
        let disk = self.clone();
        Ok(Arc::new(CountingFile { file, disk }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        MachineDisk.list(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        MachineDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        MachineDisk.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        MachineDisk.sync_folder(folder)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        MachineDisk.free_bytes(folder)
    }
}

impl DiskFile for CountingFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let name = thread::current().name().unwrap_or_default().to_owned();
        let mut read_by = self.disk.read_by.lock().unwrap();
        *read_by.entry(name).or_default() += buffer.len() as u64;
        drop(read_by);
        let slowness = self.disk.slowness.load(Ordering::Relaxed);
        if slowness > 0 {
            thread::sleep(Duration::from_micros(slowness));
        }
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

fn write(solo: &mut Solo, ids: impl Iterator<Item = u64>, rng: &mut Rng) {
    let ids: Vec<u64> = ids.collect();
    for part in ids.chunks(500) {
        let puts = part
            .iter()
            .map(|n| put(&format!("unit/{n}"), &rng.bytes(200)));
        let outcomes = solo.commit_logged(vec![Command::Write(puts.collect())], BTreeMap::new());
        assert!(outcomes.unwrap().iter().all(Result::is_ok));
    }
}

/// A build with assertions reads the whole file when it opens it; little of that may stay in memory.
fn in_little_memory() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        ..StoreOptions::default()
    }
}

/// How many bytes of the file its own threads have read at a start with so many changes in the log.
fn read_ahead_after(changes: u64) -> u64 {
    let seed = 33;
    println!("seed {seed}");
    let mut rng = Rng::seeded(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("default.redb");
    let options = in_little_memory();
    let open = |disk: Arc<dyn Disk>| {
        let clock = TestClock::new();
        Solo::open_on(disk, &path, ReplicaId(1), Epoch(1), options, clock).unwrap()
    };
    let mut solo = open(Arc::new(MachineDisk));
    write(&mut solo, 0..20_000, &mut rng);
    solo.checkpoint().unwrap();
    write(&mut solo, (0..changes).map(|n| n * 7), &mut rng);
    let root = solo.view().root();
    drop(solo);
    let disk = Counting::default();
    let again = open(Arc::new(disk.clone()));
    assert_eq!(again.view().root(), root);
    disk.read_ahead()
}

#[test]
fn a_long_log_is_read_ahead_for_and_a_short_one_is_not() {
    let ahead = read_ahead_after(2_500);
    // With one core there is nobody to share the work with.
    let has_help = thread::available_parallelism().map_or(1, usize::from) > 1;
    assert_eq!(ahead > 1 << 20, has_help, "{ahead} bytes");
    assert_eq!(read_ahead_after(900), 0);
}

#[tokio::test]
async fn rows_of_writes_are_read_ahead_when_they_come_from_a_slow_disk() {
    let seed = 37;
    println!("seed {seed}");
    let mut rng = Rng::seeded(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("default.redb");
    let options = in_little_memory();
    let (replica, epoch, disk) = (ReplicaId(1), Epoch(1), Counting::default());
    let clock = TestClock::new();
    let mut solo =
        Solo::open_on(Arc::new(MachineDisk), &path, replica, epoch, options, clock).unwrap();
    write(&mut solo, 0..10_000, &mut rng);
    solo.checkpoint().unwrap();
    drop(solo);
    let clock = TestClock::new();
    let opened = Engine::open_on(
        Arc::new(disk.clone()),
        &path,
        replica,
        epoch,
        options,
        clock,
    )
    .unwrap();
    let (views, view) = tokio::sync::watch::channel(opened.engine.view());
    let upkeep = Upkeep::default();
    let (writer, thread) =
        spawn("t", opened, &options, upkeep, views, PeerNotes::default()).unwrap();
    disk.slowness.store(300, Ordering::Relaxed);
    assert_eq!(disk.read_ahead(), 0);
    for round in 0..8 {
        let ids = (0..64).map(|n| (round * 64 + n) * 19);
        let puts = ids.map(|n| Command::Write(vec![put(&format!("unit/{n}"), b"new")]));
        let done = join_all(puts.map(|put| writer.submit(put))).await;
        assert!(done.iter().all(Result::is_ok));
    }
    assert!(disk.read_ahead() > 64 * 4096, "{}", disk.read_ahead());
    assert_eq!(view.borrow().root().unwrap().leaves, 10_000);
    drop(writer);
    thread.join().unwrap();
}
