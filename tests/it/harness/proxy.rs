//! A TCP proxy that counts the bytes a sender puts on the wire, and stops them at a given count so
//! that something can be done at exactly that point.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How long a sender has to be silent until nothing more is taken to be on its way.
const SILENCE: Duration = Duration::from_millis(300);

/// Which side's bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Those of whoever connects: requests.
    Client,
    /// Those of whoever is connected to: answers.
    Server,
}

#[derive(Default)]
struct Gate {
    passed: u64,
    stop_at: Option<u64>,
}

#[derive(Default)]
struct Shared {
    gate: Mutex<Gate>,
    changed: Condvar,
}

/// A running proxy. Its threads end with the connections.
pub struct Proxy {
    shared: Arc<Shared>,
    /// `http://ADDR`
    pub url: String,
}

impl Proxy {
    /// A proxy in front of `HOST:PORT`.
    pub fn start(upstream: &str, counted: Counted) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::<Shared>::default();
        let (ours, upstream) = (Arc::clone(&shared), upstream.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Ok(server) = TcpStream::connect(&upstream) {
                    connect(&client, &server, counted, &ours);
                }
            }
        });
        Self { shared, url }
    }

    /// Bytes that were counted so far, those included that did not arrive.
    pub fn passed(&self) -> u64 {
        self.shared.gate.lock().unwrap().passed
    }

    /// Lets bytes through up to this count, and then no more.
    pub fn stop_at(&self, count: u64) {
        self.shared.gate.lock().unwrap().stop_at = Some(count);
    }

    /// Waits until the proxy has stopped, as long as `go_on` says so.
    pub fn wait_until_stopped(&self, mut go_on: impl FnMut() -> bool) -> bool {
        let mut gate = self.shared.gate.lock().unwrap();
        while gate.stop_at.is_some_and(|stop| gate.passed < stop) {
            let wait = Duration::from_millis(50);
            gate = self.shared.changed.wait_timeout(gate, wait).unwrap().0;
            if !go_on() {
                return false;
            }
        }
        true
    }

    /// Lets everything through again, and waits until nothing is on its way any more.
    pub fn let_go(&self) {
        self.shared.gate.lock().unwrap().stop_at = None;
        self.shared.changed.notify_all();
        let mut before = None;
        while before != Some(self.passed()) {
            before = Some(self.passed());
            thread::sleep(SILENCE);
        }
    }
}

fn connect(client: &TcpStream, server: &TcpStream, counted: Counted, shared: &Arc<Shared>) {
    for (from, to, side) in [
        (client, server, Counted::Client),
        (server, client, Counted::Server),
    ] {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let shared = (side == counted).then(|| Arc::clone(shared));
        thread::spawn(move || carry(from, to, shared.as_deref()));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, shared: Option<&Shared>) {
    let (mut piece, mut is_open) = (vec![0; 16 << 10], true);
    while let Ok(length @ 1..) = from.read(&mut piece) {
        if let Some(shared) = shared {
            let mut gate = shared.gate.lock().unwrap();
            gate.passed += length as u64;
            shared.changed.notify_all();
            while gate.stop_at.is_some_and(|stop| gate.passed >= stop) {
                gate = shared.changed.wait(gate).unwrap();
            }
        }
        // What the sender still has on its way counts although nobody takes it.
        is_open = is_open && to.write_all(&piece[..length]).is_ok();
        if !is_open {
            let _ = from.set_read_timeout(Some(SILENCE / 2));
        }
    }
    for end in [&from, &to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}
