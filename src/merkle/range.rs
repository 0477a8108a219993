//! What the records in a range of keys add up to, proven to the root: how many, their size, and the
//! newest of them.
//!
//! A proof holds the nodes on the way to both ends of the range, and the subtrees that lie beside
//! these paths: those within the range are counted, the others only hashed. As the hash of a node
//! covers the sums of its children, no subtree can be passed off for a smaller or larger one. The
//! root stands in no such preimage, so it is never a subtree passed by.

use thiserror::Error;

use crate::merkle::multiproof::{ProofNode, passed_by};
use crate::merkle::node::Summary;
use crate::merkle::prefix::{Prefix, bit};
use crate::merkle::proof::{BadProof, shared_bits};
use crate::merkle::storage::{TreeError, TreeStorage};
use crate::merkle::trie::{collapses, split, summary_at, within};
use crate::merkle::view::{Region, TreeView};
use crate::types::hash::{NodeHash, StateKey};
use crate::types::leaf::Leaf;

/// Bits of a key.
const KEY_BITS: usize = 256;
/// Hexadecimal digits of a key.
const KEY_DIGITS: usize = 64;

/// Keys from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange {
    /// The lowest.
    pub first: StateKey,
    /// The highest, not below the first.
    pub last: StateKey,
}

/// Why something is no range of keys.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum BadRange {
    /// Not the beginning of a key.
    #[error("give the beginning of a key: at most {KEY_DIGITS} hexadecimal digits")]
    NotAKey,
    /// It ends before it begins.
    #[error("the range ends before it begins: swap the two keys")]
    Reversed,
}

impl KeyRange {
    /// All keys.
    pub const WHOLE: Self = Self {
        first: StateKey([0; 32]),
        last: StateKey([0xff; 32]),
    };

    /// The keys from the first that begins with `from` to the last that begins with `to`, both in
    /// hexadecimal.
    ///
    /// # Errors
    /// [`BadRange`].
    pub fn between(from: &str, to: &str) -> Result<Self, BadRange> {
        let (first, last) = (filled(from, 0)?, filled(to, 0xf)?);
        if last < first {
            return Err(BadRange::Reversed);
        }
        Ok(Self { first, last })
    }

    fn holds(&self, key: &StateKey) -> bool {
        self.first <= *key && *key <= self.last
    }
}

/// A key from its first digits, the others all the same.
fn filled(digits: &str, rest: u8) -> Result<StateKey, BadRange> {
    if digits.len() > KEY_DIGITS {
        return Err(BadRange::NotAKey);
    }
    let mut key = [rest << 4 | rest; 32];
    for (place, digit) in digits.chars().enumerate() {
        let value = digit.to_digit(16).ok_or(BadRange::NotAKey)? as u8;
        let byte = key.get_mut(place / 2).ok_or(BadRange::NotAKey)?;
        *byte = match place % 2 {
            0 => value << 4 | *byte & 0x0f,
            _ => *byte & 0xf0 | value,
        };
    }
    Ok(StateKey(key))
}

/// What a range of records adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Records, tombstones included.
    pub leaves: u64,
    /// Bytes of their shown versions.
    pub size: u64,
    /// Newest version, in milliseconds since 1970-01-01 UTC; 0 without any.
    pub updated_at: u64,
}

impl Totals {
    fn add(&mut self, summary: &Summary) {
        self.leaves = self.leaves.saturating_add(summary.leaves);
        self.size = self.size.saturating_add(summary.size);
        self.updated_at = self.updated_at.max(summary.updated_at);
    }
}

/// The nodes of a proof from the root down, each parent before its children, left before right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeProof {
    /// The nodes.
    pub nodes: Vec<ProofNode>,
}

/// What a valid proof shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownRange {
    /// The records in the range.
    pub totals: Totals,
    /// The whole tree.
    pub whole: Summary,
}

impl RangeProof {
    /// What this proof says of the range in the tree with this root. Takes no memory but a stack as
    /// deep as the proof, at most 256 nodes.
    ///
    /// # Errors
    /// [`BadProof`] when it does not prove anything about the range.
    pub fn verify(&self, root: &NodeHash, range: &KeyRange) -> Result<ShownRange, BadProof> {
        let mut checking = Checking {
            nodes: self.nodes.iter(),
            range,
            totals: Totals::default(),
        };
        let whole = checking.subtree(Place::ROOT)?;
        if checking.nodes.next().is_some() {
            return Err(BadProof::Surplus);
        }
        if !whole.hash.matches(root) {
            return Err(BadProof::OtherRoot);
        }
        let totals = checking.totals;
        Ok(ShownRange { totals, whole })
    }
}

