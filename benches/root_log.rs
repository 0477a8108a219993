//! What the log of roots costs the writers: the same puts into two namespaces, one of which writes its
//! roots down every second and the other never, in turn.
//!
//! `cargo bench --bench root_log`. Writer, log and checkpoint threads are those of a server; one
//! thread keeps 64 puts in flight. The ratio of each pair of rounds counts, and the median of the
//! ratios is printed.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints its table and stops at the first surprise"
)]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use samestate::replica::command::{Change, Command, Content, Precondition, Write};
use samestate::runtime::namespace::OpenNamespace;
use samestate::runtime::replica::{Replica, ReplicaOptions};
use samestate::types::id::{GameId, Namespace};

const STATE_BYTES: usize = 1024;
const LOADED: u64 = 50_000;
const IN_FLIGHT: usize = 64;
const ROUND: Duration = Duration::from_secs(4);
const PAIRS: usize = 11;

/// A replica with its namespace, and how many puts it has taken.
struct Side {
    replica: Replica,
    namespace: Arc<OpenNamespace>,
    random: u64,
}

impl Side {
    fn open(directory: &Path, interval: Option<Duration>) -> Self {
        let mut options = ReplicaOptions::default();
        options.store.root_log_interval = interval;
        let replica = Replica::open(directory, options).expect("a fresh replica");
        let namespace = replica.namespace(&Namespace::default_namespace());
        Self {
            replica,
            namespace: namespace.expect("the default namespace"),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Puts until `until` says so, with so many in flight, and returns how many were acknowledged.
    fn put(&mut self, mut id: impl FnMut(u64) -> Option<u64>) -> u64 {
        let (mut flying, mut done) = (VecDeque::new(), 0);
        while let Some(number) = id(next(&mut self.random)) {
            let write = Write {
                id: GameId::new(&format!("match/{number}")).expect("a valid id"),
                precondition: Precondition::None,
                change: Change::Put(Content::new(&state(&mut self.random), None)),
            };
            let queued = self.namespace.queue_blocking(Command::Write(vec![write]));
            flying.push_back(queued.expect("a place in the queue"));
            if flying.len() == IN_FLIGHT {
                let first = flying.pop_front().expect("one in flight");
                first.wait().expect("a durable put");
                done += 1;
            }
        }
        for queued in flying {
            queued.wait().expect("a durable put");
            done += 1;
        }
        done
    }

    fn load(&mut self) {
        let mut numbers = 0..LOADED;
        self.put(|_| numbers.next());
    }

    fn round(&mut self) -> f64 {
        let begin = Instant::now();
        let puts = self.put(|random| (begin.elapsed() < ROUND).then_some(random % LOADED));
        puts as f64 / begin.elapsed().as_secs_f64()
    }

    fn entries(&self) -> u64 {
        let view = self.namespace.view();
        view.snapshot().root_log_size().expect("a log")
    }
}

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let second = Some(Duration::from_secs(1));
    let mut with = Side::open(&directory.path().join("with"), second);
    let mut without = Side::open(&directory.path().join("without"), None);
    with.load();
    without.load();
    println!("{LOADED} states of {STATE_BYTES} B; {PAIRS} pairs of rounds of {ROUND:?}");
    println!("{:>14} {:>14} {:>8}", "with, puts/s", "without", "ratio");
    let (mut ratios, before) = (Vec::new(), with.entries());
    for pair in 0..PAIRS {
        // Whoever comes second finds what the first one left to the disk.
        let (ours, theirs) = if pair % 2 == 0 {
            let ours = with.round();
            (ours, without.round())
        } else {
            let theirs = without.round();
            (with.round(), theirs)
        };
        ratios.push(ours / theirs);
        println!("{ours:>14.0} {theirs:>14.0} {:>8.3}", ours / theirs);
    }
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (ratios[1], ratios[PAIRS - 2]);
    println!(
        "median ratio {:.3}, all but the outermost {low:.3} to {high:.3}",
        ratios[PAIRS / 2]
    );
    println!(
        "entries made: {}, {}",
        with.entries() - before,
        without.entries()
    );
    with.replica.stop();
    without.replica.stop();
}

/// Bytes that do not compress.
fn state(random: &mut u64) -> Vec<u8> {
    let words = (0..STATE_BYTES / 8).map(|_| next(random).to_le_bytes());
    words.flatten().collect()
}

fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}
