//! `proof` and `verify-proof`: that a replica holds a state, or holds none, checkable offline.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use crate::cli::error::{CliError, file_error};
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::text::{human_bytes, printable, utc};
use crate::merkle::node::Summary;
use crate::merkle::proof::{PROOF_SIBLINGS_MAX, Proof, Proven};
use crate::types::hash::{BadHash, NodeHash, StateKey};
use crate::types::id::GameId;
use crate::types::leaf::Leaf;

/// Largest proof in JSON: about 200 bytes for each of at most 256 nodes.
const PROOF_BYTES_MAX: u64 = 1 << 20;

/// Make a proof that a state is in a replica's contents, or is not
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate proof match/eu-1/42 -o 42.proof")]
pub struct ProofArgs {
    /// The state
    id: GameId,
    /// Write into a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Check a proof without a replica
///
/// The root has to come from where you trust it; the one inside the proof proves nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  samestate verify-proof 42.proof --root \\
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
pub struct VerifyProofArgs {
    /// The proof; `-` reads standard input
    file: PathBuf,
    /// The root that the proof has to lead to
    #[arg(long, value_name = "HEX")]
    root: NodeHash,
}

/// A proof as replicas give it out.
#[derive(Debug, Deserialize)]
struct ProofFile {
    namespace: String,
    id: GameId,
    leaf: Option<ProofLeaf>,
    path: Vec<ProofNode>,
}

/// The leaf where the path ends. In a proof of absence that is another state's.
#[derive(Debug, Deserialize)]
struct ProofLeaf {
    key: String,
    digest: String,
    size: u64,
    updated_at: u64,
}

/// A subtree passed by, the root's child first.
#[derive(Debug, Deserialize)]
struct ProofNode {
    hash: String,
    leaves: u64,
    size: u64,
    updated_at: u64,
}

/// Fetches a proof.
///
/// # Errors
/// [`CliError`] of the connection, the server or the file.
pub async fn proof(args: ProofArgs, options: &Options) -> Result<ExitCode, CliError> {
    let client = options.client()?;
    let request = client.state_request(Method::GET, "proofs", &args.id, &[])?;
    let text = client.ask(request).await?;
    match &args.output {
        Some(path) => std::fs::write(path, text).map_err(file_error("write", path))?,
        None => print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a proof and prints what it proves.
///
/// # Errors
/// [`CliError::BadProof`] when it proves nothing, [`CliError::File`].
pub fn verify_proof(args: &VerifyProofArgs, options: &Options) -> Result<ExitCode, CliError> {
    let bad = |reason: String| CliError::BadProof {
        path: args.file.clone(),
        reason,
    };
    let text = read_proof(&args.file)?;
    let file: ProofFile = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let proven = file.check(&args.root).map_err(bad)?;
    print(&if options.json {
        file.json(&args.root, &proven)
    } else {
        file.sentence(&args.root, &proven)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn read_proof(path: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin()
            .take(PROOF_BYTES_MAX + 1)
            .read_to_string(&mut text)
    } else {
        let file = File::open(path).map_err(file_error("open", path))?;
        file.take(PROOF_BYTES_MAX + 1).read_to_string(&mut text)
    };
    read.map_err(file_error("read", path))?;
    if text.len() as u64 > PROOF_BYTES_MAX {
        return Err(CliError::BadProof {
            path: path.to_owned(),
            reason: format!("it has more than {}", human_bytes(PROOF_BYTES_MAX)),
        });
    }
    Ok(text)
}

impl ProofFile {
    fn check(&self, root: &NodeHash) -> Result<Proven, String> {
        if self.path.len() > PROOF_SIBLINGS_MAX {
            return Err(format!("its path has more than {PROOF_SIBLINGS_MAX} nodes"));
        }
        let proof = self.proof().map_err(|error| error.to_string())?;
        let proven = proof.verify(root, &StateKey::of(&self.id));
        proven.map_err(|error| error.to_string())
    }

    fn proof(&self) -> Result<Proof, BadHash> {
        let siblings: Result<Vec<_>, _> = self.path.iter().map(ProofNode::summary).collect();
        Ok(Proof {
            siblings: siblings?,
            terminal: self.leaf.as_ref().map(ProofLeaf::leaf).transpose()?,
        })
    }

    fn sentence(&self, root: &NodeHash, proven: &Proven) -> String {
        let namespace = printable(&self.namespace);
        let held = match proven {
            Proven::Included(leaf) => format!(
                "has {}: {}, updated {} UTC, digest {}",
                self.id,
                human_bytes(leaf.size),
                utc(leaf.updated_at),
                leaf.digest
            ),
            Proven::Absent => format!("has no {}", self.id),
        };
        format!("proven: the namespace {namespace} with root {root} {held}")
    }

    fn json(&self, root: &NodeHash, proven: &Proven) -> String {
        let (kind, leaf) = match proven {
            Proven::Included(leaf) => ("inclusion", Some(leaf)),
            Proven::Absent => ("absence", None),
        };
        let leaf = leaf.map(|leaf| {
            json!({
                "key": leaf.key.to_hex(),
                "digest": leaf.digest.to_hex(),
                "size": leaf.size,
                "updated_at": leaf.updated_at,
            })
        });
        let root = root.to_hex();
        json!({"valid": true, "id": self.id, "root": root, "kind": kind, "leaf": leaf}).to_string()
    }
}

impl ProofLeaf {
    fn leaf(&self) -> Result<Leaf, BadHash> {
        Ok(Leaf {
            key: self.key.parse()?,
            digest: self.digest.parse()?,
            size: self.size,
            updated_at: self.updated_at,
        })
    }
}

impl ProofNode {
    fn summary(&self) -> Result<Summary, BadHash> {
        Ok(Summary {
            hash: self.hash.parse()?,
            leaves: self.leaves,
            size: self.size,
            updated_at: self.updated_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::LeafDigest;

    fn leaf(id: &str) -> Leaf {
        Leaf {
            key: StateKey::of(&GameId::new(id).unwrap()),
            digest: LeafDigest([7; 32]),
            size: 10,
            updated_at: 0,
        }
    }

    fn file(id: &str, end: Option<&Leaf>) -> ProofFile {
        let leaf = end.map(|leaf| {
            json!({"key": leaf.key.to_hex(), "digest": leaf.digest.to_hex(), "size": 10, "updated_at": 0})
        });
        serde_json::from_value(json!({
            "namespace": "default", "id": id, "root": "ignored", "kind": "inclusion",
            "leaf": leaf, "path": [],
        }))
        .unwrap()
    }

    #[test]
    fn proofs_are_checked_against_the_given_root() {
        let only = leaf("match/1");
        let root = Summary::of_leaf(&only).hash;
        let held = file("match/1", Some(&only));
        let proven = held.check(&root).unwrap();
        assert_eq!(proven, Proven::Included(only));
        let json: serde_json::Value = serde_json::from_str(&held.json(&root, &proven)).unwrap();
        assert_eq!(
            (&json["kind"], &json["valid"]),
            (&json!("inclusion"), &json!(true))
        );
        assert!(held.check(&NodeHash([1; 32])).is_err());
        let absent = file("match/2", Some(&only));
        let proven = absent.check(&root).unwrap();
        assert_eq!(proven, Proven::Absent);
        assert!(absent.sentence(&root, &proven).ends_with("has no match/2"));
        assert!(file("match/1", None).check(&root).is_err());
    }

    #[test]
    fn malformed_proofs_are_refused() {
        let root = Summary::of_leaf(&leaf("a")).hash;
        let mut long = file("a", Some(&leaf("a")));
        let node = || ProofNode {
            hash: "00".repeat(32),
            leaves: 1,
            size: 0,
            updated_at: 0,
        };
        long.path = (0..=PROOF_SIBLINGS_MAX).map(|_| node()).collect();
        assert!(long.check(&root).is_err());
        let mut odd = file("a", Some(&leaf("a")));
        odd.path = vec![ProofNode {
            hash: "xyz".into(),
            ..node()
        }];
        assert!(
            odd.check(&root)
                .unwrap_err()
                .contains("64 hexadecimal digits")
        );
    }

    #[test]
    fn files_are_read_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proof");
        std::fs::write(&path, "x".repeat(PROOF_BYTES_MAX as usize + 1)).unwrap();
        assert!(matches!(read_proof(&path), Err(CliError::BadProof { .. })));
        std::fs::write(&path, "x").unwrap();
        assert_eq!(read_proof(&path).unwrap(), "x");
    }
}
