//! The simulated disk answers as the machine's does, and fails when and as it is told to.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use samestate::store::disk::{Disk, DiskFile, MachineDisk};

use crate::harness::Rng;
use crate::simulated_disk::{Fault, RecordingDisk};

const BLOCK: u64 = 4096;

/// A disk, the folder to use on it, and what is open there.
struct User {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    open: Vec<Arc<dyn DiskFile>>,
}

impl User {
    /// Takes one random step and says how it went. Equal `rng`s take the same step.
    fn step(&mut self, rng: &mut Rng) -> String {
        let mut name = || self.folder.join(["a", "b", "c"][rng.below(3)]);
        let (from, to) = (name(), name());
        let kind = rng.below(10);
        let outcome = match kind {
            0 => self.disk.open(&from, rng.one_in(2)).map(|file| {
                self.open.push(file);
                String::new()
            }),
            1 => self.disk.rename(&from, &to).map(|()| String::new()),
            2 => self.disk.remove(&from).map(|()| String::new()),
            3 => self.disk.list(&self.folder).map(|mut paths| {
                paths.sort();
                let names = paths.iter().map(|path| path.file_name());
                format!("{:?}", names.collect::<Vec<_>>())
            }),
            4 => self.disk.sync_folder(&self.folder).map(|()| String::new()),
            _ if self.open.is_empty() => Ok(String::new()),
            _ => use_file(&*self.open[rng.below(self.open.len())], kind, rng),
        };
        match outcome {
            Ok(told) => told,
            Err(error) => format!("{:?}", error.kind()),
        }
    }
}

fn use_file(file: &dyn DiskFile, kind: usize, rng: &mut Rng) -> io::Result<String> {
    let offset = rng.below(3 * BLOCK as usize) as u64;
    match kind {
        5 => file.set_len(offset).map(|()| String::new()),
        6 => file.sync().map(|()| String::new()),
        7 => {
            let mut buffer = vec![9; rng.below(6000)];
            let outcome = file.read_at(offset, &mut buffer);
            outcome.map(|()| format!("{buffer:?}"))
        }
        _ => {
            let length = rng.below(6000);
            let bytes = rng.bytes(length);
            file.write_at(offset, &bytes)?;
            file.size().map(|size| size.to_string())
        }
    }
}

#[test]
fn any_steps_go_as_they_go_on_the_machine() {
    let mut seeds = Rng::seeded(3);
    for _ in 0..20 {
        let seed = seeds.next();
        let folder = tempfile::tempdir().unwrap();
        let user = |disk: Arc<dyn Disk>, folder: &Path| User {
            disk,
            folder: folder.to_owned(),
            open: Vec::new(),
        };
        let mut real = user(Arc::new(MachineDisk), folder.path());
        let mut simulated = user(Arc::new(RecordingDisk::new()), Path::new("/data"));
        let mut rngs = [Rng::quiet(seed), Rng::quiet(seed)];
        for number in 0..300 {
            let expected = real.step(&mut rngs[0]);
            let got = simulated.step(&mut rngs[1]);
            assert!(
                got == expected,
                "seed {seed} step {number}: {got:.80} not {expected:.80}"
            );
        }
    }
}

/// Seven changes and a look, in the order of a store's life; the outcome of each.
fn steps(disk: &RecordingDisk) -> Vec<io::Result<()>> {
    let [old, new] = ["/data/old", "/data/new"].map(Path::new);
    let made = disk.open(old, true);
    let file = match &made {
        Ok(file) => Arc::clone(file),
        Err(_) => disk.open(old, true).unwrap(),
    };
    vec![
        made.map(drop),
        file.set_len(10_000),
        file.write_at(0, &[1; 1000]),
        file.size().map(drop),
        file.sync(),
        disk.rename(old, new),
        disk.sync_folder(Path::new("/data")),
        disk.remove(new),
    ]
}

