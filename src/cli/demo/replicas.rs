//! Replicas as processes of their own: started, killed, started again, and never left behind.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cli::demo::api::Api;
use crate::cli::demo::error::DemoError;
use crate::cli::error::{CliError, file_error};
use crate::config::process::neutral_environment;

/// Longest time until a replica serves.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest line that says so.
const READY_LINE_MAX: u64 = 1024;
/// How much of a log is shown when its replica failed.
const LOG_LINES: usize = 3;
/// How much of its end is read for that.
const LOG_BYTES: usize = 4096;

/// A process that ends with the value.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a replica says when it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens, `HOST:PORT`.
    pub address: String,
    /// Its replica id.
    pub replica: String,
    /// States in all its namespaces.
    pub states: u64,
}

/// A running replica.
#[derive(Debug)]
pub struct Replica {
    /// What it is called here.
    pub name: &'static str,
    /// Speaks to it.
    pub api: Api,
    /// What it said when it came up.
    pub ready: Ready,
    /// From the start of the process to that, in seconds.
    pub seconds_to_ready: f64,
    /// How many processes it has had.
    pub life: u32,
    home: Home,
    process: Process,
    killed: bool,
}

/// Where replicas live, and what they run.
#[derive(Debug, Clone)]
struct Home {
    program: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl Replica {
    /// Starts a replica below `folder` on a free port of the loopback interface.
    ///
    /// # Errors
    /// [`DemoError::Replica`] when it does not come up.
    pub async fn start(
        program: &Path,
        folder: &Path,
        name: &'static str,
    ) -> Result<Self, DemoError> {
        let home = Home {
            program: program.to_owned(),
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
        };
        Self::spawn(name, home, "127.0.0.1:0", &[], 1).await
    }

    /// Where it listens, as others reach it.
    pub fn url(&self) -> String {
        format!("http://{}", self.ready.address)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.home.data
    }

    /// Ends it the way a power cut would (SIGKILL): nothing is flushed or said.
    ///
    /// # Errors
    /// [`CliError::File`] when the system does not let us.
    pub fn kill(&mut self) -> Result<(), CliError> {
        self.killed = true;
        let killed = self.process.0.kill().and_then(|()| self.process.0.wait());
        killed
            .map(drop)
            .map_err(file_error("kill", &self.home.program))
    }

    /// Starts it again with the same data at the same address, with these peers from the start.
    ///
    /// # Errors
    /// [`DemoError::Replica`] when it does not come up.
    pub async fn restart(&mut self, peers: &[(&str, String)]) -> Result<(), DemoError> {
        let (home, address) = (self.home.clone(), self.ready.address.clone());
        *self = Self::spawn(self.name, home, &address, peers, self.life + 1).await?;
        Ok(())
    }

    /// Fails when it has ended without being told to.
    ///
    /// # Errors
    /// [`DemoError::Replica`].
    pub fn check(&mut self) -> Result<(), DemoError> {
        match self.process.0.try_wait() {
            Ok(Some(status)) if !self.killed => {
                Err(self.home.failure(self.name, format!("ended: {status}")))
            }
            _ => Ok(()),
        }
    }

    async fn spawn(
        name: &'static str,
        home: Home,
        listen: &str,
        peers: &[(&str, String)],
        life: u32,
    ) -> Result<Self, DemoError> {
        let started = Instant::now();
        let mut process = Process(home.command(listen, peers)?);
        let line = match process.0.stdout.take() {
            Some(stdout) => timeout(START_TIMEOUT, first_line(stdout)?).await,
            None => Ok(Ok(String::new())),
        };
        let seconds_to_ready = started.elapsed().as_secs_f64();
        let ready = match line {
            Err(_) => Err(format!("said nothing for {} s", START_TIMEOUT.as_secs())),
            Ok(Err(_)) => Err("cannot be read from".to_owned()),
            // Nothing more comes from it, because it is about to end.
            Ok(Ok(line)) if line.is_empty() => Err(process.0.wait().map_or_else(
                |error| format!("did not start: {error}"),
                |status| format!("did not start: {status}"),
            )),
            Ok(Ok(line)) => parse_ready(&line)
                .ok_or_else(|| format!("did not say that it is ready but {:?}", line.trim_end())),
        };
        let ready = ready.map_err(|what| home.failure(name, what))?;
        Ok(Self {
            name,
            api: Api::new(&format!("http://{}", ready.address))?,
            ready,
            seconds_to_ready,
            life,
            home,
            process,
            killed: false,
        })
    }
}

impl Home {
    fn command(&self, listen: &str, peers: &[(&str, String)]) -> Result<Child, CliError> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.map_err(file_error("open", &self.log))?;
        let peers = peers.iter().map(|(name, url)| format!("{name}={url}"));
        let peers = peers.flat_map(|peer| ["--peer".into(), OsString::from(peer)]);
        Command::new(&self.program)
            .arg("serve")
            .arg("--data")
            .arg(&self.data)
            .args(["--listen", listen])
            .args(peers)
            .env_clear()
            .envs(neutral_environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(file_error("run", &self.program))
    }

    fn failure(&self, name: &'static str, what: String) -> DemoError {
        DemoError::Replica {
            name,
            what,
            end: last_lines(&self.log),
            log: self.log.clone(),
        }
    }
}

/// The first line that a process prints, empty when it ends before.
fn first_line(stdout: ChildStdout) -> Result<oneshot::Receiver<String>, CliError> {
    let (sender, receiver) = oneshot::channel();
    let read = move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        // A line that cannot be read is as good as none.
        let _ = stdout.by_ref().take(READY_LINE_MAX).read_line(&mut line);
        let _ = sender.send(line);
        // A replica that has more to say must not find that nobody listens.
        let _ = io::copy(&mut stdout, &mut io::sink());
    };
    let thread = std::thread::Builder::new().name("replica-output".to_owned());
    let spawned = thread.spawn(read);
    spawned.map_err(|error| CliError::Start(error.to_string()))?;
    Ok(receiver)
}

fn parse_ready(line: &str) -> Option<Ready> {
    let mut words = line
        .strip_prefix("listening on http://")?
        .split_ascii_whitespace();
    let address = words.next()?.to_owned();
    let (mut replica, mut states) = (None, None);
    for word in words {
        match word.split_once('=')? {
            ("replica", id) => replica = Some(id.to_owned()),
            ("states", count) => states = count.parse().ok(),
            _ => {}
        }
    }
    Some(Ready {
        address,
        replica: replica?,
        states: states?,
    })
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let end = text
        .get(text.len().saturating_sub(LOG_BYTES)..)
        .unwrap_or_default();
    let end = String::from_utf8_lossy(end);
    let lines: Vec<&str> = end.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines.get(from..).unwrap_or_default().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_understood() {
        let line = "listening on http://127.0.0.1:4711 replica=00ff namespaces=1 states=79 new=x\n";
        let ready = Ready {
            address: "127.0.0.1:4711".to_owned(),
            replica: "00ff".to_owned(),
            states: 79,
        };
        assert_eq!(parse_ready(line), Some(ready));
        for other in [
            "",
            "listening on http://h:1",
            "error: no\n",
            "listening on http://h:1 x",
        ] {
            assert_eq!(parse_ready(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        assert_eq!(last_lines(&log), "");
        fs::write(&log, "one\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(last_lines(&log), "two | three | four");
        fs::write(&log, "x".repeat(10_000)).unwrap();
        assert_eq!(last_lines(&log).len(), LOG_BYTES);
    }
}
