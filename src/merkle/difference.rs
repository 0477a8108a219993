//! What differs between two trees, leaf by leaf, reading only what has to be read to find it.
//!
//! Both trees are on hand, as two moments of one namespace are, or two files. Trees on two
//! replicas are compared by [`crate::reconcile`], which counts bytes on the way instead of reads.

use std::sync::Arc;

use thiserror::Error;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::row::Row;
use crate::merkle::storage::{TreeError, TreeStorage};
use crate::merkle::trie::within;
use crate::merkle::view::{Region, TreeView};
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// Bytes that a leaf counts as: key, digest, size and time.
const LEAF_BYTES: u64 = 80;
/// Where one tree has nothing, so many leaves of the other are read at once, rows left aside.
const RUN_LEAVES: u64 = 256;

/// One key under which two trees differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: StateKey,
    /// What the left tree has there.
    pub left: Option<Leaf>,
    /// What the right tree has there.
    pub right: Option<Leaf>,
}

/// How far a comparison goes before it gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DifferenceLimits {
    /// Bits below the root, at most 64, down to which nodes are compared. Whoever differs further
    /// down, and not within a bucket that was read whole, differs too deep.
    pub depth: u8,
    /// Pairs of nodes that are compared.
    pub nodes: u64,
    /// Bytes of rows and leaves that are read from both.
    pub bytes: u64,
}

impl Default for DifferenceLimits {
    /// No limits but those of the trees themselves.
    fn default() -> Self {
        Self {
            depth: Prefix::DEPTH_MAX,
            nodes: u64::MAX,
            bytes: u64::MAX,
        }
    }
}

/// What a comparison has cost so far, both trees together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DifferenceWork {
    /// Pairs of nodes compared.
    pub nodes: u64,
    /// Rows read.
    pub rows_read: u64,
    /// Leaves read.
    pub leaves_read: u64,
    /// Bytes of both.
    pub bytes_read: u64,
}

/// Why a comparison ended early.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DifferenceError<E, F> {
    /// The left tree cannot be read.
    #[error("the left tree cannot be read: {0}")]
    Left(TreeError<E>),
    /// The right tree cannot be read.
    #[error("the right tree cannot be read: {0}")]
    Right(TreeError<F>),
    /// The trees differ below the depth that was allowed.
    #[error("the trees differ further down than {at}: allow a greater depth")]
    TooDeep {
        /// Where.
        at: Prefix,
    },
    /// More nodes than allowed.
    #[error("the trees differ too much: more than {0} nodes had to be compared")]
    TooManyNodes(u64),
    /// More bytes than allowed.
    #[error("the trees differ too much: more than {0} bytes had to be read")]
    TooManyBytes(u64),
}

/// Iterates over the differences in order of key. The first error is the last item.
///
/// Holds the rows on the way to where it stands, about 2 KiB for each four bits of depth and tree,
/// and the differences within one bucket.
pub struct Differences<'a, S: TreeStorage, T: TreeStorage> {
    left: TreeView<'a, S>,
    right: TreeView<'a, T>,
    limits: DifferenceLimits,
    work: DifferenceWork,
    /// Places still to be compared, the next one last.
    places: Vec<Place<'a>>,
    /// Differences found, the next one last.
    found: Vec<Difference>,
}

struct Place<'a> {
    at: Prefix,
    left: Arc<Region<'a>>,
    right: Arc<Region<'a>>,
}

type Outcome<V, S, T> =
    Result<V, DifferenceError<<S as TreeStorage>::Error, <T as TreeStorage>::Error>>;

impl<'a, S: TreeStorage, T: TreeStorage> Differences<'a, S, T> {
    /// Starts comparing. Nothing is read yet.
    pub fn new(left: TreeView<'a, S>, right: TreeView<'a, T>, limits: DifferenceLimits) -> Self {
        let whole = Place {
            at: Prefix::ROOT,
            left: Arc::new(Region::Top(left.top)),
            right: Arc::new(Region::Top(right.top)),
        };
        Self {
            left,
            right,
            limits,
            work: DifferenceWork::default(),
            places: vec![whole],
            found: Vec::new(),
        }
    }

    /// What it has cost so far.
    pub fn work(&self) -> DifferenceWork {
        self.work
    }

