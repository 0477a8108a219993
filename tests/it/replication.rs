//! Real servers that replicate: live in both directions, across partitions and starts, and by
//! single commands, with real game states.

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::Method;
use samestate::delta::compress::compress;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::http::{send, try_put, wait_until};
use crate::harness::process::{Server, free_port, succeed, succeed_json};
use crate::harness::{Rng, game_states, series};

/// A running replica and its directory.
struct Site {
    server: Server,
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with_peers(&[])
    }

    fn with_peers(peers: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start_with(dir.path(), "127.0.0.1:0", peers);
        Self { server, dir }
    }

    fn holds(&self, id: &str, bytes: &[u8]) -> bool {
        let reply = self.server.get(id);
        reply.status == 200 && reply.body == bytes
    }
}

fn wait_for_equal(sites: &[&Site]) {
    wait_until("the roots are equal", || {
        let root = sites[0].server.root();
        sites[1..].iter().all(|site| site.server.root() == root)
    });
}

/// Two replicas that know each other.
fn pair() -> (Site, Site) {
    let a = Site::new();
    let b = Site::with_peers(&[&format!("a={}", a.server.url)]);
    a.server.add_peer("b", &b.server.url);
    (a, b)
}

#[test]
fn writes_and_deletions_travel_both_ways_between_peers() {
    let (a, b) = pair();
    a.server.put("match/1", b"from a");
    b.server.put("match/2", b"from b");
    wait_until("b has what a wrote", || b.holds("match/1", b"from a"));
    wait_until("a has what b wrote", || a.holds("match/2", b"from b"));
    b.server.put("match/1", b"changed at b");
    wait_until("a has the change", || a.holds("match/1", b"changed at b"));
    a.server.delete("match/2");
    wait_until("the deletion is at b", || {
        b.server.get("match/2").status == 404
    });
    wait_for_equal(&[&a, &b]);
    assert_eq!((a.server.count(), b.server.count()), (1, 1));
    for (site, peer, replica) in [(&a, "b", &b.server.replica), (&b, "a", &a.server.replica)] {
        let status = site.server.peer(peer);
        assert_eq!(status["health"], "healthy", "{status}");
        assert_eq!(status["replica"], replica.as_str(), "{status}");
        assert_eq!(status["penalties"], 0.0, "{status}");
    }
}

#[test]
fn one_link_carries_both_directions() {
    let a = Site::new();
    a.server.put("match/1", b"there before the link");
    let b = Site::with_peers(&[&format!("a={}", a.server.url)]);
    b.server
        .put("match/2", b"written at the side with the link");
    wait_until("b has pulled", || {
        b.holds("match/1", b"there before the link")
    });
    wait_until("b has pushed", || {
        a.holds("match/2", b"written at the side with the link")
    });
    a.server.put("match/3", b"later, at a");
    b.server.put("match/4", b"later, at b");
    wait_until("b goes on pulling", || b.holds("match/3", b"later, at a"));
    wait_until("b goes on pushing", || a.holds("match/4", b"later, at b"));
    wait_for_equal(&[&a, &b]);
}

#[test]
fn three_replicas_in_a_chain_hold_the_same() {
    let c = Site::new();
    let b = Site::with_peers(&[&format!("c={}", c.server.url)]);
    let a = Site::with_peers(&[&format!("b={}", b.server.url)]);
    a.server.put("match/1", b"from the one end");
    c.server.put("match/2", b"from the other");
    wait_until("it reaches c", || c.holds("match/1", b"from the one end"));
    wait_until("it reaches a", || a.holds("match/2", b"from the other"));
    b.server.delete("match/1");
    wait_until("the deletion reaches both ends", || {
        a.server.get("match/1").status == 404 && c.server.get("match/1").status == 404
    });
    wait_for_equal(&[&a, &b, &c]);
}

