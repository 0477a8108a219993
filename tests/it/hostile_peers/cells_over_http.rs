//! A server whose sketch never comes to an end when it is taken apart: each session with it fails with its
//! reason, and the third one bans it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use samestate::reconcile::sizing::Size;
use samestate::reconcile::sketch_messages::{
    Answer, Question, read_answer, write_answer, write_question,
};
use samestate::reconcile::strategy::StrategyName;
use samestate::sketch::cell::{Cell, told_all};
use samestate::sketch::estimator::Estimator;
use samestate::sketch::field::P;
use samestate::sketch::key::{Secret, SketchKey};
use samestate::sketch::mapping::Walk;
use samestate::sync::transport::Transport;
use samestate::wire::frame::{open, seal};
use samestate::wire::messages::{CompareRequest, Endpoint, OpenReply};
use serde_json::{Value, json};

use crate::harness::process::Server;
use crate::harness::replica::{Direct, Node};
use crate::hostile_peers::LIMIT;
use crate::hostile_peers::over_http::{post, server, session, tell};

/// Cells in which each place is in every other one of those that it belongs to: what is taken away at one of these
/// comes up in the others with the other sign, and so on for ever. One or two such places may be chance, so many
/// are not.
fn bomb(told: Vec<u8>) -> Vec<u8> {
    // Further cells, which are asked for when the first were too few, are told as they are.
    let Ok(Answer::Cells(..)) = read_answer(&told, 1000, u64::from(P)) else {
        return told;
    };
    let size = Size {
        levels: 0,
        cells: 1024,
    };
    let key = SketchKey::new(&Secret::default());
    let mut cells = vec![Cell::default(); size.cells];
    for place in 12_345..12_545 {
        let spot = key.spot(place);
        let part = Cell::of(place, spot.check, 9);
        for at in Walk::new(spot.seed).below(size.cells).step_by(2) {
            cells[at].add(&part);
        }
    }
    let cells = told_all(&cells, &(0..size.cells));
    write_answer(&Answer::Cells(size, cells))
}

fn lie(endpoint: Endpoint, reply: Vec<u8>) -> Vec<u8> {
    let kind = endpoint.kind();
    match endpoint {
        Endpoint::Open => {
            let (head, told): (OpenReply, Vec<u8>) = open(kind, &reply, LIMIT).unwrap();
            seal(kind, &head, &bomb(told))
        }
        Endpoint::Compare => {
            let ((), told) = open(kind, &reply, LIMIT).unwrap();
            seal(kind, &(), &bomb(told))
        }
        _ => reply,
    }
}

/// Answers one request after the other as the peer does, but for the lie.
fn serve(stream: TcpStream, peer: &mut Direct) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let (mut path, mut length) = (String::new(), 0);
        reader.read_line(&mut path)?;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            let lower = line.to_ascii_lowercase();
            if let Some(number) = lower.strip_prefix("content-length:") {
                length = number.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let name = path
            .split(' ')
            .nth(1)
            .and_then(|path| path.rsplit('/').next());
        let Some(endpoint) = name.and_then(Endpoint::named) else {
            return Ok(());
        };
        let reply = lie(endpoint, peer.call(endpoint, body, LIMIT).unwrap());
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", reply.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(&reply)?;
    }
}

fn liar() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let node = Node::new(2);
        // More than a first question tells, and not so many that a list would be better.
        for number in 0..30 {
            node.put(&format!("match/{number}"), b"what the peer holds");
        }
        let mut peer = Direct::to(&node);
        for stream in listener.incoming().flatten() {
            // A connection that was closed is no concern of ours.
            let _ = serve(stream, &mut peer);
        }
    });
    url
}

/// Waits until a server has a sketch.
fn wait_for_sketch(server: &Server) {
    let session = session(server);
    let head = CompareRequest {
        session,
        strategy: StrategyName::Sketch,
    };
    let question = write_question(&Question::First {
        fingerprint: SketchKey::new(&Secret::default()).fingerprint(),
        levels: 0,
        room: 20,
        counters: Estimator::default().to_short(),
        cells: Vec::new(),
    });
    for _ in 0..600 {
        let reply = tell(server, Endpoint::Compare, &head, &question);
        let ((), told) = open(Endpoint::Compare.kind(), &reply.body, LIMIT).unwrap();
        if told != [0] {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no sketch within half a minute");
}

#[test]
fn a_peer_whose_cells_never_end_is_given_up_and_banned() {
    let (server, _dir) = server();
    wait_for_sketch(&server);
    let (root, url) = (server.root(), liar());
    let order = json!({ "from": url, "pull": true, "strategy": "sketch" }).to_string();
    for attempt in 0..4 {
        let reply = post(&server, "run", order.clone().into_bytes());
        if attempt == 3 {
            assert_eq!(
                (reply.status, &reply.code()[..]),
                (503, "peer_banned"),
                "{reply:?}"
            );
            break;
        }
        assert_eq!(reply.status, 200, "{reply:?}");
        let report: Value = reply.json();
        assert_eq!(report["outcome"], "failed", "{report}");
        let told = report["reason"].as_str().unwrap();
        assert!(told.contains("cells of no set"), "{told}");
        assert_eq!(report["root_after"], root.as_str());
    }
    assert_eq!(server.root(), root);
}
