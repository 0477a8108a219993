//! The trees that the bench compares, each over tables in memory, behind calls of one shape.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use jmt::storage::{LeafNode, Node, NodeKey, TreeReader, TreeUpdateBatch};
use jmt::{KeyHash, OwnedValue, RootHash, Sha256Jmt};
use merkle_search_tree::MerkleSearchTree;
use merkle_search_tree::diff::diff;
use samestate::merkle::node::Summary;
use samestate::merkle::prefix::Prefix;
use samestate::merkle::row::TOP_DEPTH;
use samestate::merkle::storage::{TreeStorage, TreeStorageMut};
use samestate::merkle::top::Top;
use samestate::merkle::update::{LeafChange, Work, rebuild, update};
use samestate::merkle::view::TreeView;
use samestate::types::hash::StateKey;
use samestate::types::leaf::Leaf;

/// Rows and leaves in memory.
#[derive(Clone, Default)]
pub struct Tables {
    leaves: BTreeMap<StateKey, Leaf>,
    rows: HashMap<Prefix, Vec<u8>>,
}

impl TreeStorage for Tables {
    type Error = Infallible;

    fn row(&self, at: Prefix) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.rows.get(&at).cloned())
    }

    fn top_rows(&self, visit: &mut dyn FnMut(Prefix, &[u8])) -> Result<(), Infallible> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.retain(|(at, _)| at.depth() == TOP_DEPTH);
        rows.sort();
        rows.into_iter().for_each(|(at, row)| visit(*at, row));
        Ok(())
    }

    fn leaves(&self, within: Prefix) -> Result<Vec<Leaf>, Infallible> {
        let (first, last) = within.key_range();
        let leaves = self.leaves.range(first..=last);
        Ok(leaves.map(|(_, leaf)| *leaf).collect())
    }
}

impl TreeStorageMut for Tables {
    fn set_row(&mut self, at: Prefix, row: &[u8]) -> Result<(), Infallible> {
        self.rows.insert(at, row.to_vec());
        Ok(())
    }

    fn remove_row(&mut self, at: Prefix) -> Result<(), Infallible> {
        self.rows.remove(&at);
        Ok(())
    }
}

/// The tree of this crate.
#[derive(Clone)]
pub struct Ours {
    pub tables: Tables,
    pub top: Top,
}

impl Ours {
    pub fn load(leaves: &[Leaf]) -> Self {
        let mut tables = Tables {
            leaves: leaves.iter().map(|leaf| (leaf.key, *leaf)).collect(),
            ..Tables::default()
        };
        let sorted: Vec<_> = tables.leaves.values().copied().map(Ok).collect();
        let top = rebuild(&mut tables, sorted, &mut Work::default()).expect("sorted leaves");
        Self { tables, top }
    }

    pub fn view(&self) -> TreeView<'_, Tables> {
        TreeView {
            top: &self.top,
            storage: &self.tables,
        }
    }

    pub fn root(&self) -> Summary {
        self.top.root()
    }

    /// Puts a batch and says what it cost.
    pub fn put(&mut self, leaves: &[Leaf]) -> Work {
        let sorted: BTreeMap<StateKey, Leaf> =
            leaves.iter().map(|leaf| (leaf.key, *leaf)).collect();
        let change = |(key, leaf): (&StateKey, &Leaf)| LeafChange {
            key: *key,
            leaf: Some(*leaf),
        };
        let changed: Vec<LeafChange> = sorted.iter().map(change).collect();
        self.tables.leaves.extend(sorted);
        let mut work = Work::default();
        update(&mut self.top, &mut self.tables, &changed, &mut work).expect("a sound tree");
        work
    }
}

/// The nodes of a Jellyfish Merkle tree; those that an update makes stale are dropped.
#[derive(Default)]
struct JmtTables {
    nodes: HashMap<NodeKey, Node>,
    values: HashMap<KeyHash, OwnedValue>,
}

impl TreeReader for JmtTables {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        Ok(self.nodes.get(key).cloned())
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        Ok(None)
    }

    fn get_value_option(&self, _: u64, key: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        Ok(self.values.get(&key).cloned())
    }
}

/// The Jellyfish Merkle tree of the crate `jmt`, with SHA-256.
#[derive(Default)]
pub struct Jmt {
    tables: JmtTables,
    version: u64,
    root: Option<RootHash>,
}

/// A proof of the crate `jmt`.
pub type JmtProof = jmt::proof::SparseMerkleProof<sha2_010::Sha256>;

impl Jmt {
    pub fn load(leaves: &[Leaf]) -> Self {
        let mut tree = Self::default();
        leaves.chunks(10_000).for_each(|batch| tree.put(batch));
        tree
    }

    pub fn put(&mut self, leaves: &[Leaf]) {
        let version = self.version + u64::from(self.root.is_some());
        let put = |leaf: &Leaf| (KeyHash(leaf.key.0), Some(leaf.digest.0.to_vec()));
        let batch: Vec<_> = leaves.iter().map(put).collect();
        let tree = Sha256Jmt::new(&self.tables);
        let (root, made) = tree.put_value_set(batch, version).expect("a sound tree");
        let TreeUpdateBatch {
            node_batch,
            stale_node_index_batch,
            ..
        } = made;
        for stale in &stale_node_index_batch {
            self.tables.nodes.remove(&stale.node_key);
        }
        for (key, node) in node_batch.nodes() {
            self.tables.nodes.insert(key.clone(), node.clone());
        }
        for ((_, key), value) in node_batch.values() {
            self.tables
                .values
                .extend(value.clone().map(|value| (*key, value)));
        }
        (self.version, self.root) = (version, Some(root));
    }

    pub fn prove(&self, key: &StateKey) -> (Option<OwnedValue>, JmtProof) {
        let tree = Sha256Jmt::new(&self.tables);
        let proven = tree.get_with_proof(KeyHash(key.0), self.version);
        proven.expect("a sound tree")
    }

    pub fn verify(&self, key: &StateKey, (value, proof): &(Option<OwnedValue>, JmtProof)) {
        let root = self.root.expect("a root");
        let verified = proof.verify(root, KeyHash(key.0), value.as_ref());
        verified.expect("a sound proof");
    }
}

/// The tree of the crate `merkle-search-tree`, with its own hash, SipHash of 128 bits.
pub struct Mst(MerkleSearchTree<[u8; 32], [u8; 32]>);

impl Mst {
    pub fn load(leaves: &[Leaf]) -> Self {
        let mut tree = Self(MerkleSearchTree::default());
        tree.put(leaves);
        tree
    }

    pub fn put(&mut self, leaves: &[Leaf]) {
        for leaf in leaves {
            self.0.upsert(leaf.key.0, &leaf.digest.0);
        }
        self.0.root_hash();
    }

    /// How many ranges of keys differ from another tree, and how many pages it had to list.
    pub fn differing(&self, other: &Self) -> (usize, usize) {
        let own = self.0.serialise_page_ranges().expect("a root");
        let others = other.0.serialise_page_ranges().expect("a root");
        let pages = own.len() + others.len();
        (diff(own, others).len(), pages)
    }
}
