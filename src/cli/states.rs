//! Single states: `put`, `get`, `revert` and `rm`.

use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use reqwest::header::{CONTENT_TYPE, IF_MATCH};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::files::{Upload, save};
use crate::cli::options::Options;
use crate::cli::output::{flush, print, print_bytes};
use crate::cli::progress::Progress;
use crate::cli::text::{human_bytes, printable};
use crate::types::hash::ContentHash;
use crate::types::id::GameId;
use crate::types::ttl::Ttl;

/// Store a file as a state
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate put match/eu-1/42 save.bin
  save-game | samestate put match/eu-1/42 -
  samestate put lobby/7 lobby.bin --ttl 30m")]
pub struct PutArgs {
    /// The state
    id: GameId,
    /// Its content; `-` reads standard input
    file: PathBuf,
    /// Media type to keep with the state
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Only if the state still has this ETag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Let the state expire after a time such as 90s, 30m, 36h or 7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    ttl: Option<Ttl>,
}

/// Print the content of a state
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate get match/eu-1/42 -o save.bin
  samestate get match/eu-1/42 --at -10m
  samestate get match/eu-1/42 --at 2026-01-31T12:00:00Z")]
pub struct GetArgs {
    /// The state
    id: GameId,
    /// Write into a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A retained older version, as `history` shows it
    #[arg(long, value_name = "HASH")]
    version: Option<ContentHash>,
    /// As it was then: a time (RFC 3339), or how long ago, such as -10m
    #[arg(
        long,
        value_name = "TIME",
        conflicts_with = "version",
        allow_hyphen_values = true
    )]
    at: Option<String>,
}

/// Make an old version of a state the newest one
///
/// It is an ordinary write: peers get it, and the version that is the newest now goes into history.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate history match/eu-1/42
  samestate revert match/eu-1/42 --version HASH")]
pub struct RevertArgs {
    /// The state
    id: GameId,
    /// The version, as `history` shows it
    #[arg(long, value_name = "HASH")]
    version: ContentHash,
    /// Only if the state still has this ETag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

/// Delete a state
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate rm match/eu-1/42")]
pub struct RemoveArgs {
    /// The state
    id: GameId,
    /// Only if the state still has this ETag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

/// Uploads one state and prints the receipt.
///
/// # Errors
/// [`CliError`] of the file, the connection or the server.
pub async fn put(args: PutArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let ttl = args.ttl.map(|ttl| ttl.to_string());
    let query: Vec<_> = ttl.iter().map(|ttl| ("ttl", ttl.as_str())).collect();
    let mut request = client.state_request(Method::PUT, "states", &args.id, &query)?;
    if let Some(media_type) = args.content_type {
        request = request.header(CONTENT_TYPE, media_type);
    }
    let request = if_match(request, args.if_match);
    let progress = Progress::of_bytes(None);
    let upload = if args.file == Path::new("-") {
        Upload::of_stdin(&progress)
    } else {
        Upload::of_file(&args.file, &progress).await?
    };
    progress.expect(upload.length);
    let response = client.send(upload.attach(request)).await?;
    let receipt = client.text(response).await?;
    progress.finish();
    show_receipt(&client, &receipt, options)
}

fn show_receipt(client: &Client, receipt: &str, options: &Options) -> Result<ExitCode, CliError> {
    if options.json {
        print(receipt)?;
    } else {
        print(&client.parse::<Receipt>(receipt)?.line())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes one state to standard output or a file.
///
/// # Errors
/// [`CliError`] of the connection, the server or the file.
pub async fn get(args: GetArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let version = args.version.map(|hash| hash.to_hex());
    let query: Vec<_> = version
        .iter()
        .map(|hash| ("version", hash.as_str()))
        .chain(args.at.iter().map(|at| ("at", at.as_str())))
        .collect();
    let request = client.state_request(Method::GET, "states", &args.id, &query)?;
    let mut response = client.send(request).await?;
    if let Some(path) = &args.output {
        let progress = Progress::of_bytes(response.content_length());
        save(&client, response, path, &progress, |_| Ok(())).await?;
        progress.finish();
        return Ok(ExitCode::SUCCESS);
    }
    let progress = if stdout().is_terminal() {
        Progress::none()
    } else {
        Progress::of_bytes(response.content_length())
    };
    while let Some(piece) = client.piece(&mut response).await? {
        print_bytes(&piece)?;
        progress.advance(piece.len() as u64);
    }
    progress.finish();
    flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Has the server write an old version anew, and prints the receipt.
///
/// # Errors
/// [`CliError`] of the connection or the server.
pub async fn revert(args: RevertArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let request = client.state_request(Method::POST, "restore", &args.id, &[])?;
    let request = request.json(&json!({"version": args.version.to_hex()}));
    let receipt = client.ask(if_match(request, args.if_match)).await?;
    show_receipt(&client, &receipt, options)
}

/// Deletes one state.
///
/// # Errors
/// [`CliError`] of the connection or the server.
pub async fn remove(args: RemoveArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let request = client.state_request(Method::DELETE, "states", &args.id, &[])?;
    client.ask(if_match(request, args.if_match)).await?;
    if options.json {
        print(&json!({"id": args.id, "deleted": true}).to_string())?;
    } else {
        print(&format!("deleted {}", args.id))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Entity tags are quoted (RFC 9110, section 8.8.3), and shells take quotes away.
fn if_match(request: RequestBuilder, etag: Option<String>) -> RequestBuilder {
    let quoted = |etag: String| {
        if etag == "*" || etag.starts_with('"') {
            etag
        } else {
            format!("\"{etag}\"")
        }
    };
    match etag {
        Some(etag) => request.header(IF_MATCH, quoted(etag)),
        None => request,
    }
}

/// What the server says of a stored state.
#[derive(Debug, Deserialize)]
struct Receipt {
    id: String,
    content_hash: String,
    size: u64,
    seq: u64,
}

impl Receipt {
    fn line(&self) -> String {
        format!(
            "stored {}: {}, seq {}, SHA-256 {}",
            printable(&self.id),
            human_bytes(self.size),
            self.seq,
            printable(&self.content_hash)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_quoted_once() {
        for (given, sent) in [("ab12", "\"ab12\""), ("\"ab12\"", "\"ab12\""), ("*", "*")] {
            let request = reqwest::Client::new().get("http://h");
            let request = if_match(request, Some(given.into())).build().unwrap();
            assert_eq!(request.headers().get(IF_MATCH).unwrap(), sent);
        }
    }
}
