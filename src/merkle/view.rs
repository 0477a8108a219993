//! Reads a tree: any subtree, the subtrees some levels below it, and proofs.
//!
//! Whatever is read on the way is checked against the node above it, so an answer either adds up
//! to the root or is an error that names the damage.

use crate::merkle::multiproof::{MultiProof, ProofNode, passed_by, prove_among, split_keys};
use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::proof::Proof;
use crate::merkle::row::{ROW_LEVELS, Row, RowNodes, TOP_DEPTH, heap_index, is_stored};
use crate::merkle::storage::{TreeError, TreeStorage};
use crate::merkle::top::Top;
use crate::merkle::trie::{descend, summary_at, within};
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// Most levels that [`TreeView::children`] goes down at once: 256 subtrees.
pub const CHILD_LEVELS_MAX: u8 = 8;

/// A tree at one moment: its upper levels, and the storage as it was with them.
#[derive(Debug)]
pub struct TreeView<'a, S> {
    /// The upper levels.
    pub top: &'a Top,
    /// Rows and leaves of the same moment.
    pub storage: &'a S,
}

impl<S> Clone for TreeView<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for TreeView<'_, S> {}

impl<S: TreeStorage> TreeView<'_, S> {
    /// The subtree at `at`.
    ///
    /// # Errors
    /// [`TreeError::Storage`], [`TreeError::DamagedRow`] or [`TreeError::StaleLeaves`].
    pub fn subtree(&self, at: Prefix) -> Result<Summary, TreeError<S::Error>> {
        let mut summary = [Summary::EMPTY];
        self.spread(&Region::Top(self.top), at, at.depth(), &mut summary)?;
        Ok(summary[0])
    }

    /// The `2^levels` subtrees that many levels below `at`, left to right. Reads each row once.
    ///
    /// # Errors
    /// [`TreeError::TooDeep`] above [`CHILD_LEVELS_MAX`] levels or below depth 64, otherwise as
    /// [`TreeView::subtree`].
    pub fn children(&self, at: Prefix, levels: u8) -> Result<Vec<Summary>, TreeError<S::Error>> {
        let depth = at.depth() + levels.min(CHILD_LEVELS_MAX);
        if levels > CHILD_LEVELS_MAX || depth > Prefix::DEPTH_MAX {
            return Err(TreeError::TooDeep { at, levels });
        }
        let mut children = vec![Summary::EMPTY; 1 << levels];
        self.spread(&Region::Top(self.top), at, depth, &mut children)?;
        Ok(children)
    }

    /// Proves what the tree holds, or that it holds nothing, under `key`.
    ///
    /// # Errors
    /// As [`TreeView::subtree`].
    pub fn prove(&self, key: &StateKey) -> Result<Proof, TreeError<S::Error>> {
        let mut siblings = Vec::new();
        let mut at = Prefix::ROOT;
        let mut region = Region::Top(self.top);
        loop {
            if let Region::Bucket(leaves) = &region {
                let terminal = descend(leaves, at.depth(), key, &mut siblings);
                return Ok(Proof { siblings, terminal });
            }
            while at.depth() < region.floor() && region.summary(at).leaves > 1 {
                at = Prefix::of(key, at.depth() + 1);
                siblings.push(region.summary(at.sibling()));
            }
            region = self.below(at, &region.summary(at))?;
        }
    }

    /// Proves what the tree holds under each of `keys`, sorted and unique. Reads each row once.
    ///
    /// # Errors
    /// [`TreeError::NotSorted`], otherwise as [`TreeView::subtree`].
    pub fn prove_all(&self, keys: &[StateKey]) -> Result<MultiProof, TreeError<S::Error>> {
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(TreeError::NotSorted { key: pair[1] });
        }
        let mut nodes = Vec::new();
        self.walk(&Region::Top(self.top), Prefix::ROOT, keys, &mut nodes)?;
        Ok(MultiProof { nodes })
    }

    /// Appends the nodes that prove `keys`, all below `at`, which lies in `region`.
    fn walk(
        &self,
        region: &Region<'_>,
        at: Prefix,
        keys: &[StateKey],
        nodes: &mut Vec<ProofNode>,
    ) -> Result<(), TreeError<S::Error>> {
        if let Region::Bucket(leaves) = region {
            prove_among(within(leaves, at), at.depth(), keys, nodes);
            return Ok(());
        }
        let summary = region.summary(at);
        if keys.is_empty() {
            nodes.push(passed_by(&summary));
            return Ok(());
        }
        if at.depth() == region.floor() || summary.leaves <= 1 {
            return self.walk(&self.below(at, &summary)?, at, keys, nodes);
        }
        let (Some(left), Some(right)) = (at.child(0, 1), at.child(1, 1)) else {
            return Err(TreeError::TooDeep { at, levels: 1 });
        };
        nodes.push(ProofNode::Inner);
        let (left_keys, right_keys) = split_keys(keys, at.depth());
        self.walk(region, left, left_keys, nodes)?;
        self.walk(region, right, right_keys, nodes)
    }

    /// Fills `out` with the subtrees at `depth` below `at`, which lies in `region` or below it.
    fn spread(
        &self,
        region: &Region<'_>,
        at: Prefix,
        depth: u8,
        out: &mut [Summary],
    ) -> Result<(), TreeError<S::Error>> {
        let floor = region.floor();
        if at.depth() >= floor && depth > floor {
            let place = at.ancestor(floor);
            let below = self.below(place, &region.summary(place))?;
            return self.spread(&below, at, depth, out);
        }
        let levels = depth.min(floor) - at.depth();
        let share = out.len() >> levels;
        for (slot, out) in (0..).zip(out.chunks_mut(share)) {
            let too_deep = TreeError::TooDeep { at, levels };
            let place = at.child(slot, levels).ok_or(too_deep)?;
            let summary = region.summary(place);
            match out {
                [out] if depth <= floor => *out = summary,
                _ => self.spread(&self.below(place, &summary)?, place, depth, out)?,
            }
        }
        Ok(())
    }

    /// What is known below a place where a region ends, or where it has at most one leaf left.
    pub(crate) fn below(
        &self,
        at: Prefix,
        summary: &Summary,
    ) -> Result<Region<'static>, TreeError<S::Error>> {
        if summary.leaves > 1 && is_stored(at, summary.leaves) {
            let row = self.storage.row(at).map_err(TreeError::Storage)?;
            return row
                .and_then(|bytes| Row::decode(&bytes))
                .map(|row| row.nodes(at.depth(), &mut 0))
                .filter(|nodes| nodes[1] == *summary)
                .map(|nodes| Region::Row(at.depth(), Box::new(nodes)))
                .ok_or(TreeError::DamagedRow { at });
        }
        self.bucket(at, summary)
    }

    /// All leaves below a place, whether it keeps rows or not.
    pub(crate) fn bucket(
        &self,
        at: Prefix,
        summary: &Summary,
    ) -> Result<Region<'static>, TreeError<S::Error>> {
        if summary.leaves == 0 {
            return Ok(Region::Bucket(Vec::new()));
        }
        let leaves = self.storage.leaves(at).map_err(TreeError::Storage)?;
        if summary_at(&leaves, at.depth()) == *summary {
            Ok(Region::Bucket(leaves))
        } else {
            Err(TreeError::StaleLeaves { at })
        }
    }
}

