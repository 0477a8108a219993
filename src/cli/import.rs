//! `import`: the files below a folder become states.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use futures_util::stream::{self, Stream, TryStreamExt};
use reqwest::Method;

use crate::cli::client::Client;
use crate::cli::error::{CliError, file_error};
use crate::cli::files::{Upload, content_hash, is_partial};
use crate::cli::listing::{Pager, StateRow};
use crate::cli::options::Options;
use crate::cli::progress::Progress;
use crate::cli::transfer::{Tally, patiently};
use crate::types::id::GameId;

/// Store the files below a folder as states
///
/// A file's id is its path below the folder, behind the prefix. Files whose content the replica
/// already holds under their id are skipped, so an interrupted import goes on where it stopped.
/// Symbolic links are not followed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate import saves --prefix match/eu-1/")]
pub struct ImportArgs {
    /// The folder
    dir: PathBuf,
    /// Put before each id
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// Files sent at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
}

/// A file to be sent.
#[derive(Debug, PartialEq, Eq)]
struct LocalFile {
    id: GameId,
    path: PathBuf,
    bytes: u64,
}

/// Sends what the replica does not hold yet.
///
/// # Errors
/// [`CliError`] of the folder, the connection or the server; [`CliError::Incomplete`] when single
/// files failed.
pub async fn import(args: ImportArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let Found { files, faults } = files_below(&args.dir, &args.prefix)?;
    let total = files.iter().map(|file| file.bytes).sum();
    let tally = Tally::new("imported", Progress::of_bytes(Some(total)));
    for (path, fault) in faults {
        tally.failed(&path.to_string_lossy(), &fault);
    }
    let held = Held::new(Pager::new(client.clone(), &args.prefix));
    with_held(files, held)
        .try_for_each_concurrent(usize::from(args.jobs), |(file, row)| {
            import_one(&client, &tally, file, row)
        })
        .await?;
    tally.finish(options)
}

async fn import_one(
    client: &Client,
    tally: &Tally,
    file: LocalFile,
    held: Option<StateRow>,
) -> Result<(), CliError> {
    let name = file.path.to_string_lossy();
    match send_unless_held(client, &file, held).await {
        Ok(Some(bytes)) => tally.transferred(bytes),
        Ok(None) => tally.skipped(file.bytes),
        // A file can vanish or be locked while a game runs.
        Err(error @ CliError::File { .. }) => tally.failed(&name, &error),
        Err(error) => tally.tolerate(&name, error)?,
    }
    Ok(())
}

/// Returns the bytes sent, or `None` when the replica holds them.
async fn send_unless_held(
    client: &Client,
    file: &LocalFile,
    held: Option<StateRow>,
) -> Result<Option<u64>, CliError> {
    if let Some(row) = held.filter(|row| row.size == file.bytes)
        && content_hash(&file.path).await?.to_hex() == row.content_hash
    {
        return Ok(None);
    }
    let put = async || {
        let request = client.state_request(Method::PUT, "states", &file.id, &[])?;
        let upload = Upload::of_file(&file.path, &Progress::none()).await?;
        let bytes = upload.length.unwrap_or(file.bytes);
        let response = client.send(upload.attach(request)).await?;
        // Reading the receipt frees the connection for the next file.
        client.text(response).await?;
        Ok(bytes)
    };
    patiently(put).await.map(Some)
}

/// Pairs each file with the replica's row of the same id: two lists in the same order, walked side
/// by side, so that only one page of the replica's is in memory.
fn with_held(
    files: Vec<LocalFile>,
    held: Held,
) -> impl Stream<Item = Result<(LocalFile, Option<StateRow>), CliError>> {
    stream::try_unfold((files.into_iter(), held), async |(mut files, mut held)| {
        let Some(file) = files.next() else {
            return Ok(None);
        };
        let row = held.row_of(&file.id).await?;
        Ok(Some(((file, row), (files, held))))
    })
}

/// The replica's rows, asked for in ascending order of ids.
struct Held {
    pager: Pager,
    page: std::iter::Peekable<std::vec::IntoIter<StateRow>>,
}

impl Held {
    fn new(pager: Pager) -> Self {
        Self {
            pager,
            page: Vec::new().into_iter().peekable(),
        }
    }

    async fn row_of(&mut self, id: &GameId) -> Result<Option<StateRow>, CliError> {
        loop {
            while self
                .page
                .next_if(|row| row.id.as_str() < id.as_str())
                .is_some()
            {}
            if self.page.peek().is_some() {
                return Ok(self.page.next_if(|row| row.id == id.as_str()));
            }
            match self.pager.next().await? {
                Some(rows) => self.page = rows.into_iter().peekable(),
                None => return Ok(None),
            }
        }
    }
}

/// What a folder holds for an import.
#[derive(Debug, Default)]
struct Found {
    /// In order of ids.
    files: Vec<LocalFile>,
    /// Paths that are no ids, and why.
    faults: Vec<(PathBuf, CliError)>,
}

/// Every regular file below a folder.
fn files_below(dir: &Path, prefix: &str) -> Result<Found, CliError> {
    let mut found = Found::default();
    let mut waiting = vec![(dir.to_owned(), prefix.to_owned())];
    while let Some((folder, id_before)) = waiting.pop() {
        let entries = std::fs::read_dir(&folder).map_err(file_error("read", &folder))?;
        for entry in entries {
            let entry = entry.map_err(file_error("read", &folder))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(file_error("read", &path))?;
            match entry.file_name().to_str() {
                _ if !kind.is_file() && !kind.is_dir() => {}
                None => found.refuse(path, "its name is not UTF-8"),
                Some(name) if kind.is_dir() => waiting.push((path, format!("{id_before}{name}/"))),
                Some(name) if is_partial(name) => {}
                Some(name) => match GameId::new(&format!("{id_before}{name}")) {
                    Err(reason) => found.refuse(path, &reason.to_string()),
                    Ok(id) => {
                        let bytes = size_of(&entry).map_err(file_error("read", &path))?;
                        found.files.push(LocalFile { id, path, bytes });
                    }
                },
            }
        }
    }
    found.files.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

impl Found {
    fn refuse(&mut self, path: PathBuf, reason: &str) {
        self.faults.push((path, CliError::NoId(reason.to_owned())));
    }
}

/// A file that vanished since it was listed counts as empty; opening it will tell.
fn size_of(entry: &std::fs::DirEntry) -> io::Result<u64> {
    match entry.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        metadata => Ok(metadata?.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_order_of_their_ids() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for name in [
            "a/b/2",
            "a/b/10",
            "a.x",
            "z",
            "a/.samestate-0123456789abcdef.part",
        ] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::write(dir.path().join("line\nbreak"), "").unwrap();
        let found = files_below(dir.path(), "p/").unwrap();
        let ids: Vec<&str> = found.files.iter().map(|file| file.id.as_str()).collect();
        assert_eq!(ids, ["p/a.x", "p/a/b/10", "p/a/b/2", "p/z"]);
        assert_eq!(found.files.iter().map(|file| file.bytes).sum::<u64>(), 15);
        assert_eq!(found.faults.len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("real"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("circle")).unwrap();
        let found = files_below(dir.path(), "").unwrap();
        assert_eq!(found.files.len(), 1);
    }
}
