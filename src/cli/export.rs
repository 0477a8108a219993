//! `export`: states become files below a folder.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use futures_util::stream::{self, Stream, TryStreamExt};
use reqwest::Method;
use reqwest::header::ETAG;
use serde::Deserialize;

use crate::cli::client::Client;
use crate::cli::error::{CliError, file_error};
use crate::cli::files::{Saved, content_hash, save};
use crate::cli::listing::{Pager, StateRow};
use crate::cli::options::Options;
use crate::cli::progress::Progress;
use crate::cli::transfer::{Tally, patiently};
use crate::types::id::GameId;

/// Write states into files below a folder
///
/// A state's id is its path below the folder; ids that would lead elsewhere are refused. Files
/// that hold their state's content already are skipped, so an interrupted export goes on where it
/// stopped. A file appears under its name only when it is whole.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate export saves match/eu-1/")]
pub struct ExportArgs {
    /// The folder; made if missing
    dir: PathBuf,
    /// Only ids that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// States fetched at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
}

/// Fetches what the folder does not hold yet.
///
/// # Errors
/// [`CliError`] of the folder, the connection or the server; [`CliError::Incomplete`] when single
/// states failed.
pub async fn export(args: ExportArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let total = total_size(&client, &args.prefix).await?;
    let tally = Tally::new("exported", Progress::of_bytes(total));
    std::fs::create_dir_all(&args.dir).map_err(file_error("make", &args.dir))?;
    rows(Pager::new(client.clone(), &args.prefix))
        .try_for_each_concurrent(usize::from(args.jobs), async |row| {
            match export_one(&client, &args.dir, &row).await {
                Ok(Outcome::Written(bytes)) => tally.transferred(bytes),
                Ok(Outcome::HeldAlready) => tally.skipped(row.size),
                Ok(Outcome::Gone) => {}
                Err(error) => tally.tolerate(&row.id, error)?,
            }
            Ok(())
        })
        .await?;
    tally.finish(options)
}

/// What became of one state.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Written(u64),
    HeldAlready,
    Gone,
}

async fn export_one(client: &Client, dir: &Path, row: &StateRow) -> Result<Outcome, CliError> {
    let path = dir.join(relative_path(&row.id)?);
    if holds(&path, row).await? {
        return Ok(Outcome::HeldAlready);
    }
    make_folder_of(&path)?;
    let Ok(id) = GameId::new(&row.id) else {
        return Err(CliError::NoPath);
    };
    let fetched = patiently(async || {
        let request = client.state_request(Method::GET, "states", &id, &[])?;
        let response = client.send(request).await?;
        let listed = response
            .headers()
            .get(ETAG)
            .is_some_and(|etag| etag == row.etag.as_str());
        let check = |saved: &Saved| {
            if listed {
                check_hash(row, saved)
            } else {
                Ok(())
            }
        };
        save(client, response, &path, &Progress::none(), check).await
    });
    match fetched.await {
        Ok(saved) => Ok(Outcome::Written(saved.bytes)),
        // Deleted since it was listed.
        Err(CliError::Problem(problem)) if problem.status == 404 => Ok(Outcome::Gone),
        Err(CliError::File { source, .. }) if is_folder_fault(&source) => {
            Err(CliError::FileAndFolder { path })
        }
        Err(error) => Err(error),
    }
}

/// A state that was written to since it was listed has another hash by right, so this is asked
/// only while the ETag is the listed one.
fn check_hash(row: &StateRow, saved: &Saved) -> Result<(), CliError> {
    let got = saved.hash.to_hex();
    if got == row.content_hash {
        return Ok(());
    }
    Err(CliError::Damaged {
        expected: row.content_hash.clone(),
        got,
    })
}

async fn holds(path: &Path, row: &StateRow) -> Result<bool, CliError> {
    let same_size = std::fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() == row.size);
    Ok(same_size && content_hash(path).await?.to_hex() == row.content_hash)
}

fn make_folder_of(path: &Path) -> Result<(), CliError> {
    let folder = path.parent().unwrap_or(path);
    match std::fs::create_dir_all(folder) {
        Err(error) if is_folder_fault(&error) => Err(CliError::FileAndFolder {
            path: folder.to_owned(),
        }),
        made => made.map_err(file_error("make", folder)),
    }
}

fn is_folder_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::DirectoryNotEmpty
    )
}

/// An id as a path that stays below the folder it is joined to, on every system.
fn relative_path(id: &str) -> Result<PathBuf, CliError> {
    let is_one_name = |part: &str| {
        let mut components = Path::new(part).components();
        let first = components.next();
        first == Some(Component::Normal(part.as_ref())) && components.next().is_none()
    };
    // A NUL, as a server gone bad may send, cannot be part of any path.
    if id.contains('\0') || !id.split('/').all(is_one_name) {
        return Err(CliError::NoPath);
    }
    Ok(id.split('/').collect())
}

fn rows(pager: Pager) -> impl Stream<Item = Result<StateRow, CliError>> {
    let pages = stream::try_unfold(pager, async |mut pager| {
        let page = pager.next().await?;
        let rows = page.map(|rows| stream::iter(rows.into_iter().map(Ok::<_, CliError>)));
        Ok::<_, CliError>(rows.map(|rows| (rows, pager)))
    });
    pages.try_flatten()
}

/// Bytes of a whole namespace; nobody knows those below a prefix.
async fn total_size(client: &Client, prefix: &str) -> Result<Option<u64>, CliError> {
    #[derive(Deserialize)]
    struct Root {
        total_size: u64,
    }
    if !prefix.is_empty() {
        return Ok(None);
    }
    let text = client.ask(client.request(Method::GET, "root", &[])).await?;
    Ok(Some(client.parse::<Root>(&text)?.total_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_below_the_folder_become_paths() {
        let path = relative_path("match/eu-1/42.sav").unwrap();
        assert_eq!(path, Path::new("match/eu-1/42.sav"));
        assert!(relative_path("...").is_ok());
        for id in [
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "a/../b",
            "../a",
            "a/..",
            "a/./b",
            "a//b",
            "a/",
            "./a",
            "a\0b",
        ] {
            assert!(relative_path(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn one_id_cannot_be_file_and_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "state").unwrap();
        let made = make_folder_of(&dir.path().join("a/b"));
        assert!(
            matches!(made, Err(CliError::FileAndFolder { .. })),
            "{made:?}"
        );
        let made = make_folder_of(&dir.path().join("a/b/c"));
        assert!(
            matches!(made, Err(CliError::FileAndFolder { .. })),
            "{made:?}"
        );
        assert!(make_folder_of(&dir.path().join("d/e")).is_ok());
    }
}
