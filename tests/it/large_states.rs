//! Large states between real servers: chunk by chunk, kept as they arrive, whatever happens to the
//! receiver on the way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;

use reqwest::Method;
use samestate::delta::compress::compress;
use samestate::store::body::{Body, Form};
use samestate::types::hash::ContentHash;
use serde_json::Value;
use tempfile::TempDir;

use crate::damage::rows::{Hurt, hurt_row};
use crate::harness::Rng;
use crate::harness::http::{send, try_send, wait_until};
use crate::harness::process::{Server, free_port, succeed};
use crate::harness::proxy::{Counted, Proxy};
use crate::harness::replica::runtime;

const KILLS: u64 = 5;

/// Flags of servers that take large states.
const FLAGS: &[&str] = &["--max-state-bytes", "1GiB"];

/// Which side runs the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Pull,
    Push,
}

/// A receiver at an address that it keeps over its starts.
struct Receiver {
    server: Server,
    dir: TempDir,
    listen: String,
}

impl Receiver {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = format!("127.0.0.1:{}", free_port());
        let server = start(dir.path(), &listen);
        Self {
            server,
            dir,
            listen,
        }
    }

    fn start_again(&mut self) {
        self.server = start(self.dir.path(), &self.listen);
    }
}

fn start(dir: &Path, listen: &str) -> Server {
    Server::start_on(dir, listen, FLAGS.to_vec())
}

/// A sender, a receiver and the wire between them.
struct Link {
    sender: String,
    proxy: Proxy,
    direction: Direction,
}

impl Link {
    fn new(sender: &Server, receiver: &Receiver, direction: Direction) -> Self {
        let proxy = match direction {
            Direction::Pull => Proxy::start(sender.address(), Counted::Server),
            Direction::Push => Proxy::start(&receiver.listen, Counted::Client),
        };
        Self {
            sender: sender.url.clone(),
            proxy,
            direction,
        }
    }

    /// Runs a session; `None` when whoever runs it was killed.
    fn session(&self, receiver: &str) -> Option<Value> {
        let (at, direction) = match self.direction {
            Direction::Pull => (receiver, "pull"),
            Direction::Push => (&self.sender[..], "push"),
        };
        let order = format!(r#"{{"from":"{}","{direction}":true}}"#, self.proxy.url);
        let url = format!("{at}/v1/ns/default/sync/run");
        let sent = try_send(Method::POST, &url, &[], order.into_bytes());
        Some(runtime().block_on(sent).ok()?.json())
    }

    /// Kills the receiver once this many bytes are on the wire, and starts it again.
    fn kill_at(&self, receiver: &mut Receiver, count: u64) {
        self.proxy.stop_at(count);
        let url = receiver.server.url.clone();
        thread::scope(|scope| {
            let session = scope.spawn(|| self.session(&url));
            let stopped = self.proxy.wait_until_stopped(|| !session.is_finished());
            assert!(
                stopped,
                "the session ended at {}: {:?}",
                self.proxy.passed(),
                session.join()
            );
            receiver.server.kill();
            self.proxy.let_go();
        });
        receiver.start_again();
    }
}

/// Bytes that do not compress, so that the wire shows what is sent.
fn noise(length: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn survives_kills(length: usize, direction: Direction, seed: u64) {
    let mut rng = Rng::seeded(seed);
    let state = noise(length, &mut rng);
    let dir = tempfile::tempdir().unwrap();
    let sender = start(dir.path(), "127.0.0.1:0");
    sender.put("world", &state);

    let undisturbed = Receiver::new();
    let link = Link::new(&sender, &undisturbed, direction);
    let report = link.session(&undisturbed.server.url).unwrap();
    assert_eq!(report["outcome"], "complete", "{report}");
    let once = link.proxy.passed();
    assert!(
        once >= length as u64,
        "{once} bytes for a state of {length}"
    );

    let mut receiver = Receiver::new();
    let link = Link::new(&sender, &receiver, direction);
    for kill in 0..KILLS {
        let share = length as u64 / (KILLS + 1);
        let at = share * kill + share / 4 + rng.below((share / 2) as usize) as u64;
        link.kill_at(&mut receiver, at.max(link.proxy.passed() + 1));
    }
    let report = link.session(&receiver.server.url).unwrap();
    assert_eq!(report["outcome"], "complete", "{report}");
    assert_eq!(report["equal"], true, "{report}");
    let all = link.proxy.passed();
    println!("{direction:?}: {once} bytes undisturbed, {all} with {KILLS} kills of the receiver");
    assert!(all * 100 <= once * 105, "{all} bytes where {once} would do");

    assert!(receiver.server.get("world").body == state);
    receiver.server.kill();
    succeed(&["verify", "--data", receiver.dir.path().to_str().unwrap()]);
}

#[test]
fn a_pull_goes_on_where_it_was_when_the_receiver_is_killed() {
    survives_kills(24 << 20, Direction::Pull, 1);
}

#[test]
fn a_push_goes_on_where_it_was_when_the_receiver_is_killed() {
    survives_kills(24 << 20, Direction::Push, 2);
}

/// `cargo test --release --test it -- --ignored large_states::of_200_mb --nocapture`
#[test]
#[ignore = "takes minutes and 2 GB of disk"]
fn of_200_mb() {
    survives_kills(200_000_000, Direction::Pull, 3);
    survives_kills(200_000_000, Direction::Push, 4);
}

#[test]
fn reading_a_large_state_gives_its_bytes_and_any_part_of_them() {
    let mut rng = Rng::seeded(5);
    let state = noise(9_000_000, &mut rng);
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), "127.0.0.1:0");
    server.put("world", &state);
    assert!(server.get("world").body == state);
    let url = server.at("states/world");
    for _ in 0..20 {
        let start = rng.below(state.len());
        let end = start + 1 + rng.below((state.len() - start).min(600_000));
        let range = format!("bytes={start}-{}", end - 1);
        let reply = send(Method::GET, &url, &[("range", &range)], Vec::new());
        assert_eq!(reply.status, 206, "{range}");
        assert!(reply.body == state[start..end], "{range}");
        let told = format!("{range}/{}", state.len()).replace('=', " ");
        assert_eq!(reply.header("content-range"), told);
    }
    let tail = send(Method::GET, &url, &[("range", "bytes=-5")], Vec::new());
    assert!(tail.body == state[state.len() - 5..]);
}

