//! The Merkle tree: a binary radix trie over state keys whose root depends on the set of leaves
//! alone. Pure: storage comes in through [`storage::TreeStorage`].
//!
//! The definition of every hash is prose in docs/reference/merkle-tree.md.

pub mod node;
pub mod prefix;
