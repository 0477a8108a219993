//! Following a job of the server until it is over.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::progress::Progress;

/// How often a running job is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A job as far as commands look at it.
#[derive(Debug, Deserialize)]
struct Job {
    id: u64,
    state: String,
    progress: Steps,
    result: Option<Value>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Steps {
    done: u64,
    total: u64,
    unit: String,
}

/// Waits for a job that the server `started`, with progress on a terminal, and returns its result.
///
/// # Errors
/// [`CliError::JobFailed`] when it failed, and whatever goes wrong on the way to the server.
pub async fn follow(
    client: &Client,
    started: &str,
    kind: &'static str,
    doing: &str,
) -> Result<Value, CliError> {
    let mut job: Job = client.parse(started)?;
    let progress = Progress::of_steps();
    let mut total = None;
    while job.state == "running" {
        if total != Some(job.progress.total) {
            total = Some(job.progress.total);
            progress.begin(doing, job.progress.total, &job.progress.unit);
        }
        progress.reach(job.progress.done);
        sleep(LOOK_EVERY).await;
        let path = format!("admin/jobs/{}", job.id);
        let text = client
            .ask(client.server_request(Method::GET, &path))
            .await?;
        job = client.parse(&text)?;
    }
    progress.finish();
    job.result.ok_or_else(|| CliError::JobFailed {
        kind,
        reason: job.error.unwrap_or(job.state),
    })
}
