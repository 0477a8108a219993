//! A device that fails at any one operation of a life, once or for good: whoever asked is told,
//! nothing that was acknowledged is lost or read wrong, and the store goes on where it is meant to.
//!
//! `DISK_FAULTS=all cargo test --release --test it crash_images::faults` tries every operation.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use samestate::clock::SystemClock;
use samestate::replica::check::check;
use samestate::replica::command::Command;
use samestate::replica::engine::Engine;
use samestate::runtime::checkpoints::Upkeep;
use samestate::runtime::writer::{PeerNotes, spawn};
use samestate::store::disk::Disk;
use samestate::store::error::StoreError;
use samestate::types::id::Namespace;
use tokio::sync::watch;

use crate::crash_images::life::{EPOCH, Life, OPTIONS, PATH, REPLICA, Step, open};
use crate::crash_images::look;
use crate::harness::Rng;
use crate::harness::http::wait_until;
use crate::harness::replica::put;
use crate::simulated_disk::{Fault, PowerCut, RecordingDisk};

/// The same life for every fault.
const SEED: u64 = 11;
const SCRIPT: [Step; 24] = [
    Step::Commit,
    Step::Commit,
    Step::Checkpoint,
    Step::Commit,
    Step::Commit,
    Step::Reopen,
    Step::Commit,
    Step::Checkpoint,
    Step::Commit,
    Step::Compact,
    Step::ShrinkLog,
    Step::Commit,
    Step::Checkpoint,
    Step::ShrinkLog,
    Step::Commit,
    Step::Reopen,
    Step::Commit,
    Step::Checkpoint,
    Step::Shard(1),
    Step::Commit,
    Step::Checkpoint,
    Step::Compact,
    Step::Commit,
    Step::Checkpoint,
];
/// Cuts of the power after each life.
const CUTS: u64 = 3;

/// What is done after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The same again.
    Retry,
    /// What comes next.
    GoOn,
}

/// Lives, with a fault planned, and checks everything. Returns how many operations have failed.
fn live_with(fault: Fault, then: Then) -> Result<u64, String> {
    let recording = RecordingDisk::new();
    recording.fail(fault);
    let disk = Arc::new(recording.clone());
    let mut life = Life::closed(recording.clone(), disk, Rng::quiet(SEED));
    let mut failure = None;
    for step in [Step::Reopen].into_iter().chain(SCRIPT) {
        if let Err(error) = life.step(step) {
            if !fault.is_sticky()
                && let Some(before) = failure.replace(format!("{step:?}: {error}"))
            {
                return Err(format!("{before}; and then {step:?}: {error}"));
            }
            after_failure(&mut life, step, then, fault)?;
        }
        let read = life.check_reads();
        read.map_err(|fault| format!("after {step:?}: {fault}"))?;
    }
    recording.work_again();
    life.close();
    let reopened = life.reopen();
    reopened.map_err(|error| format!("does not open afterwards: {error}"))?;
    life.check_all()?;
    let checkpointed = life.step(Step::Checkpoint);
    checkpointed.map_err(|error| format!("takes no checkpoint afterwards: {error}"))?;
    life.check_all()?;
    life.close();
    cut_afterwards(&life)?;
    Ok(recording.failed())
}

/// What a single failure must not stand in the way of.
fn after_failure(life: &mut Life, step: Step, then: Then, fault: Fault) -> Result<(), String> {
    let read = life.check_reads();
    read.map_err(|fault| format!("after a failing {step:?}: {fault}"))?;
    if fault.is_sticky() {
        return Ok(());
    }
    let next = match (step, then) {
        (Step::Commit, _) if life.is_in_doubt() => Step::Reopen,
        (step, Then::Retry) => step,
        (_, Then::GoOn) => return Ok(()),
    };
    let tried = life.step(next);
    tried.map_err(|second| format!("{step:?} failed, and then {next:?}: {second}"))?;
    let checked = life.check_all();
    checked.map_err(|fault| format!("after {step:?} and {next:?}: {fault}"))
}

/// After a sync that failed nothing may be built upon what was not written again.
fn cut_afterwards(life: &Life) -> Result<(), String> {
    let last = life.recording.position();
    for seed in 0..CUTS {
        let first = life.settled_position();
        let position = last - (seed as usize).min(2) * ((last - first) / 2);
        let cut = PowerCut { position, seed };
        let image = life.recording.cut_power(cut);
        let looked = look(&image, life, life.promised(position));
        looked.map_err(|fault| {
            let steps = life.recording.steps_before(position);
            format!("{cut}: {fault}\n{steps}")
        })?;
    }
    Ok(())
}

