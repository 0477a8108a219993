//! One proof for a set of keys: what the tree holds, or that it holds nothing, under each of them.
//! Nodes that several paths share stand in it once.
//!
//! Checking is pure and takes nothing but SHA-256 and a comparison in constant time: no storage, no
//! allocation but the answers, and a stack as deep as the proof, at most 256 nodes. Why a proof
//! cannot be forged is said in [`crate::merkle::proof`]; the same holds here for every path.

use crate::merkle::node::Summary;
use crate::merkle::prefix::bit;
use crate::merkle::proof::{BadProof, Proven, shared_bits};
use crate::merkle::trie::{collapses, split, summarize};
use crate::types::hash::{NodeHash, StateKey};
use crate::types::leaf::Leaf;

/// A node of a proof. Which of them may stand where follows from the keys: a subtree without any
/// of them is [`ProofNode::Empty`] or [`ProofNode::Subtree`], every other one is not a `Subtree`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofNode {
    /// At least two leaves, keys among those asked for: its left and then its right child follow.
    Inner,
    /// No leaf.
    Empty,
    /// The only leaf of a subtree in which there are keys asked for, whether it has one of them or
    /// not.
    Leaf(Leaf),
    /// A subtree passed by.
    Subtree(Summary),
}

/// The nodes of a proof from the root down, each parent before its children, left before right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MultiProof {
    /// The nodes.
    pub nodes: Vec<ProofNode>,
}

/// What a valid proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// For each key, in order.
    pub answers: Vec<Proven>,
    /// The whole tree: its root hash covers how many leaves it has, their size and the newest.
    pub whole: Summary,
}

/// Where the nodes of a proof come from, one after the other.
pub trait NodeSource {
    /// The next node, which stands `depth` bits below the root over these keys.
    ///
    /// # Errors
    /// [`BadProof`] when there is none or it is malformed.
    fn next(&mut self, depth: usize, keys: &[StateKey]) -> Result<ProofNode, BadProof>;

    /// Called behind the last node.
    ///
    /// # Errors
    /// [`BadProof::Surplus`] when there is more.
    fn end(self) -> Result<(), BadProof>;
}

impl NodeSource for std::slice::Iter<'_, ProofNode> {
    fn next(&mut self, _: usize, _: &[StateKey]) -> Result<ProofNode, BadProof> {
        Iterator::next(self).copied().ok_or(BadProof::Truncated)
    }

    fn end(self) -> Result<(), BadProof> {
        match self.as_slice() {
            [] => Ok(()),
            _ => Err(BadProof::Surplus),
        }
    }
}

impl MultiProof {
    /// Proves `keys`, sorted and unique, in the tree of exactly these leaves, sorted by key and
    /// unique. [`crate::merkle::view::TreeView::prove_all`] reads less.
    pub fn among(leaves: &[Leaf], keys: &[StateKey]) -> Self {
        let mut nodes = Vec::new();
        prove_among(leaves, 0, keys, &mut nodes);
        Self { nodes }
    }

    /// What this proof says about `keys`, sorted and unique, in the tree with this root.
    ///
    /// # Errors
    /// [`BadProof`] when it does not prove anything about them.
    pub fn verify(&self, root: &NodeHash, keys: &[StateKey]) -> Result<Shown, BadProof> {
        verify(self.nodes.iter(), root, keys)
    }
}

/// Checks a proof, node by node as they come. Takes a hash for each leaf and each
/// [`ProofNode::Inner`].
///
/// # Errors
/// [`BadProof`] when it does not prove anything about `keys`, which are sorted and unique.
pub fn verify<N: NodeSource>(
    nodes: N,
    root: &NodeHash,
    keys: &[StateKey],
) -> Result<Shown, BadProof> {
    if keys.is_empty() || !keys.is_sorted_by(|a, b| a < b) {
        return Err(BadProof::Unsorted);
    }
    let answers = Vec::with_capacity(keys.len());
    let mut checking = Checking { nodes, answers };
    let whole = checking.subtree(0, keys)?;
    checking.nodes.end()?;
    if whole.hash.matches(root) {
        let answers = checking.answers;
        Ok(Shown { answers, whole })
    } else {
        Err(BadProof::OtherRoot)
    }
}

