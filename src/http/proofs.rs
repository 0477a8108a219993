//! `GET /v1/ns/{ns}/proofs/{id}`: that a state is in the tree, or is not.

use axum::Json;
use serde::Serialize;

use crate::http::extract::Target;
use crate::http::problem::Problem;
use crate::merkle::node::Summary;
use crate::merkle::proof::Proof;
use crate::types::hash::{NodeHash, StateKey};
use crate::types::leaf::Leaf;

/// A proof in the form that `samestate verify-proof` reads.
#[derive(Debug, Serialize)]
pub struct ProofBody {
    namespace: String,
    id: String,
    root: String,
    kind: &'static str,
    /// The leaf at the end of the path: the state's own, or the one that stands in its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<LeafBody>,
    /// The subtrees passed by, the root's child first.
    path: Vec<NodeBody>,
}

#[derive(Debug, Serialize)]
struct LeafBody {
    key: String,
    digest: String,
    size: u64,
    updated_at: u64,
}

#[derive(Debug, Serialize)]
struct NodeBody {
    hash: String,
    leaves: u64,
    size: u64,
    updated_at: u64,
}

/// Makes a proof against the root of the newest commit.
///
/// # Errors
/// [`Problem`] when the tree cannot be read.
pub async fn get(target: Target) -> Result<Json<ProofBody>, Problem> {
    let Target { namespace, id } = target;
    let key = StateKey::of(&id);
    let made =
        namespace.read(move |view| Ok::<_, Problem>((view.prove(&key)?, view.head().root.hash)));
    let (proof, root) = made.await?;
    Ok(Json(ProofBody {
        namespace: namespace.name().to_string(),
        id: id.into(),
        ..ProofBody::of(&proof, &key, &root)
    }))
}

impl ProofBody {
    fn of(proof: &Proof, key: &StateKey, root: &NodeHash) -> Self {
        let included = proof.terminal.is_some_and(|leaf| leaf.key == *key);
        Self {
            namespace: String::new(),
            id: String::new(),
            root: root.to_hex(),
            kind: if included { "inclusion" } else { "absence" },
            leaf: proof.terminal.as_ref().map(LeafBody::of),
            path: proof.siblings.iter().map(NodeBody::of).collect(),
        }
    }
}

impl LeafBody {
    fn of(leaf: &Leaf) -> Self {
        Self {
            key: leaf.key.to_hex(),
            digest: leaf.digest.to_hex(),
            size: leaf.size,
            updated_at: leaf.updated_at,
        }
    }
}

impl NodeBody {
    fn of(node: &Summary) -> Self {
        Self {
            hash: node.hash.to_hex(),
            leaves: node.leaves,
            size: node.size,
            updated_at: node.updated_at,
        }
    }
}