/// Which of the steps fail when `fault` is planned.
fn failing(fault: Fault) -> Vec<usize> {
    let disk = RecordingDisk::new();
    disk.fail(fault);
    let failed = |outcome: &io::Result<()>| {
        let kind = outcome.as_ref().err().map(io::Error::kind);
        // A file that could not get its new name is not found there.
        assert!(matches!(
            kind,
            None | Some(ErrorKind::StorageFull | ErrorKind::NotFound)
        ));
        kind == Some(ErrorKind::StorageFull)
    };
    let outcomes = steps(&disk).into_iter().enumerate();
    outcomes
        .filter(|(_, outcome)| failed(outcome))
        .map(|(step, _)| step)
        .collect()
}

#[test]
fn the_step_that_was_asked_for_fails_and_no_other() {
    let full = Errno::NOSPC;
    assert_eq!(failing(Fault::after(1, full)), [1]);
    assert_eq!(failing(Fault::after(2, full)), [2]);
    // The look at the size is not counted unless it is asked for.
    assert_eq!(failing(Fault::after(3, full)), [4]);
    assert_eq!(failing(Fault::after(3, full).counting_reads()), [3]);
    assert_eq!(failing(Fault::after(6, full)), [7]);
    assert_eq!(failing(Fault::after(7, full)), [0; 0]);
    assert_eq!(
        failing(Fault::after(2, full).sticky().counting_reads()),
        [2, 3, 4, 5, 6]
    );
    // The file that could not be made is made at the second try, which counts as well.
    assert_eq!(failing(Fault::after(0, full)), [0]);
}

#[test]
fn a_disk_that_failed_can_be_made_to_work_again() {
    let disk = RecordingDisk::new();
    let file = disk.open(Path::new("/data/file"), true).unwrap();
    disk.fail(Fault::after(1, Errno::IO).sticky());
    assert!(file.write_at(0, b"one").is_ok());
    assert!((0..3).all(|_| file.write_at(0, b"two").is_err()));
    assert_eq!(disk.failed(), 3);
    assert_eq!(disk.contents(Path::new("/data/file")).unwrap(), b"one");
    disk.work_again();
    assert!(file.write_at(0, b"two").is_ok() && file.sync().is_ok());
    println!("{}", disk.steps_before(disk.position()));
}

#[test]
fn a_short_write_leaves_a_beginning() {
    let mut lengths = Vec::new();
    for after in 0..20 {
        let disk = RecordingDisk::new();
        let path = Path::new("/data/file");
        let file = disk.open(path, true).unwrap();
        disk.fail(Fault::after(after, Errno::IO).partial());
        for number in 0..after {
            file.write_at(0, &[number as u8; 5000]).unwrap();
        }
        let error = file.write_at(0, &[77; 5000]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
        let bytes = disk.contents(path).unwrap();
        let written = bytes.iter().take_while(|byte| **byte == 77).count();
        assert!(written < 5000 && !bytes[written..].contains(&77));
        lengths.push(written);
    }
    lengths.sort_unstable();
    assert!(lengths[0] < 1000 && lengths[19] > 4000, "{lengths:?}");
}

#[test]
fn space_is_used_up_by_writes_and_given_back() {
    let disk = RecordingDisk::new();
    let folder = Path::new("/data");
    let free = || disk.free_bytes(folder).unwrap();
    let [one, two] = ["one", "two"].map(|name| disk.open(&folder.join(name), true).unwrap());
    one.write_at(0, &[1; 10]).unwrap();
    disk.set_free_bytes(3 * BLOCK);
    assert_eq!(free(), 3 * BLOCK);
    one.write_at(10, &[1; 100]).unwrap();
    one.set_len(100 * BLOCK).unwrap();
    assert_eq!(free(), 3 * BLOCK);
    one.write_at(50 * BLOCK - 1, &[1; 2]).unwrap();
    assert_eq!(free(), BLOCK);

    let error = two.write_at(100, &[2; 3 * BLOCK as usize]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!((free(), two.size().unwrap()), (0, BLOCK));
    // What has its place already can still be overwritten.
    two.write_at(0, &[3; BLOCK as usize]).unwrap();
    assert!(two.write_at(BLOCK, &[3]).is_err());

    one.set_len(1).unwrap();
    assert_eq!(free(), 2 * BLOCK);
    disk.rename(&folder.join("two"), &folder.join("one"))
        .unwrap();
    assert_eq!(free(), 3 * BLOCK);
    disk.remove(&folder.join("one")).unwrap();
    assert_eq!(free(), 4 * BLOCK);
}
