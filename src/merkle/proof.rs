//! Proofs that a tree with a known root holds a leaf, or holds none under a key. They can be
//! checked offline, by whoever has the root hash.
//!
//! Why one cannot be forged: a root hash fixes the preimage it was made from, and with it the
//! hashes and the counts of both children, and so on down. Leaf and inner preimages begin with
//! different bytes and differ in length, so neither is taken for the other. The one rule without a
//! hash, that a lone leaf is passed up, is not used while checking: a step at which it would apply
//! is refused, so every step is a hash, and a path ends exactly where the tree's own path ends.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::merkle::node::Summary;
use crate::merkle::prefix::bit;
use crate::merkle::trie::collapses;
use crate::types::hash::{NodeHash, StateKey};
use crate::types::leaf::Leaf;

/// Most siblings a path can have: one for each bit of a key.
pub const PROOF_SIBLINGS_MAX: usize = 256;

/// Most ids of one proof.
pub const PROOF_IDS_MAX: usize = 1000;

/// The path from the root towards a key, and what stands at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The subtrees passed by, the root's child first.
    pub siblings: Vec<Summary>,
    /// The only leaf where the path ends; `None` where there is none. A proof of absence ends at
    /// nothing or at the leaf of another key.
    pub terminal: Option<Leaf>,
}

/// What a valid proof says about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proven {
    /// The tree has this leaf under the key.
    Included(Leaf),
    /// The tree has nothing under the key.
    Absent,
}

/// Why a proof proves nothing.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum BadProof {
    /// More siblings than a key has bits.
    #[error("a proof has at most {PROOF_SIBLINGS_MAX} siblings, this one has {0}")]
    TooLong(usize),
    /// The leaf at the end cannot stand on the way to the key.
    #[error("the proof ends at a leaf that shares {shared} bits with the key, not {steps}")]
    ForeignLeaf {
        /// Leading bits that the two keys share.
        shared: usize,
        /// Length of the path.
        steps: usize,
    },
    /// A subtree without leaves that is not [`Summary::EMPTY`].
    #[error("the sibling at depth {depth} has no leaves but claims other content")]
    ForgedEmpty {
        /// Depth of the sibling.
        depth: usize,
    },
    /// A step at which the tree would have passed a lone leaf up.
    #[error("the path goes on below depth {depth}, where it has at most one leaf left")]
    NotCanonical {
        /// Depth of the parent.
        depth: u8,
    },
    /// Keys asked about that are not sorted or not unique, or none at all.
    #[error("ask about at least one key, in order and each once")]
    Unsorted,
    /// More ids than one proof is about.
    #[error("a proof is about at most {PROOF_IDS_MAX} ids, this one about {0}: ask in parts")]
    TooManyIds(usize),
    /// The proof ends before its last node.
    #[error("the proof ends too early: it was cut off")]
    Truncated,
    /// The proof goes on behind its last node.
    #[error("the proof goes on behind its end")]
    Surplus,
    /// A node of a kind that cannot stand there.
    #[error("the node at depth {depth} cannot stand over those keys: the proof is for other ids")]
    Misplaced {
        /// Depth of the node.
        depth: usize,
    },
    /// Bytes that nothing encodes to.
    #[error("the proof is malformed: {0}")]
    Malformed(&'static str),
    /// A sound path, but in another tree.
    #[error("the proof leads to another root")]
    OtherRoot,
}

impl Proof {
    /// What this proof says about `key` in the tree with this root. Takes one hash a sibling and
    /// one for the leaf.
    ///
    /// # Errors
    /// [`BadProof`] when it does not prove anything. The proof and the key, not the tree, are then
    /// at fault.
    pub fn verify(&self, root: &NodeHash, key: &StateKey) -> Result<Proven, BadProof> {
        Ok(self.verify_whole(root, key)?.0)
    }

    /// [`Proof::verify`], and what the whole tree adds up to: its root hash covers that.
    ///
    /// # Errors
    /// As [`Proof::verify`].
    pub fn verify_whole(
        &self,
        root: &NodeHash,
        key: &StateKey,
    ) -> Result<(Proven, Summary), BadProof> {
        if self.siblings.len() > PROOF_SIBLINGS_MAX {
            return Err(BadProof::TooLong(self.siblings.len()));
        }
        let (mut node, proven) = self.end(key)?;
        for (depth, sibling) in (0..=u8::MAX).zip(&self.siblings).rev() {
            if sibling.leaves == 0 && *sibling != Summary::EMPTY {
                let depth = usize::from(depth) + 1;
                return Err(BadProof::ForgedEmpty { depth });
            }
            if collapses(&node, sibling) {
                return Err(BadProof::NotCanonical { depth });
            }
            node = if bit(key, depth) {
                Summary::of_children(depth, sibling, &node)
            } else {
                Summary::of_children(depth, &node, sibling)
            };
        }
        if node.hash.matches(root) {
            Ok((proven, node))
        } else {
            Err(BadProof::OtherRoot)
        }
    }

