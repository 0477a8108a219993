//! Hostile peers over real HTTP: initiators that send what they must not to a real server, and
//! servers that answer a real replica without end or sense.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use reqwest::Method;
use samestate::delta::codec::CodecId;
use samestate::reconcile::encoding::Writer;
use samestate::replica::command::Command;
use samestate::types::cursor::Epoch;
use samestate::types::hash::{ContentHash, NodeHash, StateKey};
use samestate::types::id::ReplicaId;
use samestate::types::lineage::Sighting;
use samestate::types::record::StateRecord;
use samestate::types::seen::Seen;
use samestate::types::version::Version;
use samestate::wire::frame::{open, seal, seal_for};
use samestate::wire::messages::{
    BaseHint, BodiesRequest, BodyHead, Endpoint, LIST_MAX, OfferReply, OfferRequest, OpenReply,
    OpenRequest, RecordsRequest, StoreReply, StoreRequest, Testimony, Want,
};
use samestate::wire::version::Protocol;
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::Rng;
use crate::harness::http::{Reply, send};
use crate::harness::process::{Server, succeed_json};
use crate::harness::replica::{Node, id, stranger};

pub fn server() -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.put("match/1", b"what an honest client wrote");
    (server, dir)
}

pub fn post(server: &Server, name: &str, body: Vec<u8>) -> Reply {
    send(Method::POST, &server.at(&format!("sync/{name}")), &[], body)
}

pub fn tell(server: &Server, at: Endpoint, head: &impl Serialize, blob: &[u8]) -> Reply {
    post(server, at.name(), seal(at.kind(), head, blob))
}

/// What some replica that holds nothing opens a session with.
fn opening() -> OpenRequest {
    OpenRequest {
        replica: ReplicaId(66),
        root: NodeHash([0; 32]),
        follows: false,
        lineage: stranger(),
        seq: 0,
        seen: None,
        testimony: Testimony::new(&NodeHash([0; 32]), Seen::default()),
    }
}

/// Opens a session as some replica that holds nothing.
pub fn session(server: &Server) -> u64 {
    let reply = tell(server, Endpoint::Open, &opening(), &[]);
    let opened = open(Endpoint::Open.kind(), &reply.body, 1 << 20);
    let (reply, _): (OpenReply, _) = opened.unwrap();
    reply.session.unwrap()
}

/// A record as another replica would write it, with its bytes.
fn record(name: &str, bytes: &[u8]) -> StateRecord {
    let node = Node::new(66);
    node.put(name, bytes);
    let row = node.view().row(&id(name)).unwrap().unwrap();
    row.record
}

fn want(record: &StateRecord) -> Want {
    let first: [u8; 8] = StateKey::of(&record.id).0[..8].try_into().unwrap();
    Want {
        state: u64::from_be_bytes(first),
        version: 0,
        bases: Vec::new(),
    }
}

fn raw(length: usize) -> BodyHead {
    BodyHead {
        codec: CodecId::RAW.0,
        base: None,
        length: length as u32,
    }
}

/// An honest message that stores one state.
fn store(session: u64, record: &StateRecord, length: usize) -> StoreRequest {
    StoreRequest {
        session,
        wants: vec![want(record)],
        records: vec![record.clone()],
        heads: vec![raw(length)],
    }
}

