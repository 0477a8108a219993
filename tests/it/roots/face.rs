//! What `/v1/ns/{ns}/roots` tells and proves, of a server that is killed in between.

use reqwest::Method;
use samestate::roots::entry::RootEntry;
use samestate::roots::head::SignedHead;
use samestate::roots::verify::{is_consistent, is_included};
use samestate::types::id::Namespace;
use samestate::wire::roots::{ConsistencyBody, HeadBody, HeadsBody, InclusionBody};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::harness::http::{send, wait_until};
use crate::harness::process::Server;

fn get(server: &Server, path: &str) -> Value {
    let reply = send(Method::GET, &server.at(path), &[], Vec::new());
    assert_eq!(reply.status, 200, "{path}: {}", reply.json());
    reply.json()
}

fn read<T: DeserializeOwned>(server: &Server, path: &str) -> T {
    serde_json::from_value(get(server, path)).unwrap()
}

fn head(server: &Server) -> Option<SignedHead> {
    let heads: HeadsBody = read(server, "roots/heads");
    let (own, seen) = heads.read().unwrap();
    assert!(seen.is_empty());
    own.inspect(|head| assert!(head.is_signed(&Namespace::default_namespace())))
}

/// Waits until the newest root is written down.
fn sealed(server: &Server) -> SignedHead {
    let root = server.root();
    let is_sealed = || head(server).is_some_and(|head| head.head.newest.root.to_hex() == root);
    wait_until("the root is in the log", is_sealed);
    head(server).unwrap()
}

fn assert_leads(server: &Server, old: &SignedHead, new: &SignedHead) {
    let (from, to) = (old.head.size, new.head.size);
    let path = format!("roots/consistency?from={from}&to={to}");
    let body: ConsistencyBody = read(server, &path);
    assert_eq!((body.from, body.to), (from, to));
    assert!(old.leads_to(new, &body.hashes().unwrap()));
    let mut other = old.clone();
    other.head.hash.0[0] ^= 1;
    assert!(!other.leads_to(new, &body.hashes().unwrap()));
    let (old, new) = (&old.head, &new.head);
    assert!(is_consistent(
        (from, &old.hash),
        (to, &new.hash),
        &body.hashes().unwrap()
    ));
}

#[test]
fn a_log_of_roots_proves_what_it_says_and_outlives_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    assert_eq!(head(&server), None);
    assert_eq!(get(&server, "roots")["roots"], Value::Array(Vec::new()));
    let mut heads = Vec::new();
    for round in 0..4 {
        server.put(&format!("match/{round}"), b"bytes");
        heads.push(sealed(&server));
        if round == 2 {
            server.kill();
            server = Server::start(dir.path());
            assert_eq!(head(&server), heads.last().cloned());
        }
    }
    let newest = heads.last().unwrap().clone();
    for old in &heads {
        assert_leads(&server, old, &newest);
    }
    let page = get(&server, "roots?limit=2");
    assert_eq!(page["next"], 2);
    let told: HeadBody = serde_json::from_value(page["head"].clone()).unwrap();
    assert_eq!(SignedHead::try_from(&told).unwrap(), newest);
    for place in 0..newest.head.size {
        let by_place: InclusionBody = read(&server, &format!("roots/inclusion?place={place}"));
        let entry = RootEntry::try_from(&by_place.entry).unwrap();
        let by_time = format!("roots/inclusion?at={}", entry.time);
        assert_eq!(by_place, read::<InclusionBody>(&server, &by_time));
        let path = by_place.proof.iter().map(|hash| hash.parse().unwrap());
        let path: Vec<_> = path.collect();
        let (size, hash) = (newest.head.size, &newest.head.hash);
        assert!(is_included(&entry, place, size, &path, hash));
        assert!(!is_included(&entry, place + 1, size, &path, hash));
    }
    let refused = [
        ("roots/inclusion?place=99", 404, "root_not_found"),
        ("roots/inclusion?at=1", 404, "root_not_found"),
        ("roots/inclusion", 400, "bad_query"),
        ("roots/inclusion?place=0&at=1", 400, "bad_query"),
        ("roots/consistency?from=0", 404, "root_not_found"),
        ("roots/consistency?from=1&to=99", 404, "root_not_found"),
        ("roots/consistency?from=3&to=2", 404, "root_not_found"),
        ("roots?from=x", 400, "bad_query"),
    ];
    for (path, status, code) in refused {
        let reply = send(Method::GET, &server.at(path), &[], Vec::new());
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{path}"
        );
    }
}

#[test]
fn a_lost_key_is_made_anew_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.put("match/1", b"bytes");
    let before = sealed(&server);
    let (_, told, _) = server.terminate();
    assert!(!told.contains("no key"), "{told}");
    std::fs::remove_file(dir.path().join("key")).unwrap();
    let server = Server::start(dir.path());
    let after = head(&server).unwrap();
    assert_eq!(after.head, before.head);
    assert_ne!(after.key, before.key);
    assert!(!after.contradicts(&before));
    let (_, told, _) = server.terminate();
    assert!(told.contains("no key of this replica"), "{told}");
}
