//! `roots` and `verify-roots`: which root a replica held when, checkable offline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::{CliError, file_error};
use crate::cli::files::read_at_most;
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::text::{Align, Table, count, human_bytes, utc};
use crate::roots::entry::RootEntry;
use crate::roots::head::{PublicKey, SignedHead};
use crate::types::hash::LogHash;
use crate::wire::roots::{HeadsBody, PlacedBody, RootsBody};
use crate::wire::roots_check::{ANSWER_BYTES_MAX, ShownRoots, check_answer, head_of};

/// List the roots that a replica has signed to have held
///
/// With --json the answer is printed as the replica gave it, to be kept and checked with
/// `samestate verify-roots`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate roots
  samestate roots --json --proofs > monday.json
  samestate roots --json --since monday.json > friday.json")]
pub struct RootsArgs {
    /// How many of the newest entries
    #[arg(long, value_name = "COUNT", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// With the proof that each entry is in the log
    #[arg(long)]
    proofs: bool,
    /// With the proof that the log goes on from an answer that was kept
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
}

/// Check an answer of `samestate roots --json` without a replica
///
/// The signature always is; that the key is the replica's has to come from where you trust it: from --key,
/// or from the older answer. Any answer of GET /v1/ns/NAMESPACE/roots and below will do.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate verify-roots monday.json --key \\
    d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a
  samestate verify-roots friday.json --older monday.json")]
pub struct VerifyRootsArgs {
    /// The answer, as JSON; `-` reads standard input
    file: PathBuf,
    /// The key that the replica signs with; `samestate verify --data` tells it
    #[arg(long, value_name = "HEX")]
    key: Option<LogHash>,
    /// An older answer, whose log has to be the beginning of this one
    #[arg(long, value_name = "FILE")]
    older: Option<PathBuf>,
}

/// Lists the newest entries.
///
/// # Errors
/// [`CliError`] of the connection, the server or the file.
pub async fn roots(args: RootsArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let older = args.since.as_deref().map(|path| kept(path, options));
    let older = older.transpose()?;
    let heads = client.request(Method::GET, "roots/heads", &[]);
    let heads: HeadsBody = client.parse(&client.ask(heads).await?)?;
    let size = heads.own.map_or(0, |head| head.size);
    let text = page(&client, &args, size, older.as_ref()).await?;
    let body: RootsBody = client.parse(&text)?;
    if body.head.is_none() && (args.proofs || older.is_some()) {
        return Err(CliError::NoRoots);
    }
    if options.json {
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    if body.head.is_none() {
        print("no root has been written down yet")?;
        return Ok(ExitCode::SUCCESS);
    }
    let head = head_of(&text, &options.namespace);
    let head = head.map_err(|fault| client.not_samestate(&fault.to_string()))?;
    print(&(table(&body) + &head_in_words(&head)))?;
    Ok(ExitCode::SUCCESS)
}

async fn page(
    client: &Client,
    args: &RootsArgs,
    size: u64,
    older: Option<&SignedHead>,
) -> Result<String, CliError> {
    let from = size.saturating_sub(args.limit).to_string();
    let limit = args.limit.to_string();
    let since = older.map(|older| older.head.size.to_string());
    let mut query = vec![("from", from.as_str()), ("limit", limit.as_str())];
    if args.proofs {
        query.push(("proofs", "true"));
    }
    query.extend(since.as_deref().map(|since| ("since", since)));
    client
        .ask(client.request(Method::GET, "roots", &query))
        .await
}

fn table(body: &RootsBody) -> String {
    let mut table = Table::new(&[
        ("PLACE", Align::Right),
        ("TIME (UTC)", Align::Left),
        ("SEQ", Align::Right),
        ("ROOT", Align::Left),
    ]);
    for placed in &body.roots {
        let entry = &placed.entry;
        // What a server sends is shown as far as it is an entry.
        if let Ok(entry) = RootEntry::try_from(entry) {
            table.row([
                placed.place.to_string(),
                utc(entry.time),
                entry.seq.to_string(),
                entry.root.to_hex(),
            ]);
        }
    }
    table.render()
}

fn head_in_words(signed: &SignedHead) -> String {
    let head = &signed.head;
    format!(
        "signed by replica {} with key {}:\n{}, hash {}, of log {}\n",
        head.replica,
        signed.key,
        count(head.size, "logged root"),
        head.hash,
        head.log
    )
}

/// The head of an answer that was kept.
fn kept(path: &Path, options: &Options) -> Result<SignedHead, CliError> {
    let text = read(path)?;
    head_of(&text, &options.namespace).map_err(|fault| bad(path, fault.to_string()))
}

fn bad(path: &Path, reason: String) -> CliError {
    let path = path.to_owned();
    CliError::BadProof { path, reason }
}

fn read(path: &Path) -> Result<String, CliError> {
    let bytes = read_at_most(path, ANSWER_BYTES_MAX).map_err(file_error("read", path))?;
    let bytes = bytes.ok_or_else(|| {
        let most = human_bytes(ANSWER_BYTES_MAX as u64);
        bad(path, format!("it has more than {most}"))
    })?;
    String::from_utf8(bytes).map_err(|_| bad(path, "it is not UTF-8".to_owned()))
}

/// Checks an answer and prints what it proves.
///
/// # Errors
/// [`CliError::BadProof`] when anything in it does not hold, [`CliError::File`].
pub fn verify_roots(args: &VerifyRootsArgs, options: &Options) -> Result<ExitCode, CliError> {
    let older = args.older.as_deref().map(|path| kept(path, options));
    let older = older.transpose()?;
    let key = args.key.map(|key| PublicKey(key.0));
    let text = read(&args.file)?;
    let shown = check_answer(&text, &options.namespace, key.as_ref(), older.as_ref());
    let shown = shown.map_err(|fault| bad(&args.file, fault.to_string()))?;
    let is_known = key.is_some() || older.is_some();
    print(&if options.json {
        in_json(&shown)
    } else {
        in_words(&shown, is_known)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn in_words(shown: &ShownRoots, is_known: bool) -> String {
    let mut text = head_in_words(&shown.head);
    for (place, entry) in &shown.entries {
        let (time, root, seq) = (utc(entry.time), entry.root, entry.seq);
        text += &format!("proven: entry {place}, at {time} UTC the root was {root} (seq {seq})\n");
    }
    if let Some(since) = shown.since {
        let entries = count(since, "logged root");
        let are = if since == 1 { "is" } else { "are" };
        text += &format!("proven: the {entries} of the older answer {are} the first of these\n");
    }
    if !is_known {
        text += "whose key that is has to be known from elsewhere: give --key or --older\n";
    }
    text
}

fn in_json(shown: &ShownRoots) -> String {
    let head = &shown.head.head;
    let entries = shown.entries.iter().map(|(place, entry)| PlacedBody {
        place: *place,
        entry: entry.into(),
        proof: None,
    });
    let told = json!({
        "valid": true,
        "replica": head.replica.to_string(),
        "key": shown.head.key.to_string(),
        "log": head.log.to_hex(),
        "size": head.size,
        "hash": head.hash.to_hex(),
        "roots": entries.collect::<Vec<_>>(),
        "since": shown.since,
    });
    told.to_string()
}
