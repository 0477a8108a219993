//! `bench recover`: kills a replica under load, and holds it to what it had acknowledged.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::{join, try_join_all};
use serde::Serialize;
use tokio::time::sleep;

use crate::cli::bench::args::RecoverArgs;
use crate::cli::bench::connection::Connection;
use crate::cli::bench::error::BenchError;
use crate::cli::bench::ledger::{Found, Ledger};
use crate::cli::bench::measure::{median, ratio};
use crate::cli::bench::plan::{Plan, id};
use crate::cli::bench::server::{Restart, Server};
use crate::cli::bench::stage::{Conditions, Stage};
use crate::cli::child::Call;
use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::progress::Progress;
use crate::cli::text::{Align, Table, grouped};

/// Connections that overwrite states, each its own ones.
const CLIENTS: u16 = 64;
/// Connections that read everything back.
const READERS: u64 = 16;
/// Longest time that the engine alone may take to load all states.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How many lost states are named.
const EXAMPLES: usize = 5;

/// What one kill came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Kill {
    /// Writes that were acknowledged before it, in this round.
    acknowledged: u64,
    /// Writes without an answer that turned out to be stored.
    in_flight_stored: u64,
    /// States that were read back and compared.
    read_back: u64,
    /// States of which an acknowledged write is gone.
    lost: u64,
    /// From the start of the process until it said that it serves.
    ready_ms: f64,
    /// From the start of the process to the first state that was read.
    first_read_ms: f64,
    /// The same for the engine alone.
    redb_ms: f64,
}

/// All figures, for programs.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    #[serde(flatten)]
    conditions: Conditions,
    clients: u16,
    #[serde(flatten)]
    total: Total,
    kills: Vec<Kill>,
}

/// Sums, and medians over the kills.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Total {
    /// Writes that were acknowledged, the loaded states included.
    acknowledged: u64,
    lost: u64,
    ready_ms: f64,
    first_read_ms: f64,
    redb_ms: f64,
    /// First read divided by the engine's, within one round.
    ratio: f64,
}

