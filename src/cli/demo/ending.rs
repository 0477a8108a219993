//! The last step: everything is read back and checked, and the bytes are counted.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};
use tokio::task;

use crate::cli::demo::api::Root;
use crate::cli::demo::error::DemoError;
use crate::cli::demo::meter::Traffic;
use crate::cli::demo::show::{Column, percent};
use crate::cli::demo::stage::{Stage, StepCost};
use crate::cli::error::{CliError, file_error};
use crate::cli::progress::waiting;
use crate::cli::text::{Align, count, human_bytes};
use crate::config::process::neutral_environment;

const COSTS: &[Column] = &[
    ("STEP", Align::Left, 22),
    ("SESSIONS", Align::Right, 8),
    ("STATES", Align::Right, 6),
    ("ON THE WIRE", Align::Right, 11),
    ("IF SENT WHOLE", Align::Right, 13),
    ("RATIO", Align::Right, 6),
    ("SECONDS", Align::Right, 7),
];

/// The demonstration as programs read it.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Whether everything held.
    pub held: bool,
    /// What did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The root that all replicas have in the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// What each step sent.
    pub steps: Vec<StepCost>,
    /// All steps together.
    pub total: Traffic,
    /// Ratio of bytes on the wire to bytes if sent whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// What `samestate verify --json` says.
#[derive(Debug, Deserialize)]
struct Verified {
    ok: bool,
    namespaces: Vec<VerifiedNamespace>,
}

#[derive(Debug, Deserialize)]
struct VerifiedNamespace {
    root: String,
    states: u64,
    bytes: u64,
}

/// Checks everything and shows what it cost.
///
/// # Errors
/// [`DemoError`] when anything is not as it was written.
pub async fn ending(stage: &mut Stage, program: &Path) -> Result<Summary, DemoError> {
    stage.show.step(
        "Everything is read back and checked",
        "over HTTP against what was written, and on disk with samestate verify",
    )?;
    let root = stage.agreement(&stage.trio.all()).await?;
    read_everything(stage, &root).await?;
    verify_everything(stage, program, &root).await?;
    let line = format!("equal roots on a, b and c:\n{}", root.root);
    stage.show.held(&line)?;
    let summary = Summary::of(&stage.costs, None, Some(root.root));
    show_costs(stage, &summary)?;
    Ok(summary)
}

impl Summary {
    /// Adds up the steps.
    pub fn of(steps: &[StepCost], reason: Option<String>, root: Option<String>) -> Self {
        let mut total = Traffic::default();
        for step in steps {
            total += step.traffic;
        }
        Self {
            held: reason.is_none(),
            reason,
            root,
            steps: steps.to_vec(),
            total,
            ratio: total.ratio(),
        }
    }
}

async fn read_everything(stage: &Stage, root: &Root) -> Result<(), DemoError> {
    let ids = stage.ledger.ids("");
    let mut wrong = Vec::new();
    for replica in stage.trio.all() {
        for (id, found) in stage.read_back(replica, &ids).await? {
            let right = found.is_some_and(|found| stage.ledger.is_acknowledged(&id, found));
            if !right {
                wrong.push(format!("{id} on {}", replica.name));
            }
        }
    }
    let claim = format!(
        "{} read from each replica: the bytes that were written, and no others",
        count(ids.len() as u64, "state")
    );
    let found = if wrong.is_empty() {
        format!("{} are held", root.count)
    } else {
        format!("not so are {}", wrong.join(", "))
    };
    let right = wrong.is_empty() && root.count == ids.len() as u64;
    stage.show.claim(right, &claim, &found)
}

/// Kills all replicas, reads their files, and starts them again.
async fn verify_everything(
    stage: &mut Stage,
    program: &Path,
    root: &Root,
) -> Result<(), DemoError> {
    for replica in stage.trio.all_mut() {
        replica.kill()?;
    }
    let mut checked = Vec::new();
    for replica in stage.trio.all() {
        let doing = format!("verifying the files of {}", replica.name);
        let output = waiting(&doing, verify(program, replica.data())).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let verified: Verified = serde_json::from_str(&text).map_err(|_| fault(&output))?;
        let mut namespaces = verified.namespaces.iter();
        let same = namespaces.all(|found| found.root == root.root && found.states == root.count);
        if !verified.ok || !same {
            return Err(fault(&output));
        }
        checked.extend(verified.namespaces);
    }
    let bytes = checked.iter().map(|namespace| namespace.bytes).sum();
    stage.show.held(&format!(
        "all three killed; samestate verify read {} in their files: no faults",
        human_bytes(bytes)
    ))?;
    Ok(())
}

fn fault(output: &Output) -> DemoError {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    DemoError::Untrue {
        claim: "\"the files are without faults and have the announced root\"".to_owned(),
        found: String::from_utf8_lossy(&said).trim().to_owned(),
    }
}

async fn verify(program: &Path, data: &Path) -> Result<Output, CliError> {
    let mut command = Command::new(program);
    command
        .args(["verify", "--json", "--data"])
        .arg(data)
        .env_clear()
        .envs(neutral_environment())
        .stdin(Stdio::null());
    let run = task::spawn_blocking(move || command.output()).await;
    let output = run.map_err(|error| CliError::Start(error.to_string()))?;
    output.map_err(file_error("run", program))
}

fn show_costs(stage: &Stage, summary: &Summary) -> Result<(), DemoError> {
    stage.show.gap()?;
    stage.show.header(COSTS)?;
    for cost in &summary.steps {
        let row = cost_row(cost.step, cost.traffic, cost.seconds);
        stage.show.row(COSTS, &row)?;
    }
    let seconds = summary.steps.iter().map(|step| step.seconds).sum();
    let row = cost_row("together", summary.total, seconds);
    stage.show.total(COSTS, &row)?;
    stage
        .show
        .say("bytes both ways, HTTP headers included; sessions that moved at least one state")?;
    Ok(())
}

fn cost_row(name: &str, traffic: Traffic, seconds: f64) -> [String; 7] {
    [
        name.to_owned(),
        traffic.sessions.to_string(),
        traffic.states.to_string(),
        human_bytes(traffic.bytes_on_the_wire),
        human_bytes(traffic.bytes_if_sent_whole),
        percent(traffic.ratio()),
        format!("{seconds:.2}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_adds_up_the_steps() {
        let step = |wire, whole| StepCost {
            step: "s",
            traffic: Traffic {
                sessions: 1,
                states: 2,
                bytes_on_the_wire: wire,
                bytes_if_sent_whole: whole,
            },
            seconds: 0.5,
        };
        let summary = Summary::of(&[step(10, 100), step(30, 100)], None, None);
        assert!(summary.held);
        assert_eq!(summary.total.states, 4);
        assert_eq!(summary.ratio, Some(0.2));
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["steps"][1]["bytes_on_the_wire"], 30);
        let failed = Summary::of(&[], Some("no".to_owned()), None);
        assert!(!failed.held);
    }
}
