//! `verify`: reads everything in a data directory and compares it; repairs it when told to.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::cli::error::{CliError, no_room};
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::progress::Progress;
use crate::cli::text::{count, human_bytes, printable};
use crate::replica::findings::{CheckReport, Fault};
use crate::replica::inspect::inspect;
use crate::replica::repair::{RepairReport, repair};
use crate::store::directory::DataDirectory;
use crate::store::disk::{Disk, MachineDisk};
use crate::store::error::StoreError;
use crate::types::hash::hex;
use crate::types::id::Namespace;

/// Check a data directory: every body, count, feed entry, Merkle node and logged root
///
/// The server must not be running. Nothing is changed unless --repair is given: then a namespace
/// with faults is made anew from what is left of it, and its old files are kept beside it as
/// *.broken-N. Exits 1 when anything is wrong, or was lost.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate verify --data /var/lib/samestate
  samestate verify --data /var/lib/samestate --repair")]
pub struct VerifyArgs {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "SAMESTATE_DATA")]
    data: PathBuf,
    /// Rebuild what is derived, save what is whole, set aside what is broken
    #[arg(long)]
    repair: bool,
}

#[derive(Serialize)]
struct Found {
    ok: bool,
    /// What the replica signs with, in hexadecimal.
    key: Option<String>,
    /// What is wrong with the directory itself.
    faults: Vec<Fault>,
    namespaces: Vec<NamespaceFound>,
}

#[derive(Serialize)]
struct NamespaceFound {
    namespace: Namespace,
    #[serde(flatten)]
    report: CheckReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<RepairReport>,
}

impl NamespaceFound {
    fn is_ok(&self) -> bool {
        let lost = self.repair.as_ref().map(|repair| repair.lost.len());
        lost.map_or(self.report.faults.is_empty(), |lost| lost == 0)
    }
}

/// Checks every namespace, and repairs those with faults when told to.
///
/// # Errors
/// [`CliError::Store`] when the directory or a file cannot be used at all, which is told once all
/// others have been looked at.
pub fn verify(args: &VerifyArgs, options: &Options) -> Result<ExitCode, CliError> {
    let directory = DataDirectory::open_existing(&args.data)?;
    let (mut verified, mut failed) = (Vec::new(), None);
    for namespace in directory.namespaces()? {
        match verify_namespace(&directory, &namespace, args.repair) {
            Ok(namespace) => {
                if !options.json {
                    print(&in_words(&namespace))?;
                }
                verified.push(namespace);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let (key, faults) = look_at_key(&directory, &args.data)?;
    let has_looked = !(verified.is_empty() && failed.is_some());
    if !options.json && has_looked {
        print(&key_in_words(key.as_deref(), &faults))?;
    }
    let is_whole = verified.iter().all(NamespaceFound::is_ok);
    let ok = failed.is_none() && faults.is_empty() && is_whole;
    if options.json && has_looked {
        let namespaces = verified;
        print(&json(&Found {
            ok,
            key,
            faults,
            namespaces,
        }))?;
    }
    match failed {
        Some(error) => Err(no_room(
            &args.data,
            "the namespaces that were not repaired are as they were (a repair takes as much space as their states)",
        )(error)),
        None if ok => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

/// What the replica signs with, and what is wrong with it.
fn look_at_key(
    directory: &DataDirectory,
    root: &Path,
) -> Result<(Option<String>, Vec<Fault>), StoreError> {
    let (key, fault) = directory.look_at_key()?;
    let fault = fault.map(|detail| Fault {
        kind: "key",
        what: root.join("key").display().to_string(),
        detail: detail.to_owned(),
    });
    let key = key.map(|key| hex(&key.0));
    Ok((key, fault.into_iter().collect()))
}

fn key_in_words(key: Option<&str>, faults: &[Fault]) -> String {
    let key = key.map_or_else(String::new, |key| format!("signs with key {key}\n"));
    key + &listed(faults)
}

fn verify_namespace(
    directory: &DataDirectory,
    namespace: &Namespace,
    repairs: bool,
) -> Result<NamespaceFound, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(MachineDisk);
    let (path, claim) = (directory.file(namespace), directory.claim(namespace)?);
    let report = showing(|progress| inspect(&disk, &path, namespace, &claim, progress))?;
    let repair = if repairs && !report.faults.is_empty() {
        Some(showing(|progress| {
            repair(&path, namespace, &claim, progress)
        })?)
    } else {
        None
    };
    Ok(NamespaceFound {
        namespace: namespace.clone(),
        report,
        repair,
    })
}

/// Shows how far the work is while it goes on.
fn showing<R>(work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> R) -> R {
    let progress = Progress::of_bytes(None);
    let mut done = 0;
    let result = work(&mut |bytes, total| {
        progress.expect(Some(total));
        progress.advance(bytes.saturating_sub(done));
        done = bytes;
    });
    progress.finish();
    result
}

fn in_words(verified: &NamespaceFound) -> String {
    let (namespace, report) = (&verified.namespace, &verified.report);
    let mut text = format!(
        "{namespace}: {}, {} read, {}, {}, {}, root {}\n",
        count(report.states, "state"),
        human_bytes(report.bytes),
        count(report.chunks, "chunk"),
        count(report.nodes, "Merkle row"),
        count(report.roots, "logged root"),
        report.root,
    );
    text += &listed(&report.faults);
    text += &match report.faults.len() {
        0 => format!("{namespace}: no faults\n"),
        faults => format!("{namespace}: {}\n", count(faults as u64, "fault")),
    };
    if let Some(repair) = &verified.repair {
        text += &repaired_in_words(namespace, repair);
    }
    text
}

fn repaired_in_words(namespace: &Namespace, repair: &RepairReport) -> String {
    let mut text = format!(
        "{namespace}: repaired, {} saved\n",
        count(repair.records, "record")
    );
    if !repair.lost.is_empty() {
        let lost = count(repair.lost.len() as u64, "part");
        text += &format!("{namespace}: {lost} lost; a peer that holds it brings it back:\n");
        text += &listed(&repair.lost);
    }
    if repair.new_epoch {
        text += &format!(
            "{namespace}: its change feed begins anew: cursors of before are refused, and peers \
             compare everything\n"
        );
    }
    if repair.new_root_log {
        text += &format!(
            "{namespace}: its log of roots begins anew under another name: peers notice, and keep that \
             on record; the old one is in what is kept\n"
        );
    }
    for kept in &repair.kept {
        text += &format!("{namespace}: kept {}\n", printable(&kept.to_string_lossy()));
    }
    text
}

fn listed(faults: &[Fault]) -> String {
    let line = |fault: &Fault| {
        let (what, detail) = (printable(&fault.what), printable(&fault.detail));
        format!("  {} {what}: {detail}\n", fault.kind)
    };
    faults.iter().map(line).collect()
}

fn json(verified: &Found) -> String {
    // Only strings, numbers and lists: this cannot fail.
    serde_json::to_string(verified).unwrap_or_default()
}
