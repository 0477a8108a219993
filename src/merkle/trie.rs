//! The tree by its definition, over a sorted slice of leaves in memory. Buckets are hashed with it,
//! ranges of keys copied from elsewhere are checked with it, and it is what everything else that
//! computes roots is tested against.

use crate::merkle::node::Summary;
use crate::merkle::prefix::{Prefix, bit};
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// The root of the tree of these leaves, sorted by key and unique.
pub fn root_of(leaves: &[Leaf]) -> Summary {
    summary_at(leaves, 0)
}

/// The subtree at `depth` of these leaves, sorted by key and unique, whose keys all share their
/// first `depth` bits.
pub fn summary_at(leaves: &[Leaf], depth: u8) -> Summary {
    summarize(leaves, depth, &mut 0)
}

/// [`summary_at`], adding to `hashes` how many it took. The recursion is as deep as two keys share
/// bits, at most 256.
pub(crate) fn summarize(leaves: &[Leaf], depth: u8, hashes: &mut u64) -> Summary {
    match leaves {
        [] => Summary::EMPTY,
        [leaf] => {
            *hashes += 1;
            Summary::of_leaf(leaf)
        }
        _ => {
            let (left, right) = split(leaves, depth);
            let left = summarize_child(left, depth, hashes);
            let right = summarize_child(right, depth, hashes);
            join(depth, &left, &right, hashes)
        }
    }
}

/// [`Summary::of_children`], adding to `hashes` unless a lone leaf or nothing is passed up.
pub(crate) fn join(depth: u8, left: &Summary, right: &Summary, hashes: &mut u64) -> Summary {
    *hashes += u64::from(!collapses(left, right));
    Summary::of_children(depth, left, right)
}

/// True when the parent of these two is no node of its own: at most one leaf below both.
pub(crate) fn collapses(left: &Summary, right: &Summary) -> bool {
    left.leaves.saturating_add(right.leaves) <= 1
}

/// The leaves of a sorted slice that lie below `at`.
pub(crate) fn within(leaves: &[Leaf], at: Prefix) -> &[Leaf] {
    let (first, last) = at.key_range();
    let from = leaves.partition_point(|leaf| leaf.key < first);
    let to = leaves.partition_point(|leaf| leaf.key <= last);
    leaves.get(from..to).unwrap_or_default()
}

/// Goes down from `depth` towards `key` until at most one leaf is left, which is returned. Pushes
/// the subtrees passed by.
pub(crate) fn descend(
    mut leaves: &[Leaf],
    mut depth: u8,
    key: &StateKey,
    siblings: &mut Vec<Summary>,
) -> Option<Leaf> {
    while leaves.len() > 1 {
        let (left, right) = split(leaves, depth);
        let (near, far) = if bit(key, depth) {
            (right, left)
        } else {
            (left, right)
        };
        siblings.push(summarize_child(far, depth, &mut 0));
        leaves = near;
        match depth.checked_add(1) {
            Some(deeper) => depth = deeper,
            None => break,
        }
    }
    leaves.first().copied()
}

/// The subtree of one side below a node at `parent`. Below depth 255 all 256 bits are used up and
/// unique keys leave one leaf.
fn summarize_child(leaves: &[Leaf], parent: u8, hashes: &mut u64) -> Summary {
    match parent.checked_add(1) {
        Some(depth) => summarize(leaves, depth, hashes),
        None => summarize(leaves.get(..1).unwrap_or_default(), parent, hashes),
    }
}

