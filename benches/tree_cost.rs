//! What keeping the Merkle tree costs a store: the same puts into one that keeps it and one that does
//! not, on disk and in turn.
//!
//! `cargo bench --bench tree_cost [STATES]`, 100,000 unless given. Both sides do what a writer does
//! with a batch: pack the states, write the log and sync it in a thread of its own while the rows
//! are changed in memory, and move them into the engine's file at every checkpoint. What decides
//! about preconditions is left out, which makes the tree's share larger than a client sees. Medians
//! of the rounds are printed, and the median of the ratios of each round beside the least that is aimed at.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints its table and stops at the first surprise"
)]

#[path = "support/arguments.rs"]
mod arguments;
#[path = "support/states.rs"]
mod states;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use samestate::merkle::top::Top;
use samestate::replica::apply::{Batch, apply, apply_with};
use samestate::replica::command::{Effect, Mutation};
use samestate::replica::engine::CHECKPOINT_CHANGES;
use samestate::replica::facts::Facts;
use samestate::replica::journal;
use samestate::store::body::Body;
use samestate::store::disk::MachineDisk;
use samestate::store::engine_files::EngineFiles;
use samestate::store::log::appender::Log;
use samestate::store::log::group::{Entry, EntryKind};
use samestate::store::open::Store;
use samestate::store::options::StoreOptions;
use samestate::store::rows::Head;
use samestate::types::cursor::Epoch;
use samestate::types::hash::{ContentHash, StateKey};
use samestate::types::id::{ReplicaId, WriterId};
use samestate::types::record::StateRecord;
use samestate::types::version::{Stamp, Version, VersionVector};

use arguments::first_number;
use states::{id, state};

const ROUNDS: u64 = 15;
/// Puts in a batch, batches in a round, and the least ratio of puts a second that is aimed at.
const SIZES: [(u64, u64, f64); 2] = [(64, 128, 0.7), (1000, 8, 0.6)];
const REPLICA: ReplicaId = ReplicaId(1);

/// A namespace, with its tree or without.
struct Side {
    store: Store,
    file: EngineFiles,
    log: Log,
    top: Top,
    head: Head,
    keeps_tree: bool,
    pending: usize,
}

impl Side {
    fn open(folder: &Path, keeps_tree: bool) -> Self {
        let path = folder.join(if keeps_tree { "with" } else { "without" });
        let (disk, options) = (Arc::new(MachineDisk), StoreOptions::default());
        let opened = Store::open_on(disk, &path, REPLICA, Epoch(1), options);
        let (store, file) = opened.expect("a fresh store");
        let head = store.snapshot().head().expect("a head");
        let (log, _) = Log::open(store.log_place(), head.log).expect("a log");
        let top = Top::default();
        Self {
            store,
            file,
            log,
            top,
            head,
            keeps_tree,
            pending: 0,
        }
    }

    fn put(&mut self, numbers: &BTreeSet<u64>, round: u64) {
        let seqs = self.head.seq + 1..;
        let puts = numbers.iter().zip(seqs);
        let effects = puts.map(|(number, seq)| put(*number, round, seq)).collect();
        let batch = Batch {
            effects,
            ..Batch::default()
        };
        let entry = Entry {
            commit: self.store.next_commit(),
            kind: EntryKind::Changes(journal::to_bytes(&Facts::default(), &batch.effects)),
        };
        let (store, top, head) = (&mut self.store, &mut self.top, &mut self.head);
        thread::scope(|scope| {
            let logged = scope.spawn(|| self.log.append(&[entry]));
            let applied = if self.keeps_tree {
                apply(store, top, head, &batch)
            } else {
                apply_with(store, top, head, &batch, |top, _, _, _| Ok(top.root()))
            };
            applied.expect("a change in memory");
            let logged = logged.join().expect("a log thread");
            logged.expect("a durable entry");
        });
        self.pending += batch.effects.len();
        if self.pending >= CHECKPOINT_CHANGES {
            self.checkpoint();
        }
    }

    fn checkpoint(&mut self) {
        self.log.rotate().expect("a new segment");
        if let Some(mut frozen) = self.store.freeze() {
            frozen.ends_before(self.log.segment());
            let flushed = self.file.flush(&frozen).expect("a checkpoint");
            self.store.flushed(&flushed);
            let tidied = self.log.shelf().tidy(flushed.commit());
            tidied.expect("segments of before");
        }
        self.pending = 0;
    }

    /// Puts a second.
    fn round(&mut self, batches: &[BTreeSet<u64>], round: u64) -> f64 {
        let begin = Instant::now();
        batches.iter().for_each(|batch| self.put(batch, round));
        let puts: usize = batches.iter().map(BTreeSet::len).sum();
        puts as f64 / begin.elapsed().as_secs_f64()
    }
}

fn put(number: u64, round: u64, seq: u64) -> Effect {
    let (id, bytes) = (id(number), state(number, round));
    let mut vector = VersionVector::default();
    vector.set(WriterId(1), seq);
    let version = Version {
        vector,
        stamp: Stamp {
            millis: 1_700_000_000_000 + seq,
            logical: 0,
            replica: REPLICA,
        },
        content: ContentHash::of(&bytes),
        size: bytes.len() as u64,
        content_type: None,
        expires_at: None,
        tombstone: false,
        lease_epoch: 0,
    };
    let key = StateKey::of(&id);
    let record = StateRecord::new(id, version);
    Effect::Change(Mutation::new(key, seq, record, vec![Body::new(&bytes)]))
}

fn main() {
    let states = first_number(100_000);
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let mut sides = [true, false].map(|keeps_tree| Side::open(folder.path(), keeps_tree));
    for side in &mut sides {
        let numbers: Vec<u64> = (0..states).collect();
        for batch in numbers.chunks(1000) {
            side.put(&batch.iter().copied().collect(), 0);
        }
        side.checkpoint();
    }
    println!("{states} states of 1 KiB, {ROUNDS} rounds in turn");
    println!("  batch   with, puts/s      without      ratio   quarter to three quarters   goal");
    let mut random = 0x9e37_79b9_7f4a_7c15;
    for (size, batches, goal) in SIZES {
        let mut rates = [const { Vec::new() }; 3];
        for round in 1..=ROUNDS {
            let batch = |_| (0..size).map(|_| next(&mut random) % states).collect();
            let batches: Vec<BTreeSet<u64>> = (0..batches).map(batch).collect();
            let mut order = [0, 1];
            // Whoever comes second finds what the first one has left to the disk.
            order.rotate_left((round % 2) as usize);
            for side in order {
                let rate = sides[side].round(&batches, round);
                rates[side].push(rate);
            }
            let last = [0, 1].map(|side| rates[side][rates[side].len() - 1]);
            rates[2].push(last[0] / last[1]);
        }
        let [with, without, ratio] = rates.each_ref().map(|rates| quantile(rates, 2));
        let (low, high) = (quantile(&rates[2], 1), quantile(&rates[2], 3));
        println!(
            "{size:>7} {with:>14.0} {without:>12.0} {ratio:>10.2}   {low:.2} to {high:.2} \
             {goal:>18.1}"
        );
    }
}

/// So many quarters of the values lie below.
fn quantile(values: &[f64], quarters: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * quarters / 4]
}

/// Marsaglia's xorshift (2003), one step.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}
