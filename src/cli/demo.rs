//! `demo`: three replicas, recorded games, a partition and a crash, with every claim checked.

mod api;
mod ending;
mod error;
mod ledger;
mod meter;
mod partition;
mod recording;
mod replicas;
mod show;
mod stage;
mod steps;
mod storm;

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::time::sleep;

use crate::cli::demo::ending::{Summary, ending};
use crate::cli::demo::error::DemoError;
use crate::cli::demo::partition::partition;
use crate::cli::demo::recording::Recording;
use crate::cli::demo::replicas::Replica;
use crate::cli::demo::show::Show;
use crate::cli::demo::stage::Stage;
use crate::cli::demo::steps::{first_replication, import, replay, start};
use crate::cli::demo::storm::storm;
use crate::cli::error::CliError;
use crate::cli::interrupt::interrupted;
use crate::cli::options::Options;
use crate::cli::output::{note, print};
use crate::cli::workspace::Workspace;
use crate::config::process::{executable, temporary_folder};

/// How often the replicas are looked after while they stay up.
const LOOK: Duration = Duration::from_secs(1);

/// Show what samestate does: three replicas, real game states, a partition and a crash
///
/// Starts three replicas on the loopback interface as processes of their own, plays recorded games
/// on them, parts them, kills one, and checks every step. Then the replicas stay up until Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate demo
  samestate demo --once --json")]
pub struct DemoArgs {
    /// End when all is shown; exit code 0 only if all of it held
    #[arg(long)]
    once: bool,
    /// A new or empty directory to work in and to keep, instead of a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the demonstration.
///
/// # Errors
/// [`CliError::Output`]; whatever else goes wrong is part of the show, and of the exit code.
pub async fn demo(args: DemoArgs, options: &Options) -> Result<ExitCode, CliError> {
    let mut interrupted = pin!(interrupted()?);
    let mut workspace = match &args.data {
        Some(folder) => Workspace::given(folder)?,
        None => Workspace::temporary(&temporary_folder(), "samestate-demo")?,
    };
    let mut act = Act {
        stage: None,
        program: executable().map_err(|error| CliError::Start(error.to_string()))?,
        folder: workspace.folder.clone(),
        json: options.json,
    };
    let played = tokio::select! {
        biased;
        () = &mut interrupted => {
            note("interrupted; the replicas are stopped");
            return Ok(ExitCode::FAILURE);
        }
        played = act.play(&workspace) => played,
    };
    let held = act.conclude(played, &mut workspace)?;
    if args.once || !held {
        return Ok(if held {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    tokio::select! {
        biased;
        () = &mut interrupted => {
            note("the replicas are stopped");
            Ok(ExitCode::SUCCESS)
        }
        ended = act.stay_up(&workspace) => {
            workspace.kept = true;
            note(&format!("error: {}", ended?));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The demonstration as it goes on.
struct Act {
    stage: Option<Stage>,
    program: PathBuf,
    folder: PathBuf,
    json: bool,
}

impl Act {
    async fn play(&mut self, workspace: &Workspace) -> Result<Summary, DemoError> {
        let started = Instant::now();
        let show = Show::new(self.json);
        show.title("samestate: one set of game states on three replicas")?;
        show.say(&workspace.in_words())?;
        let recording = Recording::open()?;
        let stage = self
            .stage
            .insert(start(show, &self.program, &self.folder).await?);
        import(stage, &recording).await?;
        first_replication(stage).await?;
        replay(stage, &recording).await?;
        partition(stage, &recording).await?;
        storm(stage, &recording).await?;
        let summary = ending(stage, &self.program).await?;
        let seconds = started.elapsed().as_secs_f64();
        stage.show.gap()?;
        stage
            .show
            .held(&format!("All of it held, in {seconds:.1} s."))?;
        Ok(summary)
    }

    /// Tells how it went. True when all of it held.
    fn conclude(
        &mut self,
        played: Result<Summary, DemoError>,
        workspace: &mut Workspace,
    ) -> Result<bool, CliError> {
        let summary = match played {
            Ok(summary) => summary,
            Err(DemoError::Client(error @ CliError::Output(_))) => return Err(error),
            Err(error) => {
                workspace.kept = true;
                let reason = self.ended_replica().unwrap_or(error).to_string();
                Show::new(self.json).failed(&reason)?;
                let folder = workspace.folder.display();
                note(&format!(
                    "error: not all of it held; logs and data are left in {folder}"
                ));
                let costs = self.stage.as_ref().map_or(&[][..], |stage| &stage.costs);
                Summary::of(costs, Some(reason), None)
            }
        };
        if self.json {
            // Only strings, numbers and lists: this cannot fail.
            print(&serde_json::to_string(&summary).unwrap_or_default())?;
        }
        Ok(summary.held)
    }

    /// A replica that ended by itself, which explains whatever failed after it.
    fn ended_replica(&mut self) -> Option<DemoError> {
        let mut replicas = self.stage.as_mut()?.trio.all_mut().into_iter();
        let error = replicas.find_map(|replica| replica.check().err())?;
        Some(error.into())
    }

    /// Starts the replicas again and waits until one of them ends.
    async fn stay_up(&mut self, workspace: &Workspace) -> Result<CliError, CliError> {
        let Some(stage) = &mut self.stage else {
            return Err(CliError::Start("no replicas".to_owned()));
        };
        if let Err(error) = start_again(stage).await {
            return Ok(error);
        }
        invite(stage, workspace)?;
        loop {
            sleep(LOOK).await;
            for replica in stage.trio.all_mut() {
                if let Err(error) = replica.check() {
                    return Ok(error);
                }
            }
        }
    }
}

/// Every replica with links to the other two, as one would set them up.
async fn start_again(stage: &mut Stage) -> Result<(), CliError> {
    let urls = stage
        .trio
        .all()
        .map(|replica| (replica.name, replica.url()));
    for replica in stage.trio.all_mut() {
        let others = urls.iter().filter(|(name, _)| *name != replica.name);
        let others: Vec<_> = others.cloned().collect();
        replica.restart(&others).await?;
    }
    Ok(())
}

fn invite(stage: &Stage, workspace: &Workspace) -> Result<(), CliError> {
    let [a, b, c] = stage.trio.all().map(Replica::url);
    let show = &stage.show;
    show.title("\nThe replicas are up again, each linked to the other two. Try:")?;
    for command in [
        format!("curl {a}/v1/ns/default/root"),
        format!("curl -X PUT -d 'hello' {a}/v1/ns/default/states/greeting"),
        format!("curl {c}/v1/ns/default/states/greeting"),
        format!("curl {b}/v1/peers"),
        format!("curl {b}/v1/sessions"),
        format!("samestate --server {b} ls freeciv/player/"),
        format!("samestate --server {c} history freeciv/game.sav"),
        format!("samestate diff {a} {c}"),
    ] {
        show.say(&command)?;
    }
    let end = if workspace.kept {
        "Ctrl-C stops them."
    } else {
        "Ctrl-C stops them and removes their data."
    };
    show.title(end)
}