    /// The node at the end of the path, and what it says about `key`.
    fn end(&self, key: &StateKey) -> Result<(Summary, Proven), BadProof> {
        let Some(leaf) = self.terminal else {
            return Ok((Summary::EMPTY, Proven::Absent));
        };
        let (shared, steps) = (shared_bits(&leaf.key, key), self.siblings.len());
        if shared < steps {
            return Err(BadProof::ForeignLeaf { shared, steps });
        }
        let proven = if leaf.key == *key {
            Proven::Included(leaf)
        } else {
            Proven::Absent
        };
        Ok((Summary::of_leaf(&leaf), proven))
    }
}

/// How many leading bits two keys share.
pub(crate) fn shared_bits(a: &StateKey, b: &StateKey) -> usize {
    let pairs = a.0.iter().zip(&b.0);
    let equal = pairs.take_while(|(a, b)| a == b).count();
    let differing = a.0.iter().zip(&b.0).nth(equal);
    equal * 8 + differing.map_or(0, |(a, b)| (a ^ b).leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::merkle::memory::{any_leaves, key, leaf, spread_key};
    use crate::merkle::trie::{descend, root_of};
    use crate::types::binary::{decode, encode};

    fn prove(leaves: &[Leaf], key: &StateKey) -> Proof {
        let mut siblings = Vec::new();
        let terminal = descend(leaves, 0, key, &mut siblings);
        Proof { siblings, terminal }
    }

    fn sixty() -> Vec<Leaf> {
        let mut leaves: Vec<Leaf> = (0..60).map(|n| leaf(spread_key(n), n)).collect();
        leaves.sort_by_key(|leaf| leaf.key);
        leaves
    }

    fn truth(leaves: &[Leaf], key: &StateKey) -> Proven {
        let found = leaves.iter().find(|leaf| leaf.key == *key);
        found.map_or(Proven::Absent, |leaf| Proven::Included(*leaf))
    }

    /// Every proof that differs from a sound one in one place of its structure.
    fn mutations(proof: &Proof, others: &[Summary]) -> Vec<Proof> {
        let mut mutated = Vec::new();
        let mut add = |change: &dyn Fn(&mut Proof)| {
            let mut copy = proof.clone();
            change(&mut copy);
            mutated.push(copy);
        };
        for at in 0..proof.siblings.len() {
            add(&|p| p.siblings = [&p.siblings[..at], &p.siblings[at + 1..]].concat());
            add(&|p| p.siblings.truncate(at));
            add(&|p| drop(p.siblings.drain(..at)));
            add(&|p| p.siblings.swap(at, 0));
            add(&|p| p.siblings.insert(at, p.siblings[at]));
            add(&|p| p.siblings[at] = Summary::EMPTY);
            add(&|p| p.siblings[at].hash.0[31] ^= 1);
            add(&|p| p.siblings[at].leaves = 0);
            add(&|p| p.siblings[at].leaves = 1);
            add(&|p| p.siblings[at].leaves += 1);
            add(&|p| p.siblings[at].leaves = u64::MAX);
            add(&|p| p.siblings[at].size ^= 1);
            add(&|p| p.siblings[at].updated_at ^= 1);
            add(&|p| p.siblings[at].hash = NodeHash([0; 32]));
        }
        for other in others.iter().chain([&Summary::EMPTY]) {
            add(&|p| p.siblings.push(*other));
            add(&|p| p.siblings.insert(0, *other));
        }
        add(&|p| p.siblings.reverse());
        add(&|p| p.terminal = None);
        add(&|p| p.siblings.clear());
        add(&|p| {
            *p = Proof {
                siblings: Vec::new(),
                terminal: None,
            }
        });
        if let Some(sound) = proof.terminal {
            for leaf in [
                Leaf {
                    size: sound.size ^ 1,
                    ..sound
                },
                Leaf {
                    updated_at: sound.updated_at ^ 1,
                    ..sound
                },
                Leaf {
                    digest: leaf(sound.key, 12_345).digest,
                    ..sound
                },
                Leaf {
                    key: spread_key(12_345),
                    ..sound
                },
            ] {
                add(&|p| p.terminal = Some(leaf));
            }
        }
        mutated
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn no_mutation_proves_anything_false(
            leaves in any_leaves(40), cluster in 0u8..6, n in any::<u8>(), pick in any::<Index>()
        ) {
            let root = root_of(&leaves);
            let present = leaves.get(pick.index(leaves.len().max(1))).map(|leaf| leaf.key);
            for key in present.into_iter().chain([key(cluster, n), spread_key(u64::MAX)]) {
                let proof = prove(&leaves, &key);
                let expected = truth(&leaves, &key);
                prop_assert_eq!(proof.verify(&root.hash, &key), Ok(expected));
                let others = [root, leaves.first().map_or(root, Summary::of_leaf)];
                for mutated in mutations(&proof, &others) {
                    if mutated != proof {
                        let answer = mutated.verify(&root.hash, &key);
                        prop_assert!(answer.is_err(), "{:?} from {:?}", answer, mutated);
                    }
                }
                for other in leaves.iter().map(|leaf| leaf.key).chain([spread_key(1 << 40)]) {
                    if let Ok(answer) = proof.verify(&root.hash, &other) {
                        prop_assert_eq!(answer, truth(&leaves, &other));
                    }
                }
            }
        }
    }

    #[test]
    fn no_byte_of_an_encoded_proof_can_be_changed() {
        let leaves = sixty();
        let root = root_of(&leaves).hash;
        for key in [leaves[5].key, spread_key(1 << 40), spread_key(1 << 41)] {
            let proof = prove(&leaves, &key);
            let bytes = encode(&proof);
            assert_eq!(decode::<Proof>(&bytes).unwrap(), proof);
            for at in 0..bytes.len() {
                for flip in [1, 0x10, 0x80, 0xff] {
                    let mut mutated = bytes.clone();
                    mutated[at] ^= flip;
                    if let Ok(mutated) = decode::<Proof>(&mutated) {
                        assert!(mutated.verify(&root, &key).is_err(), "byte {at} ^ {flip}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_lone_leaf_passed_up_cannot_be_hidden_or_pushed_down() {
        let only = leaf(spread_key(1), 1);
        let root = root_of(&[only]);
        let check = |siblings: &[Summary], terminal: Option<Leaf>| {
            let siblings = siblings.to_vec();
            Proof { siblings, terminal }.verify(&root.hash, &only.key)
        };
        assert_eq!(check(&[], Some(only)), Ok(Proven::Included(only)));
        // The tree's own rule would carry these up to the true root.
        let depth = 0;
        let refused = Err(BadProof::NotCanonical { depth });
        assert_eq!(check(&[root], None), refused);
        assert_eq!(check(&[Summary::EMPTY], Some(only)), refused);
        assert_eq!(check(&[Summary::EMPTY], None), refused);
        let forged = Summary { leaves: 0, ..root };
        let refused = Err(BadProof::ForgedEmpty { depth: 1 });
        assert_eq!(check(&[forged], None), refused);
        assert_eq!(
            check(
                &[Summary {
                    size: 1,
                    ..Summary::EMPTY
                }],
                Some(only)
            ),
            refused
        );
    }

    #[test]
    fn an_inner_node_cannot_pass_for_a_leaf() {
        let leaves = sixty();
        let root = root_of(&leaves);
        for key in [leaves[0].key, leaves[40].key] {
            // The whole tree as one leaf beside nothing would prove that there is nothing.
            for claimed in [Summary { leaves: 1, ..root }, root] {
                for depth in 0..4 {
                    let mut siblings = prove(&leaves, &key).siblings;
                    siblings.truncate(depth);
                    siblings.push(claimed);
                    let proof = Proof {
                        siblings,
                        terminal: None,
                    };
                    assert!(proof.verify(&root.hash, &key).is_err(), "{proof:?}");
                }
            }
        }
    }

    #[test]
    fn the_leaf_at_the_end_has_to_be_on_the_way() {
        let leaves = sixty();
        let root = root_of(&leaves).hash;
        let proof = prove(&leaves, &leaves[3].key);
        let steps = proof.siblings.len();
        let shared = shared_bits(&leaves[3].key, &leaves[30].key);
        assert!(shared < steps);
        let foreign = Err(BadProof::ForeignLeaf { shared, steps });
        assert_eq!(proof.verify(&root, &leaves[30].key), foreign);
        let mut beside = leaves[3].key;
        beside.0[31] ^= 1;
        assert_eq!(proof.verify(&root, &beside), Ok(Proven::Absent));
        assert_eq!(shared_bits(&beside, &leaves[3].key), 255);
        assert_eq!(shared_bits(&beside, &beside), 256);
    }

    #[test]
    fn lengths_are_bounded_and_the_empty_tree_holds_nothing() {
        let key = spread_key(1);
        let none = Proof {
            siblings: Vec::new(),
            terminal: None,
        };
        assert_eq!(none.verify(&Summary::EMPTY.hash, &key), Ok(Proven::Absent));
        let other = root_of(&sixty()).hash;
        assert_eq!(none.verify(&other, &key), Err(BadProof::OtherRoot));
        let siblings = vec![root_of(&sixty()); 257];
        let long = Proof {
            siblings,
            terminal: None,
        };
        assert_eq!(long.verify(&other, &key), Err(BadProof::TooLong(257)));
    }
}
