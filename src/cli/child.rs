//! Child processes of this program: started, killed, and never left behind.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cli::error::{CliError, file_error};
use crate::config::process::neutral_environment;

/// Longest time until a child says that it is ready, unless told otherwise.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest line that says so.
const READY_LINE_MAX: u64 = 1024;
/// How much of a log is shown when its process failed.
const LOG_LINES: usize = 3;
/// How much of its end is read for that.
const LOG_BYTES: usize = 4096;

/// A process that ends with the value.
#[derive(Debug)]
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What to run as a child.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it is called when it is talked about: `replica a`.
    pub name: String,
    /// The file of the program.
    pub program: PathBuf,
    /// What follows on its command line.
    pub arguments: Vec<OsString>,
    /// Where its standard error goes, behind what is there already.
    pub log: PathBuf,
}

/// A running child that said one line when it was ready.
#[derive(Debug)]
pub struct Child {
    /// That line.
    pub line: String,
    /// From the start of the process to that, in seconds.
    pub seconds_to_ready: f64,
    call: Call,
    process: Process,
    killed: bool,
}

impl Call {
    /// `serve` with its data in `data`.
    pub fn serve(name: String, program: &Path, data: &Path, listen: &str, log: &Path) -> Self {
        let arguments = ["serve".as_ref(), "--data".as_ref(), data.as_os_str()];
        let listen = [OsStr::new("--listen"), listen.as_ref()];
        Self {
            name,
            program: program.to_owned(),
            arguments: arguments
                .into_iter()
                .chain(listen)
                .map(OsStr::to_owned)
                .collect(),
            log: log.to_owned(),
        }
    }

    /// Starts the process and waits for its first line.
    ///
    /// # Errors
    /// [`CliError::Child`] when it does not come up.
    pub async fn start(self, patience: Duration) -> Result<Child, CliError> {
        let started = Instant::now();
        let mut process = Process(self.spawn()?);
        let line = match process.0.stdout.take() {
            Some(stdout) => timeout(patience, first_line(stdout)?).await,
            None => Ok(Ok(String::new())),
        };
        let seconds_to_ready = started.elapsed().as_secs_f64();
        let line = match line {
            Err(_) => Err(format!("said nothing for {} s", patience.as_secs())),
            Ok(Err(_)) => Err("cannot be read from".to_owned()),
            // Nothing more comes from it, because it is about to end.
            Ok(Ok(line)) if line.is_empty() => Err(process.0.wait().map_or_else(
                |error| format!("did not start: {error}"),
                |status| format!("did not start: {status}"),
            )),
            Ok(Ok(line)) => Ok(line),
        };
        let line = line.map_err(|what| self.fault(what))?;
        Ok(Child {
            line,
            seconds_to_ready,
            call: self,
            process,
            killed: false,
        })
    }

    fn spawn(&self) -> Result<std::process::Child, CliError> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.map_err(file_error("open", &self.log))?;
        Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(neutral_environment())
            // It stays open as long as we live, which a child can notice.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(file_error("run", &self.program))
    }

    fn fault(&self, what: String) -> CliError {
        CliError::Child {
            name: self.name.clone(),
            what,
            end: last_lines(&self.log),
            log: self.log.clone(),
        }
    }
}

impl Child {
    /// What is wrong with it, and what its log says.
    pub fn fault(&self, what: String) -> CliError {
        self.call.fault(what)
    }

    /// Ends it the way a crash would (SIGKILL): nothing is flushed or said.
    ///
    /// # Errors
    /// [`CliError::File`] when the system does not let us.
    pub fn kill(&mut self) -> Result<(), CliError> {
        self.killed = true;
        let killed = self.process.0.kill().and_then(|()| self.process.0.wait());
        killed
            .map(drop)
            .map_err(file_error("kill", &self.call.program))
    }

    /// Fails when it has ended without being told to.
    ///
    /// # Errors
    /// [`CliError::Child`].
    pub fn check(&mut self) -> Result<(), CliError> {
        match self.process.0.try_wait() {
            Ok(Some(status)) if !self.killed => Err(self.fault(format!("ended: {status}"))),
            _ => Ok(()),
        }
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

impl Ready {
    /// Reads the line of a `serve` that has just come up.
    ///
    /// # Errors
    /// [`CliError::Child`] when it said something else.
    pub fn of(child: &Child) -> Result<Self, CliError> {
        parse_ready(&child.line).ok_or_else(|| {
            let line = child.line.trim_end();
            child.fault(format!("did not say that it is ready but {line:?}"))
        })
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
        // A child that has more to say must not find that nobody listens.
        let _ = io::copy(&mut stdout, &mut io::sink());
    };
    let thread = std::thread::Builder::new().name("child-output".to_owned());
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
