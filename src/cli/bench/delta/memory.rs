//! How much memory it takes to make a delta of a large state, beside its base, itself and the delta: in a
//! process of its own for each, as the operating system counts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::Serialize;

use crate::cli::bench::args::{PeakArgs, PeakOf};
use crate::cli::bench::delta::series::Series;
use crate::cli::bench::error::BenchError;
use crate::cli::error::{CliError, file_error};
use crate::cli::output::print;
use crate::cli::text::{Align, Table, grouped};
use crate::cli::workspace::Workspace;
use crate::config::process::executable;
use crate::delta::codec::Effort;
use crate::delta::compress::{Patch, compress_patch};
use crate::delta::registry::encode_smallest;

/// Shorter states take little whatever is done with them.
const LARGE: usize = 16 << 20;
/// What the system tells of this process, and where its peaks are forgotten (`proc(5)`).
const STATUS: &str = "/proc/self/status";
const FORGET: &str = "/proc/self/clear_refs";

/// What one method took.
#[derive(Debug, Serialize)]
pub struct MemoryRow {
    method: &'static str,
    /// Bytes of the state.
    bytes: usize,
    /// Bytes of the delta.
    delta: usize,
    /// The most memory that was resident at a time, less what was before and the delta, in bytes.
    extra: usize,
}

/// Measures the large pairs, with files in a temporary folder below `parent`. Nothing where the system does not tell.
///
/// # Errors
/// [`CliError`] when a file cannot be written or a process fails.
pub fn measure(series: &[Series], parent: &Path) -> Result<Vec<MemoryRow>, CliError> {
    let mut rows = Vec::new();
    let pairs = series.iter().flat_map(|one| &one.pairs);
    for (base, new) in pairs.filter(|(_, new)| new.len() >= LARGE) {
        if !Path::new(FORGET).exists() {
            break;
        }
        let workspace = Workspace::temporary(parent, "samestate-bench")?;
        let (old_path, new_path) = (workspace.folder.join("OLD"), workspace.folder.join("NEW"));
        fs::write(&old_path, base).map_err(file_error("write", &old_path))?;
        fs::write(&new_path, new).map_err(file_error("write", &new_path))?;
        for (method, of) in [
            ("samestate fast", PeakOf::Fast),
            ("patch 3 long", PeakOf::Patch),
        ] {
            let (delta, extra) = in_a_process(&old_path, &new_path, of)?;
            rows.push(MemoryRow {
                method,
                bytes: new.len(),
                delta,
                extra,
            });
        }
    }
    Ok(rows)
}

fn in_a_process(old: &Path, new: &Path, of: PeakOf) -> Result<(usize, usize), CliError> {
    let failed = |why: String| BenchError::Memory(why);
    let program = executable().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.args(["bench", "peak", "--of", of.name()]);
    command.arg("--old").arg(old).arg("--new").arg(new);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = command
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = said.split_whitespace().map(str::parse::<usize>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(delta)), Some(Ok(extra))) => Ok((delta, extra)),
        _ => Err(failed(said).into()),
    }
}

/// The other process: makes one delta, and tells its length and what it took.
///
/// # Errors
/// [`CliError`] when a file cannot be read.
pub fn peak(args: &PeakArgs) -> Result<ExitCode, CliError> {
    let read = |path: &PathBuf| fs::read(path).map_err(file_error("read", path));
    let (base, new) = (read(&args.old)?, read(&args.new)?);
    let forget = Path::new(FORGET);
    fs::write(forget, "5").map_err(file_error("write", forget))?;
    let before = highest()?;
    let delta = match args.of {
        PeakOf::Fast => encode_smallest(&[&base], &new, Effort::Fast).payload,
        PeakOf::Patch => {
            let patch = Patch {
                level: 3,
                long: true,
            };
            compress_patch(&new, &base, patch).map_err(BenchError::Delta)?
        }
    };
    let extra = highest()?.saturating_sub(before + delta.len());
    print(&format!("{} {extra}", delta.len()))?;
    Ok(ExitCode::SUCCESS)
}

/// The most memory that was resident at a time, in bytes.
fn highest() -> Result<usize, CliError> {
    let path = Path::new(STATUS);
    let status = fs::read_to_string(path).map_err(file_error("read", path))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.map(|kib| kib << 10)
        .ok_or_else(|| BenchError::Memory(format!("no VmHWM in {STATUS}")).into())
}

/// A table for people.
pub fn in_words(rows: &[MemoryRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("MEMORY, PROCESS OF ITS OWN", Align::Left),
        ("STATE", Align::Right),
        ("DELTA", Align::Right),
        ("BESIDE BASE, STATE, DELTA, MB", Align::Right),
    ]);
    for row in rows {
        table.row([
            row.method.to_owned(),
            grouped(row.bytes as u64),
            grouped(row.delta as u64),
            format!("{:.1}", row.extra as f64 / 1e6),
        ]);
    }
    table.render() + "\n"
}