/// A place of any depth.
#[derive(Clone, Copy)]
struct Place {
    /// The first key below it.
    first: StateKey,
    depth: usize,
}

impl Place {
    const ROOT: Self = Self {
        first: KeyRange::WHOLE.first,
        depth: 0,
    };

    fn keys(&self) -> KeyRange {
        let mut last = self.first;
        for (place, byte) in last.0.iter_mut().enumerate() {
            *byte |= match self.depth.saturating_sub(8 * place) {
                fixed @ 0..8 => 0xff >> fixed,
                _ => 0,
            };
        }
        KeyRange {
            first: self.first,
            last,
        }
    }

    /// Both children; `None` below the last bit.
    fn children(&self) -> Option<[Self; 2]> {
        let depth = self.depth + 1;
        let mut right = self.first;
        *right.0.get_mut(self.depth / 8)? |= 0x80 >> (self.depth % 8);
        let first = [self.first, right];
        Some(first.map(|first| Self { first, depth }))
    }

    /// Whether it lies in the range as a whole, or beside it as a whole; `None` when an end of the
    /// range is within, and for the root.
    fn counts(&self, range: &KeyRange) -> Option<bool> {
        let own = self.keys();
        if self.depth == 0 {
            None
        } else if own.last < range.first || range.last < own.first {
            Some(false)
        } else {
            (range.holds(&own.first) && range.holds(&own.last)).then_some(true)
        }
    }
}

struct Checking<'p> {
    nodes: std::slice::Iter<'p, ProofNode>,
    range: &'p KeyRange,
    totals: Totals,
}

impl Checking<'_> {
    fn subtree(&mut self, at: Place) -> Result<Summary, BadProof> {
        let depth = at.depth;
        let node = self.nodes.next().ok_or(BadProof::Truncated)?;
        match (node, at.counts(self.range)) {
            (ProofNode::Empty, _) => Ok(Summary::EMPTY),
            (ProofNode::Subtree(summary), Some(counts)) => {
                if summary.leaves == 0 {
                    return Err(BadProof::ForgedEmpty { depth });
                }
                if counts {
                    self.totals.add(summary);
                }
                Ok(*summary)
            }
            (ProofNode::Leaf(leaf), None) => {
                let shared = shared_bits(&leaf.key, &at.first);
                if shared < depth {
                    let steps = depth;
                    return Err(BadProof::ForeignLeaf { shared, steps });
                }
                let summary = Summary::of_leaf(leaf);
                if self.range.holds(&leaf.key) {
                    self.totals.add(&summary);
                }
                Ok(summary)
            }
            (ProofNode::Inner, None) => {
                let misplaced = BadProof::Misplaced { depth };
                let [left, right] = at.children().ok_or(misplaced)?;
                let (left, right) = (self.subtree(left)?, self.subtree(right)?);
                // At most 255: a place at 256 is one key, within the range or beside it.
                let depth = u8::try_from(depth).map_err(|_| misplaced)?;
                if collapses(&left, &right) {
                    return Err(BadProof::NotCanonical { depth });
                }
                Ok(Summary::of_children(depth, &left, &right))
            }
            _ => Err(BadProof::Misplaced { depth }),
        }
    }
}

