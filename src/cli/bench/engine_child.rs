//! The storage engine alone in a process that is there to be killed.

use std::io::{Read, stdin};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cli::bench::args::EngineArgs;
use crate::cli::bench::engine::Engine;
use crate::cli::bench::plan::Plan;
use crate::cli::bench::values::Values;
use crate::cli::error::CliError;
use crate::cli::output::print;

/// Opens a file, loads it if it is new, reads a state, says so, and overwrites states until it is
/// killed, or until whoever started it is gone.
///
/// # Errors
/// [`CliError`] when the engine fails.
pub async fn run(args: &EngineArgs) -> Result<ExitCode, CliError> {
    let plan = Plan {
        states: args.states,
        values: Values {
            seed: args.seed,
            bytes: args.value_bytes,
        },
        time: Duration::ZERO,
    };
    let engine = Engine::open(args.file.clone(), plan).await?;
    engine.read(0)?;
    print("ready")?;
    let orphaned = watch_for_end_of_input()?;
    engine
        .overwrite_until(orphaned, usize::from(args.batch))
        .await?;
    Ok(ExitCode::SUCCESS)
}

/// Standard input is held open by who started this process, and ends with it.
fn watch_for_end_of_input() -> Result<impl Fn() -> bool + Send + 'static, CliError> {
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    let watch = move || {
        // Whatever comes, there is nothing to wait for any more.
        let _ = stdin().lock().read(&mut [0]);
        ended.store(true, Ordering::Relaxed);
    };
    let thread = std::thread::Builder::new().name("end-of-input".to_owned());
    let spawned = thread.spawn(watch);
    spawned.map_err(|error| CliError::Start(error.to_string()))?;
    Ok(move || seen.load(Ordering::Relaxed))
}