struct Checking<N> {
    nodes: N,
    answers: Vec<Proven>,
}

impl<N: NodeSource> Checking<N> {
    /// The subtree at `depth` over those keys.
    fn subtree(&mut self, depth: usize, keys: &[StateKey]) -> Result<Summary, BadProof> {
        match (self.nodes.next(depth, keys)?, keys) {
            (ProofNode::Empty, keys) => {
                let absent = keys.iter().map(|_| Proven::Absent);
                self.answers.extend(absent);
                Ok(Summary::EMPTY)
            }
            (ProofNode::Subtree(summary), []) if summary.leaves == 0 => {
                Err(BadProof::ForgedEmpty { depth })
            }
            (ProofNode::Subtree(summary), []) => Ok(summary),
            (ProofNode::Leaf(leaf), [first, ..]) => {
                // The keys share so many bits with each other: they stand below this place.
                let shared = shared_bits(&leaf.key, first);
                if shared < depth {
                    let steps = depth;
                    return Err(BadProof::ForeignLeaf { shared, steps });
                }
                let answer = |key: &StateKey| match *key == leaf.key {
                    true => Proven::Included(leaf),
                    false => Proven::Absent,
                };
                self.answers.extend(keys.iter().map(answer));
                Ok(Summary::of_leaf(&leaf))
            }
            (ProofNode::Inner, [_, ..]) => self.inner(depth, keys),
            _ => Err(BadProof::Misplaced { depth }),
        }
    }

    fn inner(&mut self, depth: usize, keys: &[StateKey]) -> Result<Summary, BadProof> {
        let too_long = BadProof::TooLong(depth + 1);
        let at = u8::try_from(depth).map_err(|_| too_long)?;
        let (left, right) = split_keys(keys, at);
        let left = self.subtree(depth + 1, left)?;
        let right = self.subtree(depth + 1, right)?;
        if collapses(&left, &right) {
            return Err(BadProof::NotCanonical { depth: at });
        }
        Ok(Summary::of_children(at, &left, &right))
    }
}

/// Sorted keys that share `depth` bits, by the bit behind those.
pub(crate) fn split_keys(keys: &[StateKey], depth: u8) -> (&[StateKey], &[StateKey]) {
    keys.split_at(keys.partition_point(|key| !bit(key, depth)))
}

/// The node that stands for a subtree without any key asked for.
pub(crate) fn passed_by(summary: &Summary) -> ProofNode {
    match summary.leaves {
        0 => ProofNode::Empty,
        _ => ProofNode::Subtree(*summary),
    }
}