#[test]
fn replicas_that_are_written_to_on_both_sides_at_once_end_up_equal() {
    let (a, b) = pair();
    let writers: Vec<_> = [&a, &b, &a, &b]
        .into_iter()
        .enumerate()
        .map(|(writer, site)| {
            let (mut rng, url) = (Rng::seeded(writer as u64), site.server.url.clone());
            std::thread::spawn(move || {
                for n in 0..150 {
                    // Some ids of everybody's, some of this writer's own.
                    let id = match rng.below(3) {
                        0 => format!("own/{writer}/{n}"),
                        _ => format!("shared/{}", rng.below(10)),
                    };
                    let length = [10, 2_000, 30_000][rng.below(3)];
                    let bytes = rng.bytes(length);
                    let status = try_put(&format!("{url}/v1/ns/default/states/{id}"), &bytes);
                    assert!(matches!(status, Some(200 | 201)), "{id}: {status:?}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    wait_for_equal(&[&a, &b]);
    for (site, peer) in [(&a, "b"), (&b, "a")] {
        assert_eq!(site.server.peer(peer)["penalties"], 0.0);
    }
    for Site { server, dir } in [a, b] {
        server.terminate();
        let path = dir.path().to_str().unwrap();
        let verified = succeed_json(&["verify", "--data", path]);
        assert_eq!(verified["ok"], true, "{verified}");
    }
}

#[test]
fn a_conflict_from_a_partition_is_kept_on_both_sides_and_resolved_by_a_write_that_saw_it() {
    let (a, b) = pair();
    a.server.put("match/1", b"before");
    wait_until("b has it", || b.holds("match/1", b"before"));
    wait_for_equal(&[&a, &b]);
    a.server.remove_peer("b");
    b.server.remove_peer("a");
    a.server.put("match/1", b"on this side");
    b.server.put("match/1", b"on the other side");
    a.server.put("match/only-a", b"a");
    b.server.put("match/only-b", b"b");
    assert_ne!(a.server.root(), b.server.root());

    a.server.add_peer("b", &b.server.url);
    b.server.add_peer("a", &a.server.url);
    wait_for_equal(&[&a, &b]);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for site in [&a, &b] {
        assert!(site.holds("match/only-a", b"a") && site.holds("match/only-b", b"b"));
        let shown = site.server.get("match/1");
        assert_eq!(shown.header("samestate-conflicts"), "1", "{shown:?}");
        let url = site.server.at("conflicts");
        let listed = send(Method::GET, &url, &[], Vec::new()).json();
        let conflicts = listed["conflicts"].as_array().unwrap();
        assert_eq!(conflicts.len(), 1, "{listed}");
        assert_eq!(conflicts[0]["id"], "match/1");
        assert_eq!(conflicts[0]["etag"], shown.header("etag"));
        for version in conflicts[0]["versions"].as_array().unwrap() {
            let hash = version["content_hash"].as_str().unwrap();
            kept.push(site.server.get(&format!("match/1?version={hash}")).body);
        }
    }
    kept.sort();
    let both = [
        &b"on the other side"[..],
        b"on the other side",
        b"on this side",
        b"on this side",
    ];
    assert_eq!(kept, both);

    let tag = a.server.get("match/1").header("etag").to_owned();
    let url = b.server.at("states/match/1");
    let resolved = send(
        Method::PUT,
        &url,
        &[("if-match", &tag)],
        b"resolved".to_vec(),
    );
    assert_eq!(resolved.status, 200, "{resolved:?}");
    wait_until("a has the resolution", || a.holds("match/1", b"resolved"));
    wait_for_equal(&[&a, &b]);
    for site in [&a, &b] {
        assert_eq!(
            site.server.get("match/1").header("samestate-conflicts"),
            "0"
        );
        let listed = send(Method::GET, &site.server.at("conflicts"), &[], Vec::new()).json();
        assert_eq!(listed["conflicts"], Value::Array(Vec::new()));
    }
}

#[test]
fn a_peer_that_is_down_is_tried_again_until_it_is_up() {
    let port = free_port();
    let a = Site::with_peers(&[&format!("b=http://127.0.0.1:{port}")]);
    a.server.put("match/1", b"waiting");
    wait_until("the peer counts as unreachable", || {
        a.server.peer("b")["health"] == "unreachable"
    });
    assert!(a.server.peer("b")["last_error"].is_string());
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{port}");
    let mut server = Server::start_with(dir.path(), &listen, &[]);
    wait_until("it arrives", || server.get("match/1").body == b"waiting");
    wait_until("the peer is healthy", || {
        a.server.peer("b")["health"] == "healthy"
    });

    server.kill();
    a.server.put("match/2", b"written while it was down");
    let server = Server::start_with(dir.path(), &listen, &[]);
    assert_eq!(server.get("match/1").body, b"waiting");
    wait_until("it catches up", || {
        server.get("match/2").body == b"written while it was down"
    });
    assert_eq!(
        a.server.peer("b")["penalties"],
        0.0,
        "being down is no misbehaviour"
    );
}

/// Every file below a folder by its path.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn a_tree_of_states_travels_through_two_replicas_and_comes_out_as_it_was() {
    let (files, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for entry in game_states()
        .iter()
        .filter(|entry| entry.series == "records")
    {
        let path = files.path().join(&entry.series).join(&entry.name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &entry.bytes).unwrap();
    }
    std::fs::create_dir(files.path().join("saves")).unwrap();
    for (name, series) in [
        ("freeciv", series("freeciv")),
        ("openttd", series("openttd")),
    ] {
        let path = files.path().join("saves").join(name);
        std::fs::write(path, &series[0].bytes).unwrap();
    }
    std::fs::write(files.path().join("empty"), "").unwrap();
    let expected = tree(files.path());
    let (a, b) = (Site::new(), Site::new());
    let from = files.path().to_str().unwrap();
    let imported = succeed_json(&["import", from, "--server", &a.server.url]);
    assert_eq!(imported["states"], expected.len(), "{imported}");
    let again = succeed_json(&["import", from, "--server", &a.server.url]);
    assert_eq!(
        (&again["states"], &again["skipped"]),
        (&0.into(), &expected.len().into())
    );

    let sides = ["--from", &a.server.url, "--to", &b.server.url];
    let report = succeed_json(&[&["sync"], &sides[..]].concat());
    assert_eq!(report["outcome"], "complete", "{report}");
    assert_eq!(report["equal"], true, "{report}");
    assert_eq!(report["states_pulled"], expected.len(), "{report}");
    assert_eq!(report["root_after"], a.server.root().as_str());
    let whole: usize = expected.values().map(Vec::len).sum();
    assert_eq!(report["bytes_if_sent_whole"], whole, "{report}");
    assert!(report["ratio"].as_f64().unwrap() < 1.0, "{report}");
    let again = succeed_json(&[&["sync"], &sides[..]].concat());
    assert_eq!(
        (&again["strategy"], &again["equal"]),
        (&"none".into(), &true.into())
    );

    let to = out.path().to_str().unwrap();
    succeed(&["export", to, "--server", &b.server.url]);
    assert!(
        tree(out.path()) == expected,
        "what comes out is what went in"
    );
    drop((a.dir, b.dir));
}

#[test]
fn a_diff_names_what_differs_and_changes_nothing() {
    let (a, b) = (Site::new(), Site::new());
    for n in 0..30 {
        a.server.put(&format!("match/{n}"), b"same");
    }
    let sides = [&a.server.url[..], &b.server.url];
    succeed(&["sync", "--from", sides[0], "--to", sides[1]]);
    let equal = succeed_json(&["diff", sides[0], sides[1]]);
    assert_eq!(
        (&equal["equal"], &equal["differences"]),
        (&true.into(), &Value::Array(vec![]))
    );
    a.server.put("match/3", b"changed at a");
    a.server.put("only/a", b"new");
    b.server.put("only/b", b"new");
    b.server.delete("match/4");
    let roots = (a.server.root(), b.server.root());
    for strategy in [
        "auto", "cursor", "bloom", "merkle", "list", "sketch", "full",
    ] {
        let arguments = ["diff", sides[0], sides[1], "--strategy", strategy, "--json"];
        let output = crate::harness::process::samestate(&arguments);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["equal"], false, "{strategy}: {found}");
        let differences = found["differences"].as_array().unwrap();
        let rows = differences.iter().map(|row| {
            let sides = (row["left"].is_string(), row["right"].is_string());
            (row["id"].as_str().unwrap(), sides)
        });
        let expected = [
            ("match/3", (true, true)),
            ("match/4", (true, false)),
            ("only/a", (true, false)),
            ("only/b", (false, true)),
        ];
        assert_eq!(rows.collect::<Vec<_>>(), expected, "{strategy}: {found}");
    }
    assert_eq!((a.server.root(), b.server.root()), roots);
}

/// Puts the saves of a series one after the other, each under the id that `id_of` gives it, and
/// fails when a sync that brings the next one moves more than `share` of that save, compressed.
fn next_saves_are_cheap(name: &str, share: f64, id_of: impl Fn(&str) -> String) {
    let (a, b) = (Site::new(), Site::new());
    let order = ["sync", "--from", &a.server.url, "--to", &b.server.url];
    for (number, save) in series(name).into_iter().take(5).enumerate() {
        let id = id_of(&save.name);
        a.server.put(&id, &save.bytes);
        let report = succeed_json(&order);
        assert_eq!(report["equal"], true, "{report}");
        assert_eq!(report["states_pulled"], 1, "{report}");
        assert!(b.holds(&id, &save.bytes));
        if number == 0 {
            continue;
        }
        let sent = report["bytes_sent"].as_u64().unwrap();
        let received = report["bytes_received"].as_u64().unwrap();
        let whole = compress(&save.bytes, 3).unwrap().len();
        let of_whole = (sent + received) as f64 / whole as f64;
        println!("{id}: {} of {whole}: {of_whole:.3}", sent + received);
        assert!(of_whole <= share, "{id}: {of_whole} {report}");
    }
}

#[test]
fn the_next_save_of_a_freeciv_game_moves_a_quarter_at_most() {
    next_saves_are_cheap("freeciv", 0.25, |_| "saves/current".to_owned());
    next_saves_are_cheap("freeciv", 0.25, |name| format!("saves/{name}"));
}

#[test]
fn the_next_save_of_an_openttd_game_moves_half_at_most() {
    next_saves_are_cheap("openttd", 0.5, |_| "saves/current".to_owned());
    next_saves_are_cheap("openttd", 0.5, |name| format!("saves/{name}"));
}
