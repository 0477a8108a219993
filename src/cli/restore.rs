//! `restore`: a new data directory from a backup; also checks and lists backups.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::backup::check::{Checked, check};
use crate::backup::destination::{Destination, folder, folder_name};
use crate::backup::manifest::{Manifest, NamespacePart};
use crate::backup::restore::{Restored, restore as restore_into};
use crate::cli::error::{CliError, no_room};
use crate::cli::options::Options;
use crate::cli::output::{note, print};
use crate::cli::progress::Progress;
use crate::cli::text::{Align, Table, count, human_bytes, printable};
use crate::clock::{SystemClock, WallClock};

/// Make a new replica from a backup, or check or list backups
///
/// The new replica has an id of its own and holds every namespace of the backup. Everything is read
/// and compared with the roots that were backed up; the directory gets its name once all of it is
/// right, and when something is wrong nothing is left. --check does the same without writing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate restore --from /var/backups/samestate --data /var/lib/samestate
  samestate restore --from /var/backups/samestate --check --at 000003
  samestate restore --from /var/backups/samestate --list")]
pub struct RestoreArgs {
    /// The folder that the backups are in
    #[arg(long, value_name = "DEST", value_parser = folder)]
    from: PathBuf,
    #[command(flatten)]
    what: What,
    /// Which backup; the newest unless given
    #[arg(long, value_name = "NNNNNN", value_parser = backup_number)]
    at: Option<u32>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The data directory to make; it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Read the whole backup and tell whether it could be restored
    #[arg(long)]
    check: bool,
    /// List the backups
    #[arg(long, conflicts_with = "at")]
    list: bool,
}

/// The number of a backup.
///
/// # Errors
/// What is expected instead.
fn backup_number(text: &str) -> Result<u32, String> {
    let told = || "a backup is named by its number, such as 000003; --list shows them".to_owned();
    text.parse().map_err(|_| told())
}

/// Does what is asked for.
///
/// # Errors
/// [`CliError::Backup`] naming what is wrong.
pub fn restore(args: &RestoreArgs, options: &Options) -> Result<ExitCode, CliError> {
    let destination = Destination::at(&args.from);
    if let Some(data) = &args.what.data {
        return into(&destination, args.at, data, options);
    }
    if args.what.list {
        return list(&destination, options);
    }
    let progress = Progress::of_steps();
    let checked = check(&destination, args.at, &progress);
    progress.finish();
    let checked = checked?;
    show(&checked, &checked_in_words(&checked), options)
}

fn into(
    destination: &Destination,
    at: Option<u32>,
    data: &Path,
    options: &Options,
) -> Result<ExitCode, CliError> {
    let wall: Arc<dyn WallClock> = Arc::new(SystemClock);
    let progress = Progress::of_steps();
    let restored = restore_into(destination, at, data, &wall, &progress);
    progress.finish();
    let restored = restored.map_err(no_room(data, "nothing of the new replica is left"))?;
    show(&restored, &restored_in_words(&restored), options)
}

fn show<T: Serialize>(value: &T, words: &str, options: &Options) -> Result<ExitCode, CliError> {
    if options.json {
        let text = serde_json::to_string(value);
        print(&text.map_err(|error| CliError::Output(error.into()))?)?;
    } else {
        print(words)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn restored_in_words(restored: &Restored) -> String {
    let mut text = format!(
        "backup {} of replica {} ({}) is restored in {} as replica {}\n",
        restored.backup,
        restored.of,
        printable(&restored.time),
        printable(&restored.data),
        restored.replica
    );
    for part in &restored.namespaces {
        let (states, versions) = (count(part.states, "state"), count(part.versions, "version"));
        text += &format!(
            "  {}: {states}, {versions}, root {}\n",
            part.namespace, part.root
        );
    }
    text
}

fn checked_in_words(checked: &Checked) -> String {
    let mut text = format!(
        "backup {} of replica {} ({}) is whole\n",
        checked.backup,
        checked.replica,
        printable(&checked.time)
    );
    for part in &checked.namespaces {
        text += &format!(
            "  {}: {}, {} ({}), root {}\n",
            part.namespace,
            count(part.states, "state"),
            count(part.versions, "version"),
            human_bytes(part.bytes),
            part.root
        );
    }
    text
}

#[derive(Debug, Serialize)]
struct Listing {
    backups: Vec<Listed>,
}

/// A backup in a listing.
#[derive(Debug, Serialize)]
struct Listed {
    backup: String,
    time: String,
    replica: String,
    states: u64,
    /// Bytes of its own data files.
    bytes: u64,
    /// Other backups whose files it uses.
    needs: Vec<String>,
}

impl Listed {
    fn of(manifest: &Manifest) -> Self {
        let parts = manifest.namespaces.iter();
        let files = parts.clone().flat_map(|part| &part.files);
        let mut needs: Vec<u32> = files.map(|file| file.backup).collect();
        needs.sort_unstable();
        needs.dedup();
        needs.retain(|number| *number != manifest.backup);
        let own = |part: &NamespacePart| part.own_file(manifest.backup).map(|file| file.length);
        Self {
            backup: folder_name(manifest.backup),
            time: manifest.time.clone(),
            replica: manifest.replica.to_string(),
            states: parts.clone().map(|part| part.states).sum(),
            bytes: parts.filter_map(own).sum(),
            needs: needs.into_iter().map(folder_name).collect(),
        }
    }
}

/// Prints the backups, newest last. Exits 1 when one of them cannot be read.
fn list(destination: &Destination, options: &Options) -> Result<ExitCode, CliError> {
    let (mut backups, mut code) = (Vec::new(), ExitCode::SUCCESS);
    for number in destination.numbers()? {
        match destination.manifest(number) {
            Ok(manifest) => backups.push(Listed::of(&manifest)),
            Err(error) => {
                note(&format!("error: {error}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    let words = table(&backups);
    show(&Listing { backups }, &words, options)?;
    Ok(code)
}

fn table(listed: &[Listed]) -> String {
    let mut table = Table::new(&[
        ("BACKUP", Align::Left),
        ("TIME", Align::Left),
        ("REPLICA", Align::Left),
        ("STATES", Align::Right),
        ("ADDED", Align::Right),
        ("NEEDS", Align::Left),
    ]);
    for backup in listed {
        table.row([
            backup.backup.clone(),
            printable(&backup.time).into_owned(),
            backup.replica.clone(),
            backup.states.to_string(),
            human_bytes(backup.bytes),
            spans(&backup.needs),
        ]);
    }
    table.render()
}

/// `000001, 000004 to 000009`.
fn spans(names: &[String]) -> String {
    let number = |name: &String| name.parse::<u32>().unwrap_or(0);
    let groups = names.chunk_by(|a, b| number(a) + 1 == number(b));
    let spans = groups.map(|group| match group {
        [one] => one.clone(),
        [first, .., last] => format!("{first} to {last}"),
        [] => String::new(),
    });
    spans.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_listed_as_spans() {
        let names = |numbers: &[u32]| numbers.iter().map(|n| folder_name(*n)).collect::<Vec<_>>();
        assert_eq!(spans(&names(&[])), "");
        assert_eq!(spans(&names(&[1])), "000001");
        let expected = "000001 to 000003, 000007, 000009 to 000010";
        assert_eq!(spans(&names(&[1, 2, 3, 7, 9, 10])), expected);
    }
}