/// Reads the body of an answer until the connection ends, however it does.
fn read_until_the_end(address: &str, path: &str, range: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{range}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = Vec::new();
    // A connection that is reset has said all that it does, too.
    let _ = stream.read_to_end(&mut reply);
    let end = reply.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(reply[..end].to_vec()).unwrap();
    (head, reply[end + 4..].to_vec())
}

#[test]
fn damage_on_the_way_ends_the_answer_and_gives_no_wrong_byte() {
    let mut rng = Rng::seeded(6);
    let state = noise(9_000_000, &mut rng);
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), "127.0.0.1:0");
    server.put("world", &state);
    server.terminate();
    let Form::Chunks(chunks) = Body::new(&state).form else {
        panic!("not in chunks");
    };
    let hurt = chunks.len() / 2;
    let before: usize = chunks[..hurt]
        .iter()
        .map(|chunk| chunk.length as usize)
        .sum();
    hurt_row(dir.path(), "chunks", &chunks[hurt].hash.0, Hurt::Flip);

    let server = start(dir.path(), "127.0.0.1:0");
    let read = |range: &str| {
        let path = "/v1/ns/default/states/world";
        read_until_the_end(server.address(), path, range)
    };
    let (head, body) = read("");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-length: 9000000"), "{head}");
    assert!(
        body.len() <= before,
        "{} bytes, the damage is at {before}",
        body.len()
    );
    assert!(body == state[..body.len()]);
    let (head, body) = read(&format!("range: bytes={before}-{}\r\n", before + 10));
    assert!(head.starts_with("HTTP/1.1 500"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("damaged"));
    let (head, body) = read(&format!("range: bytes=0-{}\r\n", before - 1));
    assert!(head.starts_with("HTTP/1.1 206"), "{head}");
    assert!(body == state[..before]);
}

fn faults(server: &Server, name: &str) -> Option<u64> {
    let url = format!("{}/v1/stats", server.url);
    send(Method::GET, &url, &[], Vec::new()).json()[name].as_u64()
}

#[test]
fn a_large_state_is_healed_chunk_by_chunk() {
    const LENGTH: usize = 9_000_000;
    let mut rng = Rng::seeded(9);
    let state = noise(LENGTH, &mut rng);
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let peer = start(dirs[1].path(), "127.0.0.1:0");
    peer.put("world", &state);
    let Form::Chunks(chunks) = Body::new(&state).form else {
        panic!("not in chunks");
    };
    let content = ContentHash::of(&state).0;
    for (turn, is_list) in [false, true].into_iter().enumerate() {
        let server = start(dirs[0].path(), "127.0.0.1:0");
        server.add_peer("peer", &peer.url);
        wait_until("both hold the same", || server.root() == peer.root());
        let root = server.root();
        server.terminate();
        let (first, last) = (&chunks[3].hash.0, &chunks[chunks.len() - 1].hash.0);
        hurt_row(dirs[0].path(), "chunks", first, Hurt::Flip);
        hurt_row(dirs[0].path(), "chunks", last, Hurt::Remove);
        if is_list {
            hurt_row(dirs[0].path(), "contents", &content, Hurt::Remove);
        }

        let proxy = Proxy::start(peer.address(), Counted::Server);
        let server = Server::start_having(
            dirs[0].path(),
            &["--scrub-mib-per-second", "0", FLAGS[0], FLAGS[1]],
        );
        server.add_peer("near", &proxy.url);
        // A read finds it.
        read_until_the_end(server.address(), "/v1/ns/default/states/world", "");
        wait_until("it is healed", || {
            faults(&server, "faults_healed") == Some(1) && faults(&server, "faults_open") == Some(0)
        });
        assert!(server.get("world").body == state, "turn {turn}");
        assert_eq!(server.root(), root);
        // Two chunks, and the list of all of them.
        let passed = proxy.passed();
        println!("healed with {passed} bytes, is_list {is_list}");
        assert!(passed < LENGTH as u64 / 50, "{passed} bytes");
        server.terminate();
        succeed(&["verify", "--data", dirs[0].path().to_str().unwrap()]);
    }
}

