//! Reading ahead: brings the rows that a large batch needs into the engine's cache, by several
//! threads at once, before the one thread that carries the batch out asks for each in turn.
//! That is done for what the log holds at a start, and for commands while rows come from the disk.

use std::thread;

use crate::merkle::prefix::Prefix;
use crate::merkle::row::{ROW_LEVELS, TOP_DEPTH};
use crate::merkle::storage::TreeStorage;
use crate::replica::apply::Batch;
use crate::replica::command::{Change, Command, Incoming, Write};
use crate::store::error::StoreError;
use crate::store::read::Snapshot;
use crate::store::rows::{Placement, RecordRow};
use crate::types::hash::{ContentHash, StateKey};

/// Changes of one thread at least, at a start; fewer are carried out before it would have begun.
const PART_MIN: usize = 512;
/// Threads at most, at a start. More wait for each other in the kernel when they read the same file.
const THREADS_MAX: usize = 4;
/// The same for commands whose rows are on the disk: each thread waits for it most of the time, and the
/// disk answers many reads in little more than the time of one.
const COLD_PART_MIN: usize = 2;
const COLD_THREADS_MAX: usize = 16;

/// What is read for one change: its state, and the contents that it takes.
type Wanted = (StateKey, Option<ContentHash>);

/// Reads what carrying out `batch` will read. Nothing depends on it but time, so that rows which
/// cannot be read are left to those who need them.
pub fn read_ahead(snapshot: &Snapshot, batch: &Batch) {
    let changes = batch.effects.iter();
    let wanted = changes.filter_map(|effect| {
        let content = effect.change().and_then(|change| change.bodies.first());
        Some((effect.key()?, content.map(|body| body.hash)))
    });
    let cores = thread::available_parallelism().map_or(1, usize::from);
    share_out(snapshot, wanted.collect(), PART_MIN, cores.min(THREADS_MAX));
}

/// Reads what deciding and carrying out `commands` will read, as [`read_ahead`] does.
pub fn read_ahead_for(snapshot: &Snapshot, commands: &[Command]) {
    let wanted = commands.iter().flat_map(wanted_by).collect();
    share_out(snapshot, wanted, COLD_PART_MIN, COLD_THREADS_MAX);
}

fn wanted_by(command: &Command) -> Vec<Wanted> {
    let of_write = |write: &Write| {
        let content = match &write.change {
            Change::Put(content) => Some(content.body.hash),
            Change::Delete => None,
        };
        (StateKey::of(&write.id), content)
    };
    let of_incoming = |incoming: &Incoming| {
        let content = incoming.bodies.first().map(|body| body.hash);
        (incoming.record.key(), content)
    };
    match command {
        Command::Write(writes) => writes.iter().map(of_write).collect(),
        Command::Merge(incoming) => incoming.iter().map(of_incoming).collect(),
        Command::Meet(meeting) => meeting.incoming.iter().map(of_incoming).collect(),
        Command::Heal(_)
        | Command::Learn(_)
        | Command::Collect(_)
        | Command::Witness(_)
        | Command::Accuse(_)
        | Command::Stage(_) => Vec::new(),
    }
}

/// Shares the reading out to threads, each with at least so much of it.
fn share_out(snapshot: &Snapshot, mut wanted: Vec<Wanted>, part_min: usize, threads_max: usize) {
    let parts = threads_max.min(wanted.len() / part_min);
    if parts < 2 {
        return;
    }
    // Neighbours are on one page.
    wanted.sort_unstable_by_key(|(key, _)| *key);
    thread::scope(|scope| {
        for part in wanted.chunks(wanted.len().div_ceil(parts)) {
            let read = move || {
                for (key, content) in part {
                    // Damage is found, and told, by who carries the batch out.
                    let _ = read_rows(snapshot, key, content.as_ref());
                }
            };
            let thread = thread::Builder::new().name("read-ahead".to_owned());
            if let Err(error) = thread.spawn_scoped(scope, read) {
                tracing::debug!(%error, "nothing is read ahead");
            }
        }
    });
}

/// The record, its nodes below those that are in memory, and the contents it gives up and takes.
fn read_rows(
    snapshot: &Snapshot,
    key: &StateKey,
    content: Option<&ContentHash>,
) -> Result<(), StoreError> {
    let previous = snapshot.record(key)?;
    for depth in (TOP_DEPTH + ROW_LEVELS..=Prefix::DEPTH_MAX).step_by(ROW_LEVELS.into()) {
        if snapshot.row(Prefix::of(key, depth))?.is_none() {
            break;
        }
    }
    let held = previous.iter().flat_map(RecordRow::placed);
    let shared = held.filter(|(_, place)| **place == Placement::Shared);
    let given_up = shared.map(|(version, _)| &version.content);
    for content in given_up.chain(content) {
        snapshot.content_row(content)?;
    }
    Ok(())
}