/// What is wrong with a message, and how it must be answered.
type Wrong = (fn(&mut StoreRequest), u16, &'static str);

const WRONG: [Wrong; 11] = [
    (|head| head.session ^= 1, 404, "unknown_session"),
    (|head| head.heads.clear(), 400, "bad_message"),
    (
        |head| head.records.push(head.records[0].clone()),
        400,
        "bad_message",
    ),
    (|head| head.records.clear(), 400, "bad_message"),
    (|head| head.wants[0].version = 9, 400, "bad_message"),
    (|head| head.wants[0].state ^= 1, 400, "bad_message"),
    (
        |head| head.wants[0].bases = vec![NO_BASE; 5],
        400,
        "bad_message",
    ),
    (|head| head.heads[0].codec = 99, 400, "bad_message"),
    (
        |head| head.heads[0].codec = BodyHead::MISSING,
        400,
        "bad_message",
    ),
    (|head| head.heads[0].base = Some(3), 400, "bad_message"),
    (|head| head.heads[0].length = u32::MAX, 400, "bad_message"),
];

const NO_BASE: BaseHint = BaseHint {
    state: None,
    content: 1,
};

#[test]
fn a_push_with_wrong_bytes_stores_nothing() {
    let (server, _dir) = server();
    let root = server.root();
    let (state, session) = (b"the true bytes", session(&server));
    let record = record("match/2", state);
    let refused = |head: &StoreRequest, blob: &[u8], status: u16, code: &str| {
        let reply = tell(&server, Endpoint::Store, head, blob);
        assert_eq!(reply.status, status, "{code}: {reply:?}");
        assert_eq!(reply.code(), code, "{reply:?}");
        assert_eq!(server.root(), root, "{code}: something was stored");
    };
    let honest = || store(session, &record, state.len());
    refused(&honest(), b"the fake bytes", 422, "hash_mismatch");
    refused(&honest(), b"the true byte", 400, "bad_message");
    refused(&honest(), b"the true bytes and more", 400, "bad_message");
    for (change, status, code) in WRONG {
        let mut head = honest();
        change(&mut head);
        refused(&head, state, status, code);
    }
    let mut without_bytes = honest();
    without_bytes.wants.clear();
    without_bytes.heads.clear();
    assert_eq!(tell_honestly(&server, &without_bytes, b""), 0);
    assert_eq!(server.root(), root, "a record without bytes was stored");
    let stored = tell_honestly(&server, &honest(), state);
    assert_eq!(stored, 1);
    assert_eq!(server.get("match/2").body, state);
}

fn tell_honestly(server: &Server, head: &StoreRequest, blob: &[u8]) -> u32 {
    let reply = tell(server, Endpoint::Store, head, blob);
    assert_eq!(reply.status, 200, "{reply:?}");
    let stored = open(Endpoint::Store.kind(), &reply.body, 1 << 20);
    let (reply, _): (StoreReply, _) = stored.unwrap();
    reply.stored
}

/// Announces a body and sends none of it; the answer that comes all the same.
fn announce(server: &Server, path: &str, length: usize) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn messages_that_make_no_sense_are_refused_by_name() {
    let (server, _dir) = server();
    let root = server.root();
    let mut rng = Rng::seeded(30);
    for at in Endpoint::ALL {
        for body in [
            Vec::new(),
            b"GET / HTTP/1.1".to_vec(),
            rng.bytes(16),
            rng.bytes(4_000),
        ] {
            let reply = post(&server, at.name(), body);
            assert_eq!(
                (reply.status, &reply.code()[..]),
                (400, "bad_message"),
                "{at:?}"
            );
        }
        let other = Endpoint::ALL
            .into_iter()
            .find(|other| *other != at)
            .unwrap();
        let reply = post(&server, at.name(), seal(other.kind(), &0u8, &[]));
        assert_eq!(
            (reply.status, &reply.code()[..]),
            (400, "bad_message"),
            "{at:?}"
        );
        let bomb = samestate::delta::compress::compress(&vec![0; 64 << 20], 3).unwrap();
        let mut frame = seal(at.kind(), &0u8, &[]);
        frame[6] = 1;
        frame.truncate(16);
        frame.extend(bomb);
        let reply = post(&server, at.name(), frame);
        assert_eq!(
            (reply.status, &reply.code()[..]),
            (400, "bad_message"),
            "{at:?}"
        );
    }
    let unknown = post(&server, "everything", Vec::new());
    assert_eq!(
        (unknown.status, &unknown.code()[..]),
        (404, "unknown_message")
    );
    let oversized = announce(&server, "/v1/ns/default/sync/open", 17 << 20);
    assert!(oversized.starts_with("HTTP/1.1 413 "), "{oversized}");
    assert!(oversized.contains("body_too_large"), "{oversized}");
    assert_eq!(server.root(), root);
    assert_eq!(server.get("match/1").status, 200);
}

#[test]
fn a_sighting_without_end_is_refused_and_not_written_to_the_log() {
    let (server, _dir) = server();
    let mut head = opening();
    head.seen = Some(Sighting {
        epoch: Epoch(1),
        openings: (0..100_000).map(|id| (id, id)).collect(),
        seq: 1,
    });
    for _ in 0..3 {
        let reply = tell(&server, Endpoint::Open, &head, &[]);
        assert_eq!((reply.status, &reply.code()[..]), (400, "bad_message"));
    }
    let (_, told, _) = server.terminate();
    assert!(told.len() < 10_000, "{} bytes", told.len());
}

#[test]
fn pushes_with_flipped_bits_store_the_truth_or_nothing() {
    let (server, dir) = server();
    let mut rng = Rng::seeded(31);
    let session = session(&server);
    let state = rng.bytes(300);
    let record = record("match/2", &state);
    let frames = [Protocol::V3, Protocol::V4].map(|version| {
        let head = store(session, &record, state.len());
        seal_for(version, Endpoint::Store.kind(), &head, &state)
    });
    let mut root = server.root();
    for round in 0..400 {
        let mut flipped = frames[round % 2].clone();
        let at = rng.below(flipped.len());
        flipped[at] ^= 1 << rng.below(8);
        let reply = post(&server, "store", flipped);
        let refused = matches!(reply.status, 400 | 404 | 409 | 413 | 422);
        assert!(refused || reply.status == 200, "byte {at}: {reply:?}");
        if refused {
            assert_eq!(server.root(), root, "byte {at}: {reply:?}");
        }
        root = server.root();
    }
    // A flip within the record makes another record, which a replica is free to write; its bytes
    // are those that its hash speaks of all the same.
    let listed = send(
        Method::GET,
        &server.at("states?limit=1000"),
        &[],
        Vec::new(),
    )
    .json();
    for row in listed["states"].as_array().unwrap() {
        let name = row["id"].as_str().unwrap();
        let held = server.get(&percent(name));
        assert_eq!(held.status, 200, "{name}: {held:?}");
        assert_eq!(
            ContentHash::of(&held.body).to_hex(),
            row["content_hash"],
            "{name}"
        );
    }
    server.terminate();
    let verified = succeed_json(&["verify", "--data", dir.path().to_str().unwrap()]);
    assert_eq!(verified["ok"], true, "{verified}");
}

fn percent(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[test]
fn offers_are_bounded_and_checked() {
    let (server, _dir) = server();
    let session = session(&server);
    let one = record("match/2", b"bytes");
    let many = OfferRequest {
        session,
        records: vec![one.clone(); LIST_MAX + 1],
    };
    let reply = tell(&server, Endpoint::Offer, &many, &[]);
    assert_eq!(
        (reply.status, &reply.code()[..]),
        (400, "bad_message"),
        "{reply:?}"
    );
    let honest = OfferRequest {
        session,
        records: vec![one],
    };
    let reply = tell(&server, Endpoint::Offer, &honest, &[]);
    let offered = open(Endpoint::Offer.kind(), &reply.body, 1 << 20);
    let (reply, _): (OfferReply, _) = offered.unwrap();
    assert_eq!((reply.wanted, reply.wants.len()), (vec![0], 1));
}

#[test]
fn short_messages_that_ask_for_much_work_are_refused() {
    let (server, _dir) = server();
    let (root, session) = (server.root(), session(&server));
    let refused = |reply: Reply, why: &str| {
        assert_eq!(
            (reply.status, &reply.code()[..]),
            (400, "bad_message"),
            "{reply:?}"
        );
        let told = String::from_utf8_lossy(&reply.body);
        assert!(told.contains(why), "{reply:?}");
        assert_eq!(server.root(), root, "{why}: something was stored");
    };
    for (depth, slots) in [(64, vec![7; 2000]), (8, vec![7])] {
        let head = RecordsRequest { session, depth };
        let mut blob = Writer::new();
        blob.sorted(&slots);
        let reply = tell(&server, Endpoint::Records, &head, &blob.finish());
        refused(reply, "prefixes too short or named twice");
    }
    let wanted = want(&record("match/2", b"bytes"));
    let twice = BodiesRequest {
        session,
        wants: vec![wanted; 2],
    };
    let reply = tell(&server, Endpoint::Bodies, &twice, &[]);
    refused(reply, "a version is wanted twice");
    // Three states of 60 MiB each in a few bytes: refused before any of them is decoded.
    let mut bomb = store(session, &record("match/0", b""), 0);
    (bomb.records, bomb.wants, bomb.heads) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=3 {
        let honest = record(&format!("match/{number}"), b"bytes");
        let version = Version {
            size: 60 << 20,
            ..honest.shown().clone()
        };
        let large = StateRecord::new(honest.id, version);
        bomb.wants.push(want(&large));
        bomb.heads.push(raw(0));
        bomb.records.push(large);
    }
    let reply = tell(&server, Endpoint::Store, &bomb, &[]);
    refused(reply, "more state bytes than one message may bring");
}

type Answer = fn(&mut TcpStream);

/// A server that answers every request with `answer`.
fn fake(answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                answer(&mut stream);
                // Closing with a part of the request unread would break the connection off.
                let _ = stream.shutdown(Shutdown::Write);
                while stream.read(&mut request).is_ok_and(|length| length > 0) {}
            });
        }
    });
    url
}