/// Lives once for every operation that may fail, or for some of them.
fn every_operation(make: impl Fn(u64) -> Fault, stride: u64) {
    let stride = match std::env::var("DISK_FAULTS") {
        Ok(_) => 1,
        Err(_) => stride,
    };
    let mut lives = 0;
    for after in (0..).step_by(stride as usize) {
        let fault = make(after);
        let live = |then| {
            let lived = catch_unwind(AssertUnwindSafe(|| live_with(fault, then)));
            let lived = lived.unwrap_or_else(|_| Err("panics".into()));
            lived.unwrap_or_else(|what| panic!("{fault:?}, {then:?}: {what}"))
        };
        if live(Then::Retry) + live(Then::GoOn) == 0 {
            break;
        }
        lives += 2;
    }
    println!("{lives} lives");
    assert!(lives > 10);
}

#[test]
fn a_write_that_fails_once() {
    every_operation(|after| Fault::after(after, Errno::IO), 61);
}

#[test]
fn a_disk_that_is_full_once() {
    every_operation(|after| Fault::after(after, Errno::NOSPC), 61);
}

#[test]
fn a_write_that_is_cut_short_once() {
    every_operation(|after| Fault::after(after, Errno::IO).partial(), 61);
    every_operation(|after| Fault::after(after, Errno::NOSPC).partial(), 67);
}

#[test]
fn a_disk_that_fails_for_good() {
    every_operation(|after| Fault::after(after, Errno::IO).sticky(), 61);
    every_operation(|after| Fault::after(after, Errno::NOSPC).sticky(), 67);
    every_operation(
        |after| Fault::after(after, Errno::IO).partial().sticky(),
        31,
    );
}

#[test]
fn a_disk_that_cannot_be_read_once() {
    every_operation(|after| Fault::after(after, Errno::IO).counting_reads(), 243);
}

#[test]
fn a_disk_that_cannot_be_read_any_more() {
    every_operation(
        |after| Fault::after(after, Errno::IO).counting_reads().sticky(),
        101,
    );
}

/// A log that finds no space has written nothing: the next write is taken as soon as there is some.
#[test]
fn a_full_disk_refuses_writes_and_goes_on_when_there_is_space() {
    let recording = RecordingDisk::new();
    let disk = Arc::new(recording.clone());
    let mut life = Life::new(recording.clone(), disk, Rng::quiet(SEED)).unwrap();
    life.step(Step::Commit).unwrap();
    recording.set_free_bytes(0);
    // The segment has some space ahead of its groups.
    let mut taken = 0;
    let refused = loop {
        match life.step(Step::Commit) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, StoreError::Full), "{refused}");
    assert!(taken > 10, "{taken}");
    life.check_all().unwrap();
    assert!(life.step(Step::Checkpoint).is_err());
    life.check_all().unwrap();
    recording.set_free_bytes(1 << 30);
    life.step(Step::Commit).unwrap();
    life.step(Step::Checkpoint).unwrap();
    life.check_all().unwrap();
    life.close();
    let cut = PowerCut {
        position: recording.position(),
        seed: 1,
    };
    let image = recording.cut_power(cut);
    assert!(open(Arc::new(image.clone())).is_ok());
    look(&image, &life, life.promised(cut.position)).unwrap();
}

/// A disk that cannot be read for a while fails the writes that need it, and no others.
#[test]
fn writes_go_on_without_a_restart_once_the_disk_can_be_read_again() {
    let recording = RecordingDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(recording.clone());
    let many = |round: u64| {
        (0..400).map(move |n| {
            put(
                &format!("match/{n}"),
                &Rng::quiet(round << 32 | n).bytes(190),
            )
        })
    };
    let mut solo = open(Arc::clone(&disk)).unwrap();
    let all = Command::Write(many(1).collect());
    solo.commit(vec![all], BTreeMap::new()).unwrap();
    solo.checkpoint().unwrap();
    drop(solo);
    let (path, wall) = (Path::new(PATH), Arc::new(SystemClock));
    let opened = Engine::open_on(disk, path, REPLICA, EPOCH, OPTIONS, wall).unwrap();
    let (views, shown) = watch::channel(opened.engine.view());
    let upkeep = Upkeep::default();
    let notes = PeerNotes::default();
    let (writer, thread) = spawn("t", opened, &OPTIONS, upkeep, views, notes).unwrap();
    let write = |write| {
        let queued = writer.queue_blocking(Command::Write(vec![write])).unwrap();
        queued.wait()
    };
    recording.fail(Fault::after(0, Errno::IO).counting_reads().sticky());
    let failed = many(2).map(write).filter(Result::is_err).count();
    assert!(failed > 0, "all rows were in memory");
    recording.work_again();
    for attempt in many(3) {
        wait_until("the file is open again", || write(attempt.clone()).is_ok());
    }
    assert!(!writer.has_failed());
    // The file is closed with the writer.
    let report = check(
        shown.borrow().snapshot(),
        &Namespace::default_namespace(),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!((report.states, &report.faults[..]), (400, &[][..]));
    drop(writer);
    thread.join().unwrap();
}
