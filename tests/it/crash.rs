//! Kills the real program at random moments under load, again and again on the same directory:
//! every write that was acknowledged is there afterwards.

mod soak;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use samestate::types::hash::ContentHash;

use crate::harness::Rng;
use crate::harness::http::try_send;
use crate::harness::process::{Server, succeed_json};
use crate::harness::replica::runtime;

const WRITERS: usize = 64;
const KILLS: u64 = 20;
/// Ids that each writer overwrites; besides these it makes new ones all the time.
const OWN: usize = 4;

/// What the clients of one id know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    /// What the last answered write left; `None` when there was none, or a deletion.
    acknowledged: Option<ContentHash>,
    /// What a write that got no answer would have left. Writers write one id one at a time, and
    /// stop at the first write without an answer.
    unanswered: Option<Option<ContentHash>>,
}

type Ledger = Arc<Mutex<BTreeMap<String, Known>>>;

/// A writer's next write: mostly small states, some that are stored in chunks, some deletions.
fn next_write(writer: usize, number: u64, rng: &mut Rng) -> (String, Option<Vec<u8>>) {
    if rng.one_in(3) {
        return (format!("new/{writer}/{number}"), Some(rng.bytes(20)));
    }
    let id = format!("own/{writer}/{}", rng.below(OWN));
    if rng.one_in(12) {
        return (id, None);
    }
    let length = if rng.one_in(25) {
        20_000 + rng.below(280_000)
    } else {
        50 + rng.below(3_000)
    };
    (id, Some(rng.bytes(length)))
}

/// Writes until the server does not answer any more.
async fn write_on(url: String, writer: usize, round: u64, ledger: Ledger, mut rng: Rng) -> u64 {
    let mut answered = 0;
    for number in 0.. {
        let (id, bytes) = next_write(writer, (round << 32) + number, &mut rng);
        let after = bytes.as_ref().map(|bytes| ContentHash::of(bytes));
        let at = format!("{url}/v1/ns/default/states/{id}");
        ledger
            .lock()
            .unwrap()
            .entry(id.clone())
            .or_default()
            .unanswered = Some(after);
        let method = if bytes.is_some() {
            Method::PUT
        } else {
            Method::DELETE
        };
        let sent = try_send(method, &at, &[], bytes.unwrap_or_default()).await;
        let Ok(reply) = sent else {
            return answered;
        };
        let mut ledger = ledger.lock().unwrap();
        let known = ledger.get_mut(&id).unwrap();
        match reply.status {
            200 | 201 | 204 => known.acknowledged = after,
            404 => assert_eq!(known.acknowledged, None, "{id} is lost already"),
            // Too much at once: nothing happened.
            503 => {}
            status => panic!("{id}: {status}: {reply:?}"),
        }
        known.unanswered = None;
        answered += 1;
    }
    answered
}

/// Writes from all sides and kills the server at some moment.
fn crash_under_load(server: &mut Server, round: u64, ledger: &Ledger, rng: &mut Rng) -> u64 {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let seed = rng.next();
            let ledger = Arc::clone(ledger);
            let url = server.url.clone();
            runtime().spawn(write_on(url, writer, round, ledger, Rng::quiet(seed)))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(30 + rng.below(500) as u64));
    let told = server.kill();
    assert!(!told.contains("panicked"), "{told}");
    let all = async {
        let mut answered = 0;
        for writer in writers {
            answered += writer.await.unwrap();
        }
        answered
    };
    runtime().block_on(all)
}

/// Compares what the ledger says of `ids` with what the server holds, and settles what was open.
fn check(server: &Server, ids: &[String], ledger: &Ledger, round: u64) {
    let read = async |id: String| {
        let at = server.at(&format!("states/{id}"));
        let reply = try_send(Method::GET, &at, &[], Vec::new()).await.unwrap();
        let held = match reply.status {
            200 => Some(ContentHash::of(&reply.body)),
            404 => None,
            status => panic!("{id}: {status}"),
        };
        let mut ledger = ledger.lock().unwrap();
        let known = ledger.get_mut(&id).unwrap();
        let expected = [Some(known.acknowledged), known.unanswered];
        assert!(
            expected.contains(&Some(held)),
            "round {round}: {id} is {held:?} and not {known:?}"
        );
        *known = Known {
            acknowledged: held,
            unanswered: None,
        };
    };
    runtime().block_on(async {
        for part in ids.chunks(32) {
            futures_util::future::join_all(part.iter().cloned().map(read)).await;
        }
    });
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let mut rng = Rng::seeded(9);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let ledger = Ledger::default();
    let mut answered = 0;
    for round in 0..KILLS {
        let known_before = ledger.lock().unwrap().clone();
        let mut server = Server::start(dir.path());
        answered += crash_under_load(&mut server, round, &ledger, &mut rng);
        if round % 7 == 3 {
            let verified = succeed_json(&["verify", "--data", path]);
            assert_eq!(verified["ok"], true, "round {round}: {verified}");
        }
        let server = Server::start(dir.path());
        let touched: Vec<String> = {
            let ledger = ledger.lock().unwrap();
            let changed = ledger
                .iter()
                .filter(|(id, known)| known_before.get(*id) != Some(*known));
            changed.map(|(id, _)| id.clone()).collect()
        };
        check(&server, &touched, &ledger, round);
    }
    assert!(answered > 2_000, "the load was none: {answered}");
    let server = Server::start(dir.path());
    let all: Vec<String> = ledger.lock().unwrap().keys().cloned().collect();
    check(&server, &all, &ledger, KILLS);
    let alive = ledger
        .lock()
        .unwrap()
        .values()
        .filter(|known| known.acknowledged.is_some())
        .count();
    assert_eq!(server.states, alive as u64);
    let root = server.root();
    drop(server);
    let verified = succeed_json(&["verify", "--data", path]);
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(
        verified["namespaces"][0]["root"],
        root.as_str(),
        "{verified}"
    );
    println!("{answered} answered writes, {} ids", all.len());
}