fn sync_from(server: &Server, url: &str) -> Reply {
    let order = json!({ "from": url, "pull": true }).to_string();
    post(server, "run", order.into_bytes())
}

fn endless(stream: &mut TcpStream) {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut sent = stream.write_all(head);
    let mut chunk = b"100000\r\n".to_vec();
    chunk.extend(vec![7; 1 << 20]);
    chunk.extend(b"\r\n");
    while sent.is_ok() {
        sent = stream.write_all(&chunk);
    }
}

fn nonsense(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
}

fn broken_off(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nSMST");
}

fn turned_away(stream: &mut TcpStream) {
    let _ = stream.write_all(
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
}

#[test]
fn servers_that_answer_without_end_or_sense_are_given_up_and_banned() {
    let (server, _dir) = server();
    let root = server.root();
    let cases: [(Answer, &str, bool); 4] = [
        (endless, "longer than", true),
        (nonsense, "short frame", true),
        (broken_off, "cannot reach the peer", false),
        (turned_away, "http_302", false),
    ];
    for (answer, reason, misbehaviour) in cases {
        let url = fake(answer);
        for attempt in 0..4 {
            let reply = sync_from(&server, &url);
            if misbehaviour && attempt == 3 {
                assert_eq!(
                    (reply.status, &reply.code()[..]),
                    (503, "peer_banned"),
                    "{reply:?}"
                );
                continue;
            }
            assert_eq!(reply.status, 200, "{reply:?}");
            let report: Value = reply.json();
            assert_eq!(report["outcome"], "failed", "{report}");
            let told = report["reason"].as_str().unwrap();
            assert!(told.contains(reason), "{told}");
            assert_eq!(report["root_after"], root.as_str());
        }
    }
    assert_eq!(server.root(), root);
}

#[test]
fn a_merge_of_records_without_their_bytes_is_refused_by_the_writer_itself() {
    let (receiver, record) = (Node::new(1), record("match/2", b"bytes"));
    let incoming = samestate::replica::command::Incoming {
        record,
        bodies: vec![samestate::store::body::Body::new(b"other")],
    };
    let namespace = receiver.namespace();
    let queued = namespace
        .queue_blocking(Command::Merge(vec![incoming]))
        .unwrap();
    let refused = queued.wait().unwrap().accepted.refused;
    assert!(refused[0].to_string().contains("are missing"));
    assert_eq!(receiver.contents().len(), 0);
}
