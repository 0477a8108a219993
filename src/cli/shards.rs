//! `shards`: into how many files a namespace is cut, and cutting it into another number.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::cli::error::{CliError, no_room};
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::progress::Progress;
use crate::cli::text::{count, human_bytes};
use crate::store::cut::Cut;
use crate::store::directory::DataDirectory;
use crate::store::disk::{Disk, MachineDisk};
use crate::store::options::StoreOptions;
use crate::store::random::random_u64;
use crate::store::reshard::{Resharded, reshard, shards_of};
use crate::types::id::Namespace;

/// Show or change into how many files (shards) a namespace is cut
///
/// States are spread over the files by the first bits of the hashes of their ids, and a checkpoint
/// writes several files at the same time. Root, change feed and everything that is answered stay the
/// same. The server must not be running. A crash in between leaves the namespace as it was.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate shards --data /var/lib/samestate
  samestate shards --data /var/lib/samestate --ns eu-1 --count 8")]
pub struct ShardsArgs {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "SAMESTATE_DATA")]
    data: PathBuf,
    /// Cut the namespace into so many shards: 1, 2, 4, 8, 16, 32 or 64
    #[arg(long, value_name = "N", value_parser = parse_count)]
    count: Option<Cut>,
}

fn parse_count(text: &str) -> Result<Cut, String> {
    let count = text.parse().ok().and_then(Cut::of_count);
    count.ok_or_else(|| "it must be 1, 2, 4, 8, 16, 32 or 64".to_owned())
}

#[derive(Serialize)]
struct Found {
    namespace: Namespace,
    shards: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// Shows the number of shards of each namespace, or changes that of one.
///
/// # Errors
/// [`CliError`] when the directory is in use, or a file cannot be used.
pub fn shards(args: &ShardsArgs, options: &Options) -> Result<ExitCode, CliError> {
    let directory = DataDirectory::open_existing(&args.data)?;
    let mut namespaces = directory.namespaces()?;
    if args.count.is_some() {
        let namespace = options.namespace.clone();
        namespaces.retain(|name| *name == namespace);
        if namespaces.is_empty() {
            let data = args.data.clone();
            return Err(CliError::NoNamespace { namespace, data });
        }
    }
    let mut found = Vec::new();
    for namespace in namespaces {
        let one = look_or_cut(&directory, namespace, args.count)?;
        if !options.json {
            print(&in_words(&one))?;
        }
        found.push(one);
    }
    if options.json {
        // Only strings and numbers: this cannot fail.
        print(&serde_json::to_string(&found).unwrap_or_default())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn look_or_cut(
    directory: &DataDirectory,
    namespace: Namespace,
    wanted: Option<Cut>,
) -> Result<Found, CliError> {
    let disk: Arc<dyn Disk> = Arc::new(MachineDisk);
    let (path, options) = (directory.file(&namespace), StoreOptions::default());
    let now = shards_of(&disk, &path, options)?;
    let mut found = Found {
        namespace,
        shards: now.count(),
        before: None,
        rows: None,
        bytes: None,
    };
    let Some(cut) = wanted else {
        return Ok(found);
    };
    found.before = Some(now.count());
    if cut == now {
        return Ok(found);
    }
    let progress = Progress::of_steps();
    let mut begun = false;
    let set = random_u64()?;
    let cut_anew = reshard(&disk, &path, cut, set, options, &mut |rows, total| {
        if !begun {
            progress.begin("rows copied", total, "rows");
            begun = true;
        }
        progress.reach(rows);
    });
    progress.finish();
    let Resharded {
        rows, bytes_after, ..
    } = cut_anew.map_err(no_room(
        &path,
        "the namespace is as it was (its files are written anew, which takes as much space as they do now)",
    ))?;
    found.shards = cut.count();
    found.rows = Some(rows);
    found.bytes = Some(bytes_after);
    Ok(found)
}

fn in_words(found: &Found) -> String {
    let (namespace, shards) = (&found.namespace, count(found.shards as u64, "shard"));
    match (found.before, found.rows, found.bytes) {
        (Some(before), Some(rows), Some(bytes)) => format!(
            "{namespace}: {shards}, {before} before; {} in {}\n",
            count(rows, "row"),
            human_bytes(bytes)
        ),
        (Some(_), ..) => format!("{namespace}: {shards} already\n"),
        _ => format!("{namespace}: {shards}\n"),
    }
}
