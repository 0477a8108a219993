//! Reading ahead: brings the rows that a large batch needs into the engine's cache, by several
//! threads at once, before the one thread that carries the batch out asks for each in turn.

use std::thread;

use crate::merkle::prefix::Prefix;
use crate::merkle::row::{ROW_LEVELS, TOP_DEPTH};
use crate::merkle::storage::TreeStorage;
use crate::replica::apply::Batch;
use crate::store::error::StoreError;
use crate::store::read::Snapshot;
use crate::store::rows::{Placement, RecordRow};
use crate::types::hash::{ContentHash, StateKey};

/// Changes of one thread at least; fewer are carried out before it would have begun.
const PART_MIN: usize = 512;
/// Threads at most. More wait for each other in the kernel when they read the same file.
const THREADS_MAX: usize = 4;

/// Reads what carrying out `batch` will read. Nothing depends on it but time, so that rows which
/// cannot be read are left to those who need them.
pub fn read_ahead(snapshot: &Snapshot, batch: &Batch) {
    let changes = batch.effects.iter();
    let mut wanted: Vec<(StateKey, Option<ContentHash>)> = changes
        .filter_map(|effect| {
            let content = effect.change().and_then(|change| change.bodies.first());
            Some((effect.key()?, content.map(|body| body.hash)))
        })
        .collect();
    // Neighbours are on one page.
    wanted.sort_unstable_by_key(|(key, _)| *key);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let parts = cores.min(THREADS_MAX).min(wanted.len() / PART_MIN);
    if parts < 2 {
        return;
    }
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
