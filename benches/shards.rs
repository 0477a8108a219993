//! What cutting a namespace into shards does to checkpoints: 8,192 states overwritten at random
//! among many, in namespaces of 1, 2, 4 and 8 shards in turn; the log's part is not counted.
//!
//! `cargo bench --bench shards [STATES]`. Figures are medians, and ratios to one shard in the same
//! round.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints its table and stops at the first surprise"
)]

#[path = "support/arguments.rs"]
mod arguments;
#[path = "support/states.rs"]
mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use samestate::clock::SystemClock;
use samestate::replica::command::{Change, Command, Content, Precondition, Write};
use samestate::replica::solo::Solo;
use samestate::store::cut::Cut;
use samestate::store::disk::{Disk, MachineDisk};
use samestate::store::options::StoreOptions;
use samestate::store::reshard::reshard;
use samestate::types::cursor::Epoch;
use samestate::types::id::ReplicaId;

use arguments::first_number;
use states::{id, state};

const COUNTS: [usize; 4] = [1, 2, 4, 8];
const ROUNDS: u64 = 9;
/// States that one checkpoint writes.
const CHANGES: u64 = 8192;

fn main() {
    let states = first_number(200_000);
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let mut stores: Vec<Solo> = COUNTS
        .iter()
        .map(|count| load(folder.path(), *count, states))
        .collect();
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); COUNTS.len()];
    for round in 1..=ROUNDS {
        for (store, seconds) in stores.iter_mut().zip(&mut seconds) {
            overwrite(store, states, round);
            let begin = Instant::now();
            store.checkpoint().expect("a checkpoint");
            seconds.push(begin.elapsed().as_secs_f64());
        }
    }
    println!("{states} states of 1 KiB; checkpoints of {CHANGES} overwritten at random");
    println!("shards   checkpoint   of one shard's");
    for (count, own) in COUNTS.iter().zip(&seconds) {
        let ratios = own.iter().zip(&seconds[0]).map(|(own, one)| own / one);
        println!(
            "{count:>6} {:>9.0} ms {:>12.2}",
            median(own.clone()) * 1e3,
            median(ratios.collect())
        );
    }
}

fn load(folder: &Path, count: usize, states: u64) -> Solo {
    let path = folder.join(format!("cut{count}.redb"));
    let mut solo = open(&path);
    for first in (0..states).step_by(4096) {
        put(&mut solo, first..states.min(first + 4096), 0);
        solo.checkpoint().expect("a checkpoint");
    }
    drop(solo);
    let disk: Arc<dyn Disk> = Arc::new(MachineDisk);
    let cut = Cut::of_count(count).expect("a power of two");
    let cut = reshard(
        &disk,
        &path,
        cut,
        1,
        StoreOptions::default(),
        &mut |_, _| {},
    );
    cut.expect("another cut");
    open(&path)
}

fn open(path: &Path) -> Solo {
    let options = StoreOptions {
        history_versions: 0,
        ..StoreOptions::default()
    };
    let clock = Arc::new(SystemClock);
    Solo::open(path, ReplicaId(1), Epoch(1), options, clock).expect("a store")
}

/// Overwrites states at random, all in memory and in the log.
fn overwrite(solo: &mut Solo, states: u64, round: u64) {
    let mut at = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let picked: BTreeSet<u64> = (0..CHANGES)
        .map(|_| {
            at = at
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (at >> 33) % states
        })
        .collect();
    let picked: Vec<u64> = picked.into_iter().collect();
    for part in picked.chunks(1024) {
        put(solo, part.iter().copied(), round);
    }
}

fn put(solo: &mut Solo, numbers: impl IntoIterator<Item = u64>, version: u64) {
    let writes: Vec<Write> = numbers
        .into_iter()
        .map(|number| Write {
            id: id(number),
            change: Change::Put(Content::new(&state(number, version), None)),
            precondition: Precondition::None,
        })
        .collect();
    let outcomes = solo.commit_logged(vec![Command::Write(writes)], BTreeMap::new());
    outcomes.expect("a commit")[0].as_ref().expect("writes");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
