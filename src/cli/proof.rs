//! `proof` and `verify-proof`: that a replica holds states, or does not, checkable offline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::{Value, json};

use crate::cli::error::{CliError, file_error};
use crate::cli::files::read_at_most;
use crate::cli::options::Options;
use crate::cli::output::{flush, print, print_bytes};
use crate::cli::text::{human_bytes, utc};
use crate::merkle::asked::ShownIds;
use crate::merkle::proof::Proven;
use crate::merkle::proof_bytes::{PROOF_BYTES_MAX, PROOF_MAGIC, verify_bytes};
use crate::merkle::proof_text::{Kind, PROOF_TEXT_MAX, verify_text};
use crate::merkle::range::{KeyRange, ShownRange};
use crate::merkle::range_text::RangeText;
use crate::types::hash::NodeHash;
use crate::types::id::GameId;

/// Largest proof of either form.
const FILE_BYTES_MAX: usize = if PROOF_BYTES_MAX > PROOF_TEXT_MAX {
    PROOF_BYTES_MAX
} else {
    PROOF_TEXT_MAX
};

/// Make a proof that states are in a replica's contents, or are not
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  samestate proof match/eu-1/42 -o 42.proof
  samestate proof match/eu-1/42 match/eu-1/43 --binary -o both.proof")]
