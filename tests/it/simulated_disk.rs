//! A disk in memory that remembers each step, so that a test can go on with what a power cut, a
//! killed process or a failing device would have left after any of them.
//!
//! A test runs on a [`RecordingDisk`] and notes the [`RecordingDisk::position`] at which something
//! was promised. Then it takes images and checks on each that the promise was kept:
//!
//! - [`RecordingDisk::cut_power`]: what was synced is there. Of the writes to a file since its last
//!   sync any part is there, in sectors of 512 bytes, whatever their order. Its length is one that it
//!   had since then, or one on the way to the next: any sector of a write beyond the end, any block
//!   of 4 KiB of a cut or a growth. Within the length stands what is there of the writes, what stood
//!   there before, or zeros. Of the changes to the names in a folder since it was synced, the first
//!   few are there, none to all. Folders, lengths and bytes do not depend on each other, so that a
//!   synced file may be absent and a renamed one empty.
//!
//!   That names change in order, as lengths do, is what file systems with a journal hold to (ext4,
//!   XFS). The store is not meant for others.
//! - [`RecordingDisk::kill`]: all that was written is there, but what was not synced is no safer than
//!   before: a power cut of the image may still take it.
//!
//! An image is a disk like the first, and can be cut, killed or made to fail in turn. A position
//! counts whole steps. The image from the middle of a write is one at the position after it, and
//! that from the middle of a sync one at the position before it.
//!
//! After a sync that failed, what was to be synced is in doubt for good, though programs go on
//! seeing it: the kernel tells of a lost page once and takes it for clean afterwards, so that later
//! syncs succeed without it (Rebello and others, "Can Applications Recover from fsync Failures?",
//! USENIX ATC 2020).
//!
//! Folders need not be made: every folder exists. There are no links and no moves between folders.

mod content;
mod faults;
mod like_the_machine;
mod promises;
mod survival;
mod volume;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;
use samestate::store::disk::{Disk, DiskFile};

use crate::harness::Rng;
use crate::simulated_disk::content::Content;
use crate::simulated_disk::faults::{Faults, fail_if};
use crate::simulated_disk::survival::after_power_cut;
use crate::simulated_disk::volume::{Change, FileId, NameChange, Operation, Volume, folder_of};

pub use crate::simulated_disk::faults::Fault;

/// Steps from one kept state of the disk to the next. An image repeats the steps after the last one.
const STEPS_BETWEEN_STATES: usize = 32;

/// Free space where nobody set a limit.
const UNLIMITED: u64 = 1 << 40;

/// A moment and a choice: the same cut of the same history leaves the same disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerCut {
    /// Steps that were made.
    pub position: usize,
    /// Chooses among the disks that the cut may leave.
    pub seed: u64,
}

impl PowerCut {
    /// A cut at some position of `first..=last`.
    pub fn random(rng: &mut Rng, first: usize, last: usize) -> Self {
        Self {
            position: first + rng.below(last - first + 1),
            seed: rng.next(),
        }
    }
}

impl fmt::Display for PowerCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, seed } = self;
        write!(f, "PowerCut {{ position: {position}, seed: {seed:#x} }}")
    }
}

/// A disk in memory with its history. Clones are the same disk.
#[derive(Clone)]
pub struct RecordingDisk(Arc<Mutex<State>>);

struct State {
    volume: Volume,
    history: Vec<Operation>,
    /// The volume at every so many steps of the history, from the start.
    states: Vec<Volume>,
    faults: Faults,
    /// Bytes of space there are, used or not.
    capacity: Option<u64>,
}

/// A file that is open on a [`RecordingDisk`].
#[derive(Debug)]
struct RecordedFile {
    disk: RecordingDisk,
    file: FileId,
}

