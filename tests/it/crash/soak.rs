//! The long form: two replicas, both killed again and again at random moments while one takes writes
//! and the other copies from it.
//!
//! `SOAK_MINUTES=30 cargo test --release --test it crash::soak -- --ignored --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::crash::{Ledger, WRITERS, check, write_on};
use crate::harness::Rng;
use crate::harness::http::wait_until;
use crate::harness::process::{Server, free_port, succeed_json};
use crate::harness::replica::runtime;

/// Rounds between two looks at everything.
const LOOK_EVERY: u64 = 10;

/// A replica that is killed and started again at the same address.
struct Mortal {
    folder: TempDir,
    address: String,
    peers: Vec<String>,
    server: Server,
    deaths: u64,
}

impl Mortal {
    fn new(peers: Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let server = start(&folder, &address, &peers);
        Self {
            folder,
            address,
            peers,
            server,
            deaths: 0,
        }
    }

    fn kill(&mut self) {
        let told = self.server.kill();
        assert!(!told.contains("panicked"), "{told}");
        self.deaths += 1;
    }

    fn start(&mut self) {
        self.server = start(&self.folder, &self.address, &self.peers);
    }

    /// Reads everything. The server must not run.
    fn verify(&self) {
        let path = self.folder.path().to_str().unwrap();
        let verified = succeed_json(&["verify", "--data", path]);
        assert_eq!(verified["ok"], true, "{verified}");
    }
}

fn start(folder: &TempDir, address: &str, peers: &[String]) -> Server {
    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
    Server::start_with(folder.path(), address, &peers)
}

fn write_from_all_sides(
    url: &str,
    round: u64,
    ledger: &Ledger,
    rng: &mut Rng,
) -> Vec<JoinHandle<u64>> {
    let writer = |writer| {
        let rng = Rng::quiet(rng.next());
        let (url, ledger) = (url.to_owned(), Arc::clone(ledger));
        runtime().spawn(write_on(url, writer, round, ledger, rng))
    };
    (0..WRITERS).map(writer).collect()
}

/// One round: writes go on until the one that takes them is killed; the other may die before.
fn round(
    taker: &mut Mortal,
    copier: &mut Mortal,
    round: u64,
    ledger: &Ledger,
    rng: &mut Rng,
) -> u64 {
    let writers = write_from_all_sides(&taker.server.url, round, ledger, rng);
    let nap = |rng: &mut Rng| {
        let millis = 20 + rng.below(1_000) as u64;
        std::thread::sleep(Duration::from_millis(millis));
    };
    nap(rng);
    if rng.one_in(2) {
        copier.kill();
        if rng.one_in(2) {
            nap(rng);
            copier.start();
            nap(rng);
        }
    }
    taker.kill();
    let answered = runtime().block_on(async {
        let mut answered = 0;
        for writer in writers {
            answered += writer.await.unwrap();
        }
        answered
    });
    taker.start();
    if !copier.server.is_running() {
        copier.start();
    }
    answered
}

fn look_at_everything(taker: &mut Mortal, copier: &mut Mortal, ledger: &Ledger, round: u64) {
    let all: Vec<String> = ledger.lock().unwrap().keys().cloned().collect();
    check(&taker.server, &all, ledger, round);
    wait_until("both hold the same", || {
        taker.server.root() == copier.server.root()
    });
    check(&copier.server, &all, ledger, round);
    for replica in [taker, copier] {
        replica.kill();
        replica.verify();
        replica.start();
    }
}

#[test]
#[ignore = "takes minutes, see the top of this file"]
fn replicas_survive_being_killed_for_a_long_time() {
    let minutes = std::env::var("SOAK_MINUTES").map_or(5.0, |minutes| minutes.parse().unwrap());
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let mut rng = Rng::seeded(10);
    let ledger = Ledger::default();
    let mut taker = Mortal::new(Vec::new());
    let mut copier = Mortal::new(vec![format!("taker={}", taker.server.url)]);
    let (mut answered, mut rounds) = (0, 0);
    while Instant::now() < end {
        answered += round(&mut taker, &mut copier, rounds, &ledger, &mut rng);
        let known = ledger.lock().unwrap().clone();
        let open: Vec<String> = known
            .into_iter()
            .filter_map(|(id, known)| known.unanswered.map(|_| id))
            .collect();
        check(&taker.server, &open, &ledger, rounds);
        if rounds % LOOK_EVERY == LOOK_EVERY - 1 {
            look_at_everything(&mut taker, &mut copier, &ledger, rounds);
        }
        rounds += 1;
    }
    look_at_everything(&mut taker, &mut copier, &ledger, rounds);
    println!(
        "{answered} answered writes, {} ids, {} deaths of the taker and {} of the copier",
        ledger.lock().unwrap().len(),
        taker.deaths,
        copier.deaths
    );
    assert!(answered > 0);
}
