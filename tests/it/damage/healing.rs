//! Damage is found by reads and by the scrub, listed, and healed with the bytes of a peer.

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::Method;
use samestate::delta::codec::CodecId;
use samestate::replica::command::{Command, Healing};
use samestate::store::body::Body;
use samestate::sync::contents::{Lacking, fetch_contents};
use samestate::sync::exchange::SessionError;
use samestate::sync::transport::{Transport, TransportError};
use samestate::types::hash::{ContentHash, StateKey};
use samestate::types::limits::Limits;
use samestate::wire::frame::seal;
use samestate::wire::messages::{BodyHead, BodyHeads, Endpoint};
use serde_json::Value;

use crate::damage::rows::{Hurt, chunks_of, hurt_row};
use crate::damage::stores::{REPLICA, open};
use crate::harness::Rng;
use crate::harness::http::{send, wait_until};
use crate::harness::process::{Server, succeed_json};
use crate::harness::replica::{Direct, Node, Plan, assert_faultless, name_replica, put};

/// A scrub that does not keep a test waiting.
const EAGER: [&str; 4] = ["--scrub-interval", "1s", "--scrub-mib-per-second", "1000"];
/// One that never reads anything by itself.
const OFF: [&str; 2] = ["--scrub-mib-per-second", "0"];

/// A state of every kind of placement, by id.
fn states(rng: &mut Rng) -> BTreeMap<&'static str, Vec<u8>> {
    [
        ("inline", 300),
        ("packed", 6_000),
        ("gone", 7_000),
        ("chunks", 90_000),
        ("list", 70_000),
        ("whole", 5_000),
    ]
    .into_iter()
    .map(|(id, length)| (id, rng.bytes(length)))
    .collect()
}

/// Hurts all states but one, each in the place where its bytes are, and an old version.
fn hurt(dir: &Path, states: &BTreeMap<&str, Vec<u8>>, before: &[u8]) {
    let content = |id: &str| ContentHash::of(&states[id]).0;
    hurt_row(dir, "records", &StateKey::of_text("inline").0, Hurt::Flip);
    hurt_row(dir, "contents", &content("packed"), Hurt::Flip);
    hurt_row(dir, "contents", &content("gone"), Hurt::Remove);
    hurt_row(dir, "contents", &ContentHash::of(before).0, Hurt::Flip);
    hurt_row(dir, "contents", &content("list"), Hurt::Remove);
    let chunks = chunks_of(dir).into_iter();
    let hash = |part: &samestate::store::body::PackedChunk| part.hash.0;
    let body = Body::new(&states["chunks"]);
    let samestate::store::body::Form::Chunks(parts) = &body.form else {
        panic!("not in chunks");
    };
    let ours: Vec<_> = parts.iter().map(hash).collect();
    let ours: Vec<_> = chunks.filter(|chunk| ours.contains(chunk)).collect();
    assert!(ours.len() > 2);
    hurt_row(dir, "chunks", &ours[0], Hurt::Flip);
    hurt_row(dir, "chunks", &ours[1], Hurt::Remove);
}

fn stats(server: &Server) -> Value {
    let url = format!("{}/v1/stats", server.url);
    send(Method::GET, &url, &[], Vec::new()).json()
}

/// Two directories with the same states, the first one hurt.
fn pair(
    rng: &mut Rng,
) -> (
    [tempfile::TempDir; 2],
    BTreeMap<&'static str, Vec<u8>>,
    Vec<u8>,
) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (states, before) = (states(rng), rng.bytes(9_000));
    let one = Server::start(dirs[0].path());
    one.put("packed", &before);
    for (id, bytes) in &states {
        one.put(id, bytes);
    }
    let peer = format!("one={}", one.url);
    let other = Server::start_with(dirs[1].path(), "127.0.0.1:0", &[&peer]);
    wait_until("both hold the same", || other.root() == one.root());
    // The old version, too, is one that the peer has.
    let history = send(Method::GET, &other.at("history/packed"), &[], Vec::new()).json();
    if history["versions"].as_array().unwrap().len() < 2 {
        drop(other);
        let other = Server::start(dirs[1].path());
        other.put("packed", &before);
        other.put("packed", &states["packed"]);
        let names = format!("other={}", other.url);
        one.add_peer("other", names.strip_prefix("other=").unwrap());
        wait_until("both hold the same again", || other.root() == one.root());
        other.terminate();
    } else {
        other.terminate();
    }
    one.terminate();
    hurt(dirs[0].path(), &states, &before);
    (dirs, states, before)
}

