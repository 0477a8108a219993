//! What `import` and `export` share: patience with a busy server, counting, the summary.

use std::cell::Cell;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::progress::Progress;
use crate::cli::text::{count, human_bytes, printable};

/// How long a server may stay busy before a transfer gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Faults shown one by one; more would scroll the first ones away.
const FAULTS_SHOWN: u64 = 20;

/// Runs `operation`, again and again while the server asks to come back later.
///
/// # Errors
/// The operation's error, once it is another one or patience has run out.
pub async fn patiently<T>(operation: impl AsyncFn() -> Result<T, CliError>) -> Result<T, CliError> {
    let started = Instant::now();
    loop {
        let error = match operation().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match error.busy_for() {
            Some(wait) if started.elapsed() + wait <= PATIENCE => tokio::time::sleep(wait).await,
            _ => return Err(error),
        }
    }
}

/// Counts what happened to each state.
#[derive(Debug)]
pub struct Tally {
    done: &'static str,
    started: Instant,
    progress: Progress,
    states: Cell<u64>,
    bytes: Cell<u64>,
    skipped: Cell<u64>,
    failed: Cell<u64>,
}

/// What `--json` prints at the end.
#[derive(Debug, Serialize)]
struct Summary {
    states: u64,
    bytes: u64,
    skipped: u64,
    failed: u64,
    seconds: f64,
}

impl Tally {
    /// Starts the clock. `done` is what happened to each state in the end: imported, exported.
    pub fn new(done: &'static str, progress: Progress) -> Self {
        Self {
            done,
            started: Instant::now(),
            progress,
            states: Cell::new(0),
            bytes: Cell::new(0),
            skipped: Cell::new(0),
            failed: Cell::new(0),
        }
    }

    /// A state was transferred.
    pub fn transferred(&self, bytes: u64) {
        add(&self.states, 1);
        add(&self.bytes, bytes);
        self.moved_on(bytes);
    }

    /// A state was there already.
    pub fn skipped(&self, bytes: u64) {
        add(&self.skipped, 1);
        self.moved_on(bytes);
    }

    /// A state or file could not be transferred; the others are still wanted.
    pub fn failed(&self, name: &str, error: &CliError) {
        add(&self.failed, 1);
        let shown = match self.failed.get() {
            0..=FAULTS_SHOWN => format!("error: {}: {error}", printable(name)),
            number if number == FAULTS_SHOWN + 1 => "error: further ones are counted only".into(),
            _ => return,
        };
        self.progress.note(&shown);
    }

    /// As [`Tally::failed`], unless the next state would fail alike.
    ///
    /// # Errors
    /// Such an error, which ends the transfer.
    pub fn tolerate(&self, name: &str, error: CliError) -> Result<(), CliError> {
        if !error.concerns_one_state() {
            return Err(error);
        }
        self.failed(name, &error);
        Ok(())
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// [`CliError::Incomplete`] when a state failed, [`CliError::Output`].
    pub fn finish(&self, options: &Options) -> Result<ExitCode, CliError> {
        self.progress.finish();
        let summary = Summary {
            states: self.states.get(),
            bytes: self.bytes.get(),
            skipped: self.skipped.get(),
            failed: self.failed.get(),
            seconds: self.started.elapsed().as_secs_f64(),
        };
        if options.json {
            let text = serde_json::to_string(&summary);
            print(&text.map_err(|error| CliError::Output(error.into()))?)?;
        } else {
            print(&summary.line(self.done))?;
        }
        match summary.failed {
            0 => Ok(ExitCode::SUCCESS),
            failed => Err(CliError::Incomplete {
                failed,
                total: failed + summary.states + summary.skipped,
                done: self.done,
            }),
        }
    }

    fn moved_on(&self, bytes: u64) {
        self.progress.advance(bytes);
        let handled = self.states.get() + self.skipped.get();
        self.progress.say(count(handled, "state"));
    }
}

impl Summary {
    fn line(&self, done: &str) -> String {
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} skipped as equal"),
        };
        format!(
            "{done} {} ({}){skipped} in {:.1} s",
            count(self.states, "state"),
            human_bytes(self.bytes),
            self.seconds
        )
    }
}

fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::cli::error::Problem;

    fn problem(status: u16) -> CliError {
        CliError::Problem(Problem {
            status,
            code: "some_code".into(),
            detail: "a detail".into(),
            retry_after: Some(Duration::ZERO),
        })
    }

    #[test]
    fn a_busy_server_is_asked_again_and_a_refusal_is_not() {
        let answers = RefCell::new(vec![Err(problem(404)), Ok(7), Err(problem(503))]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let ask = async || answers.borrow_mut().pop().unwrap();
        assert!(matches!(runtime.block_on(patiently(ask)), Ok(7)));
        assert!(runtime.block_on(patiently(ask)).is_err());
        assert!(answers.borrow().is_empty());
    }

    #[test]
    fn a_fault_of_one_state_does_not_end_the_transfer() {
        let tally = Tally::new("imported", Progress::none());
        assert!(tally.tolerate("a", problem(413)).is_ok());
        assert!(tally.tolerate("a", problem(401)).is_err());
        assert_eq!(tally.failed.get(), 1);
    }

    #[test]
    fn the_summary_is_one_line() {
        let summary = |states, skipped| Summary {
            states,
            bytes: 2048,
            skipped,
            failed: 0,
            seconds: 0.25,
        };
        assert_eq!(
            summary(1, 0).line("imported"),
            "imported 1 state (2.0 KiB) in 0.2 s"
        );
        assert_eq!(
            summary(2, 3).line("exported"),
            "exported 2 states (2.0 KiB), 3 skipped as equal in 0.2 s"
        );
    }
}
