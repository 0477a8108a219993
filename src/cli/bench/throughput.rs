//! `bench put` and `bench get`: operations a second, with the storage engine alone in turn.

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use crate::cli::bench::args::ThroughputArgs;
use crate::cli::bench::engine::Engine;
use crate::cli::bench::load::{Load, Operation};
use crate::cli::bench::measure::{Round, Row};
use crate::cli::bench::server::Server;
use crate::cli::bench::stage::{Conditions, Stage};
use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::progress::Progress;
use crate::cli::text::{Align, Table, grouped};

/// Between the sides, so that what one leaves to be done falls on the other as little as possible.
const PAUSE: Duration = Duration::from_millis(300);

/// All figures, for programs.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    #[serde(flatten)]
    conditions: Conditions,
    rows: Vec<Row>,
}

/// Measures and prints.
///
/// # Errors
/// [`CliError`] when a process fails or an answer is wrong.
pub async fn run(
    operation: Operation,
    args: &ThroughputArgs,
    json: bool,
) -> Result<ExitCode, CliError> {
    let name = match operation {
        Operation::Put => "put",
        Operation::Get => "get",
    };
    let what = format!("samestate bench {name}");
    let mut stage = Stage::new(&what, args.states, &args.common, json)?;
    let clients: Vec<usize> = args.clients.iter().copied().map(usize::from).collect();
    let rows = match measure(operation, &clients, &stage).await {
        Ok(rows) => rows,
        Err(error) => {
            stage.keep_files();
            return Err(error);
        }
    };
    if json {
        let report = Report {
            bench: name,
            conditions: stage.conditions(),
            rows,
        };
        // Only strings, numbers and lists: this cannot fail.
        print(&serde_json::to_string(&report).unwrap_or_default())?;
    } else {
        print(&in_words(operation, &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    operation: Operation,
    clients: &[usize],
    stage: &Stage,
) -> Result<Vec<Row>, CliError> {
    let progress = Progress::of_rounds(2 + 2 * stage.rounds * clients.len() as u64);
    progress.say("loading the server".to_owned());
    let mut server = Server::start(&stage.program, &stage.folder).await?;
    server.load(&stage.plan).await?;
    progress.advance(1);
    progress.say("loading redb".to_owned());
    let engine = Engine::open(stage.folder.join("engine.redb"), stage.plan).await?;
    progress.advance(1);
    let sides = Sides {
        operation,
        stage,
        progress,
        address: server.address.clone(),
        engine,
    };
    let measured = sides.in_turn(clients).await;
    sides.progress.finish();
    if measured.is_err() {
        server.check()?;
    }
    measured
}

/// Both sides, loaded.
struct Sides<'a> {
    operation: Operation,
    stage: &'a Stage,
    progress: Progress,
    address: String,
    engine: Engine,
}

impl Sides<'_> {
    async fn in_turn(&self, clients: &[usize]) -> Result<Vec<Row>, CliError> {
        let draws = RefCell::new(self.stage.plan.draws());
        let mut rows: Vec<(usize, Vec<(Round, Round)>)> = clients
            .iter()
            .map(|clients| (*clients, Vec::new()))
            .collect();
        for round in 1..=self.stage.rounds {
            for (clients, pairs) in &mut rows {
                let load = Load {
                    operation: self.operation,
                    plan: &self.stage.plan,
                    clients: *clients,
                    draws: &draws,
                };
                self.begin(round, *clients, "samestate").await;
                let ours = load.run(&self.address).await?;
                self.progress.advance(1);
                self.begin(round, *clients, "redb").await;
                let engine = self.engine.run(self.operation, *clients).await?;
                self.progress.advance(1);
                pairs.push((ours, engine));
            }
        }
        let rows = rows.iter();
        Ok(rows
            .map(|(clients, pairs)| Row::of(*clients, pairs))
            .collect())
    }

    async fn begin(&self, round: u64, clients: usize, side: &str) {
        let rounds = self.stage.rounds;
        self.progress.say(format!(
            "round {round} of {rounds}, {clients} clients: {side}"
        ));
        sleep(PAUSE).await;
    }
}

fn in_words(operation: Operation, rows: &[Row]) -> String {
    let (ours, engine) = match operation {
        Operation::Put => ("PUTS/S", "REDB PUTS/S"),
        Operation::Get => ("GETS/S", "REDB GETS/S"),
    };
    let mut table = Table::new(&[
        ("CLIENTS", Align::Right),
        (ours, Align::Right),
        ("P50 MS", Align::Right),
        ("P99 MS", Align::Right),
        (engine, Align::Right),
        ("RATIO", Align::Right),
        ("GENERATOR", Align::Right),
    ]);
    for row in rows {
        table.row([
            row.clients.to_string(),
            grouped(row.per_second.round() as u64),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            grouped(row.redb_per_second.round() as u64),
            format!("{:.3}", row.ratio),
            format!("{:.0}%", row.generator_load * 100.0),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_column() {
        let row = Row {
            clients: 16,
            per_second: 5960.4,
            p50_ms: 2.614,
            p99_ms: 4.0,
            redb_per_second: 12_345.6,
            ratio: 0.4828,
            generator_load: 0.111,
        };
        let expected = "\
CLIENTS  PUTS/S  P50 MS  P99 MS  REDB PUTS/S  RATIO  GENERATOR
     16   5,960    2.61    4.00       12,346  0.483        11%
";
        assert_eq!(in_words(Operation::Put, &[row]), expected);
    }
}
