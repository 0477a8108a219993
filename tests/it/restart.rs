//! What a replica holds and says of itself after it was stopped, politely and not.

use samestate::replica::command::Command;
use samestate::runtime::replica::{Replica, ReplicaOptions};
use samestate::types::id::Namespace;

use crate::harness::Rng;
use crate::harness::process::{Server, succeed_json};
use crate::harness::replica::put;

#[test]
fn a_restarted_replica_is_the_one_it_was() {
    let mut rng = Rng::seeded(1);
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(dir.path());
    assert_eq!((first.namespaces, first.states), (1, 0));
    let states: Vec<(String, Vec<u8>)> = (0..40)
        .map(|n| {
            (
                format!("match/{n}"),
                rng.bytes([0, 100, 5_000, 120_000][n % 4]),
            )
        })
        .collect();
    for (id, bytes) in &states {
        first.put(id, bytes);
    }
    first.put("match/gone", b"soon deleted");
    first.delete("match/gone");
    let (root, replica) = (first.root(), first.replica.clone());
    let (status, told, more) = first.terminate();
    assert_eq!(status.code(), Some(0), "{told}");
    assert_eq!(more, Vec::<String>::new(), "one line on stdout and no more");
    assert!(!told.contains("panicked"), "{told}");

    let mut second = Server::start(dir.path());
    assert_eq!((second.states, &second.replica), (40, &replica));
    assert_eq!(second.root(), root);
    second.put("match/0", b"after the restart");
    let root = second.root();
    second.kill();

    let third = Server::start(dir.path());
    assert_eq!((third.states, &third.replica), (40, &replica));
    assert_eq!(third.root(), root);
    assert_eq!(third.get("match/0").body, b"after the restart");
    for (id, bytes) in &states[1..] {
        assert!(third.get(id).body == *bytes, "{id}");
    }
    assert_eq!(third.get("match/gone").status, 404);
    third.terminate();
    let verified = succeed_json(&["verify", "--data", dir.path().to_str().unwrap()]);
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(
        verified["namespaces"][0]["root"],
        root.as_str(),
        "{verified}"
    );
}

#[test]
fn writes_that_are_answered_while_it_stops_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let url = server.url.clone();
    let writer = std::thread::spawn(move || {
        let mut kept = 0;
        for n in 0.. {
            let state = format!("{url}/v1/ns/default/states/match/{n}");
            let sent = crate::harness::http::try_put(&state, format!("state {n}").as_bytes());
            match sent {
                Some(200 | 201) => kept = n + 1,
                _ => break,
            }
        }
        kept
    });
    crate::harness::http::wait_until("some are written", || server.count() > 20);
    let (status, told, _) = server.terminate();
    assert_eq!(status.code(), Some(0), "{told}");
    let kept = writer.join().unwrap();
    assert!(kept > 20);
    let again = Server::start(dir.path());
    for n in 0..kept {
        let reply = again.get(&format!("match/{n}"));
        assert_eq!(reply.body, format!("state {n}").as_bytes(), "{n} of {kept}");
    }
    assert!(
        again.states == kept || again.states == kept + 1,
        "{} {kept}",
        again.states
    );
}

#[test]
fn a_namespace_that_was_dropped_leaves_no_bytes_behind() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path(), ReplicaOptions::default()).unwrap();
    let name = Namespace::new("gone").unwrap();
    replica.create_namespace(&name).unwrap();
    let namespace = replica.namespace(&name).unwrap();
    let write = Command::Write(vec![put("secret", b"to be forgotten")]);
    namespace.queue_blocking(write).unwrap().wait().unwrap();
    drop(namespace);
    replica.drop_namespace(&name).unwrap();
    let files = std::fs::read_dir(dir.path().join("namespaces")).unwrap();
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|name| name.starts_with("gone")).collect();
    assert_eq!(left, Vec::<String>::new());
    replica.stop();
}
