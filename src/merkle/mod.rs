//! The Merkle tree: a binary radix trie over state keys whose root depends on the set of leaves
//! alone. Pure: storage comes in through [`storage::TreeStorage`].
//!
//! The definition of every hash is prose in docs/reference/merkle-tree.md.

pub mod asked;
mod bits;
pub mod difference;
pub mod multiproof;
pub mod node;
mod numbers;
pub mod overlay;
pub mod prefix;
pub mod proof;
pub mod proof_bytes;
pub mod proof_text;
pub mod range;
pub mod range_text;
pub mod row;
pub mod storage;
pub mod stream;
pub mod top;
pub mod trie;
pub mod update;
pub mod view;

#[cfg(test)]
mod memory;
