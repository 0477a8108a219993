//! `backup`: everything that a replica holds, into a folder, while it serves or while it is stopped.

use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::backup::destination::folder;
use crate::backup::save::{SaveOptions, Source, save};
use crate::backup::watch::Watch;
use crate::cli::error::{CliError, file_error, no_room};
use crate::cli::jobs::follow;
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::progress::Progress;
use crate::cli::text::{count, human_bytes, printable};
use crate::runtime::replica::{Replica, ReplicaOptions};
use crate::store::directory::DataDirectory;
use crate::types::id::Namespace;

/// Back up all namespaces of a replica into a folder
///
/// The server at --server makes it, while it serves, in a folder that it can reach and that its setting
/// backup_dirs allows. With --data this command makes it itself, from the directory of a replica that
/// is stopped. A backup is of one moment. It holds what changed since the newest one in the folder
/// and uses the files of earlier ones for the rest; see `samestate restore --list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate backup --to /var/backups/samestate
  samestate backup --to /mnt/backups --data /var/lib/samestate")]
pub struct BackupArgs {
    /// The folder that backups are kept in; it is made when it does not exist
    #[arg(long, value_name = "DEST", value_parser = folder)]
    to: PathBuf,
    /// Write everything, so that no earlier backup is needed
    #[arg(long)]
    full: bool,
    /// The data directory of a replica that is stopped
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl BackupArgs {
    /// The directory of a stopped replica, if the backup is to be made from one.
    pub fn data(&self) -> Option<&Path> {
        self.data.as_deref()
    }
}

/// Has the server make a backup, and waits for it.
///
/// # Errors
/// [`CliError`] when the server refuses, or the backup fails.
pub async fn at_server(args: &BackupArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let to = absolute(&args.to).map_err(file_error("use", &args.to))?;
    let order = json!({"to": to, "full": args.full});
    let request = client.server_request(Method::POST, "admin/backup");
    let started = client.ask(request.json(&order)).await?;
    let result = follow(&client, &started, "backup", "backing up").await?;
    show(&result, options)
}

/// Makes a backup from the directory of a stopped replica.
///
/// # Errors
/// [`CliError`] when the directory is in use, or the backup fails.
pub fn at_rest(args: &BackupArgs, data: &Path, options: &Options) -> Result<ExitCode, CliError> {
    // Opening a replica would make a directory that does not exist.
    drop(DataDirectory::open_existing(data)?);
    let unopened = "its replica could not be opened, and no backup was begun";
    let opened = Replica::open(data, ReplicaOptions::default());
    let replica = opened.map_err(no_room(data, unopened))?;
    let open = replica.namespaces();
    let sources = open.iter().map(|namespace| Source {
        namespace: namespace.name().clone(),
        view: namespace.view(),
    });
    let how = SaveOptions {
        replica: replica.id(),
        now: replica.wall().now_millis(),
        full: args.full,
    };
    let progress = Progress::of_steps();
    let saved = save(&args.to, sources.collect(), how, &progress);
    progress.finish();
    replica.stop();
    let saved = serde_json::to_value(saved?);
    show(
        &saved.map_err(|error| CliError::Output(error.into()))?,
        options,
    )
}

impl Watch for Progress {
    fn begin(&self, doing: &'static str, total: u64, unit: &'static str) {
        self.begin(doing, total, unit);
    }

    fn advance(&self, by: u64) {
        self.advance(by);
    }

    fn stopped(&self) -> bool {
        false
    }
}

/// The result as far as it is shown to people.
#[derive(Debug, Deserialize)]
struct Shown {
    backup: String,
    path: String,
    bytes: u64,
    namespaces: Vec<ShownNamespace>,
}

#[derive(Debug, Deserialize)]
struct ShownNamespace {
    namespace: Namespace,
    root: String,
    states: u64,
    parent: Option<String>,
    full_because: Option<String>,
    written: ShownWritten,
}

#[derive(Debug, Deserialize)]
struct ShownWritten {
    states: u64,
    removed: u64,
    bytes: u64,
    unreadable: u64,
}

fn show(result: &Value, options: &Options) -> Result<ExitCode, CliError> {
    if options.json {
        print(&result.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = Shown::deserialize(result).map_err(|error| CliError::JobFailed {
        kind: "backup",
        reason: format!("its result has another form: {error}"),
    })?;
    print(&in_words(&shown))?;
    Ok(ExitCode::SUCCESS)
}

fn in_words(shown: &Shown) -> String {
    let mut text = format!(
        "backup {} is in {} ({})\n",
        printable(&shown.backup),
        printable(&shown.path),
        human_bytes(shown.bytes)
    );
    for part in &shown.namespaces {
        let written = &part.written;
        let bytes = human_bytes(written.bytes);
        let changes = match (&part.parent, &part.full_because) {
            (Some(parent), _) if written.bytes == 0 => format!("unchanged since {parent}"),
            (Some(parent), _) => format!(
                "{} written, {} gone since {parent} ({bytes})",
                count(written.states, "state"),
                written.removed
            ),
            (None, Some(why)) => format!("everything ({bytes}), because {why}"),
            (None, None) => format!("everything ({bytes})"),
        };
        let root: String = part.root.chars().take(16).collect();
        let line = format!(
            "  {}: {}, {changes}, root {root}",
            part.namespace,
            count(part.states, "state")
        );
        text += &printable(&line);
        text.push('\n');
        if written.unreadable > 0 {
            let old = count(written.unreadable, "old version");
            text += &format!(
                "  {}: {old} could not be read, see verify\n",
                part.namespace
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_was_written_and_why() {
        let part = |name: &str, parent: Value, why: Value, written: [u64; 4]| {
            let [states, removed, bytes, unreadable] = written;
            json!({"namespace": name, "root": "ab".repeat(32), "states": 7, "parent": parent,
                "full_because": why,
                "written": {"states": states, "removed": removed, "bytes": bytes, "unreadable": unreadable}})
        };
        let result = json!({"backup": "000003", "path": "/b/000003", "bytes": 2048, "namespaces": [
            part("a", json!("000002"), Value::Null, [1, 2, 1024, 0]),
            part("b", json!("000001"), Value::Null, [0, 0, 0, 0]),
            part("c", Value::Null, json!("it was asked for"), [7, 0, 1024, 2]),
        ]});
        let expected = "\
backup 000003 is in /b/000003 (2.0 KiB)
  a: 7 states, 1 state written, 2 gone since 000002 (1.0 KiB), root abababababababab
  b: 7 states, unchanged since 000001, root abababababababab
  c: 7 states, everything (1.0 KiB), because it was asked for, root abababababababab
  c: 2 old versions could not be read, see verify
";
        assert_eq!(in_words(&Shown::deserialize(&result).unwrap()), expected);
    }
}
