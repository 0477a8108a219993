//! `diff`: what two replicas do not share, without changing either.

use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::cli::client::ServerUrl;
use crate::cli::error::CliError;
use crate::cli::options::{Options, strategy_names};
use crate::cli::output::{note, print};
use crate::cli::progress::waiting;
use crate::cli::text::{count, human_bytes, printable};

/// Show what differs between two replicas
///
/// Prints a line for each state: `<` is only at the first replica, `>` only at the second, `~` at
/// both but different. Exits with 0 when they are equal and 1 when they differ.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate diff http://eu-1:7400 http://eu-2:7400")]
pub struct DiffArgs {
    /// The first replica; it does the work
    #[arg(value_name = "URL")]
    left: ServerUrl,
    /// The second replica
    #[arg(value_name = "URL")]
    right: ServerUrl,
    /// How to find the differences
    #[arg(long, value_name = "STRATEGY", default_value = "auto", value_parser = strategy_names())]
    strategy: String,
}

/// The answer as far as it is shown to people.
#[derive(Debug, Deserialize)]
struct Comparison {
    equal: bool,
    strategy: String,
    bytes_sent: u64,
    bytes_received: u64,
    differences: Vec<Difference>,
}

#[derive(Debug, Deserialize)]
struct Difference {
    id: String,
    left: Option<IgnoredAny>,
    right: Option<IgnoredAny>,
}

/// Compares two replicas and prints where they differ.
///
/// # Errors
/// [`CliError`] of the connection or the server.
pub async fn diff(args: DiffArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client_of(&args.left)?;
    let order = json!({"peer": args.right.to_string(), "strategy": args.strategy});
    let request = client.request(Method::POST, "sync/diff", &[]).json(&order);
    let doing = format!("comparing {} with {}", args.left, args.right);
    let session = async { client.text(client.send(request).await?).await };
    let text = waiting(&doing, session).await?;
    let comparison: Comparison = client.parse(&text)?;
    if options.json {
        print(&text)?;
    } else {
        let lines: String = comparison
            .differences
            .iter()
            .map(Difference::line)
            .collect();
        if !lines.is_empty() {
            print(&lines)?;
        }
        note(&comparison.summary());
    }
    Ok(if comparison.equal {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Difference {
    fn line(&self) -> String {
        let mark = match (&self.left, &self.right) {
            (Some(_), None) => '<',
            (None, Some(_)) => '>',
            _ => '~',
        };
        format!("{mark} {}\n", printable(&self.id))
    }
}

impl Comparison {
    fn summary(&self) -> String {
        let found = if self.equal {
            "equal".to_owned()
        } else {
            count(self.differences.len() as u64, "difference")
        };
        let strategy = printable(&self.strategy);
        let bytes = human_bytes(self.bytes_sent.saturating_add(self.bytes_received));
        format!("{found}, found with {bytes} by strategy {strategy}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_a_line() {
        let comparison: Comparison = serde_json::from_value(json!({
            "equal": false, "strategy": "list", "bytes_sent": 1000, "bytes_received": 24,
            "differences": [
                {"id": "a", "key": "00", "left": "d1"},
                {"id": "b\u{1b}[2J", "key": "01", "right": "d1"},
                {"id": "c", "key": "02", "left": "d1", "right": "d2"},
                {"id": "d", "key": "03", "left": "d1", "right": "d1"},
            ],
        }))
        .unwrap();
        let lines: String = comparison
            .differences
            .iter()
            .map(Difference::line)
            .collect();
        assert_eq!(lines, "< a\n> b\u{fffd}[2J\n~ c\n~ d\n");
        let summary = "4 differences, found with 1.0 KiB by strategy list";
        assert_eq!(comparison.summary(), summary);
    }
}