/// Puts with `transfer-encoding: chunked` as far as the pieces go, and ends there or breaks off.
fn put_in_pieces(server: &Server, id: &str, bytes: &[u8], ends: bool) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "PUT /v1/ns/default/states/{id} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for piece in bytes.chunks(300_000) {
        let length = format!("{:x}\r\n", piece.len());
        let sent = [length.as_bytes(), piece, b"\r\n"].concat();
        stream.write_all(&sent).unwrap();
    }
    if !ends {
        return String::new();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn a_large_state_is_stored_while_it_arrives() {
    let mut rng = Rng::seeded(7);
    let state = noise(9_000_000, &mut rng);
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), "127.0.0.1:0");
    let receipt = server.put("declared", &state);
    assert_eq!(receipt["content_hash"], ContentHash::of(&state).to_hex());
    assert_eq!(receipt["size"], state.len());
    let reply = put_in_pieces(&server, "undeclared", &state, true);
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");

    // Compresses to a hundredth, so that most of it comes out of little.
    let plain = b"the same line again and again\n".repeat(300_000);
    let compressed = compress(&plain, 3).unwrap();
    let mut slow = compress(&state, 3).unwrap();
    slow.extend_from_slice(&compressed);
    let both = [&state[..], &plain].concat();
    for (id, body, expected) in [
        ("packed", &compressed, &plain),
        ("two frames", &slow, &both),
    ] {
        let url = server.at(&format!("states/{}", id.replace(' ', "%20")));
        let coded = [("content-encoding", "zstd")];
        let reply = send(Method::PUT, &url, &coded, body.clone());
        assert_eq!(reply.status, 201, "{id}: {reply:?}");
        assert!(
            server.get(&id.replace(' ', "%20")).body == *expected,
            "{id}"
        );
    }
    let cut_off = send(
        Method::PUT,
        &server.at("states/cut"),
        &[("content-encoding", "zstd")],
        slow[..slow.len() - 9].to_vec(),
    );
    assert_eq!(
        (cut_off.status, &cut_off.code()[..]),
        (400, "bad_content_encoding")
    );

    let url = server.at("states/declared");
    let other = noise(5_000_000, &mut rng);
    let refused = send(Method::PUT, &url, &[("if-none-match", "*")], other.clone());
    assert_eq!(refused.status, 412, "{refused:?}");
    assert!(server.get("declared").body == state);
    server.put("declared", &other);
    let order = format!(r#"{{"version":"{}"}}"#, ContentHash::of(&state));
    let url = server.at("restore/declared");
    let restored = send(Method::POST, &url, &[], order.into_bytes());
    assert_eq!(restored.status, 200, "{restored:?}");
    assert!(server.get("declared").body == state);
    assert!(server.get("undeclared").body == state);

    wait_until("nothing is left behind", || staged(&server) == 0);
    server.terminate();
    succeed(&["verify", "--data", dir.path().to_str().unwrap()]);
}

#[test]
fn an_upload_that_is_broken_off_leaves_nothing() {
    let mut rng = Rng::seeded(8);
    let state = noise(9_000_000, &mut rng);
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(dir.path(), "127.0.0.1:0");
    put_in_pieces(&server, "world", &state[..7_000_000], false);
    wait_until("the upload is given up", || staged(&server) == 0);
    server.kill();
    succeed(&["verify", "--data", dir.path().to_str().unwrap()]);
    let server = start(dir.path(), "127.0.0.1:0");
    assert_eq!((server.count(), staged(&server)), (0, 0));
}

/// How many large states are on their way in.
fn staged(server: &Server) -> u64 {
    let url = format!("{}/v1/stats", server.url);
    let stats = send(Method::GET, &url, &[], Vec::new()).json();
    stats["staged"].as_u64().unwrap()
}
