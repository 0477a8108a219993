//! `compact`: has a replica make its files smaller while it serves.

use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::jobs::follow;
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::text::{human_bytes, printable};

/// Make a replica's files smaller while it serves
///
/// The server copies what is in use of each namespace's file into a new one; reads and writes go on
/// meanwhile. It needs as much free space as the largest of the new files takes. A replica does this
/// by itself when it is idle after many writes, unless its setting compact_when_idle is off.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate compact --server http://127.0.0.1:7400")]
pub struct CompactArgs {}

/// Has the server compact all namespaces, waits for it and prints what it came to.
///
/// # Errors
/// [`CliError`] when the server refuses, or the compaction fails.
pub async fn compact(_: CompactArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let request = client.server_request(Method::POST, "admin/compact");
    let started = client.ask(request.json(&json!({}))).await?;
    let result = follow(&client, &started, "compaction", "compacting").await?;
    if options.json {
        print(&result.to_string())?;
    } else {
        print(&in_words(&result)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a compaction came to, as people are told.
fn in_words(result: &Value) -> Result<String, CliError> {
    #[derive(Deserialize)]
    struct Compacted {
        namespace: String,
        bytes_before: u64,
        bytes_after: u64,
    }
    let parts = Vec::<Compacted>::deserialize(result).map_err(|error| CliError::JobFailed {
        kind: "compaction",
        reason: format!("its result has another form: {error}"),
    })?;
    let line = |part: &Compacted| {
        let (before, after) = (part.bytes_before, part.bytes_after);
        let namespace = printable(&part.namespace);
        let (before, after) = (human_bytes(before), human_bytes(after));
        format!("compacted {namespace}: {before} before, {after} now\n")
    };
    Ok(parts.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_each_namespace_takes() {
        let result = json!([
            {"namespace": "a", "rows": 3, "bytes_before": 4096, "bytes_after": 2048},
            {"namespace": "b", "rows": 0, "bytes_before": 10, "bytes_after": 10},
        ]);
        let expected = "compacted a: 4.0 KiB before, 2.0 KiB now\n\
                        compacted b: 10 B before, 10 B now\n";
        assert_eq!(in_words(&result).unwrap(), expected);
        let error = in_words(&json!({"rows": 3})).unwrap_err().to_string();
        assert!(
            error.starts_with("the compaction failed: its result has another form"),
            "{error}"
        );
    }
}
