//! The definition of the Merkle tree and its proofs once more, as short as it can be said.

use samestate::types::hash::hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[derive(Clone)]
pub struct Leaf {
    pub key: Vec<u8>,
    pub digest: Vec<u8>,
    pub size: u64,
    pub updated_at: u64,
}

fn hash(parts: &[&[u8]]) -> Vec<u8> {
    Sha256::digest(parts.concat()).to_vec()
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

pub fn bit(key: &[u8], at: usize) -> bool {
    key[at / 8] & (0x80 >> (at % 8)) != 0
}

fn sides<T: Clone>(all: &[T], key: impl Fn(&T) -> &[u8], depth: usize) -> [Vec<T>; 2] {
    let right = all.iter().filter(|one| bit(key(one), depth));
    let left = all.iter().filter(|one| !bit(key(one), depth));
    [left.cloned().collect(), right.cloned().collect()]
}

pub fn leaf(leaf: &Leaf) -> Vec<u8> {
    let tail = numbers(&[leaf.size, leaf.updated_at]);
    let own = hash(&[&[0], &leaf.key, &leaf.digest, &tail]);
    [own, numbers(&[1]), tail].concat()
}

pub fn inner(depth: u8, left: &[u8], right: &[u8], leaves: &[Leaf]) -> Vec<u8> {
    let newest = leaves.iter().map(|leaf| leaf.updated_at).max();
    let size = leaves.iter().map(|leaf| leaf.size).sum();
    let sums = numbers(&[leaves.len() as u64, size, newest.unwrap_or(0)]);
    [hash(&[&[1, depth], left, right]), sums].concat()
}

/// The 56 bytes of a subtree.
pub fn summary(leaves: &[Leaf], depth: usize) -> Vec<u8> {
    match leaves {
        [] => vec![0; 56],
        [one] => leaf(one),
        _ => {
            let [left, right] = sides(leaves, |leaf| &leaf.key, depth);
            let (a, b) = (summary(&left, depth + 1), summary(&right, depth + 1));
            inner(depth as u8, &a, &b, leaves)
        }
    }
}

pub fn summary_json(bytes: &[u8]) -> Value {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let hash = hex(&bytes[..32]);
    json!({"hash": hash, "leaves": number(32), "size": number(40), "updated_at": number(48)})
}

/// The nodes of a proof, in JSON.
pub fn nodes(leaves: &[Leaf], keys: &[Vec<u8>], depth: usize) -> Vec<Value> {
    match (leaves, keys) {
        ([], _) => vec![Value::Null],
        (_, []) => vec![summary_json(&summary(leaves, depth))],
        ([leaf], _) => {
            let (key, digest) = (hex(&leaf.key), hex(&leaf.digest));
            let (size, time) = (leaf.size, leaf.updated_at);
            vec![json!({"key": key, "digest": digest, "size": size, "updated_at": time})]
        }
        _ => {
            let leaves = sides(leaves, |leaf| &leaf.key, depth);
            let keys = sides(keys, |key| key, depth);
            let mut all = vec![json!("inner")];
            all.extend(nodes(&leaves[0], &keys[0], depth + 1));
            all.extend(nodes(&leaves[1], &keys[1], depth + 1));
            all
        }
    }
}
