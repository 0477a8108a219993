//! `watch`: changes as they happen.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::options::Options;
use crate::cli::output::{note, print};
use crate::cli::text::{human_bytes, printable};
use crate::types::cursor::Cursor;

/// How long the replica holds a request while nothing changes.
const WAIT: &str = "30s";
/// How long to wait before a replica that has gone is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Print changes as they happen
///
/// Begins with the next change, or behind the cursor given with --since. A state that changes
/// quickly is shown with its newest version. When the replica goes away, watching goes on once it
/// is back.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate watch match/eu-1/")]
pub struct WatchArgs {
    /// Only ids that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Begin behind this cursor
    #[arg(long, value_name = "CURSOR")]
    since: Option<Cursor>,
}

/// One changed state.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    id: String,
    seq: u64,
    deleted: bool,
    size: u64,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Changes {
    changes: Vec<Change>,
    next: String,
}

/// Prints changes until it is interrupted.
///
/// # Errors
/// [`CliError`] of the first connection, or the server's refusal.
pub async fn watch(args: WatchArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let mut cursor = match args.since {
        Some(cursor) => cursor.to_string(),
        None => newest(&client).await?,
    };
    let mut connected = true;
    loop {
        let query = [("since", cursor.as_str()), ("wait", WAIT)];
        let request = client.request(Method::GET, "changes", &query);
        match client.ask(request).await {
            Ok(text) => {
                connected = true;
                let page: Changes = client.parse(&text)?;
                cursor = page.next;
                show(&page.changes, &args.prefix, options.json)?;
            }
            Err(error) => {
                let wait = pause_after(&error).ok_or(error)?;
                if std::mem::take(&mut connected) {
                    note(&format!("{} has gone; waiting for it", client.server()));
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// The cursor behind everything that has happened so far.
async fn newest(client: &Client) -> Result<String, CliError> {
    #[derive(Deserialize)]
    struct Root {
        epoch: String,
        seq: u64,
    }
    let text = client.ask(client.request(Method::GET, "root", &[])).await?;
    let root: Root = client.parse(&text)?;
    Ok(format!("{}-{}", root.epoch, root.seq))
}

/// How long to wait after an error that may pass; `None` for one that will not.
fn pause_after(error: &CliError) -> Option<Duration> {
    match error {
        CliError::NoServer { .. } | CliError::Unreachable { .. } | CliError::BrokenOff { .. } => {
            Some(PAUSE)
        }
        CliError::Problem(problem) if problem.code == "shutting_down" => Some(PAUSE),
        error => error.busy_for(),
    }
}

fn show(changes: &[Change], prefix: &str, json: bool) -> Result<(), CliError> {
    let wanted = changes
        .iter()
        .filter(|change| change.id.starts_with(prefix));
    let lines: Result<String, CliError> = wanted
        .map(|change| {
            if json {
                change.json()
            } else {
                Ok(change.line())
            }
        })
        .collect();
    match lines? {
        none if none.is_empty() => Ok(()),
        lines => print(&lines),
    }
}

impl Change {
    fn json(&self) -> Result<String, CliError> {
        let text = serde_json::to_string(self);
        Ok(text.map_err(|error| CliError::Output(error.into()))? + "\n")
    }

    fn line(&self) -> String {
        let what = if self.deleted {
            "deleted".to_owned()
        } else {
            human_bytes(self.size)
        };
        format!("{:>8}  {what:>10}  {}\n", self.seq, printable(&self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::Problem;

    #[test]
    fn a_change_is_a_line() {
        let page: Changes = serde_json::from_str(
            r#"{"changes": [
                {"id": "a", "seq": 5, "etag": "e", "deleted": false, "size": 2048, "content_hash": "ab"},
                {"id": "b", "seq": 6, "etag": "f", "deleted": true, "size": 0, "content_hash": null}
            ], "next": "00000000000000ab-6"}"#,
        )
        .unwrap();
        let lines: String = page.changes.iter().map(Change::line).collect();
        assert_eq!(lines, "       5     2.0 KiB  a\n       6     deleted  b\n");
        let json = page.changes[0].json().unwrap();
        assert!(
            json.contains(r#""etag":"e""#) && json.ends_with("}\n"),
            "{json}"
        );
    }

    #[test]
    fn a_replica_that_went_away_is_waited_for_and_a_refusal_is_not() {
        let problem = |status, code: &str| {
            CliError::Problem(Problem {
                status,
                code: code.into(),
                detail: String::new(),
                retry_after: None,
            })
        };
        let server = "http://h".to_owned();
        assert!(pause_after(&CliError::NoServer { server }).is_some());
        assert!(pause_after(&problem(503, "shutting_down")).is_some());
        assert!(pause_after(&problem(404, "namespace_not_found")).is_none());
        assert!(pause_after(&problem(410, "cursor_expired")).is_none());
    }
}
