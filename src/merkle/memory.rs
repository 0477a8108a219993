//! A storage in memory, and leaves to fill it with, for the tests of this layer.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::row::TOP_DEPTH;
use crate::merkle::storage::{TreeStorage, TreeStorageMut};
use crate::merkle::top::Top;
use crate::merkle::update::{LeafChange, Work, rebuild, update};
use crate::types::hash::{LeafDigest, StateKey};
use crate::types::leaf::Leaf;

/// How [`Memory`] fails when told to.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("told to fail")]
pub struct Broken;

/// Rows and leaves in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    pub leaves: BTreeMap<StateKey, Leaf>,
    pub rows: BTreeMap<Prefix, Vec<u8>>,
    /// Calls that succeed before all others fail.
    pub calls_left: Cell<u32>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            leaves: BTreeMap::new(),
            rows: BTreeMap::new(),
            calls_left: Cell::new(u32::MAX),
        }
    }
}

impl Memory {
    /// All leaves in order.
    pub fn sorted(&self) -> Vec<Leaf> {
        self.leaves.values().copied().collect()
    }

    /// Replaces everything by a tree of these leaves, made in one go.
    pub fn rebuild(&mut self, leaves: impl IntoIterator<Item = Leaf>) -> Top {
        self.leaves = leaves.into_iter().map(|leaf| (leaf.key, leaf)).collect();
        self.rows.clear();
        let leaves = self.sorted().into_iter().map(Ok);
        rebuild(self, leaves, &mut Work::default()).unwrap()
    }

    /// Writes the leaves, then the tree.
    pub fn apply(&mut self, top: &mut Top, changed: &[LeafChange], work: &mut Work) -> Summary {
        for change in changed {
            match change.leaf {
                Some(leaf) => self.leaves.insert(change.key, leaf),
                None => self.leaves.remove(&change.key),
            };
        }
        update(top, self, changed, work).unwrap()
    }

    fn call(&self) -> Result<(), Broken> {
        let left = self.calls_left.get().checked_sub(1).ok_or(Broken)?;
        // The default stands for "never", and keeps two storages with it equal.
        if left != u32::MAX - 1 {
            self.calls_left.set(left);
        }
        Ok(())
    }
}

impl TreeStorage for Memory {
    type Error = Broken;

    fn row(&self, at: Prefix) -> Result<Option<Vec<u8>>, Broken> {
        self.call()?;
        Ok(self.rows.get(&at).cloned())
    }

    fn top_rows(&self, visit: &mut dyn FnMut(Prefix, &[u8])) -> Result<(), Broken> {
        self.call()?;
        for (at, row) in &self.rows {
            if at.depth() == TOP_DEPTH {
                visit(*at, row);
            }
        }
        Ok(())
    }

    fn leaves(&self, within: Prefix) -> Result<Vec<Leaf>, Broken> {
        self.call()?;
        let (first, last) = within.key_range();
        let leaves = self.leaves.range(first..=last);
        Ok(leaves.map(|(_, leaf)| *leaf).collect())
    }
}

impl TreeStorageMut for Memory {
    fn set_row(&mut self, at: Prefix, row: &[u8]) -> Result<(), Broken> {
        self.call()?;
        self.rows.insert(at, row.to_vec());
        Ok(())
    }

    fn remove_row(&mut self, at: Prefix) -> Result<(), Broken> {
        self.call()?;
        assert!(self.rows.remove(&at).is_some(), "no row at {at}");
        Ok(())
    }
}

/// A leaf whose every field but the key follows from `n`.
pub fn leaf(key: StateKey, n: u64) -> Leaf {
    Leaf {
        key,
        digest: LeafDigest(Sha256::digest(n.to_be_bytes()).into()),
        size: n.wrapping_mul(3),
        updated_at: n,
    }
}

/// The `n`-th of many evenly spread keys.
pub fn spread_key(n: u64) -> StateKey {
    StateKey(Sha256::digest(n.to_le_bytes()).into())
}

/// One of 256 keys of a cluster: 0 is spread out, 1 to 5 share 8, 16, 56, 64 and 248 bits. Those
/// of 1 are the last possible keys of their ranges.
pub fn key(cluster: u8, n: u8) -> StateKey {
    let (place, rest) = match cluster {
        0 => return spread_key(u64::from(n)),
        1 => (1, 0xff),
        2 => (2, 0xab),
        3 => (7, 0xab),
        4 => (8, 0xab),
        _ => (31, 0xab),
    };
    let mut key = [rest; 32];
    key[place] = n;
    StateKey(key)
}

/// Up to `most` leaves of all clusters, sorted and unique.
pub fn any_leaves(most: usize) -> impl Strategy<Value = Vec<Leaf>> {
    let one = (0u8..6, any::<u8>(), 0u64..4);
    proptest::collection::vec(one, 0..most).prop_map(|parts| {
        let leaves = parts.into_iter().map(|(cluster, n, version)| {
            let key = key(cluster, n);
            (key, leaf(key, u64::from(n) * 10 + version))
        });
        leaves.collect::<BTreeMap<_, _>>().into_values().collect()
    })
}

/// What a batch does to a run of a cluster's keys: the first, how many, and the version to put,
/// none to remove.
pub type Run = (u8, u8, u8, Option<u64>);

/// Puts and removals of single keys and of whole runs, so that subtrees grow and shrink past the
/// size of a bucket.
pub fn any_batch() -> impl Strategy<Value = Vec<Run>> {
    let length = prop_oneof![8 => Just(0u8), 2 => 0u8..40, 1 => Just(255u8)];
    let run = (0u8..6, any::<u8>(), length, proptest::option::of(0u64..4));
    proptest::collection::vec(run, 0..20)
}

/// The changes of a batch, later runs winning.
pub fn batch_changes(batch: &[Run]) -> Vec<LeafChange> {
    let mut changes = BTreeMap::new();
    for (cluster, first, more, version) in batch {
        for n in *first..=first.saturating_add(*more) {
            let key = key(*cluster, n);
            let leaf = version.map(|version| leaf(key, u64::from(n) * 10 + version));
            changes.insert(key, LeafChange { key, leaf });
        }
    }
    changes.into_values().collect()
}