#[test]
fn the_scrub_finds_damage_and_a_peer_heals_it() {
    let mut rng = Rng::seeded(21);
    let (dirs, states, before) = pair(&mut rng);
    let path = dirs[0].path().to_str().unwrap();
    let server = Server::start_having(dirs[0].path(), &EAGER);
    let root = server.root();
    for id in ["inline", "packed", "gone", "chunks", "list"] {
        let reply = server.get(id);
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (500, "damaged"),
            "{id}"
        );
        let told = reply.json()["detail"].as_str().unwrap().to_owned();
        let content = ContentHash::of(&states[id]).to_hex();
        assert!(told.contains(&content), "{told}");
        assert!(
            told.contains("samestate verify --data DIR --repair"),
            "{told}"
        );
    }
    assert_eq!(server.get("whole").body, states["whole"]);
    // Five states, and an old version of one.
    wait_until("everything is found", || stats(&server)["faults_open"] == 6);
    wait_until("a pass has ended", || {
        stats(&server)["scrub"]["default"]["passes"].as_u64() >= Some(1)
    });
    let told = stats(&server);
    let faults = told["scrub"]["default"]["faults"].as_array().unwrap();
    assert!(
        faults.iter().all(|fault| fault["kind"] == "content"),
        "{told}"
    );
    assert!(
        faults.iter().any(|fault| fault["what"] == "inline"),
        "{told}"
    );
    assert_eq!(told["faults_healed"], 0);

    let peer = Server::start_having(dirs[1].path(), &OFF);
    server.add_peer("peer", &peer.url);
    wait_until("everything is healed", || {
        stats(&server)["faults_open"] == 0
    });
    for (id, bytes) in &states {
        assert_eq!(server.get(id).body, *bytes, "{id}");
    }
    let old = format!(
        "states/packed?version={}",
        ContentHash::of(&before).to_hex()
    );
    let old = send(Method::GET, &server.at(&old), &[], Vec::new());
    assert!(old.body == before, "{old:?}");
    assert_eq!((server.root(), peer.root()), (root.clone(), root));
    assert_eq!(stats(&server)["faults_healed"], 6);
    let (_, told, _) = server.terminate();
    assert!(told.contains("damage found"), "{told}");
    assert!(told.contains("healed with the bytes of peers"), "{told}");
    let verified = succeed_json(&["verify", "--data", path]);
    assert_eq!(verified["ok"], true, "{verified}");
}

/// How slow it is at least follows from the bytes alone, however busy the machine.
#[test]
fn a_scrub_reads_no_faster_than_it_is_told_to() {
    let mut rng = Rng::seeded(64);
    let dir = tempfile::tempdir().unwrap();
    let slow = ["--scrub-interval", "1s", "--scrub-mib-per-second", "4"];
    let server = Server::start_having(dir.path(), &slow);
    for n in 0..8 {
        server.put(&format!("match/{n}"), &rng.bytes(1 << 20));
    }
    let last = || stats(&server)["scrub"]["default"]["last_pass"].clone();
    let all = Some(8 << 20);
    wait_until("everything is read", || last()["bytes"].as_u64() >= all);
    // Behind the last of the steps of 1 MiB there is no rest.
    let seconds = last()["seconds"].as_f64().unwrap();
    assert!(seconds >= 7.0 / 4.0, "{seconds}");
}

