//! The command line: parses arguments, calls a replica over HTTP, prints what it answers.
//!
//! What a command does lives in the layers below; here is only how it is asked for and shown.

mod backup;
mod bench;
mod child;
mod client;
mod compact;
mod config;
mod demo;
mod diff;
mod error;
mod export;
mod files;
mod import;
mod interrupt;
mod jobs;
mod listing;
mod options;
mod output;
mod progress;
mod proof;
mod restore;
mod roots;
mod serve;
mod settings;
mod shards;
mod states;
mod sync;
mod text;
mod transfer;
mod tree;
mod verify;
mod watch;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cli::error::CliError;
use crate::cli::options::Options;

/// A replicated state store for game servers
#[derive(Debug, Parser)]
#[command(
    name = "samestate",
    version,
    max_term_width = 100,
    after_help = "Example:\n  samestate put match/eu-1/42 save.bin"
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

/// Everything `samestate` can do.
#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Bench(bench::args::BenchArgs),
    Serve(serve::ServeArgs),
    Config(config::ConfigArgs),
    Verify(verify::VerifyArgs),
    Shards(shards::ShardsArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

/// Commands that talk to a running replica, or check what one has given out.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    Put(states::PutArgs),
    Get(states::GetArgs),
    Rm(states::RemoveArgs),
    Ls(listing::ListArgs),
    History(listing::HistoryArgs),
    Revert(states::RevertArgs),
    Watch(watch::WatchArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Compact(compact::CompactArgs),
    Sync(sync::SyncArgs),
    Diff(diff::DiffArgs),
    Proof(proof::ProofArgs),
    VerifyProof(proof::VerifyProofArgs),
    Tree(tree::TreeArgs),
    Roots(roots::RootsArgs),
    VerifyRoots(roots::VerifyRootsArgs),
}

/// Runs the program: reads the arguments, does what they say, and tells how it went.
///
/// Exit codes are 0 for success, 1 for failure and 2 for wrong usage.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help that nobody reads any more is no failure.
            let _ = usage.print();
            let code = u8::try_from(usage.exit_code()).unwrap_or(1);
            return ExitCode::from(code);
        }
    };
    let result = match cli.command {
        Command::Demo(args) => on_client_runtime(demo::demo(args, &cli.options)),
        Command::Bench(args) => on_client_runtime(bench::bench(args, cli.options.json)),
        Command::Serve(args) => serve::run(&args),
        Command::Config(args) => config::run(&args, cli.options.json),
        Command::Verify(args) => verify::verify(&args, &cli.options),
        Command::Shards(args) => shards::shards(&args, &cli.options),
        Command::Backup(args) => match args.data() {
            Some(data) => backup::at_rest(&args, data, &cli.options),
            None => on_client_runtime(backup::at_server(&args, &cli.options)),
        },
        Command::Restore(args) => restore::restore(&args, &cli.options),
        Command::Client(command) => on_client_runtime(command.run(&cli.options)),
    };
    match result {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

impl ClientCommand {
    async fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        match self {
            Self::Put(args) => states::put(args, options).await,
            Self::Get(args) => states::get(args, options).await,
            Self::Rm(args) => states::remove(args, options).await,
            Self::Ls(args) => listing::list(args, options).await,
            Self::History(args) => listing::history(args, options).await,
            Self::Revert(args) => states::revert(args, options).await,
            Self::Compact(args) => compact::compact(args, options).await,
            Self::Watch(args) => watch::watch(args, options).await,
            Self::Import(args) => import::import(args, options).await,
            Self::Export(args) => export::export(args, options).await,
            Self::Sync(args) => sync::sync(args, options).await,
            Self::Diff(args) => diff::diff(args, options).await,
            Self::Proof(args) => proof::proof(args, options).await,
            Self::VerifyProof(args) => proof::verify_proof(&args, options),
            Self::Tree(args) => tree::tree(args, options).await,
            Self::Roots(args) => roots::roots(args, options).await,
            Self::VerifyRoots(args) => roots::verify_roots(&args, options),
        }
    }
}

/// A client waits for the network most of the time, for which one thread is enough.
fn on_client_runtime(
    work: impl Future<Output = Result<ExitCode, CliError>>,
) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Start(error.to_string()))?;
    let result = runtime.block_on(work);
    // A read of standard input that is still waiting must not keep the program from ending.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_definition_is_sound_and_every_command_shows_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
        {
            let name = sub.get_name();
            let after = sub
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                after.contains(&format!("samestate {name}")),
                "{name}: {after}"
            );
            assert!(
                sub.get_about().is_some(),
                "{name} does not say what it does"
            );
        }
    }

    #[test]
    fn options_may_stand_before_or_behind_the_command() {
        for line in [
            "samestate --server http://h:1 --ns eu ls a/ --json",
            "samestate ls --json --ns eu a/ --server http://h:1",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.options.server.to_string(), "http://h:1");
            assert_eq!(cli.options.namespace.as_str(), "eu");
            assert!(cli.options.json);
        }
    }

    #[test]
    fn wrong_usage_is_told_before_anything_is_sent() {
        for line in [
            "samestate",
            "samestate ls --server h:1",
            "samestate ls --ns A",
            "samestate put",
            "samestate get a --version 12",
            "samestate put a f --ttl 30",
            "samestate get a --at",
            "samestate sync",
            "samestate sync --from http://h --strategy magic",
            "samestate import . --jobs 0",
            "samestate verify-proof f --root 12",
            "samestate tree --prefix a --from b",
            "samestate watch --since 12",
            "samestate backup",
            "samestate backup --to s3://bucket/x",
            "samestate restore --from d",
            "samestate restore --from d --data e --check",
            "samestate restore --from d --data e --at x",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        let help = Cli::try_parse_from(["samestate", "--help"]).unwrap_err();
        assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
    }
}
