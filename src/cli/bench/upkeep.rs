//! What keeping a sketch costs: the time of a write, its memory, and how long building and solving take.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::cli::bench::error::BenchError;
use crate::cli::text::grouped;
use crate::clock::SystemClock;
use crate::reconcile::memory::{Pair, Random};
use crate::reconcile::sizing::{Precision, size_for};
use crate::replica::sketch_history::Leaves;
use crate::replica::sketching::{Keeper, Moved};
use crate::replica::solo::Solo;
use crate::sketch::cell::Told;
use crate::sketch::decoder::{Decoder, Partition, Theirs};
use crate::sketch::key::{Secret, SketchKey};
use crate::sketch::table::{Change, Sketch, levels_for};
use crate::store::options::StoreOptions;
use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;
use crate::types::leaf::Leaf;

/// Changes of which the time is taken.
const UPKEEP_CHANGES: u64 = 200_000;
/// Changes of a commit.
const BATCH: usize = 64;
/// Differences that are solved for, and how often.
const DECODED: usize = 1000;
const DECODE_ROUNDS: usize = 50;

/// What keeping a sketch takes.
#[derive(Debug, Clone, Serialize)]
pub struct Upkeep {
    nanos_per_put: f64,
    /// The same as the writer does it, a commit of [`BATCH`] at a time, with the way back.
    writer_nanos_per_put: f64,
    bytes: usize,
    partitions: usize,
    build_ms: f64,
    /// To solve cells for 1,000 differences, for each of them.
    decode_nanos: f64,
}

impl fmt::Display for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "upkeep: {:.0} ns a put, {:.0} ns with the writer's notes, {} bytes in {} partitions, built in {:.0} ms; solving 1,000: {:.0} ns each",
            self.nanos_per_put,
            self.writer_nanos_per_put,
            grouped(self.bytes as u64),
            self.partitions,
            self.build_ms,
            self.decode_nanos,
        )
    }
}

/// Measures with the first set of a pair.
///
/// # Errors
/// [`BenchError`] when no file can be made in the folder.
pub fn upkeep(pair: &Pair, random: &mut Random, folder: &Path) -> Result<Upkeep, BenchError> {
    let key = SketchKey::new(&Secret::of("bench"));
    let leaves = pair.ours.all();
    let begin = cpu_ms();
    let mut sketch = Sketch::new(key, levels_for(leaves.len() as u64));
    for leaf in leaves {
        sketch.apply(&Change::of(&key, &leaf.key, None, Some(&leaf.digest)));
    }
    let build_ms = cpu_ms() - begin;
    let mut versions = Vec::new();
    for _ in 0..UPKEEP_CHANGES {
        if let Some(leaf) = leaves.get(random.below(leaves.len())) {
            versions.push((*leaf, random.version_of(leaf.key)));
        }
    }
    let begin = cpu_ms();
    for (before, after) in &versions {
        let digests = (Some(&before.digest), Some(&after.digest));
        sketch.apply(&Change::of(&key, &before.key, digests.0, digests.1));
    }
    let nanos_per_put = (cpu_ms() - begin) * 1e6 / versions.len().max(1) as f64;
    Ok(Upkeep {
        decode_nanos: decode_nanos(&key, leaves, &versions),
        nanos_per_put,
        writer_nanos_per_put: writer_nanos(leaves.len() as u64, &versions, folder)?,
        bytes: sketch.bytes(),
        partitions: 1 << sketch.levels(),
        build_ms,
    })
}

/// Time of a change for the writer, which notes it and takes it in, for each of them.
fn writer_nanos(states: u64, versions: &[(Leaf, Leaf)], folder: &Path) -> Result<f64, BenchError> {
    let path = folder.join("upkeep.redb");
    let (options, wall) = (StoreOptions::default(), Arc::new(SystemClock));
    let solo = Solo::open(&path, ReplicaId(1), Epoch(1), options, wall)?;
    let view = solo.view();
    let keeper = Keeper::new(&Secret::of("bench"));
    // As many partitions as for so many states, none of which are there.
    let of = Leaves {
        snapshot: view.snapshot(),
        states,
        commit: view.commit(),
    };
    keeper.build(of, &|| true)?;
    let commits: Vec<Vec<Moved>> = versions
        .chunks(BATCH)
        .map(|commit| {
            let moved = commit.iter().map(|(before, after)| Moved {
                key: before.key,
                before: Some(before.digest),
                after: Some(after.digest),
            });
            moved.collect()
        })
        .collect();
    let begin = cpu_ms();
    for (number, moved) in (view.commit() + 1..).zip(&commits) {
        keeper.note(number, moved);
    }
    Ok((cpu_ms() - begin) * 1e6 / versions.len().max(1) as f64)
}

/// Time to solve the cells of differences, for each of them.
fn decode_nanos(key: &SketchKey, leaves: &[Leaf], versions: &[(Leaf, Leaf)]) -> f64 {
    let mut begun = 0.0;
    let mut found = 0;
    for changes in versions.chunks_exact(DECODED).take(DECODE_ROUNDS) {
        let mut sketch = Sketch::new(*key, levels_for(leaves.len() as u64));
        for (before, after) in changes {
            let digests = (Some(&before.digest), Some(&after.digest));
            sketch.apply(&Change::of(key, &before.key, digests.0, digests.1));
        }
        // As many as such a difference is sent.
        let size = size_for(DECODED as u64, Precision::Rough, sketch.levels());
        let folded = size.and_then(|size| sketch.fold(0, &[0], &(0..size.cells)));
        let mut cells = folded.unwrap_or_default();
        // The other side has nothing.
        let nothing = vec![Told::default(); cells.len()];
        let theirs = Theirs {
            cells: &nothing,
            borrows: 0,
        };
        let begin = cpu_ms();
        let decoded = Decoder::new(key).decode(Partition::WHOLE, &mut cells, theirs);
        begun += cpu_ms() - begin;
        found += decoded.ok().flatten().map_or(0, |found| found.len());
    }
    begun * 1e6 / found.max(1) as f64
}

/// Time that this thread has had of a core.
pub fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
