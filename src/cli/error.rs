//! What can go wrong in a client command, in words that tell the user what to do.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::backup::error::BackupError;
use crate::cli::bench::error::BenchError;
use crate::cli::text::printable;
use crate::config::error::ConfigError;
use crate::replica::staging::StagingError;
use crate::server::ServeError;
use crate::store::error::StoreError;
use crate::types::id::Namespace;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// Nobody listens there.
    #[error("no samestate server at {server}: start one with `samestate serve --data DIR`")]
    NoServer {
        /// Where it was looked for.
        server: String,
    },
    /// No connection, for another reason.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        server: String,
        /// The innermost cause.
        reason: String,
    },
    /// The connection ended in the middle of a request.
    #[error("the request to {server} broke off: {reason}; run the command again")]
    BrokenOff {
        /// Who was asked.
        server: String,
        /// The innermost cause.
        reason: String,
    },
    /// The server refused, and said why.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// An answer that no samestate server gives.
    #[error("{server} does not answer as a samestate server does: {what}; check the URL")]
    NotSamestate {
        /// Who was asked.
        server: String,
        /// What came instead.
        what: String,
    },
    /// A local file or folder.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// A verb: read, write, ...
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory does not have it.
    #[error("there is no namespace {namespace} in {}; `samestate shards` lists them", data.display())]
    NoNamespace {
        /// Which one.
        namespace: Namespace,
        /// Where it was looked for.
        data: PathBuf,
    },
    /// A file whose path is no valid id.
    #[error("its path cannot be an id: {0}")]
    NoId(String),
    /// An id that cannot be a file below the folder of an export.
    #[error("its id is not a relative path without '.', '..' and empty parts")]
    NoPath,
    /// One id is a file where another one needs a folder.
    #[error("{} is both a file and a folder of other states", path.display())]
    FileAndFolder {
        /// The contested path.
        path: PathBuf,
    },
    /// HTTP has no way to ask for these two ids: they mean folders in every URL.
    #[error("the id {id:?} cannot be part of a URL; use another id")]
    NoUrl {
        /// `.` or `..`.
        id: String,
    },
    /// Bytes that are not what the server said they are.
    #[error(
        "it arrived damaged: SHA-256 {got} instead of {}; run the command again",
        printable(expected)
    )]
    Damaged {
        /// As listed.
        expected: String,
        /// As received.
        got: String,
    },
    /// Some states of many did not make it; each was named before.
    #[error("{failed} of {total} states were not {done}; see above")]
    Incomplete {
        /// How many.
        failed: u64,
        /// Of how many.
        total: u64,
        /// imported or exported.
        done: &'static str,
    },
    /// A sync session that ended early.
    #[error("the session failed: {}", printable(reason))]
    SessionFailed {
        /// As reported.
        reason: String,
    },
    /// A session both ways whose sides differ afterwards.
    #[error(
        "the replicas still differ after the session; if nobody writes to them, \
         run `samestate diff` to see where"
    )]
    StillDifferent,
    /// A proof that does not hold.
    #[error("{} proves nothing: {reason}", path.display())]
    BadProof {
        /// Where it was read from.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing can be proven of the log of roots yet.
    #[error(
        "nothing is proven yet: the replica has not written down a root; it does about a second \
         after the first write (root_log_interval), so write something and ask again"
    )]
    NoRoots,
    /// A backup that could not be made, checked or restored.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A job that the server could not finish.
    #[error("the {kind} failed: {}", printable(reason))]
    JobFailed {
        /// What it was to do.
        kind: &'static str,
        /// As reported.
        reason: String,
    },
    /// A data directory that cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A command on a data directory found no space.
    #[error("the disk that holds {} is full: {left}; free some space and run the command again", path.display())]
    NoRoom {
        /// What is on that disk.
        path: PathBuf,
        /// How things stand now.
        left: &'static str,
    },
    /// Settings that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A server that did not start, or ended before it was told to.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A child process that does not come up, or has gone.
    #[error("{name} {what}; its log is {} and ends with: {}", log.display(), printable(end))]
    Child {
        /// What it is called.
        name: String,
        /// What it did.
        what: String,
        /// Where its log is.
        log: PathBuf,
        /// The last lines of the log.
        end: String,
    },
    /// A measurement that came to nothing.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A server that was told twice to stop.
    #[error("stopped at once by a second signal; nothing that was answered is lost")]
    Abandoned,
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// The program itself could not be set up.
    #[error("cannot start: {0}")]
    Start(String),
}

