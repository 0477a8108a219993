//! `bench`: what a replica does on this machine, beside the storage engine alone.

pub mod args;
mod connection;
mod delta;
mod disk;
mod engine;
mod engine_child;
pub mod error;
mod ledger;
mod load;
mod measure;
mod plan;
mod reconcile;
mod recover;
mod secrets;
mod server;
mod stage;
mod throughput;
mod upkeep;
mod values;

use std::pin::pin;
use std::process::ExitCode;

use tokio::task;

use crate::cli::bench::args::{BenchArgs, What};
use crate::cli::bench::load::Operation;
use crate::cli::error::CliError;
use crate::cli::interrupt::interrupted;
use crate::cli::output::note;

/// Runs a measurement and prints its figures.
///
/// # Errors
/// [`CliError`] when there are none: a process failed, or did not do what was measured.
pub async fn bench(args: BenchArgs, json: bool) -> Result<ExitCode, CliError> {
    let mut interrupted = pin!(interrupted()?);
    let work = async {
        match args.what {
            What::Put(args) => throughput::run(Operation::Put, &args, json).await,
            What::Get(args) => throughput::run(Operation::Get, &args, json).await,
            What::Reconcile(args) => reconcile::run(&args, json).await,
            What::Recover(args) => recover::run(&args, json).await,
            What::Delta(args) => {
                let work = task::spawn_blocking(move || delta::run(&args, json)).await;
                work.map_err(|error| CliError::Start(error.to_string()))?
            }
            What::Engine(args) => engine_child::run(&args).await,
            What::Peak(args) => delta::memory::peak(&args),
        }
    };
    tokio::select! {
        biased;
        () = &mut interrupted => {
            note("interrupted");
            Ok(ExitCode::FAILURE)
        }
        done = work => done,
    }
}