/// Measures and prints; fails when anything that was acknowledged is lost.
///
/// # Errors
/// [`CliError`] when a process fails, [`BenchError::Lost`].
pub async fn run(args: &RecoverArgs, json: bool) -> Result<ExitCode, CliError> {
    let mut stage = Stage::new("samestate bench recover", args.states, &args.common, json)?;
    let outcome = measure(&stage).await.and_then(|measured| {
        show(&stage, &measured, json)?;
        measured.verdict()
    });
    if outcome.is_err() {
        stage.keep_files();
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The kills, and what they have in common.
#[derive(Debug)]
struct Measured {
    kills: Vec<Kill>,
    acknowledged: u64,
    /// A few of the lost states.
    examples: Vec<String>,
}

impl Measured {
    fn total(&self) -> Total {
        let over = |figure: fn(&Kill) -> f64| {
            median(self.kills.iter().map(figure).collect()).unwrap_or(0.0)
        };
        Total {
            acknowledged: self.acknowledged,
            lost: self.kills.iter().map(|kill| kill.lost).sum(),
            ready_ms: over(|kill| kill.ready_ms),
            first_read_ms: over(|kill| kill.first_read_ms),
            redb_ms: over(|kill| kill.redb_ms),
            ratio: over(|kill| ratio(kill.first_read_ms, kill.redb_ms)),
        }
    }

    fn verdict(&self) -> Result<(), CliError> {
        let lost = self.total().lost;
        if lost == 0 {
            return Ok(());
        }
        Err(BenchError::Lost {
            lost,
            acknowledged: self.acknowledged,
            examples: self.examples.join(", "),
        }
        .into())
    }
}

async fn measure(stage: &Stage) -> Result<Measured, CliError> {
    let progress = Progress::of_rounds(2 + 4 * stage.rounds);
    progress.say("loading the server".to_owned());
    let mut server = Server::start(&stage.program, &stage.folder).await?;
    server.load(&stage.plan).await?;
    progress.advance(1);
    progress.say("loading redb".to_owned());
    engine_call(stage).start(ENGINE_TIMEOUT).await?;
    progress.advance(1);
    let ledger = RefCell::new(Ledger::loaded(stage.plan.states));
    let mut measured = Measured {
        kills: Vec::new(),
        acknowledged: 0,
        examples: Vec::new(),
    };
    for round in 1..=stage.rounds {
        let trial = Trial {
            plan: &stage.plan,
            ledger: &ledger,
            killed: Cell::new(false),
        };
        let say = |what: &str| progress.say(format!("round {round} of {}: {what}", stage.rounds));
        say("overwriting until the kill");
        let acknowledged = trial.storm(&mut server).await?;
        progress.advance(1);
        say("starting again");
        let Restart { ready, first_read } = server.restart(0).await?;
        progress.advance(1);
        say("reading everything back");
        let mut kill = trial.read_back(&server, &mut measured.examples).await?;
        progress.advance(1);
        say("redb alone");
        kill.acknowledged = acknowledged;
        (kill.ready_ms, kill.first_read_ms) = (ready * 1000.0, first_read * 1000.0);
        kill.redb_ms = kill_engine(stage).await? * 1000.0;
        progress.advance(1);
        measured.kills.push(kill);
    }
    progress.finish();
    measured.acknowledged = ledger.borrow().acknowledged();
    Ok(measured)
}

/// Overwrites, kills and checks once.
struct Trial<'a> {
    plan: &'a Plan,
    ledger: &'a RefCell<Ledger>,
    killed: Cell<bool>,
}

impl Trial<'_> {
    /// Overwrites states until the time is up and the server is killed; returns how many writes
    /// were acknowledged.
    async fn storm(&self, server: &mut Server) -> Result<u64, CliError> {
        let before = self.ledger.borrow().acknowledged();
        let clients = u64::from(CLIENTS).min(self.plan.states);
        let address = server.address.clone();
        let writers = try_join_all((0..clients).map(|first| self.write(&address, first, clients)));
        let kill = async {
            sleep(self.plan.time).await;
            self.killed.set(true);
            server.kill()
        };
        let (written, killed) = join(writers, kill).await;
        killed?;
        written?;
        Ok(self.ledger.borrow().acknowledged() - before)
    }

    /// Overwrites every `step`th state in turn until the server is gone.
    async fn write(&self, address: &str, first: u64, step: u64) -> Result<(), BenchError> {
        let mut connection = Connection::open(address).await?;
        let mut bytes = Vec::new();
        for turn in 0.. {
            let in_turn = self.plan.states.saturating_sub(first).div_ceil(step);
            let state = first + turn % in_turn.max(1) * step;
            let version = self.ledger.borrow_mut().attempt(state);
            self.plan.values.fill(state, version, &mut bytes);
            match connection.put(&id(state), &bytes).await {
                Ok(()) => self.ledger.borrow_mut().acknowledge(state),
                Err(BenchError::Broken(_)) if self.killed.get() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads every state and compares it with what was acknowledged.
    async fn read_back(
        &self,
        server: &Server,
        examples: &mut Vec<String>,
    ) -> Result<Kill, CliError> {
        let readers = READERS.min(self.plan.states);
        let found = (0..readers).map(|first| self.read(&server.address, first, readers));
        let mut kill = Kill::default();
        for (state, found) in try_join_all(found).await?.into_iter().flatten() {
            kill.read_back += 1;
            match found {
                Found::Acknowledged => {}
                Found::InFlight => kill.in_flight_stored += 1,
                Found::Lost => {
                    kill.lost += 1;
                    if examples.len() < EXAMPLES {
                        examples.push(id(state));
                    }
                }
            }
        }
        Ok(kill)
    }

    async fn read(
        &self,
        address: &str,
        first: u64,
        step: u64,
    ) -> Result<Vec<(u64, Found)>, BenchError> {
        let mut connection = Connection::open(address).await?;
        let (mut all, mut expected) = (Vec::new(), Vec::new());
        for state in (first..self.plan.states).step_by(step as usize) {
            let held = match connection.get(&id(state)).await {
                Ok(bytes) => bytes,
                Err(BenchError::Refused { status: 404, .. }) => &[],
                Err(error) => return Err(error),
            };
            let is = |version| {
                self.plan.values.fill(state, version, &mut expected);
                held == expected
            };
            let found = self.ledger.borrow_mut().settle(state, is);
            all.push((state, found));
        }
        Ok(all)
    }
}

/// Lets the engine alone overwrite states until it is killed, and starts it again; returns the
/// seconds from that start to its first read.
async fn kill_engine(stage: &Stage) -> Result<f64, CliError> {
    let mut child = engine_call(stage).start(ENGINE_TIMEOUT).await?;
    sleep(stage.plan.time).await;
    child.check()?;
    child.kill()?;
    let child = engine_call(stage).start(ENGINE_TIMEOUT).await?;
    Ok(child.seconds_to_ready)
}

fn engine_call(stage: &Stage) -> Call {
    let file = stage.folder.join("engine.redb");
    let mut arguments = vec!["bench".into(), "engine".into(), "--file".into()];
    arguments.push(file.into_os_string());
    for (name, value) in [
        ("--states", stage.plan.states),
        ("--value-bytes", stage.plan.values.bytes as u64),
        ("--seed", stage.plan.values.seed),
        ("--batch", CLIENTS.into()),
    ] {
        arguments.extend([name.into(), value.to_string().into()]);
    }
    Call {
        name: "redb alone".to_owned(),
        program: stage.program.clone(),
        arguments,
        log: stage.folder.join("engine.log"),
    }
}

fn show(stage: &Stage, measured: &Measured, json: bool) -> Result<(), CliError> {
    if !json {
        return print(&in_words(measured));
    }
    let report = Report {
        bench: "recover",
        conditions: stage.conditions(),
        clients: CLIENTS,
        total: measured.total(),
        kills: measured.kills.clone(),
    };
    // Only strings, numbers and lists: this cannot fail.
    print(&serde_json::to_string(&report).unwrap_or_default())
}

fn in_words(measured: &Measured) -> String {
    let columns = [
        "KILL",
        "ACKNOWLEDGED",
        "READ BACK",
        "LOST",
        "READY MS",
        "FIRST READ MS",
        "REDB MS",
    ];
    let mut table = Table::new(&columns.map(|name| (name, Align::Right)));
    for (number, kill) in measured.kills.iter().enumerate() {
        table.row([
            (number + 1).to_string(),
            grouped(kill.acknowledged),
            grouped(kill.read_back),
            grouped(kill.lost),
            format!("{:.1}", kill.ready_ms),
            format!("{:.1}", kill.first_read_ms),
            format!("{:.1}", kill.redb_ms),
        ]);
    }
    let total = measured.total();
    format!(
        "{}\n{} acknowledged writes with the loaded states, {} lost; ready after {:.1} ms, first \
         read after {:.1} ms (redb alone {:.1} ms)\n",
        table.render(),
        grouped(total.acknowledged),
        grouped(total.lost),
        total.ready_ms,
        total.first_read_ms,
        total.redb_ms
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(lost: u64, first_read_ms: f64, redb_ms: f64) -> Kill {
        Kill {
            acknowledged: 1000,
            read_back: 300,
            lost,
            ready_ms: first_read_ms - 1.0,
            first_read_ms,
            redb_ms,
            ..Kill::default()
        }
    }

    #[test]
    fn losses_add_up_and_fail_and_times_are_medians() {
        let mut measured = Measured {
            kills: vec![kill(0, 10.0, 5.0), kill(0, 99.0, 11.0), kill(0, 12.0, 4.0)],
            acknowledged: 3300,
            examples: Vec::new(),
        };
        let expected = Total {
            acknowledged: 3300,
            lost: 0,
            ready_ms: 11.0,
            first_read_ms: 12.0,
            redb_ms: 5.0,
            ratio: 3.0,
        };
        assert_eq!(measured.total(), expected);
        assert!(measured.verdict().is_ok());
        assert!(in_words(&measured).contains("3,300 acknowledged writes"));

        measured.kills.push(kill(2, 10.0, 5.0));
        measured.examples.push("match/00000007".to_owned());
        let lost = measured.verdict().unwrap_err().to_string();
        let expected = "2 of 3300 acknowledged writes are lost, among them match/00000007";
        assert_eq!(lost, expected);
    }
}
