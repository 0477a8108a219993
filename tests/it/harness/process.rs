//! The real program: `serve` as a child that is killed when the test ends, and single commands.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// How long a start may take on a busy machine before the test gives up.
const START: Duration = Duration::from_secs(60);

/// The program, not yet started, without settings from this process's environment.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_samestate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SAMESTATE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Runs a command to its end.
pub fn samestate(arguments: &[&str]) -> Output {
    let output = program(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// Runs a command that must succeed and returns what it printed.
pub fn succeed(arguments: &[&str]) -> Vec<u8> {
    let output = samestate(arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert_eq!(code, Some(0), "{arguments:?}: {told}");
    output.stdout
}

/// Runs a command with `--json` that must succeed.
pub fn succeed_json(arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    serde_json::from_slice(&succeed(&arguments)).unwrap()
}

/// A port that nobody listens on right now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A running `samestate serve`.
pub struct Server {
    child: Child,
    stderr: Option<JoinHandle<String>>,
    lines: Receiver<String>,
    /// `http://ADDR`
    pub url: String,
    /// As in the ready line.
    pub replica: String,
    /// As in the ready line.
    pub namespaces: u64,
    /// As in the ready line.
    pub states: u64,
}

impl Server {
    /// Starts a replica on a port of the system's choice.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, "127.0.0.1:0", &[])
    }

    /// Starts a replica on an address, with peers given as `NAME=URL`.
    pub fn start_with(dir: &Path, listen: &str, peers: &[&str]) -> Self {
        let peers = peers.iter().flat_map(|peer| ["--peer", peer]);
        Self::start_on(dir, listen, peers.collect())
    }

    /// Starts a replica with more flags.
    pub fn start_having(dir: &Path, flags: &[&str]) -> Self {
        Self::start_on(dir, "127.0.0.1:0", flags.to_vec())
    }

    /// Starts a replica on an address with more flags.
    pub fn start_on(dir: &Path, listen: &str, flags: Vec<&str>) -> Self {
        let dir = dir.to_str().unwrap();
        let arguments = [vec!["serve", "--data", dir, "--listen", listen], flags].concat();
        let mut child = program(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = told.read_to_string(&mut text);
            text
        });
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server = Self {
            child,
            stderr: Some(stderr),
            lines,
            url: String::new(),
            replica: String::new(),
            namespaces: 0,
            states: 0,
        };
        match server.lines.recv_timeout(START) {
            Ok(line) => server.read_ready_line(&line),
            Err(error) => {
                let told = server.kill();
                panic!("{arguments:?} did not get ready ({error}): {told}");
            }
        }
        server
    }

    /// `listening on http://ADDR replica=ID namespaces=N states=N`
    fn read_ready_line(&mut self, line: &str) {
        let rest = line.strip_prefix("listening on ").unwrap_or_default();
        let words: Vec<&str> = rest.split(' ').collect();
        let [url, replica, namespaces, states] = words[..] else {
            panic!("not a ready line: {line:?}");
        };
        assert!(url.starts_with("http://127.0.0.1:"), "{line:?}");
        let value = |word: &str, name: &str| {
            let value = word.strip_prefix(name).map(str::to_owned);
            value.unwrap_or_else(|| panic!("no {name} in {line:?}"))
        };
        url.clone_into(&mut self.url);
        self.replica = value(replica, "replica=");
        self.namespaces = value(namespaces, "namespaces=").parse().unwrap();
        self.states = value(states, "states=").parse().unwrap();
        assert_eq!(self.replica.len(), 16, "{line:?}");
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would end the process, and returns what it wrote to stderr.
    pub fn kill(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let stderr = self.stderr.take();
        stderr.map_or_else(String::new, |thread| thread.join().unwrap())
    }

    /// True until it was killed or has ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to stop, and returns how it ended and what it wrote to stderr and, behind the ready
    /// line, to stdout.
    pub fn terminate(mut self) -> (ExitStatus, String, Vec<String>) {
        let signal = format!("kill -TERM {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &signal]).status().unwrap();
        assert!(sent.success());
        let status = self.child.wait().unwrap();
        let stderr = self.stderr.take().unwrap().join().unwrap();
        (status, stderr, self.lines.iter().collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let told = self.kill();
        if std::thread::panicking() {
            println!("--- {} wrote:\n{told}", self.url);
        }
    }
}
