//! `serve`: runs a replica until it is told to stop.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cli::error::CliError;
use crate::cli::output::{note, print};
use crate::cli::settings::SettingArgs;
use crate::config::layers::{environment, load};
use crate::config::settings::{LogFormat, LogSettings, Settings};
use crate::peer::places::{ANSWERING, SILENT};
use crate::server::{self, Ready, ServeError};

/// Threads for what blocks: sessions with peers ([`ANSWERING`] and [`SILENT`] of them at once), and as many
/// as ever run at the same time of reads, uploads, answers and rounds in the background, each of which is
/// bounded by itself. They are started when they are needed.
const BLOCKING_THREADS: usize = ANSWERING + SILENT + 320;

/// Run a replica
///
/// Prints one line when it takes requests. On SIGTERM or Ctrl-C it finishes the requests in flight,
/// commits what is queued and exits; a second signal exits at once, which loses nothing that was
/// answered. Settings come from flags, then SAMESTATE_* variables, then --config, then defaults.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate serve --data /var/lib/samestate
  samestate serve --data d --listen [::]:7400 --peer eu-2=http://10.0.0.2:7400")]
pub struct ServeArgs {
    #[command(flatten)]
    settings: SettingArgs,
}

/// Runs a replica until it is told to stop.
///
/// # Errors
/// [`CliError`] when it did not start, or ended before it was told to.
pub fn run(args: &ServeArgs) -> Result<ExitCode, CliError> {
    let settings = load(&args.settings.0, environment)?.settings;
    start_log(&settings.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| CliError::Start(error.to_string()))?;
    let result = runtime.block_on(until_told(settings));
    if matches!(result, Err(CliError::Abandoned)) {
        runtime.shutdown_background();
    }
    result.map(|()| ExitCode::SUCCESS)
}

async fn until_told(settings: Settings) -> Result<(), CliError> {
    if settings.data.is_none() {
        return Err(ServeError::NoData.into());
    }
    let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
    let listen = |kind| signal(kind).map_err(|error| CliError::Start(error.to_string()));
    let signals = (listen(terminate)?, listen(interrupt)?);
    let (shutdown, abandon) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(follow_signals(signals, [shutdown.clone(), abandon.clone()]));
    let listener = server::bind(&settings).await?;
    tokio::select! {
        served = server::run(listener, settings, shutdown, announce) => Ok(served?),
        () = abandon.cancelled() => Err(CliError::Abandoned),
    }
}

/// The first signal asks to stop, the second one does not ask.
async fn follow_signals(
    (mut terminate, mut interrupt): (Signal, Signal),
    told: [CancellationToken; 2],
) {
    for token in told {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    }
}

fn announce(ready: &Ready) {
    if let Err(error) = print(&ready.to_string()) {
        // Whoever waits for the line will not get it, but the replica serves.
        note(&format!("warning: {error}"));
    }
}

/// Logs go to standard error, data to standard output. A line that cannot be written, on a full disk for example, is
/// lost: telling so would go the same way, and end the thread that had something to log.
fn start_log(log: &LogSettings) {
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(EnvFilter::new(&log.level))
        .log_internal_errors(false);
    match log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}