    /// Compares one place: nothing to do, or differences found, or its children to compare.
    fn visit(&mut self, place: &Place<'a>) -> Outcome<(), S, T> {
        let at = place.at;
        let (left, right) = (place.left.summary(at), place.right.summary(at));
        self.work.nodes += 1;
        if self.work.nodes > self.limits.nodes {
            return Err(DifferenceError::TooManyNodes(self.limits.nodes));
        }
        if left.matches(&right) {
            return Ok(());
        }
        let beside_nothing = left.leaves.min(right.leaves) == 0;
        let run = beside_nothing && left.leaves.max(right.leaves) <= RUN_LEAVES;
        let lefts = enter(&self.left, &place.left, at, &left, run, &mut self.work);
        let lefts = lefts.map_err(DifferenceError::Left)?;
        let rights = enter(&self.right, &place.right, at, &right, run, &mut self.work);
        let rights = rights.map_err(DifferenceError::Right)?;
        if self.work.bytes_read > self.limits.bytes {
            return Err(DifferenceError::TooManyBytes(self.limits.bytes));
        }
        if let (Region::Bucket(left), Region::Bucket(right)) = (&*lefts, &*rights) {
            self.found = differing(within(left, at), within(right, at));
            self.found.reverse();
            return Ok(());
        }
        let (Some(low), Some(high)) = (at.child(0, 1), at.child(1, 1)) else {
            return Err(DifferenceError::TooDeep { at });
        };
        if at.depth() >= self.limits.depth {
            return Err(DifferenceError::TooDeep { at });
        }
        for at in [high, low] {
            let (left, right) = (Arc::clone(&lefts), Arc::clone(&rights));
            self.places.push(Place { at, left, right });
        }
        Ok(())
    }
}

/// The region in which the children of `at` stand, or all its leaves: `region` itself, or what is
/// read for it. With `run` it is the leaves.
fn enter<'a, S: TreeStorage>(
    view: &TreeView<'a, S>,
    region: &Arc<Region<'a>>,
    at: Prefix,
    summary: &Summary,
    run: bool,
    work: &mut DifferenceWork,
) -> Result<Arc<Region<'a>>, TreeError<S::Error>> {
    let at_hand = match **region {
        Region::Bucket(_) => true,
        _ => !run && at.depth() < region.floor() && summary.leaves > 1,
    };
    if at_hand {
        return Ok(Arc::clone(region));
    }
    let read = if run {
        view.bucket(at, summary)?
    } else {
        view.below(at, summary)?
    };
    match &read {
        Region::Top(_) => {}
        Region::Row(_, nodes) => {
            work.rows_read += 1;
            work.bytes_read += Row::encoded_bytes(nodes) as u64;
        }
        Region::Bucket(leaves) => {
            work.leaves_read += leaves.len() as u64;
            work.bytes_read += leaves.len() as u64 * LEAF_BYTES;
        }
    }
    Ok(Arc::new(read))
}

/// The differences between two sorted lists, in order.
fn differing(left: &[Leaf], right: &[Leaf]) -> Vec<Difference> {
    let mut found = Vec::new();
    let (mut lefts, mut rights) = (left.iter().peekable(), right.iter().peekable());
    loop {
        let key = match (lefts.peek(), rights.peek()) {
            (Some(left), Some(right)) => left.key.min(right.key),
            (Some(only), None) | (None, Some(only)) => only.key,
            (None, None) => return found,
        };
        let left = lefts.next_if(|leaf| leaf.key == key).copied();
        let right = rights.next_if(|leaf| leaf.key == key).copied();
        if left != right {
            found.push(Difference { key, left, right });
        }
    }
}

