//! `tree`: what the records of a range of keys add up to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use reqwest::Method;

use crate::cli::error::{CliError, file_error};
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::text::{count, human_bytes, utc};
use crate::merkle::range_text::RangeText;

/// Tell what the records of a range of keys add up to
///
/// A key is the SHA-256 of a state's id, so a range is a share of all states, not those with similar
/// ids. With --proof the answer can be checked with `samestate verify-proof`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate tree
  samestate tree --prefix a3f
  samestate tree --from 4 --to 7 --proof -o quarter.proof")]
pub struct TreeArgs {
    /// Keys that begin with these hexadecimal digits, at most 16
    #[arg(long, value_name = "HEX", conflicts_with_all = ["from", "to"])]
    prefix: Option<String>,
    /// Keys from the first that begins with these digits
    #[arg(long, value_name = "HEX")]
    from: Option<String>,
    /// Keys up to the last that begins with these digits
    #[arg(long, value_name = "HEX")]
    to: Option<String>,
    /// With the proof that leads to the root, as JSON
    #[arg(long)]
    proof: bool,
    /// Write the answer into a file, as JSON
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Asks a replica.
///
/// # Errors
/// [`CliError`] of the connection, the server or the file.
pub async fn tree(args: TreeArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let named = [
        ("prefix", &args.prefix),
        ("from", &args.from),
        ("to", &args.to),
    ];
    let given = named
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let proof = args.proof.then_some(("proof", "true"));
    let query: Vec<(&str, &str)> = given.chain(proof).collect();
    let answer = client
        .ask(client.request(Method::GET, "tree", &query))
        .await?;
    let told: RangeText = client.parse(&answer)?;
    if let Some(path) = &args.output {
        std::fs::write(path, answer + "\n").map_err(file_error("write", path))?;
    } else if options.json || args.proof {
        print(&answer)?;
    } else {
        print(&in_words(&told))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn in_words(told: &RangeText) -> String {
    let RangeText { from, to, .. } = told;
    let (records, size) = (count(told.records, "record"), human_bytes(told.total_size));
    let newest = match told.records {
        0 => String::new(),
        _ => format!(", the newest of {} UTC", utc(told.updated_at)),
    };
    let mut text = format!("{records} and {size}{newest}\nkeys {from}\n  to {to}\n");
    if let Some(node) = &told.node {
        text += &format!("node {} at depth {}\n", node.hash, node.depth);
    }
    text + &format!("root {}", told.root)
}
