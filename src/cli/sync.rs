//! `sync`: one session between two replicas, and its report.

use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use crate::cli::client::ServerUrl;
use crate::cli::error::CliError;
use crate::cli::options::{Options, strategy_names};
use crate::cli::output::print;
use crate::cli::progress::waiting;
use crate::cli::text::{Align, Table, count, human_bytes, printable};

/// Bring a replica to another one's contents
///
/// The replica at --to takes over what the one at --from holds. With --push the other way round as
/// well, and both end with equal contents.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate sync --from http://eu-1:7400
  samestate sync --from http://eu-1:7400 --to http://eu-2:7400 --push")]
pub struct SyncArgs {
    /// The replica to learn from
    #[arg(long, value_name = "URL")]
    from: ServerUrl,
    /// The replica that learns; the one at --server unless given
    #[arg(long, value_name = "URL")]
    to: Option<ServerUrl>,
    /// Bring --to to the contents of --from; this is done in any case
    #[arg(long)]
    pull: bool,
    /// Also bring --from to the contents of --to
    #[arg(long)]
    push: bool,
    /// How to find the differences
    #[arg(long, value_name = "STRATEGY", default_value = "auto", value_parser = strategy_names())]
    strategy: String,
}

/// The outcome of a session that came to its end.
const COMPLETE: &str = "complete";

/// The report as far as it is shown to people.
#[derive(Debug, Deserialize)]
struct Report {
    strategy: String,
    why: String,
    outcome: String,
    reason: Option<String>,
    phases: Vec<Phase>,
    states_pulled: u64,
    states_pushed: u64,
    conflicts: u64,
    bytes_sent: u64,
    bytes_received: u64,
    bytes_if_sent_whole: u64,
    ratio: Option<f64>,
    seconds: f64,
    root_after: String,
    equal: bool,
}

#[derive(Debug, Deserialize)]
struct Phase {
    phase: String,
    bytes_sent: u64,
    bytes_received: u64,
    round_trips: u64,
    seconds: f64,
}

/// Runs a session at the learning replica and prints its report.
///
/// # Errors
/// [`CliError::SessionFailed`], [`CliError::StillDifferent`], or what kept the session from starting.
pub async fn sync(args: SyncArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = match &args.to {
        Some(to) => options.client_of(to)?,
        None => options.client()?,
    };
    let order = json!({
        "from": args.from.to_string(),
        // `--push` says "as well", so pulling is never left out.
        "pull": true,
        "push": args.push,
        "strategy": args.strategy,
    });
    let request = client.request(Method::POST, "sync/run", &[]).json(&order);
    let doing = format!("{} learns from {}", client.server(), args.from);
    let session = async { client.text(client.send(request).await?).await };
    let text = waiting(&doing, session).await?;
    let report: Report = client.parse(&text)?;
    print(&if options.json { text } else { report.render() })?;
    report.verdict(args.push)
}

impl Report {
    fn render(&self) -> String {
        let mut table = Table::new(&[
            ("PHASE", Align::Left),
            ("SENT", Align::Right),
            ("RECEIVED", Align::Right),
            ("ROUND TRIPS", Align::Right),
            ("SECONDS", Align::Right),
        ]);
        for phase in &self.phases {
            table.row([
                printable(&phase.phase).into_owned(),
                human_bytes(phase.bytes_sent),
                human_bytes(phase.bytes_received),
                phase.round_trips.to_string(),
                format!("{:.3}", phase.seconds),
            ]);
        }
        table.row([
            "total".into(),
            human_bytes(self.bytes_sent),
            human_bytes(self.bytes_received),
            self.phases
                .iter()
                .map(|p| p.round_trips)
                .sum::<u64>()
                .to_string(),
            format!("{:.3}", self.seconds),
        ]);
        let why = if self.why.is_empty() {
            String::new()
        } else {
            format!(": {}", self.why)
        };
        let strategy = if self.strategy.is_empty() {
            "strategy not chosen: the session ended before anything was compared".to_owned()
        } else {
            format!("strategy {}{why}", self.strategy)
        };
        format!(
            "{}\n\n{}\n{}\n",
            printable(&strategy),
            table.render(),
            self.last_line()
        )
    }