/// A part of the tree that has been read.
pub(crate) enum Region<'a> {
    Top(&'a Top),
    /// A row at a depth, with the nodes between it and its children.
    Row(u8, Box<RowNodes>),
    /// All leaves below a place.
    Bucket(Vec<Leaf>),
}

impl Region<'_> {
    /// The depth of the last subtrees it knows.
    pub(crate) fn floor(&self) -> u8 {
        match self {
            Self::Top(_) => TOP_DEPTH,
            Self::Row(depth, _) => depth + ROW_LEVELS,
            Self::Bucket(_) => Prefix::DEPTH_MAX,
        }
    }

    /// The subtree at a place in it, no deeper than its floor.
    pub(crate) fn summary(&self, at: Prefix) -> Summary {
        match self {
            Self::Top(top) => top.summary(at),
            Self::Row(depth, nodes) => nodes[heap_index(at, at.depth() - depth)],
            Self::Bucket(leaves) => summary_at(within(leaves, at), at.depth()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::memory::{Memory, any_leaves, key, leaf, spread_key};
    use crate::merkle::proof::Proven;
    use crate::merkle::trie::root_of;

    /// Places of all depths on the way to the leaves and beside it.
    fn places(leaves: &[Leaf]) -> Vec<Prefix> {
        let stray = StateKey([0x42; 32]);
        let keys = leaves.iter().step_by(7).map(|leaf| leaf.key).chain([stray]);
        keys.flat_map(|key| (0..=64).map(move |depth| Prefix::of(&key, depth)))
            .flat_map(|at| [at, at.sibling()])
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_subtree_is_that_of_the_trie(leaves in any_leaves(300), levels in 0u8..=8) {
            let mut memory = Memory::default();
            let top = memory.rebuild(leaves.iter().copied());
            let view = TreeView { top: &top, storage: &memory };
            prop_assert_eq!(top.root(), root_of(&leaves));
            for at in places(&leaves) {
                let expected = summary_at(within(&leaves, at), at.depth());
                prop_assert_eq!(view.subtree(at).unwrap(), expected, "{}", at);
            }
            for at in places(&leaves).into_iter().step_by(5) {
                if at.depth() + levels > 64 {
                    let too_deep = Err(TreeError::TooDeep { at, levels });
                    prop_assert_eq!(view.children(at, levels), too_deep);
                    continue;
                }
                let expected: Vec<Summary> = (0..1 << levels)
                    .map(|slot| at.child(slot, levels).unwrap())
                    .map(|at| summary_at(within(&leaves, at), at.depth()))
                    .collect();
                prop_assert_eq!(view.children(at, levels).unwrap(), expected, "{}", at);
            }
        }

        #[test]
        fn every_key_is_proven_in_or_out(leaves in any_leaves(200)) {
            let mut memory = Memory::default();
            let top = memory.rebuild(leaves.iter().copied());
            let view = TreeView { top: &top, storage: &memory };
            let clustered = (0..6).flat_map(|cluster| (0..=255).map(move |n| key(cluster, n)));
            for key in clustered.step_by(3).chain(leaves.iter().map(|leaf| leaf.key)) {
                let proof = view.prove(&key).unwrap();
                let expected = match memory.leaves.get(&key) {
                    Some(leaf) => Proven::Included(*leaf),
                    None => Proven::Absent,
                };
                prop_assert_eq!(proof.verify(&top.root().hash, &key), Ok(expected));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_set_of_keys_is_proven_as_by_the_trie(
            leaves in any_leaves(300), step in 1usize..40, others in any::<[u8; 4]>()
        ) {
            let mut memory = Memory::default();
            let top = memory.rebuild(leaves.iter().copied());
            let view = TreeView { top: &top, storage: &memory };
            let own = leaves.iter().step_by(step).map(|leaf| leaf.key);
            let others = others.iter().enumerate().map(|(cluster, n)| key(cluster as u8, *n));
            let mut keys: Vec<StateKey> = own.chain(others).collect();
            keys.sort();
            keys.dedup();
            let proof = view.prove_all(&keys).unwrap();
            prop_assert_eq!(&proof, &MultiProof::among(&leaves, &keys));
            let shown = proof.verify(&top.root().hash, &keys).unwrap();
            prop_assert_eq!(shown.whole, top.root());
            keys.push(StateKey([0; 32]));
            let unsorted = view.prove_all(&keys);
            let key = StateKey([0; 32]);
            prop_assert_eq!(unsorted, Err(TreeError::NotSorted { key }));
        }
    }

    #[test]
    fn children_are_bounded() {
        let (memory, top) = (Memory::default(), Top::default());
        let view = TreeView {
            top: &top,
            storage: &memory,
        };
        assert_eq!(
            view.children(Prefix::ROOT, 8).unwrap(),
            [Summary::EMPTY; 256]
        );
        for levels in [9, 64, 255] {
            let at = Prefix::ROOT;
            let too_deep = Err(TreeError::TooDeep { at, levels });
            assert_eq!(view.children(at, levels), too_deep);
        }
    }

    #[test]
    fn damage_is_named_and_never_answered_from() {
        let mut memory = Memory::default();
        let top = memory.rebuild((0..=255).map(|n| leaf(key(3, n), 1)));
        let key = key(3, 9);
        let rows: Vec<Prefix> = memory.rows.keys().copied().collect();
        assert!(rows.len() > 10);
        for at in rows {
            let sound = memory.rows[&at].clone();
            for place in [0, 2, sound.len() - 1] {
                memory.rows.get_mut(&at).unwrap()[place] ^= 1;
                let view = TreeView {
                    top: &top,
                    storage: &memory,
                };
                let below = Prefix::of(&at.key_range().0, 64);
                assert_eq!(view.subtree(below), Err(TreeError::DamagedRow { at }));
                memory.rows.insert(at, sound.clone());
            }
            memory.rows.remove(&at);
            let view = TreeView {
                top: &top,
                storage: &memory,
            };
            let below = Prefix::of(&at.key_range().0, 64);
            assert_eq!(view.subtree(below), Err(TreeError::DamagedRow { at }));
            memory.rows.insert(at, sound);
        }
        memory.leaves.insert(key, leaf(key, 2));
        let view = TreeView {
            top: &top,
            storage: &memory,
        };
        // 16 leaves share 60 bits: there is a row, and each is a bucket of its own below it.
        let at = Prefix::of(&key, 64);
        assert_eq!(view.prove(&key), Err(TreeError::StaleLeaves { at }));
    }

    #[test]
    fn a_proof_among_100_000_has_about_17_siblings() {
        let mut memory = Memory::default();
        let top = memory.rebuild((0..100_000).map(|n| leaf(spread_key(n), n)));
        let view = TreeView {
            top: &top,
            storage: &memory,
        };
        let lengths = (0..500).map(|n| view.prove(&spread_key(n)).unwrap().siblings.len());
        let (sum, longest) = lengths.fold((0, 0), |(sum, max), n| (sum + n, max.max(n)));
        assert!((16 * 500..20 * 500).contains(&sum), "{sum}");
        assert!(longest < 40, "{longest}");
    }
}
