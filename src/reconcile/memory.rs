//! Random sets of leaves, and a plain in-memory [`SetView`] whose tree is computed straight from the
//! definition: for measurements and tests.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use crate::merkle::node::Summary;
use crate::merkle::prefix::{Prefix, bit};
use crate::merkle::view::CHILD_LEVELS_MAX;
use crate::reconcile::strategy::Difference;
use crate::reconcile::view::{SetView, SketchView, ViewError};
use crate::sketch::key::{Secret, SketchKey};
use crate::sketch::table::Sketch;
use crate::types::hash::{LeafDigest, StateKey};
use crate::types::leaf::Leaf;

/// SplitMix64 (Steele, Lea and Flood, 2014), from a seed.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    /// Bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }

    /// A leaf of a new state.
    pub fn leaf(&mut self) -> Leaf {
        let key = StateKey(self.bytes());
        self.version_of(key)
    }

    /// Another leaf of the same state.
    pub fn version_of(&mut self, key: StateKey) -> Leaf {
        Leaf {
            key,
            digest: LeafDigest(self.bytes()),
            size: self.number() >> 48,
            updated_at: self.number() >> 24,
        }
    }
}

/// Leaves from which on a subtree is kept.
const KEPT_LEAVES: usize = 64;

/// A set with its feed. The tree is computed when the set is complete.
pub struct Set {
    leaves: Vec<Leaf>,
    /// Feed position and index of the leaf, in the feed's order.
    changes: Vec<(u64, usize)>,
    /// Subtrees of [`KEPT_LEAVES`] leaves or more; smaller ones are computed when asked for.
    inner: HashMap<Prefix, Summary>,
    secret: Secret,
    sketch: OnceLock<Sketch>,
}

impl Set {
    /// From leaves with the feed position of their last change.
    pub fn new(of: BTreeMap<StateKey, (u64, Leaf)>) -> Self {
        let (seqs, leaves): (Vec<u64>, Vec<Leaf>) = of.into_values().unzip();
        let mut changes: Vec<(u64, usize)> = seqs.into_iter().zip(0..).collect();
        changes.sort_unstable();
        let mut inner = HashMap::new();
        build(&leaves, Prefix::ROOT, &mut inner);
        Self {
            leaves,
            changes,
            inner,
            secret: Secret::default(),
            sketch: OnceLock::new(),
        }
    }

    /// From now on the sketch is one under this secret.
    pub fn keep_under(&mut self, secret: &Secret) {
        self.secret = *secret;
        self.sketch = OnceLock::new();
    }

    /// All leaves, sorted by key.
    pub fn all(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The feed's position.
    pub fn seq(&self) -> u64 {
        self.changes.last().map_or(0, |(seq, _)| *seq)
    }

    fn below(&self, prefix: Prefix) -> &[Leaf] {
        let (first, last) = prefix.key_range();
        let start = self.leaves.partition_point(|leaf| leaf.key < first);
        let end = self.leaves.partition_point(|leaf| leaf.key <= last);
        &self.leaves[start..end]
    }

    fn summary(&self, at: Prefix) -> Summary {
        match self.below(at) {
            [] => Summary::EMPTY,
            [leaf] => Summary::of_leaf(leaf),
            leaves if leaves.len() < KEPT_LEAVES => build(leaves, at, &mut HashMap::new()),
            _ => self.inner.get(&at).copied().unwrap_or(Summary::EMPTY),
        }
    }
}

fn build(leaves: &[Leaf], at: Prefix, inner: &mut HashMap<Prefix, Summary>) -> Summary {
    match leaves {
        [] => Summary::EMPTY,
        [leaf] => Summary::of_leaf(leaf),
        _ => {
            let middle = leaves.partition_point(|leaf| !bit(&leaf.key, at.depth()));
            // Random keys do not share 64 bits.
            let (Some(left), Some(right)) = (at.child(0, 1), at.child(1, 1)) else {
                return Summary::EMPTY;
            };
            let left = build(&leaves[..middle], left, inner);
            let right = build(&leaves[middle..], right, inner);
            let summary = Summary::of_children(at.depth(), &left, &right);
            if leaves.len() >= KEPT_LEAVES {
                inner.insert(at, summary);
            }
            summary
        }
    }
}

impl SetView for Set {
    fn root(&self) -> Result<Summary, ViewError> {
        Ok(self.summary(Prefix::ROOT))
    }

