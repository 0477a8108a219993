//! The Merkle tree and its proofs against `tests/fixtures/merkle-vectors.json`, and the vectors
//! against a naive model of docs/reference/merkle-tree.md that shares no code with the tree.
//!
//! Nothing here writes the vectors. Another implementation relies on them as they are.

pub mod model;

use samestate::merkle::node::Summary;
use samestate::merkle::proof::Proven;
use samestate::merkle::proof_bytes::verify_bytes;
use samestate::merkle::proof_text::verify_text;
use samestate::merkle::trie::root_of;
use samestate::types::hash::{LeafDigest, NodeHash, StateKey, hex};
use samestate::types::leaf::Leaf;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::fixture;

fn vectors() -> Value {
    let text = std::fs::read_to_string(fixture("merkle-vectors.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let items = value[name].as_array().unwrap();
    assert!(name == "leaves" || !items.is_empty(), "no {name}");
    items
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

fn summary(value: &Value) -> Summary {
    let number = |name: &str| value[name].as_u64().unwrap();
    Summary {
        hash: NodeHash(bytes(&value["hash"]).try_into().unwrap()),
        leaves: number("leaves"),
        size: number("size"),
        updated_at: number("updated_at"),
    }
}

fn raw(summary: &Summary) -> Vec<u8> {
    let mut raw = vec![0; 56];
    summary.write(&mut raw);
    raw
}

fn model_leaf(value: &Value) -> model::Leaf {
    let id = value["id"].as_str().unwrap();
    let key = bytes(&value["key"]);
    assert_eq!(key, Sha256::digest(id.as_bytes()).to_vec(), "{id}");
    model::Leaf {
        key,
        digest: bytes(&value["digest"]),
        size: value["size"].as_u64().unwrap(),
        updated_at: value["updated_at"].as_u64().unwrap(),
    }
}

fn own_leaf(leaf: &model::Leaf) -> Leaf {
    Leaf {
        key: StateKey(leaf.key.clone().try_into().unwrap()),
        digest: LeafDigest(leaf.digest.clone().try_into().unwrap()),
        size: leaf.size,
        updated_at: leaf.updated_at,
    }
}

fn tree<'a>(vectors: &'a Value, name: &Value) -> (Vec<model::Leaf>, &'a Value) {
    let mut trees = list(vectors, "trees").iter();
    let tree = trees.find(|tree| tree["name"] == *name).unwrap();
    (
        list(tree, "leaves").iter().map(model_leaf).collect(),
        &tree["root"],
    )
}

#[test]
fn leaves_and_nodes_are_those_of_the_vectors() {
    let vectors = vectors();
    assert_eq!(summary(&vectors["empty"]), Summary::EMPTY);
    assert_eq!(model::summary(&[], 0), raw(&Summary::EMPTY));
    for vector in list(&vectors, "leaves") {
        let (leaf, told) = (model_leaf(&vector["leaf"]), summary(&vector["summary"]));
        assert_eq!(model::leaf(&leaf), raw(&told), "{vector}");
        assert_eq!(Summary::of_leaf(&own_leaf(&leaf)), told, "{vector}");
    }
    for vector in list(&vectors, "inner") {
        let depth = vector["depth"].as_u64().unwrap() as u8;
        let (left, right) = (summary(&vector["left"]), summary(&vector["right"]));
        let told = summary(&vector["summary"]);
        let hash = &model::inner(depth, &raw(&left), &raw(&right), &[])[..32];
        assert_eq!(hash, told.hash.0, "{vector}");
        assert_eq!(Summary::of_children(depth, &left, &right), told, "{vector}");
    }
}

#[test]
fn roots_are_those_of_the_vectors() {
    let vectors = vectors();
    for vector in list(&vectors, "trees") {
        let (leaves, root) = tree(&vectors, &vector["name"]);
        assert_eq!(model::summary_json(&model::summary(&leaves, 0)), *root);
        let own: Vec<Leaf> = leaves.iter().map(own_leaf).collect();
        assert_eq!(root_of(&own), summary(root), "{}", vector["name"]);
    }
}

#[test]
fn proofs_are_those_of_the_vectors() {
    let vectors = vectors();
    for vector in list(&vectors, "proofs") {
        let (leaves, root) = tree(&vectors, &vector["tree"]);
        let root = summary(root);
        let states = list(&vector["json"], "states");
        let ids: Vec<&str> = states
            .iter()
            .map(|state| state["id"].as_str().unwrap())
            .collect();
        let keys: Vec<Vec<u8>> = ids.iter().map(|id| Sha256::digest(id).to_vec()).collect();
        assert_eq!(
            model::nodes(&leaves, &keys, 0),
            list(&vector["json"], "nodes")
        );
        let shown = verify_text(&vector["json"].to_string(), &root.hash).unwrap();
        let proof = bytes(&vector["bytes"]);
        assert_eq!(verify_bytes(&proof, &root.hash).unwrap(), shown);
        assert_eq!((shown.whole, shown.answers.len()), (root, ids.len()));
        for (((id, proven), key), state) in shown.answers.iter().zip(&keys).zip(states) {
            let held = leaves.iter().find(|leaf| leaf.key == *key).map(own_leaf);
            let expected = held.map_or(Proven::Absent, Proven::Included);
            assert_eq!(
                (id.as_str(), *proven),
                (state["id"].as_str().unwrap(), expected)
            );
            assert_eq!(held.is_some(), state["kind"] == "inclusion");
        }
        encoded_alike(&vector["json"], &leaves, &proof);
    }
}

/// Makes the proof anew with the tree's own code and compares both forms.
fn encoded_alike(text: &Value, leaves: &[model::Leaf], proof: &[u8]) {
    use samestate::merkle::asked::Asked;
    use samestate::merkle::multiproof::MultiProof;
    use samestate::merkle::proof_bytes::encode;
    use samestate::merkle::proof_text::MultiProofText;
    use samestate::types::id::{GameId, Namespace};

    let own: Vec<Leaf> = leaves.iter().map(own_leaf).collect();
    let id = |state: &Value| GameId::new(state["id"].as_str().unwrap()).unwrap();
    let asked = Asked::in_order(list(text, "states").iter().map(id).collect()).unwrap();
    let made = MultiProof::among(&own, asked.keys());
    assert_eq!(hex(&encode(&asked, &made).unwrap()), hex(proof));
    let namespace = Namespace::new("default").unwrap();
    let root = root_of(&own).hash;
    let written = MultiProofText::new(namespace, root, &asked, &made).unwrap();
    assert_eq!(serde_json::to_value(&written).unwrap(), *text);
}