impl<S: TreeStorage, T: TreeStorage> Iterator for Differences<'_, S, T> {
    type Item = Outcome<Difference, S, T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(difference) = self.found.pop() {
                return Some(Ok(difference));
            }
            let place = self.places.pop()?;
            if let Err(error) = self.visit(&place) {
                self.places.clear();
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::merkle::memory::{Broken, Memory, any_batch, any_leaves, batch_changes};
    use crate::merkle::memory::{leaf, spread_key};
    use crate::merkle::top::Top;
    use crate::merkle::update::{LeafChange, Work};

    type Outcomes = Vec<Outcome<Difference, Memory, Memory>>;

    fn compare(
        left: &(Memory, Top),
        right: &(Memory, Top),
        limits: DifferenceLimits,
    ) -> (Outcomes, DifferenceWork) {
        let left = TreeView {
            top: &left.1,
            storage: &left.0,
        };
        let right = TreeView {
            top: &right.1,
            storage: &right.0,
        };
        let mut differences = Differences::new(left, right, limits);
        let found = differences.by_ref().collect();
        (found, differences.work())
    }

    fn expected(left: &Memory, right: &Memory) -> Outcomes {
        let (left, right) = (&left.leaves, &right.leaves);
        let keys: BTreeMap<StateKey, ()> = left
            .keys()
            .chain(right.keys())
            .map(|key| (*key, ()))
            .collect();
        let both = |key: &StateKey| Difference {
            key: *key,
            left: left.get(key).copied(),
            right: right.get(key).copied(),
        };
        let all = keys.keys().map(both);
        all.filter(|found| found.left != found.right)
            .map(Ok)
            .collect()
    }

    fn filled(leaves: impl IntoIterator<Item = Leaf>) -> (Memory, Top) {
        let mut memory = Memory::default();
        let top = memory.rebuild(leaves);
        (memory, top)
    }

    fn spread(count: u64) -> impl Iterator<Item = Leaf> {
        (0..count).map(|n| leaf(spread_key(n), n))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_differs_is_found_in_order_and_nothing_else(
            leaves in any_leaves(400), batch in any_batch(), strangers in any_leaves(300)
        ) {
            let left = filled(leaves);
            let mut right = left.clone();
            right.0.apply(&mut right.1, &batch_changes(&batch), &mut Work::default());
            for (left, right) in [(&left, &right), (&right, &left), (&left, &filled(strangers))] {
                let (found, _) = compare(left, right, DifferenceLimits::default());
                prop_assert_eq!(found, expected(&left.0, &right.0));
            }
        }
    }

    #[test]
    fn equal_trees_cost_one_comparison() {
        let tree = filled(spread(5_000));
        let (found, work) = compare(&tree, &tree.clone(), DifferenceLimits::default());
        let once = DifferenceWork {
            nodes: 1,
            ..DifferenceWork::default()
        };
        assert_eq!((found.len(), work), (0, once));
    }

    #[test]
    fn reads_follow_the_differences_and_not_the_trees() {
        let left = filled(spread(100_000));
        for d in [1u64, 10, 100, 1_000] {
            let mut right = left.clone();
            let changed: BTreeMap<StateKey, Leaf> = (0..d)
                .map(|n| leaf(spread_key(n * 97), u64::MAX / 3))
                .map(|leaf| (leaf.key, leaf))
                .collect();
            let changed: Vec<_> = changed
                .into_iter()
                .map(|(key, leaf)| LeafChange {
                    key,
                    leaf: Some(leaf),
                })
                .collect();
            right.0.apply(&mut right.1, &changed, &mut Work::default());
            let (found, work) = compare(&left, &right, DifferenceLimits::default());
            assert_eq!(found.len() as u64, d);
            // At depth 12 there are 24 leaves below a row, too few for rows further down.
            assert!(work.rows_read <= 2 * d && work.rows_read > 0, "{work:?}");
            assert!(work.leaves_read <= 2 * 17 * d, "{work:?}");
            assert!(work.nodes <= 1 + 2 * 17 * d, "{work:?}");
        }
    }

    #[test]
    fn each_limit_ends_it() {
        let (left, right) = (filled(spread(3_000)), filled(spread(2_900)));
        let all = DifferenceLimits::default();
        let (found, work) = compare(&left, &right, all);
        assert_eq!(found.len(), 100);
        for (limits, error) in [
            (
                DifferenceLimits { nodes: 50, ..all },
                DifferenceError::TooManyNodes(50),
            ),
            (
                DifferenceLimits {
                    bytes: 5_000,
                    ..all
                },
                DifferenceError::TooManyBytes(5_000),
            ),
        ] {
            let (found, work) = compare(&left, &right, limits);
            assert_eq!(found.last(), Some(&Err(error)));
            assert_eq!(found.iter().filter(|item| item.is_err()).count(), 1);
            // One step past the limit at most: two rows, or the leaves of two buckets.
            assert!(work.nodes <= limits.nodes.saturating_add(1), "{work:?}");
            assert!(work.bytes_read <= limits.bytes.saturating_add(2 * RUN_LEAVES * LEAF_BYTES));
        }
        let (found, _) = compare(&left, &right, DifferenceLimits { depth: 3, ..all });
        assert!(matches!(found[..], [Err(DifferenceError::TooDeep { at })] if at.depth() == 3));
        let just = DifferenceLimits {
            depth: 64,
            nodes: work.nodes,
            bytes: work.bytes_read,
        };
        assert_eq!(compare(&left, &right, just).0.len(), 100);
    }

    #[test]
    fn whole_trees_beside_nothing_are_listed_in_runs() {
        let (full, empty) = (filled(spread(20_000)), filled([]));
        let (found, work) = compare(&full, &empty, DifferenceLimits::default());
        assert_eq!(found, expected(&full.0, &empty.0));
        assert_eq!((work.rows_read, work.leaves_read), (0, 20_000));
    }

    #[test]
    fn damage_and_failures_are_named() {
        let (left, mut right) = (filled(spread(3_000)), filled(spread(2_999)));
        let all = DifferenceLimits::default();
        let (_, work) = compare(&left, &right, all);
        assert!(work.rows_read >= 2);
        right.0.calls_left.set(0);
        let (found, _) = compare(&left, &right, all);
        let failed = DifferenceError::Right(TreeError::Storage(Broken));
        assert_eq!(found, [Err(failed)]);
        right.0.calls_left.set(u32::MAX);
        let at = Prefix::of(&spread_key(2_999), 12);
        right.0.rows.remove(&at);
        let (found, _) = compare(&left, &right, all);
        let damaged = DifferenceError::Right(TreeError::DamagedRow { at });
        assert_eq!(found, [Err(damaged)]);
    }
}