pub struct ProofArgs {
    /// The states, at most 1000; what the paths to several share is in the proof once
    #[arg(required = true, value_name = "ID")]
    ids: Vec<GameId>,
    /// Make bytes, a quarter of the size of JSON
    #[arg(long)]
    binary: bool,
    /// Write into a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Check a proof of `samestate proof` or `samestate tree --proof` without a replica
///
/// The root has to come from where you trust it; the one inside the proof proves nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  samestate verify-proof 42.proof --root \\
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
pub struct VerifyProofArgs {
    /// The proof, as JSON or bytes; `-` reads standard input
    file: PathBuf,
    /// The root that the proof has to lead to
    #[arg(long, value_name = "HEX")]
    root: NodeHash,
}

/// Fetches a proof.
///
/// # Errors
/// [`CliError`] of the connection, the server or the file.
pub async fn proof(args: ProofArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let request = match args.ids.as_slice() {
        [id] => client.state_request(Method::GET, "proofs", id, &[])?,
        ids => {
            let request = client.request(Method::POST, "proofs", &[]);
            request.json(&json!({ "ids": ids }))
        }
    };
    let proof = if args.binary {
        let request = request.header(ACCEPT, "application/octet-stream");
        client.ask_bytes(request).await?
    } else {
        (client.ask(request).await? + "\n").into_bytes()
    };
    match &args.output {
        Some(path) => std::fs::write(path, proof).map_err(file_error("write", path))?,
        None => {
            print_bytes(&proof)?;
            flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a proof and prints what it proves.
///
/// # Errors
/// [`CliError::BadProof`] when it proves nothing, [`CliError::File`].
pub fn verify_proof(args: &VerifyProofArgs, options: &Options) -> Result<ExitCode, CliError> {
    let bytes = read_proof(&args.file)?;
    if let Some(text) = std::str::from_utf8(&bytes)
        .ok()
        .filter(|text| RangeText::is_one(text))
    {
        let shown = RangeText::verify(text, &args.root);
        let (range, shown) = shown.map_err(|error| bad(&args.file, error.to_string()))?;
        print(&if options.json {
            range_in_json(&range, &shown, &args.root).to_string()
        } else {
            range_in_words(&range, &shown, &args.root)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = check(&bytes, &args.root).map_err(|reason| bad(&args.file, reason))?;
    print(&if options.json {
        in_json(&shown, &args.root).to_string()
    } else {
        in_words(&shown, &args.root)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn bad(path: &Path, reason: String) -> CliError {
    let path = path.to_owned();
    CliError::BadProof { path, reason }
}

fn read_proof(path: &Path) -> Result<Vec<u8>, CliError> {
    let bytes = read_at_most(path, FILE_BYTES_MAX).map_err(file_error("read", path))?;
    bytes.ok_or_else(|| {
        let most = human_bytes(FILE_BYTES_MAX as u64);
        bad(path, format!("it has more than {most}"))
    })
}

/// What a proof of either form shows.
fn check(bytes: &[u8], root: &NodeHash) -> Result<ShownIds, String> {
    if bytes.starts_with(&PROOF_MAGIC[..3]) {
        return verify_bytes(bytes, root).map_err(|error| error.to_string());
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| "it is neither JSON nor begins like a proof in bytes".to_owned())?;
    verify_text(text, root).map_err(|error| error.to_string())
}

fn range_in_words(range: &KeyRange, shown: &ShownRange, root: &NodeHash) -> String {
    let totals = &shown.totals;
    let newest = match totals.leaves {
        0 => String::new(),
        _ => format!(", the newest of {} UTC", utc(totals.updated_at)),
    };
    format!(
        "proven: the contents with root {root}, {} records and {},
have {} and {}{newest}
with keys {}
       to {}",
        shown.whole.leaves,
        human_bytes(shown.whole.size),
        totals.leaves,
        human_bytes(totals.size),
        range.first,
        range.last
    )
}

fn range_in_json(range: &KeyRange, shown: &ShownRange, root: &NodeHash) -> Value {
    json!({
        "valid": true,
        "root": root.to_hex(),
        "from": range.first.to_hex(),
        "to": range.last.to_hex(),
        "records": shown.totals.leaves,
        "total_size": shown.totals.size,
        "updated_at": shown.totals.updated_at,
        "all_records": shown.whole.leaves,
        "all_size": shown.whole.size,
    })
}

fn in_words(shown: &ShownIds, root: &NodeHash) -> String {
    let whole = &shown.whole;
    let mut lines = vec![format!(
        "proven: the contents with root {root}, {} records and {},",
        whole.leaves,
        human_bytes(whole.size)
    )];
    for (id, proven) in &shown.answers {
        lines.push(match proven {
            Proven::Included(leaf) => format!(
                "have {id}: {}, updated {} UTC, digest {}",
                human_bytes(leaf.size),
                utc(leaf.updated_at),
                leaf.digest
            ),
            Proven::Absent => format!("have no {id}"),
        });
    }
    lines.join("\n")
}

fn in_json(shown: &ShownIds, root: &NodeHash) -> Value {
    let states: Vec<Value> = shown.answers.iter().map(state_json).collect();
    let whole = &shown.whole;
    let mut told = json!({
        "valid": true,
        "root": root.to_hex(),
        "records": whole.leaves,
        "total_size": whole.size,
        "updated_at": whole.updated_at,
    });
    if let (Some(told), [Value::Object(only)]) = (told.as_object_mut(), states.as_slice()) {
        told.extend(only.clone());
    }
    if let Some(told) = told.as_object_mut() {
        told.insert("states".into(), Value::Array(states));
    }
    told
}

fn state_json((id, proven): &(GameId, Proven)) -> Value {
    let leaf = match proven {
        Proven::Included(leaf) => Some(json!({
            "key": leaf.key.to_hex(),
            "digest": leaf.digest.to_hex(),
            "size": leaf.size,
            "updated_at": leaf.updated_at,
        })),
        Proven::Absent => None,
    };
    json!({"id": id, "kind": Kind::of(proven), "leaf": leaf})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::node::Summary;
    use crate::types::hash::{LeafDigest, StateKey};
    use crate::types::leaf::Leaf;

    fn leaf(id: &str) -> Leaf {
        Leaf {
            key: StateKey::of(&GameId::new(id).unwrap()),
            digest: LeafDigest([7; 32]),
            size: 10,
            updated_at: 0,
        }
    }

    fn file(id: &str, kind: Kind, end: Option<&Leaf>, root: &NodeHash) -> Vec<u8> {
        let leaf = end.map(|leaf| {
            json!({"key": leaf.key.to_hex(), "digest": leaf.digest.to_hex(), "size": 10, "updated_at": 0})
        });
        let file = json!({
            "namespace": "default", "id": id, "root": root.to_hex(), "kind": kind,
            "leaf": leaf, "path": [],
        });
        file.to_string().into_bytes()
    }

    #[test]
    fn proofs_are_checked_against_the_given_root() {
        let only = leaf("match/1");
        let root = Summary::of_leaf(&only).hash;
        let held = file("match/1", Kind::Inclusion, Some(&only), &root);
        let shown = check(&held, &root).unwrap();
        let json = in_json(&shown, &root);
        assert_eq!(
            (&json["kind"], &json["valid"]),
            (&json!("inclusion"), &json!(true))
        );
        assert_eq!(
            (&json["records"], &json["id"]),
            (&json!(1), &json!("match/1"))
        );
        assert_eq!(json["states"][0]["leaf"], json["leaf"]);
        assert!(in_words(&shown, &root).contains("have match/1: 10 B"));
        assert!(check(&held, &NodeHash([1; 32])).is_err());
        let absent = file("match/2", Kind::Absence, Some(&only), &root);
        let shown = check(&absent, &root).unwrap();
        assert!(in_words(&shown, &root).ends_with("have no match/2"));
        assert!(check(&file("match/1", Kind::Absence, None, &root), &root).is_err());
        assert!(check(&file("match/2", Kind::Inclusion, Some(&only), &root), &root).is_err());
    }

    #[test]
    fn malformed_proofs_are_refused() {
        let root = NodeHash([0; 32]);
        for (bytes, reason) in [
            (&b"ssp\x02"[..], "cut off"),
            (b"ssp\x01", "another version"),
            (b"ss\xff", "neither JSON"),
            (b"[]", "not a proof in JSON"),
            (b"", "not a proof in JSON"),
        ] {
            let error = check(bytes, &root).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn files_are_read_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proof");
        std::fs::write(&path, "x".repeat(FILE_BYTES_MAX + 1)).unwrap();
        assert!(matches!(read_proof(&path), Err(CliError::BadProof { .. })));
        std::fs::write(&path, "x").unwrap();
        assert_eq!(read_proof(&path).unwrap(), b"x");
    }
}
