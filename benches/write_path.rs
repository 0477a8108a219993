//! What the write path costs: the engine (decide, apply, tree, feed, history, head) against bare
//! redb inserts of the same keys and bytes with the same quick-repair commits.
//!
//! `cargo bench --bench write_path`. Both sides run in turn in one process; the ratio of each
//! pair counts, and the median of the ratios is printed.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints its table and stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use redb::{Database, TableDefinition};
use samestate::clock::SystemClock;
use samestate::replica::command::{Change, Command, Content, Precondition, Write};
use samestate::replica::solo::Solo;
use samestate::store::options::StoreOptions;
use samestate::types::cursor::Epoch;
use samestate::types::hash::StateKey;
use samestate::types::id::{GameId, ReplicaId};

const TABLE: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("records");
const STATE_BYTES: usize = 1024;
const LOADED: u64 = 100_000;
const ROUNDS: u64 = 7;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut engine = open_engine(directory.path());
    let bare = open_bare(directory.path());
    for part in 0..LOADED / 1000 {
        let batch: Vec<u64> = (part * 1000..(part + 1) * 1000).collect();
        engine_puts(&mut engine, &batch, 0);
        bare_puts(&bare, &batch, 0);
    }
    println!("{LOADED} states of {STATE_BYTES} B loaded; then overwrites, {ROUNDS} rounds a row");
    println!(
        "{:>7} {:>14} {:>14} {:>8}",
        "batch", "engine puts/s", "redb puts/s", "ratio"
    );
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for size in [1, 16, 64, 1000] {
        row(&mut engine, &bare, size, &mut random);
    }
    let work = engine.work();
    println!(
        "tree work: {} hashes, {} rows written",
        work.hashes, work.rows_written
    );
}

fn row(engine: &mut Solo, bare: &Database, size: usize, random: &mut u64) {
    let commits = (256 / size).clamp(2, 32);
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let batches: Vec<Vec<u64>> = (0..commits)
            .map(|_| (0..size).map(|_| next(random) % LOADED).collect())
            .collect();
        let begin = Instant::now();
        batches
            .iter()
            .for_each(|batch| engine_puts(engine, batch, round));
        let engine_seconds = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        batches
            .iter()
            .for_each(|batch| bare_puts(bare, batch, round));
        let bare_seconds = begin.elapsed().as_secs_f64();
        let puts = (commits * size) as f64;
        ours.push(puts / engine_seconds);
        theirs.push(puts / bare_seconds);
        ratios.push(bare_seconds / engine_seconds);
    }
    println!(
        "{size:>7} {:>14.0} {:>14.0} {:>8.2}",
        median(ours),
        median(theirs),
        median(ratios)
    );
}

fn open_engine(directory: &Path) -> Solo {
    let path = directory.join("engine.redb");
    let (replica, epoch) = (ReplicaId(1), Epoch(1));
    let options = StoreOptions::default();
    Solo::open(&path, replica, epoch, options, Arc::new(SystemClock)).expect("a fresh store")
}

fn open_bare(directory: &Path) -> Database {
    Database::builder()
        .set_cache_size(StoreOptions::default().cache_bytes)
        .create(directory.join("bare.redb"))
        .expect("a fresh file")
}

fn engine_puts(engine: &mut Solo, numbers: &[u64], round: u64) {
    let put = |number: &u64| {
        Command::Write(vec![Write {
            id: id(*number),
            precondition: Precondition::None,
            change: Change::Put(Content::new(&state(*number, round), None)),
        }])
    };
    let outcomes = engine.commit(numbers.iter().map(put).collect(), BTreeMap::new());
    assert!(outcomes.expect("a commit").iter().all(Result::is_ok));
}

fn bare_puts(bare: &Database, numbers: &[u64], round: u64) {
    let mut sorted: Vec<(StateKey, u64)> = numbers
        .iter()
        .map(|n| (StateKey::of(&id(*n)), *n))
        .collect();
    sorted.sort();
    let mut transaction = bare.begin_write().expect("a transaction");
    transaction.set_quick_repair(true);
    {
        let mut table = transaction.open_table(TABLE).expect("a table");
        for (key, number) in sorted {
            let bytes = state(number, round);
            table.insert(&key.0, bytes.as_slice()).expect("an insert");
        }
    }
    transaction.commit().expect("a commit");
}

fn id(number: u64) -> GameId {
    GameId::new(&format!("match/{number}")).expect("a valid id")
}

/// Bytes that do not compress, different in every round.
fn state(number: u64, round: u64) -> Vec<u8> {
    let mut random = number.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (round << 40) | 1;
    let mut bytes = Vec::with_capacity(STATE_BYTES);
    while bytes.len() < STATE_BYTES {
        bytes.extend_from_slice(&next(&mut random).to_le_bytes());
    }
    bytes
}

fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