    fn last_line(&self) -> String {
        let pulled = count(self.states_pulled, "state");
        let mut parts = vec![format!(
            "{}: {pulled} pulled, {} pushed",
            self.outcome, self.states_pushed
        )];
        if self.conflicts > 0 {
            parts.push(count(self.conflicts, "conflict"));
        }
        parts.extend(self.ratio.map(|ratio| self.cost(ratio)));
        parts.push(if self.equal {
            format!("equal roots {}", short_root(&self.root_after))
        } else if self.outcome == COMPLETE {
            "roots differ".into()
        } else {
            "roots not compared at the end".into()
        });
        printable(&parts.join("; ")).into_owned()
    }

    /// What the session cost beside the states themselves. A share says nothing of states that are
    /// smaller than the questions for them.
    fn cost(&self, ratio: f64) -> String {
        let whole = human_bytes(self.bytes_if_sent_whole);
        if ratio <= 1.0 {
            return format!("{:.2}% of sending all ({whole})", ratio * 100.0);
        }
        let all = human_bytes(self.bytes_sent.saturating_add(self.bytes_received));
        format!("{all} for {whole} of states, which are less than it takes to find them")
    }

    fn verdict(self, push: bool) -> Result<ExitCode, CliError> {
        if self.outcome != COMPLETE {
            let reason = self.reason.unwrap_or(self.outcome);
            return Err(CliError::SessionFailed { reason });
        }
        if push && !self.equal {
            return Err(CliError::StillDifferent);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Enough of a root to tell it from another one at a glance.
fn short_root(root: &str) -> String {
    root.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: &str, equal: bool) -> Report {
        serde_json::from_value(json!({
            "session": 1, "peer": "p", "namespace": "default",
            "strategy": "merkle", "why": "no cursor", "outcome": outcome,
            "phases": [
                {"phase": "comparison", "bytes_sent": 64, "bytes_received": 2048,
                 "round_trips": 2, "seconds": 0.0125},
                {"phase": "transfer", "bytes_sent": 10, "bytes_received": 5,
                 "round_trips": 1, "seconds": 1.5},
            ],
            "states_pulled": 1, "states_pushed": 0, "conflicts": 0,
            "bytes_sent": 74, "bytes_received": 2053, "bytes_if_sent_whole": 1_048_576,
            "ratio": 0.002_028, "seconds": 1.6, "root_before": "00", "root_after": "ab".repeat(32),
            "equal": equal,
        }))
        .unwrap()
    }

    #[test]
    fn people_get_a_table_and_a_last_line() {
        let expected = "\
strategy merkle: no cursor

PHASE       SENT  RECEIVED  ROUND TRIPS  SECONDS
comparison  64 B   2.0 KiB            2    0.013
transfer    10 B       5 B            1    1.500
total       74 B   2.0 KiB            3    1.600

complete: 1 state pulled, 0 pushed; 0.20% of sending all (1.0 MiB); equal roots abababababababab
";
        assert_eq!(report("complete", true).render(), expected);
    }

    #[test]
    fn only_what_was_measured_is_told() {
        let mut small = report("complete", true);
        (small.bytes_if_sent_whole, small.ratio) = (3, Some(709.0));
        let line = small.last_line();
        assert!(
            line.contains("; 2.1 KiB for 3 B of states, which"),
            "{line}"
        );
        assert!(!line.contains('%'), "{line}");
        assert!(
            report("complete", false)
                .last_line()
                .ends_with("roots differ")
        );
        let mut unreachable = report("failed", false);
        (unreachable.strategy, unreachable.ratio) = (String::new(), None);
        let told = unreachable.render();
        assert!(told.starts_with("strategy not chosen: "), "{told}");
        assert!(told.contains("roots not compared"), "{told}");
    }

    #[test]
    fn the_verdict_follows_outcome_and_roots() {
        assert!(report("complete", true).verdict(true).is_ok());
        assert!(report("complete", false).verdict(false).is_ok());
        let differ = report("complete", false).verdict(true);
        assert!(matches!(differ, Err(CliError::StillDifferent)));
        let mut failed = report("failed", false);
        failed.reason = Some("bad proof".into());
        let error = failed.verdict(false).unwrap_err();
        assert_eq!(error.to_string(), "the session failed: bad proof");
    }
}
