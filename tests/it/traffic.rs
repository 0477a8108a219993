//! What is said about bytes is what went through the sockets: compared with a proxy that counts.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::http::{send, wait_until};
use crate::harness::process::Server;
use crate::harness::{Rng, series};

/// Passes bytes on to a server, and counts them.
struct Proxy {
    url: String,
    to_server: Arc<AtomicU64>,
    to_client: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Proxy {
    fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            to_server: Arc::default(),
            to_client: Arc::default(),
            connections: Arc::default(),
        };
        let address = server.url.trim_start_matches("http://").to_owned();
        let (up, down) = (Arc::clone(&proxy.to_server), Arc::clone(&proxy.to_client));
        let connections = Arc::clone(&proxy.connections);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(&address).unwrap();
                pass(&client, &server, &up);
                pass(&server, &client, &down);
            }
        });
        proxy
    }

    /// Bytes to the server, and back.
    fn counted(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        (read(&self.to_server), read(&self.to_client))
    }
}

/// Counts before it passes on: who has the bytes finds them counted.
fn pass(from: &TcpStream, to: &TcpStream, count: &Arc<AtomicU64>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let count = Arc::clone(count);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            count.fetch_add(bytes as u64, Ordering::SeqCst);
            if to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        // Either side may be gone already.
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn get(server: &Server, path: &str) -> Value {
    let reply = send(
        Method::GET,
        &format!("{}{path}", server.url),
        &[],
        Vec::new(),
    );
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn sync(server: &Server, from: &str, push: bool) -> Value {
    let url = format!("{}/v1/ns/default/sync/run", server.url);
    let order = json!({"from": from, "pull": true, "push": push});
    let reply = send(Method::POST, &url, &[], order.to_string().into_bytes());
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn both(value: &Value) -> (u64, u64) {
    let bytes = |name: &str| value[name].as_u64().unwrap();
    (bytes("bytes_sent"), bytes("bytes_received"))
}

#[test]
fn sessions_cost_what_went_through_their_sockets() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (Server::start(here.path()), Server::start(there.path()));
    let proxy = Proxy::before(&a);
    let (mut rng, mut whole) = (Rng::seeded(7), 0);
    for number in 0..300 {
        let len = 1 + rng.below(2000);
        let state = rng.bytes(len);
        whole += state.len() as u64;
        a.put(&format!("unit/{number}"), &state);
    }
    let save = series("freeciv").swap_remove(0).bytes.clone();
    whole += save.len() as u64;
    a.put("save", &save);

    let first = sync(&b, &proxy.url, false);
    assert_eq!(both(&first), proxy.counted(), "{first}");
    assert_eq!(first["bytes_if_sent_whole"], whole);
    let (sent, received) = both(&first);
    let ratio = first["ratio"].as_f64().unwrap();
    assert!((ratio - (sent + received) as f64 / whole as f64).abs() < 1e-9);
    let phases = first["phases"].as_array().unwrap().iter().map(both);
    let summed = phases.fold((0, 0), |sum, phase| (sum.0 + phase.0, sum.1 + phase.1));
    assert_eq!(summed, (sent, received));

    // Another one, which pushes too and uses the connections of the first.
    let pushed = rng.bytes(5000);
    b.put("from b", &pushed);
    let second = sync(&b, &proxy.url, true);
    let (more_sent, more_received) = both(&second);
    let both_sessions = (sent + more_sent, received + more_received);
    assert_eq!(both_sessions, proxy.counted(), "{second}");
    assert_eq!(second["bytes_if_sent_whole"], 5000);
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 1);

    let stats = get(&b, "/v1/stats");
    assert_eq!(both(&stats), both_sessions, "{stats}");
    assert_eq!(
        (&stats["sessions"], &stats["sessions_failed"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(stats["bytes_if_sent_whole"], whole + 5000);
    let peer = &stats["transferred_by_peer"][&proxy.url];
    assert_eq!(both(peer), both_sessions, "{stats}");
    let peers = &stats["sockets"]["peers"];
    assert_eq!(peers["sent"], both_sessions.0);
    assert_eq!(peers["received"], both_sessions.1);
    // The other side has counted the same, and what this test has asked of it besides.
    let served = &get(&a, "/v1/stats")["sockets"]["http"];
    assert!(served["received"].as_u64().unwrap() > both_sessions.0 + whole);
    assert!(served["sent"].as_u64().unwrap() > both_sessions.1);
}

#[test]
fn a_session_that_fails_counts_what_it_cost() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nnonsense of 20 bytes";
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut buffer) = (0, [0; 64 << 10]);
        request += stream.read(&mut buffer).unwrap();
        stream.write_all(answer).unwrap();
        // The rest, if any, until the other side has enough.
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            request += bytes;
        }
        request as u64
    });
    let report = sync(&server, &url, false);
    assert_eq!(report["outcome"], "failed", "{report}");
    let stats = get(&server, "/v1/stats");
    assert_eq!(
        (&stats["sessions"], &stats["sessions_failed"]),
        (&json!(1), &json!(1))
    );
    drop(server);
    let request = asked.join().unwrap();
    assert_eq!(both(&report), (request, answer.len() as u64), "{report}");
}

#[test]
fn a_link_is_counted_with_its_polls() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (Server::start(here.path()), Server::start(there.path()));
    let proxy = Proxy::before(&a);
    b.add_peer("a", &proxy.url);
    a.put("match/1", b"1");
    wait_until("b has it", || b.get("match/1").status == 200);
    wait_until("what is counted is what passed", || {
        let before = proxy.counted();
        both(&b.peer("a")) == before && before.1 > 0
    });
    let sessions = &get(&b, "/v1/stats")["transferred_by_peer"][&proxy.url];
    assert!(both(sessions).0 < proxy.counted().0, "{sessions}");
}

#[test]
fn metrics_are_in_the_text_format_of_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.put("match/1", b"12345");
    server.get("match/1");
    server.get("match/2");
    let url = format!("{}/metrics", server.url);
    let reply = send(Method::GET, &url, &[], Vec::new());
    let media_type = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(reply.header("content-type"), media_type);
    let text = String::from_utf8(reply.body).unwrap();
    for sample in [
        "samestate_states{namespace=\"default\"} 1",
        "samestate_state_bytes{namespace=\"default\"} 5",
        "samestate_feed_position{namespace=\"default\"} 1",
        "samestate_http_requests_total{target=\"state\",method=\"PUT\",code=\"2xx\"} 1",
        "samestate_http_requests_total{target=\"state\",method=\"GET\",code=\"2xx\"} 1",
        "samestate_http_requests_total{target=\"state\",method=\"GET\",code=\"4xx\"} 1",
        "samestate_write_queue_length{namespace=\"default\"} 0",
        "samestate_sync_sessions_total{outcome=\"failed\"} 0",
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample}: {text}");
    }
    // A family is introduced once, before its samples, and every sample has a number.
    let mut family = "";
    let mut introduced = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(kind == "counter" || kind == "gauge", "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(!introduced.contains(&name), "{line}");
            introduced.push(name);
            family = name;
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(sample.split('{').next(), Some(family), "{line}");
            assert!(value.parse::<u64>().is_ok(), "{line}");
        }
    }
}