/// Appends the nodes that prove `keys` in the subtree at `depth` of exactly these leaves.
pub(crate) fn prove_among(
    leaves: &[Leaf],
    depth: u8,
    keys: &[StateKey],
    nodes: &mut Vec<ProofNode>,
) {
    match (leaves, keys) {
        (leaves, []) => nodes.push(passed_by(&summarize(leaves, depth, &mut 0))),
        ([], _) => nodes.push(ProofNode::Empty),
        ([leaf], _) => nodes.push(ProofNode::Leaf(*leaf)),
        _ => {
            nodes.push(ProofNode::Inner);
            let (left, right) = split(leaves, depth);
            let (left_keys, right_keys) = split_keys(keys, depth);
            // Below depth 255 all bits are used up and each side has one leaf at most.
            let below = depth.saturating_add(1);
            prove_among(left, below, left_keys, nodes);
            prove_among(right, below, right_keys, nodes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::memory::{any_leaves, key, leaf, spread_key};
    use crate::merkle::proof::Proof;
    use crate::merkle::trie::{descend, root_of};

    fn prove(leaves: &[Leaf], keys: &[StateKey]) -> MultiProof {
        MultiProof::among(leaves, keys)
    }

    fn truth(leaves: &[Leaf], key: &StateKey) -> Proven {
        let found = leaves.iter().find(|leaf| leaf.key == *key);
        found.map_or(Proven::Absent, |leaf| Proven::Included(*leaf))
    }

    fn truths(leaves: &[Leaf], keys: &[StateKey]) -> Vec<Proven> {
        keys.iter().map(|key| truth(leaves, key)).collect()
    }

    /// Some keys of the leaves and some others, sorted and unique.
    fn some_keys(leaves: &[Leaf], others: &[(u8, u8)], step: usize) -> Vec<StateKey> {
        let own = leaves.iter().step_by(step).map(|leaf| leaf.key);
        let others = others.iter().map(|(cluster, n)| key(*cluster, *n));
        let mut keys: Vec<StateKey> = own.chain(others).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Every other node that one can become by changing one field, or another kind of node.
    fn altered(node: &ProofNode, others: &[ProofNode]) -> Vec<ProofNode> {
        let mut altered = vec![ProofNode::Inner, ProofNode::Empty];
        altered.extend(others);
        match *node {
            ProofNode::Leaf(sound) => {
                let mut key = sound.key;
                key.0[31] ^= 1;
                let mut digest = sound.digest;
                digest.0[0] ^= 0x80;
                let (size, updated_at) = (sound.size ^ 1, sound.updated_at.wrapping_add(1));
                altered.extend([
                    ProofNode::Leaf(Leaf { key, ..sound }),
                    ProofNode::Leaf(Leaf { digest, ..sound }),
                    ProofNode::Leaf(Leaf { size, ..sound }),
                    ProofNode::Leaf(Leaf {
                        updated_at,
                        ..sound
                    }),
                    ProofNode::Subtree(Summary::of_leaf(&sound)),
                ]);
            }
            ProofNode::Subtree(sound) => {
                let mut hash = sound.hash;
                hash.0[31] ^= 1;
                let (size, updated_at) = (sound.size ^ 1, sound.updated_at.wrapping_add(1));
                altered.push(ProofNode::Subtree(Summary { hash, ..sound }));
                altered.push(ProofNode::Subtree(Summary { size, ..sound }));
                altered.push(ProofNode::Subtree(Summary {
                    updated_at,
                    ..sound
                }));
                for leaves in [0, 1, sound.leaves + 1, u64::MAX] {
                    altered.push(ProofNode::Subtree(Summary { leaves, ..sound }));
                }
            }
            ProofNode::Inner | ProofNode::Empty => {}
        }
        altered.retain(|other| other != node);
        altered
    }

    /// Every proof that differs from a sound one in one node, in order, or in length.
    fn mutations(proof: &MultiProof, others: &[ProofNode]) -> Vec<MultiProof> {
        let mut mutated = Vec::new();
        let mut add = |change: &dyn Fn(&mut Vec<ProofNode>)| {
            let mut nodes = proof.nodes.clone();
            change(&mut nodes);
            mutated.push(MultiProof { nodes });
        };
        for at in 0..proof.nodes.len() {
            for other in altered(&proof.nodes[at], others) {
                add(&|nodes| nodes[at] = other);
            }
            add(&|nodes| drop(nodes.drain(at..=at)));
            add(&|nodes| nodes.truncate(at));
            add(&|nodes| drop(nodes.drain(..at)));
            add(&|nodes| nodes.insert(at, nodes[at]));
            add(&|nodes| nodes.swap(at, 0));
            add(&|nodes| nodes[at..].rotate_left(1));
        }
        for other in others {
            add(&|nodes| nodes.push(*other));
        }
        mutated.retain(|mutated| mutated != proof);
        mutated
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_mutation_proves_anything(
            leaves in any_leaves(40),
            others in proptest::collection::vec((0u8..6, any::<u8>()), 1..6),
            step in 1usize..12,
        ) {
            let root = root_of(&leaves);
            let keys = some_keys(&leaves, &others, step);
            let proof = prove(&leaves, &keys);
            let shown = proof.verify(&root.hash, &keys).unwrap();
            prop_assert_eq!(shown.answers, truths(&leaves, &keys));
            prop_assert_eq!(shown.whole, root);
            let strangers = [
                ProofNode::Subtree(root),
                ProofNode::Leaf(leaves.first().copied().unwrap_or(leaf(spread_key(1), 1))),
            ];
            for mutated in mutations(&proof, &strangers) {
                let answer = mutated.verify(&root.hash, &keys);
                prop_assert!(answer.is_err(), "{:?} from {:?}", answer, mutated);
            }
        }

        #[test]
        fn for_other_keys_a_proof_shows_the_truth_or_nothing(
            leaves in any_leaves(40),
            others in proptest::collection::vec((0u8..6, any::<u8>()), 1..6),
            step in 1usize..12,
        ) {
            let root = root_of(&leaves).hash;
            let keys = some_keys(&leaves, &others, step);
            let proof = prove(&leaves, &keys);
            for at in 0..keys.len() {
                let mut fewer = keys.clone();
                fewer.remove(at);
                let mut beside = keys.clone();
                beside[at].0[31] ^= 1;
                beside.sort();
                for keys in [fewer, beside] {
                    if let Ok(shown) = proof.verify(&root, &keys) {
                        prop_assert_eq!(shown.answers, truths(&leaves, &keys));
                    }
                }
            }
        }

        #[test]
        fn one_key_takes_the_nodes_of_its_path(leaves in any_leaves(60), n in any::<u8>()) {
            let key = leaves.get(usize::from(n)).map_or(key(1, n), |leaf| leaf.key);
            let mut siblings = Vec::new();
            let terminal = descend(&leaves, 0, &key, &mut siblings);
            let proof = Proof { siblings, terminal };
            let root = root_of(&leaves).hash;
            let (proven, whole) = proof.verify_whole(&root, &key).unwrap();
            let same = prove(&leaves, &[key]);
            let shown = same.verify(&root, &[key]).unwrap();
            prop_assert_eq!((shown.answers, shown.whole), (vec![proven], whole));
            prop_assert_eq!(same.nodes.len(), 2 * proof.siblings.len() + 1);
        }
    }

    #[test]
    fn keys_have_to_come_in_order() {
        let leaves = [leaf(key(3, 1), 1), leaf(key(3, 2), 2)];
        let root = root_of(&leaves).hash;
        let keys = [leaves[0].key, leaves[1].key];
        let proof = prove(&leaves, &keys);
        assert!(proof.verify(&root, &keys).is_ok());
        for bad in [&[keys[1], keys[0]][..], &[keys[0], keys[0]], &[]] {
            assert_eq!(proof.verify(&root, bad), Err(BadProof::Unsorted));
        }
    }

    #[test]
    fn no_proof_goes_deeper_than_a_key_is_long() {
        let (mut low, mut high) = (StateKey([7; 32]), StateKey([7; 32]));
        (low.0[31], high.0[31]) = (6, 7);
        let leaves = [leaf(low, 1), leaf(high, 2)];
        let root = root_of(&leaves).hash;
        let proof = prove(&leaves, &[low, high]);
        let shown = proof.verify(&root, &[low, high]).unwrap();
        assert_eq!(shown.answers, truths(&leaves, &[low, high]));
        let endless = MultiProof {
            nodes: vec![ProofNode::Inner; 10_000],
        };
        assert!(endless.verify(&root, &[low]).is_err());
        // Along a key of ones each left child is passed by.
        let steps = (0..300).flat_map(|_| [ProofNode::Inner, ProofNode::Empty]);
        let long = MultiProof {
            nodes: steps.collect(),
        };
        let ones = StateKey([0xff; 32]);
        assert_eq!(long.verify(&root, &[ones]), Err(BadProof::TooLong(257)));
    }
}