impl RecordingDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::starting_with(Volume::default())
    }

    fn starting_with(volume: Volume) -> Self {
        Self(Arc::new(Mutex::new(State {
            states: vec![volume.clone()],
            volume,
            history: Vec::new(),
            faults: Faults::default(),
            capacity: None,
        })))
    }

    /// How many steps changed the disk or synced something since it came to be.
    pub fn position(&self) -> usize {
        self.state().history.len()
    }

    /// The disk as it looks when the power went off and came back. It has no faults and no limit.
    pub fn cut_power(&self, cut: PowerCut) -> Self {
        let volume = self.state().volume_at(cut.position);
        // Else images at neighbouring positions would choose alike.
        let seed = Rng::quiet(cut.seed).next() ^ cut.position as u64;
        Self::starting_with(after_power_cut(&volume, &mut Rng::quiet(seed)))
    }

    /// The disk as it looks when the process was killed. It has no faults and no limit.
    pub fn kill(&self, position: usize) -> Self {
        Self::starting_with(self.state().volume_at(position))
    }

    /// The last steps before a position, one a line, for the message of a test that failed.
    pub fn steps_before(&self, position: usize) -> String {
        let state = self.state();
        let shown = position.saturating_sub(24)..position;
        let lines = shown.map(|at| format!("{at:>6} {}\n", state.history[at]));
        lines.collect()
    }

    /// All bytes of a file, or `None` when there is none. No step, and no fault hits it.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let file = *state.volume.names.get(path)?;
        let content = &state.volume.file(file).live;
        let mut bytes = vec![0; content.length() as usize];
        content.read(0, &mut bytes).unwrap();
        Some(bytes)
    }

    /// Lets steps fail from now on. Takes the place of a fault that was asked for before.
    pub fn fail(&self, fault: Fault) {
        self.state().faults.plan(fault);
    }

    /// Takes back what [`RecordingDisk::fail`] asked for.
    pub fn work_again(&self) {
        self.state().faults.clear();
    }

    /// How many steps the last fault has made fail.
    pub fn failed(&self) -> u64 {
        self.state().faults.failed()
    }

    /// Leaves so many bytes of space for blocks of 4 KiB. Files give back what they took when they
    /// are cut or lose their name; parts of a file that were never written take nothing. A write
    /// that does not fit is made as far as there is space, and fails.
    pub fn set_free_bytes(&self, free: u64) {
        let mut state = self.state();
        state.capacity = Some(state.volume.allocated() + free);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn volume_at(&self, position: usize) -> Volume {
        if position == self.history.len() {
            return self.volume.clone();
        }
        let state = position / STEPS_BETWEEN_STATES;
        let mut volume = self.states[state].clone();
        for operation in &self.history[state * STEPS_BETWEEN_STATES..position] {
            volume.apply(operation);
        }
        volume
    }

    fn record(&mut self, operation: Operation) {
        self.volume.apply(&operation);
        self.history.push(operation);
        if self.history.len().is_multiple_of(STEPS_BETWEEN_STATES) {
            self.states.push(self.volume.clone());
        }
    }

    fn change_names(&mut self, change: NameChange) -> io::Result<()> {
        fail_if(self.faults.change())?;
        self.record(Operation::Name(change));
        Ok(())
    }

    fn existing(&self, path: &Path) -> io::Result<FileId> {
        let file = self.volume.names.get(path).copied();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn free(&self) -> Option<u64> {
        let capacity = self.capacity?;
        Some(capacity.saturating_sub(self.volume.allocated()))
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let failure = self.faults.change();
        Content::check_length(offset.checked_add(bytes.len() as u64))?;
        let content = &self.volume.file(file).live;
        let fits = self
            .free()
            .map_or(bytes.len(), |free| content.room(offset, bytes.len(), free));
        let wanted = failure.map_or(bytes.len(), |failure| failure.written(bytes.len()));
        let bytes = &bytes[..wanted.min(fits)];
        if !bytes.is_empty() {
            let bytes = bytes.into();
            self.record(Operation::Content(file, Change::Write { offset, bytes }));
        }
        fail_if(failure)?;
        if fits < wanted {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }
}

impl Disk for RecordingDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let file = match state.existing(path) {
            Err(_) if create => {
                let file = state.volume.next_file();
                state.change_names(NameChange::Create(path.to_owned(), file))?;
                file
            }
            existing => {
                state.faults.look()?;
                existing?
            }
        };
        Ok(Arc::new(RecordedFile {
            disk: self.clone(),
            file,
        }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state();
        state.faults.look()?;
        let names = state.volume.names.keys();
        Ok(names
            .filter(|path| folder_of(path) == folder)
            .cloned()
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if folder_of(from) != folder_of(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let mut state = self.state();
        state.existing(from)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        state.change_names(NameChange::Rename { from, to })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.existing(path)?;
        state.change_names(NameChange::Remove(path.to_owned()))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        fail_if(state.faults.change())?;
        state.record(Operation::SyncFolder(folder.to_owned()));
        Ok(())
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        let mut state = self.state();
        state.faults.look()?;
        Ok(state.free().unwrap_or(UNLIMITED))
    }
}

impl DiskFile for RecordedFile {
    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.faults.look()?;
        Ok(state.volume.file(self.file).live.length())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.faults.look()?;
        state.volume.file(self.file).live.read(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.state().write(self.file, offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        fail_if(state.faults.change())?;
        Content::check_length(Some(length))?;
        state.record(Operation::Content(self.file, Change::SetLength(length)));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let failed = fail_if(state.faults.change());
        state.record(match failed {
            Ok(()) => Operation::Sync(self.file),
            Err(_) => Operation::FailedSync(self.file),
        });
        failed
    }
}

impl fmt::Debug for RecordingDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordingDisk at {}", self.position())
    }
}