#[test]
fn what_a_read_hits_is_healed_without_a_scrub() {
    let mut rng = Rng::seeded(22);
    let (dirs, states, _) = pair(&mut rng);
    let peer = Server::start_having(dirs[1].path(), &OFF);
    let named = format!("peer={}", peer.url);
    let flags = [&OFF[..], &["--peer", &named]].concat();
    let server = Server::start_having(dirs[0].path(), &flags);
    for id in ["chunks", "inline"] {
        wait_until("what was read is healed", || {
            server.get(id).body == states[id]
        });
    }
    // Nobody has read the others.
    let told = stats(&server);
    assert_eq!(told["scrub"]["default"]["passes"], 0, "{told}");
    assert!(told["faults_found"].as_u64() <= Some(3), "{told}");
}

#[test]
fn what_was_healed_is_healed_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    name_replica(dir.path(), REPLICA);
    std::fs::create_dir(dir.path().join("namespaces")).unwrap();
    let (bytes, small) = (Rng::seeded(23).bytes(50_000), b"small".to_vec());
    let mut solo = open(dir.path()).unwrap();
    let writes = vec![put("large", &bytes), put("small", &small)];
    solo.commit(vec![Command::Write(writes)], BTreeMap::new())
        .unwrap();
    solo.checkpoint().unwrap();
    let head = *solo.view().head();
    drop(solo);
    hurt_row(
        dir.path(),
        "contents",
        &ContentHash::of(&bytes).0,
        Hurt::Remove,
    );
    hurt_row(
        dir.path(),
        "records",
        &StateKey::of_text("small").0,
        Hurt::Flip,
    );
    let mut solo = open(dir.path()).unwrap();
    let healings = [("large", &bytes), ("small", &small)].map(|(id, bytes)| Healing {
        key: StateKey::of_text(id),
        body: Body::new(bytes),
        references: u64::from(id == "large"),
    });
    let healed = solo.commit_logged(vec![Command::Heal(healings.to_vec())], BTreeMap::new());
    assert!(healed.unwrap()[0].is_ok());
    drop(solo);
    for _ in 0..2 {
        let mut solo = open(dir.path()).unwrap();
        assert_faultless(&solo.view());
        assert_eq!(solo.view().head().root, head.root);
        assert_eq!(solo.view().head().seq, head.seq);
        solo.checkpoint().unwrap();
    }
}

/// A peer that answers with other bytes of the right length.
struct Liar;

impl Transport for Liar {
    fn call(
        &mut self,
        endpoint: Endpoint,
        _: Vec<u8>,
        _: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let head = BodyHead {
            codec: CodecId::RAW.0,
            base: None,
            length: 5,
        };
        let heads = BodyHeads { heads: vec![head] };
        Ok(seal(endpoint.kind(), &heads, b"wrong"))
    }
}

#[test]
fn other_bytes_than_those_asked_for_are_refused() {
    let lacking = |id: &str, bytes: &[u8]| Lacking {
        key: StateKey::of_text(id),
        content: ContentHash::of(bytes),
        size: bytes.len() as u64,
    };
    let limits = Limits::default();
    let refused = fetch_contents(&mut Liar, &[lacking("a", b"right")], &limits);
    let Err(error @ SessionError::Transfer(_)) = refused else {
        panic!("{refused:?}");
    };
    assert!(error.is_misbehaviour());
    assert!(
        error.to_string().contains("does not have its hash"),
        "{error}"
    );

    let (peer, mut rng) = (Node::new(3), Rng::seeded(24));
    let large = rng.bytes(40_000);
    peer.put("a", b"first");
    peer.put("a", b"second");
    peer.put("large", &large);
    let asked = [
        lacking("a", b"first"),
        lacking("a", b"never written"),
        lacking("large", &large),
        // What it holds of one state it does not tell for another one.
        lacking("large", b"second"),
    ];
    let fetched = fetch_contents(&mut Direct::to(&peer), &asked, &limits).unwrap();
    let fetched: Vec<Option<Vec<u8>>> = fetched
        .iter()
        .map(|body| body.as_ref().map(|body| body.unpacked().unwrap()))
        .collect();
    assert!(fetched == [Some(b"first".to_vec()), None, Some(large), None]);
    let other = Node::new(4);
    other.sync(&peer, Plan::PULL);
    other.check();
}