    fn children(&self, at: Prefix, levels: u8) -> Result<Vec<Summary>, ViewError> {
        if levels > CHILD_LEVELS_MAX {
            return Err(ViewError(format!("{levels} levels were asked for")));
        }
        let child = |slot| at.child(slot, levels);
        let summary = |at| self.summary(at);
        Ok((0..1 << levels).filter_map(child).map(summary).collect())
    }

    fn leaves(&self, within: Prefix, limit: usize) -> Result<Vec<Leaf>, ViewError> {
        Ok(self.below(within).iter().take(limit).copied().collect())
    }

    fn changes_after(&self, seq: u64, limit: usize) -> Result<Vec<(u64, Leaf)>, ViewError> {
        let start = self.changes.partition_point(|(at, _)| *at <= seq);
        let page = self.changes[start..].iter().take(limit);
        Ok(page.map(|(seq, at)| (*seq, self.leaves[*at])).collect())
    }

    fn sketch(&self) -> Option<&dyn SketchView> {
        let build = || Sketch::of(SketchKey::new(&self.secret), self.leaves.iter());
        Some(self.sketch.get_or_init(build))
    }
}

/// The leaves of a set that a difference names: what a session is told in answer.
pub fn told(set: &Set, found: &Difference) -> Vec<Leaf> {
    let named = found.differing.iter();
    let prefixes = named.filter_map(|bits| Prefix::new(*bits, found.depth));
    prefixes.flat_map(|at| set.below(at)).copied().collect()
}

/// Two replicas that were equal once and then changed.
pub struct Pair {
    /// The set of the side that asks.
    pub ours: Set,
    /// The other one.
    pub theirs: Set,
    /// Our feed's position when both were equal.
    pub our_mark: u64,
    /// The other feed's position then.
    pub their_mark: u64,
}

/// How two replicas differ.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// States that both had when they were equal.
    pub common: usize,
    /// States that were born here since.
    pub only_ours: usize,
    /// States that were born at the peer.
    pub only_theirs: usize,
    /// States that got another version at the peer, and every other one here too.
    pub updated: usize,
}

impl Pair {
    /// Random sets of a shape.
    pub fn new(shape: Shape, random: &mut Random) -> Self {
        let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
        let mut keys = Vec::new();
        let (mut our_seq, mut their_seq) = (0, 0);
        for _ in 0..shape.common {
            let leaf = random.leaf();
            our_seq += 1 + random.number() % 3;
            their_seq += 1 + random.number() % 3;
            ours.insert(leaf.key, (our_seq, leaf));
            theirs.insert(leaf.key, (their_seq, leaf));
            keys.push(leaf.key);
        }
        let (our_mark, their_mark) = (our_seq, their_seq);
        for turn in 0..shape.updated.min(keys.len()) {
            let at = turn + random.below(keys.len() - turn);
            keys.swap(turn, at);
            let key = keys[turn];
            their_seq += 1;
            theirs.insert(key, (their_seq, random.version_of(key)));
            if turn % 2 == 1 {
                our_seq += 1;
                ours.insert(key, (our_seq, random.version_of(key)));
            }
        }
        for _ in 0..shape.only_ours {
            our_seq += 1;
            let leaf = random.leaf();
            ours.insert(leaf.key, (our_seq, leaf));
        }
        for _ in 0..shape.only_theirs {
            their_seq += 1;
            let leaf = random.leaf();
            theirs.insert(leaf.key, (their_seq, leaf));
        }
        Self {
            ours: Set::new(ours),
            theirs: Set::new(theirs),
            our_mark,
            their_mark,
        }
    }
}