/// A server's refusal: `application/problem+json` (RFC 9457) as docs/reference/http.md has it.
#[derive(Debug, Error)]
#[error("{} ({})", printable(detail), printable(code))]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// Stable name of the problem.
    pub code: String,
    /// What to do about it.
    pub detail: String,
    /// After which time the server wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl CliError {
    /// True when the reader of standard output has gone, as in `samestate ls | head`.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// True when the server is only busy and said so.
    pub fn busy_for(&self) -> Option<Duration> {
        const SHORTEST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(10);
        match self {
            Self::Problem(problem)
                if matches!(problem.status, 429 | 503) && problem.code != "shutting_down" =>
            {
                let wait = problem.retry_after.unwrap_or(Duration::from_secs(1));
                Some(wait.clamp(SHORTEST, LONGEST))
            }
            _ => None,
        }
    }

    /// True when another state may succeed where this one failed.
    pub fn concerns_one_state(&self) -> bool {
        match self {
            Self::Problem(problem) => {
                matches!(problem.status, 400 | 409 | 412 | 413 | 415 | 422)
            }
            Self::NoId(_)
            | Self::NoPath
            | Self::NoUrl { .. }
            | Self::FileAndFolder { .. }
            | Self::Damaged { .. } => true,
            _ => false,
        }
    }
}

/// Tells of a full disk what is on it, and what a command that ran out of space has left.
pub fn no_room<E: Into<CliError>>(path: &Path, left: &'static str) -> impl FnOnce(E) -> CliError {
    let path = path.to_owned();
    move |error| {
        let error = error.into();
        if is_full(&error) {
            return CliError::NoRoom { path, left };
        }
        error
    }
}

fn is_full(error: &CliError) -> bool {
    match error {
        CliError::Store(StoreError::Full)
        | CliError::Backup(BackupError::Store(StoreError::Full)) => true,
        CliError::Backup(BackupError::Staging(StagingError::Store(error))) => {
            matches!(**error, StoreError::Full)
        }
        _ => false,
    }
}

/// Reading a file failed in the middle of its upload, where only HTTP's own errors come through.
#[derive(Debug, Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct UploadFault {
    /// Which file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl UploadFault {
    /// The same as a command's error.
    pub fn to_cli_error(&self) -> CliError {
        let source = io::Error::new(self.source.kind(), self.source.to_string());
        file_error("read", &self.path)(source)
    }
}

/// Completes an I/O error with what was done to which file.
pub fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File {
        doing,
        path,
        source,
    }
}

/// The innermost cause, which says more than the layers around it.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error)
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// The error itself and what it was caused by, outermost first.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    // `error.source()` would be that of the reference, which lives less long.
    std::iter::successors(Some(error), |error| (**error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, code: &str, retry_after: Option<u64>) -> CliError {
        CliError::Problem(Problem {
            status,
            code: code.into(),
            detail: "wait\u{1b}[2J".into(),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    #[test]
    fn a_busy_server_is_asked_again_within_bounds() {
        let seconds = |error: CliError| error.busy_for().map(|wait| wait.as_secs_f32());
        assert_eq!(seconds(problem(503, "overloaded", Some(2))), Some(2.0));
        assert_eq!(seconds(problem(429, "too_many_sessions", None)), Some(1.0));
        assert_eq!(seconds(problem(503, "overloaded", Some(9999))), Some(10.0));
        assert_eq!(seconds(problem(503, "overloaded", Some(0))), Some(0.1));
        assert_eq!(seconds(problem(503, "shutting_down", Some(1))), None);
        assert_eq!(seconds(problem(404, "not_found", Some(1))), None);
    }

    #[test]
    fn what_a_server_says_cannot_drive_the_terminal() {
        let shown = problem(400, "bad_id", None).to_string();
        assert_eq!(shown, "wait\u{fffd}[2J (bad_id)");
    }
}