/// Sorted leaves that share `depth` bits, by the bit behind those.
pub(crate) fn split(leaves: &[Leaf], depth: u8) -> (&[Leaf], &[Leaf]) {
    leaves.split_at(leaves.partition_point(|leaf| !bit(&leaf.key, depth)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::merkle::memory::{any_leaves, leaf};
    use crate::types::hash::{ContentHash, hex};
    use crate::types::id::{GameId, ReplicaId, WriterId};
    use crate::types::record::StateRecord;
    use crate::types::version::{Stamp, Version, VersionVector};

    const REFERENCE: &str = include_str!("../../docs/reference/merkle-tree.md");

    /// The definition in the reference once more, word by word, without the code under test.
    fn by_the_book(leaves: &[Leaf], depth: usize) -> Vec<u8> {
        let numbers = |leaf: &Leaf| {
            let size = leaf.size.to_le_bytes();
            [size, leaf.updated_at.to_le_bytes()].concat()
        };
        match leaves {
            [] => vec![0; 56],
            [one] => {
                let own = [&[0][..], &one.key.0, &one.digest.0, &numbers(one)].concat();
                let count = 1u64.to_le_bytes();
                [&Sha256::digest(own)[..], &count, &numbers(one)].concat()
            }
            _ => {
                let right = |leaf: &&Leaf| leaf.key.0[depth / 8] & (0x80 >> (depth % 8)) != 0;
                let (right, left): (Vec<&Leaf>, Vec<&Leaf>) = leaves.iter().partition(right);
                let side = |side: Vec<&Leaf>| {
                    let side: Vec<Leaf> = side.into_iter().copied().collect();
                    by_the_book(&side, depth + 1)
                };
                let own = [vec![1, depth as u8], side(left), side(right)].concat();
                let count = (leaves.len() as u64).to_le_bytes();
                let size: u64 = leaves.iter().map(|leaf| leaf.size).sum();
                let newest = leaves.iter().map(|leaf| leaf.updated_at).max().unwrap();
                let sums = [count, size.to_le_bytes(), newest.to_le_bytes()].concat();
                [&Sha256::digest(own)[..], &sums].concat()
            }
        }
    }

    proptest! {
        #[test]
        fn the_trie_is_what_the_reference_says(leaves in any_leaves(60)) {
            let mut bytes = [0; 56];
            root_of(&leaves).write(&mut bytes);
            prop_assert_eq!(bytes.to_vec(), by_the_book(&leaves, 0));
        }
    }

    #[test]
    fn keys_that_differ_in_the_last_bit_alone_are_told_apart() {
        let (mut low, mut high) = (StateKey([7; 32]), StateKey([7; 32]));
        (low.0[31], high.0[31]) = (6, 7);
        let leaves = [leaf(low, 1), leaf(high, 2)];
        let root = root_of(&leaves);
        assert_eq!((root.leaves, root.updated_at), (2, 2));
        for (key, expected) in [(low, leaves[0]), (high, leaves[1])] {
            let mut siblings = Vec::new();
            assert_eq!(descend(&leaves, 0, &key, &mut siblings), Some(expected));
            assert_eq!(siblings.len(), 256);
        }
    }

    /// Record `n` of the reference's test vectors.
    fn record(n: u64) -> StateRecord {
        let content = format!("state {n}");
        let mut vector = VersionVector::default();
        vector.set(WriterId(1), n);
        let version = Version {
            vector,
            stamp: Stamp {
                millis: 1_700_000_000_000 + n,
                logical: 0,
                replica: ReplicaId(1),
            },
            content: ContentHash::of(content.as_bytes()),
            size: content.len() as u64,
            content_type: None,
            expires_at: None,
            tombstone: false,
            lease_epoch: 0,
        };
        StateRecord::new(GameId::new(&format!("match/{n}")).unwrap(), version)
    }

    #[test]
    fn the_test_vectors_of_the_reference_hold() {
        let root = |numbers: &[u64]| {
            let mut leaves: Vec<Leaf> = numbers.iter().map(|n| record(*n).leaf()).collect();
            leaves.sort_by_key(|leaf| leaf.key);
            root_of(&leaves).hash.0
        };
        let eight: Vec<u64> = (1..=8).collect();
        for (name, value) in [
            ("record digest of record 1", record(1).digest().0),
            ("root of record 1 alone, its leaf hash", root(&[1])),
            ("root of records 1 and 2", root(&[1, 2])),
            (
                "root of records 2 and 5, whose keys share 11 bits",
                root(&[2, 5]),
            ),
            ("root of records 1 to 8", root(&eight)),
        ] {
            let line = format!("| {name} | {} |", hex(&value));
            assert!(
                REFERENCE.lines().any(|l| l == line),
                "not in the reference: {line}"
            );
        }
    }
}