impl<S: TreeStorage> TreeView<'_, S> {
    /// Proves what the records with keys in a range add up to. Reads the rows on the way to both
    /// ends only.
    ///
    /// # Errors
    /// As [`TreeView::subtree`].
    pub fn prove_range(&self, range: &KeyRange) -> Result<RangeProof, TreeError<S::Error>> {
        let mut nodes = Vec::new();
        self.cover(&Region::Top(self.top), Prefix::ROOT, range, &mut nodes)?;
        Ok(RangeProof { nodes })
    }

    /// Appends the nodes of the subtree at `at`, which lies in `region`.
    fn cover(
        &self,
        region: &Region<'_>,
        at: Prefix,
        range: &KeyRange,
        nodes: &mut Vec<ProofNode>,
    ) -> Result<(), TreeError<S::Error>> {
        let place = Place {
            first: at.key_range().0,
            depth: usize::from(at.depth()),
        };
        if let Region::Bucket(leaves) = region {
            cover_leaves(within(leaves, at), place, range, nodes);
            return Ok(());
        }
        let summary = region.summary(at);
        if place.counts(range).is_some() {
            nodes.push(passed_by(&summary));
            return Ok(());
        }
        if at.depth() == region.floor() || summary.leaves <= 1 {
            return self.cover(&self.below(at, &summary)?, at, range, nodes);
        }
        nodes.push(ProofNode::Inner);
        for slot in 0..2 {
            let too_deep = TreeError::TooDeep { at, levels: 1 };
            let child = at.child(slot, 1).ok_or(too_deep)?;
            self.cover(region, child, range, nodes)?;
        }
        Ok(())
    }
}

