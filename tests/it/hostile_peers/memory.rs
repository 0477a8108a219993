//! Many who ask at once for what is large: the answers are made one after the other, in the memory that
//! is set aside for answers.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use samestate::types::hash::{ContentHash, StateKey};
use samestate::wire::frame::seal;
use samestate::wire::healing_messages::{ContentWant, ContentsRequest};
use samestate::wire::messages::Endpoint;

use crate::harness::Rng;
use crate::harness::process::Server;
use crate::harness::replica::id;

const SIZE: usize = 8 << 20;
const ASKERS: usize = 24;

/// Most bytes that a process has had in memory.
fn peak(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse::<u64>().unwrap() << 10
}

/// Asks, and reads the answer without keeping it: its status, and how many bytes came.
fn ask(address: &str, request: &[u8]) -> (u16, usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let (mut buffer, mut came, mut status) = (vec![0; 64 << 10], 0, 0);
    loop {
        let read = stream.read(&mut buffer).unwrap();
        if came == 0 {
            status = String::from_utf8_lossy(&buffer[9..12]).parse().unwrap();
        }
        came += read;
        if read == 0 {
            return (status, came);
        }
    }
}

#[test]
fn answers_with_large_states_are_made_in_the_memory_that_there_is_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_having(dir.path(), &["--in-flight-bytes", "64MiB"]);
    let bytes = Rng::seeded(1).bytes(SIZE);
    server.put("world", &bytes);
    let head = ContentsRequest {
        wants: vec![ContentWant {
            state: StateKey::of(&id("world")).prefix64(),
            content: ContentHash::of(&bytes),
        }],
    };
    let frame = seal(Endpoint::Contents.kind(), &head, &[]);
    let mut request = format!(
        "POST /v1/ns/default/sync/contents HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        server.address(),
        frame.len()
    )
    .into_bytes();
    request.extend(frame);
    let (before, address) = (peak(&server), server.address());
    let answers: Vec<(u16, usize)> = thread::scope(|scope| {
        let ask = || ask(address, &request);
        let asked: Vec<_> = (0..ASKERS).map(|_| scope.spawn(ask)).collect();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    let (given, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == 200);
    assert!(given.iter().all(|(_, came)| *came > SIZE), "{answers:?}");
    // On a slow machine some wait for too long.
    assert!(
        refused.iter().all(|(status, _)| *status == 503),
        "{answers:?}"
    );
    assert!(!given.is_empty());
    let grown = peak(&server).saturating_sub(before);
    assert!(grown < (ASKERS * SIZE) as u64, "grown by {grown} bytes");
}
