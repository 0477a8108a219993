//! `verify`: reads everything in a data directory and compares it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::progress::Progress;
use crate::cli::text::{count, human_bytes, printable};
use crate::replica::check::{CheckReport, Verified};
use crate::replica::inspect::inspect;
use crate::store::directory::DataDirectory;
use crate::store::disk::{Disk, MachineDisk};
use crate::store::error::StoreError;
use crate::types::id::Namespace;

/// Check a data directory: every body, count, feed entry and Merkle node
///
/// The server must not be running. Files of an older version are brought up to date, as by any
/// start; no state is changed and nothing is repaired. Exits 1 when anything is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate verify --data /var/lib/samestate")]
pub struct VerifyArgs {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "SAMESTATE_DATA")]
    data: PathBuf,
}

/// Checks every namespace.
///
/// # Errors
/// [`CliError::Store`] when the directory or a file cannot be opened or read at all.
pub fn verify(args: &VerifyArgs, options: &Options) -> Result<ExitCode, CliError> {
    let directory = DataDirectory::open_existing(&args.data)?;
    let mut verified = Verified::nothing();
    for namespace in directory.namespaces()? {
        let report = verify_namespace(&directory, &namespace)?;
        if !options.json {
            print(&in_words(&namespace, &report))?;
        }
        verified.add(namespace, report);
    }
    if options.json {
        print(&json(&verified))?;
    }
    Ok(if verified.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn verify_namespace(
    directory: &DataDirectory,
    namespace: &Namespace,
) -> Result<CheckReport, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(MachineDisk);
    let (path, replica) = (directory.file(namespace), directory.replica());
    let progress = Progress::of_bytes(None);
    let mut done = 0;
    let report = inspect(&disk, &path, replica, &mut |bytes, total| {
        progress.expect(Some(total));
        progress.advance(bytes.saturating_sub(done));
        done = bytes;
    });
    progress.finish();
    report
}

fn in_words(namespace: &Namespace, report: &CheckReport) -> String {
    let mut text = format!(
        "{namespace}: {}, {} read, {}, {}, root {}\n",
        count(report.states, "state"),
        human_bytes(report.bytes),
        count(report.chunks, "chunk"),
        count(report.nodes, "Merkle row"),
        report.root,
    );
    for fault in &report.faults {
        let (what, detail) = (printable(&fault.what), printable(&fault.detail));
        text += &format!("  {} {what}: {detail}\n", fault.kind);
    }
    text += &match report.faults.len() {
        0 => format!("{namespace}: no faults\n"),
        faults => format!("{namespace}: {}\n", count(faults as u64, "fault")),
    };
    text
}

fn json(verified: &Verified) -> String {
    // Only strings, numbers and lists: this cannot fail.
    serde_json::to_string(verified).unwrap_or_default()
}