/// Appends the nodes of the subtree at a place, of which these are all leaves.
fn cover_leaves(leaves: &[Leaf], at: Place, range: &KeyRange, nodes: &mut Vec<ProofNode>) {
    // A place at the last depth is one key, and has no other leaf to be told from.
    let depth = u8::try_from(at.depth.min(KEY_BITS - 1)).unwrap_or(u8::MAX);
    match (leaves, at.counts(range), at.children()) {
        (_, Some(_), _) => nodes.push(passed_by(&summary_at(leaves, depth))),
        ([leaf, _, ..], None, Some([left, right])) => {
            debug_assert!(shared_bits(&leaf.key, &at.first) >= at.depth);
            nodes.push(ProofNode::Inner);
            let (low, high) = split(leaves, depth);
            debug_assert!(high.iter().all(|leaf| bit(&leaf.key, depth)));
            cover_leaves(low, left, range, nodes);
            cover_leaves(high, right, range, nodes);
        }
        ([leaf, ..], None, _) => nodes.push(ProofNode::Leaf(*leaf)),
        ([], None, _) => nodes.push(ProofNode::Empty),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::memory::{Memory, any_leaves, key, leaf, spread_key};
    use crate::merkle::top::Top;

    fn totals_of(leaves: &[Leaf], range: &KeyRange) -> Totals {
        let mut totals = Totals::default();
        for leaf in leaves.iter().filter(|leaf| range.holds(&leaf.key)) {
            totals.add(&Summary::of_leaf(leaf));
        }
        totals
    }

    fn prove(memory: &Memory, top: &Top, range: &KeyRange) -> RangeProof {
        let view = TreeView {
            top,
            storage: memory,
        };
        view.prove_range(range).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_range_is_proven_and_no_other_one(
            leaves in any_leaves(300), ends in any::<[(u8, u8); 2]>(), digits in 0usize..64
        ) {
            let mut memory = Memory::default();
            let top = memory.rebuild(leaves.iter().copied());
            let root = top.root();
            let mut ends = ends.map(|(cluster, n)| key(cluster % 6, n));
            ends.sort();
            let [first, last] = ends;
            let begin = &first.to_hex()[..digits];
            let mut ranges = vec![KeyRange::WHOLE, KeyRange { first, last }];
            ranges.push(KeyRange { first, last: first });
            ranges.push(KeyRange::between(begin, begin).unwrap());
            for range in &ranges {
                let proof = prove(&memory, &top, range);
                let totals = totals_of(&leaves, range);
                let shown = ShownRange { totals, whole: root };
                prop_assert_eq!(proof.verify(&root.hash, range), Ok(shown), "{:?}", range);
                for other in &ranges {
                    if let Ok(shown) = proof.verify(&root.hash, other) {
                        prop_assert_eq!(shown.totals, totals_of(&leaves, other));
                    }
                }
            }
        }
    }

    /// Everything that one node can be changed into.
    fn mutants(node: &ProofNode) -> Vec<ProofNode> {
        let mut mutants = vec![ProofNode::Inner, ProofNode::Empty];
        match node {
            ProofNode::Subtree(summary) => {
                let change = |change: &dyn Fn(&mut Summary)| {
                    let mut changed = *summary;
                    change(&mut changed);
                    ProofNode::Subtree(changed)
                };
                mutants.push(change(&|s| s.hash.0[31] ^= 1));
                mutants.push(change(&|s| s.leaves += 1));
                mutants.push(change(&|s| s.leaves = 0));
                mutants.push(change(&|s| s.size ^= 1));
                mutants.push(change(&|s| s.updated_at += 1));
            }
            ProofNode::Leaf(leaf) => {
                let change = |change: &dyn Fn(&mut Leaf)| {
                    let mut changed = *leaf;
                    change(&mut changed);
                    ProofNode::Leaf(changed)
                };
                mutants.push(change(&|l| l.key.0[31] ^= 1));
                mutants.push(change(&|l| l.key.0[0] ^= 0x80));
                mutants.push(change(&|l| l.digest.0[0] ^= 1));
                mutants.push(change(&|l| l.size += 1));
                mutants.push(change(&|l| l.updated_at += 1));
                mutants.push(ProofNode::Subtree(Summary::of_leaf(leaf)));
            }
            ProofNode::Inner | ProofNode::Empty => {}
        }
        mutants.retain(|mutant| mutant != node);
        mutants
    }

    #[test]
    fn no_changed_missing_or_moved_node_is_believed() {
        for count in [0, 1, 2, 30, 3_000] {
            let mut memory = Memory::default();
            let top = memory.rebuild((0..count).map(|n| leaf(spread_key(n), n + 7)));
            let root = top.root();
            let range = KeyRange::between("3", "a81c").unwrap();
            let sound = prove(&memory, &top, &range);
            let leaves = memory.sorted();
            let totals = totals_of(&leaves, &range);
            let refused = |nodes: Vec<ProofNode>, what: &str| {
                let shown = RangeProof { nodes }.verify(&root.hash, &range);
                assert!(shown.is_err(), "{count} leaves, {what}: {shown:?}");
            };
            assert_eq!(
                sound.verify(&root.hash, &range).map(|shown| shown.totals),
                Ok(totals)
            );
            for (at, node) in sound.nodes.iter().enumerate() {
                for mutant in mutants(node) {
                    let mut nodes = sound.nodes.clone();
                    nodes[at] = mutant;
                    refused(nodes, &format!("node {at} is {mutant:?}"));
                }
                let mut nodes = sound.nodes.clone();
                nodes.remove(at);
                refused(nodes, &format!("node {at} is gone"));
                refused(sound.nodes[..at].to_vec(), "cut off");
                let mut nodes = sound.nodes.clone();
                nodes.insert(at, *node);
                refused(nodes, &format!("node {at} stands twice"));
                let mut nodes = sound.nodes.clone();
                nodes.swap(0, at);
                if nodes != sound.nodes {
                    refused(nodes, &format!("node {at} is moved"));
                }
            }
            // The root's sums are covered by nothing above it.
            let forged = Summary {
                size: 1,
                leaves: 9,
                ..root
            };
            refused(vec![ProofNode::Subtree(forged)], "the root passed by");
            assert!(sound.nodes.len() < 120);
        }
    }

    #[test]
    fn a_range_takes_the_rows_at_both_ends_only() {
        let mut memory = Memory::default();
        let top = memory.rebuild((0..20_000).map(|n| leaf(spread_key(n), n)));
        // Two rows and two buckets.
        memory.calls_left.set(4);
        let range = KeyRange::between("11", "dd").unwrap();
        let proof = prove(&memory, &top, &range);
        let shown = proof.verify(&top.root().hash, &range).unwrap();
        let inside = memory.leaves.range(range.first..=range.last).count() as u64;
        assert_eq!(shown.totals.leaves, inside);
    }

    #[test]
    fn ends_are_read_as_the_beginnings_of_keys() {
        let range = KeyRange::between("a3", "A3f").unwrap();
        assert_eq!(range.first.to_hex(), format!("a3{}", "0".repeat(62)));
        assert_eq!(range.last.to_hex(), format!("a3{}", "f".repeat(62)));
        assert_eq!(KeyRange::between("", ""), Ok(KeyRange::WHOLE));
        let whole = "7".repeat(64);
        let one = KeyRange::between(&whole, &whole).unwrap();
        assert_eq!(one.first, one.last);
        for (from, to, error) in [
            ("g", "", BadRange::NotAKey),
            ("", "ä", BadRange::NotAKey),
            (&"0".repeat(65), "", BadRange::NotAKey),
            ("b", "a", BadRange::Reversed),
        ] {
            assert_eq!(KeyRange::between(from, to), Err(error));
        }
    }
}
