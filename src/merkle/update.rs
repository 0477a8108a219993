//! Changes a tree, one batch at a time: every touched node is hashed once, and afterwards exactly
//! those rows are stored that the set of leaves asks for.

use std::sync::Arc;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::row::{ROW_LEVELS, Row, RowNodes, TOP_DEPTH, is_stored};
use crate::merkle::storage::{TreeError, TreeStorageMut};
use crate::merkle::top::{Top, if_crowded};
use crate::merkle::trie::summarize;
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// What a batch does to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafChange {
    /// Whose leaf.
    pub key: StateKey,
    /// The new leaf; `None` when there is none any more.
    pub leaf: Option<Leaf>,
}

/// What updates cost, added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// SHA-256 computations, two or three blocks each.
    pub hashes: u64,
    /// Rows read from storage.
    pub rows_read: u64,
    /// Rows stored or removed.
    pub rows_written: u64,
    /// Leaves that scans of the records returned.
    pub leaves_scanned: u64,
}

impl Work {
    /// Adds the work of another update.
    pub fn add(&mut self, other: &Self) {
        self.hashes += other.hashes;
        self.rows_read += other.rows_read;
        self.rows_written += other.rows_written;
        self.leaves_scanned += other.leaves_scanned;
    }
}

/// Brings the tree up to `changed`, sorted by key and unique, and returns the new root. The
/// storage's leaves already have the changes. When this fails, `top` is as before and the caller
/// drops what was written to the storage.
///
/// # Errors
/// [`TreeError::NotSorted`], [`TreeError::Storage`], or [`TreeError::DamagedRow`] when a row on the
/// way does not fit what is above it.
pub fn update<S: TreeStorageMut>(
    top: &mut Top,
    storage: &mut S,
    changed: &[LeafChange],
    work: &mut Work,
) -> Result<Summary, TreeError<S::Error>> {
    check(changed)?;
    let mut writer = Writer::new(storage, work);
    let mut slots = Vec::new();
    for (at, group) in groups(changed, TOP_DEPTH, |change| &change.key) {
        let (old, known) = (top.summary(at), top.row(at));
        slots.push((at, writer.subtree(at, &old, known, group)?));
    }
    let rows = writer.crowded;
    top.set(&slots, &mut work.hashes);
    top.keep_rows(rows);
    Ok(top.root())
}

/// Writes the rows of a whole tree into a storage that holds none. Holds no more than the leaves
/// below one place at depth 12 in memory, a 4096th of all.
///
/// # Errors
/// [`TreeError::Storage`] when the leaves or the storage fail, [`TreeError::NotSorted`] when the
/// leaves are not sorted by key and unique.
pub fn rebuild<S: TreeStorageMut>(
    storage: &mut S,
    leaves: impl IntoIterator<Item = Result<Leaf, S::Error>>,
    work: &mut Work,
) -> Result<Top, TreeError<S::Error>> {
    let mut writer = Writer::new(storage, work);
    let mut slots = Vec::new();
    let mut slot: Vec<Leaf> = Vec::new();
    for leaf in leaves {
        let leaf = leaf.map_err(TreeError::Storage)?;
        if let Some(last) = slot.last() {
            if last.key >= leaf.key {
                return Err(TreeError::NotSorted { key: leaf.key });
            }
            let at = Prefix::of(&last.key, TOP_DEPTH);
            if !at.covers(&leaf.key) {
                slots.push((at, writer.build(at, &slot)?));
                slot.clear();
            }
        }
        slot.push(leaf);
    }
    if let Some(last) = slot.last() {
        let at = Prefix::of(&last.key, TOP_DEPTH);
        slots.push((at, writer.build(at, &slot)?));
    }
    let rows = writer.crowded;
    let mut top = Top::default();
    top.set(&slots, &mut work.hashes);
    top.keep_rows(rows);
    Ok(top)
}

fn check<E>(changed: &[LeafChange]) -> Result<(), TreeError<E>> {
    let unsorted = changed
        .windows(2)
        .find(|pair| pair[0].key >= pair[1].key)
        .map(|pair| pair[1].key);
    let mismatched = changed
        .iter()
        .find(|change| change.leaf.is_some_and(|leaf| leaf.key != change.key))
        .map(|change| change.key);
    match unsorted.or(mismatched) {
        Some(key) => Err(TreeError::NotSorted { key }),
        None => Ok(()),
    }
}

/// The runs of sorted items whose keys share `depth` bits, each with those bits.
fn groups<'a, T>(
    items: &'a [T],
    depth: u8,
    key: impl Fn(&T) -> &StateKey + Copy + 'a,
) -> impl Iterator<Item = (Prefix, &'a [T])> {
    let place = move |item: &T| Prefix::of(key(item), depth);
    items
        .chunk_by(move |a, b| place(a) == place(b))
        .filter_map(move |group| Some((place(group.first()?), group)))
}

struct Writer<'a, S> {
    storage: &'a mut S,
    work: &'a mut Work,
    /// The rows at depth 12 that were written, and whether the top is to keep them.
    crowded: Vec<(Prefix, Option<Arc<RowNodes>>)>,
}

impl<'a, S: TreeStorageMut> Writer<'a, S> {
    fn new(storage: &'a mut S, work: &'a mut Work) -> Self {
        let crowded = Vec::new();
        Self {
            storage,
            work,
            crowded,
        }
    }

    /// Updates the subtree at `at`, which was `old`, and whose row may be `known`.
    fn subtree(
        &mut self,
        at: Prefix,
        old: &Summary,
        known: Option<&RowNodes>,
        changed: &[LeafChange],
    ) -> Result<Summary, TreeError<S::Error>> {
        if is_stored(at, old.leaves) {
            return self.row(at, old, known, changed);
        }
        if old.leaves == 0 {
            let leaves: Vec<Leaf> = changed.iter().filter_map(|change| change.leaf).collect();
            return self.build(at, &leaves);
        }
        let leaves = self.storage.leaves(at).map_err(TreeError::Storage)?;
        self.work.leaves_scanned += leaves.len() as u64;
        self.build(at, &leaves)
    }

    /// Updates a subtree that has a row.
    fn row(
        &mut self,
        at: Prefix,
        old: &Summary,
        known: Option<&RowNodes>,
        changed: &[LeafChange],
    ) -> Result<Summary, TreeError<S::Error>> {
        let mut row = match known {
            Some(nodes) => Row::of_nodes(nodes),
            None => self.read(at, old)?,
        };
        let mut slots = Vec::new();
        for (child, group) in groups(changed, at.depth() + ROW_LEVELS, |change| &change.key) {
            let slot = child.slot(ROW_LEVELS) as usize;
            row.0[slot] = self.subtree(child, &row.0[slot], None, group)?;
            slots.push(slot);
        }
        let hashes = &mut self.work.hashes;
        let nodes = match known {
            Some(known) => row.nodes_after(at.depth(), known, &slots, hashes),
            None => row.nodes(at.depth(), hashes),
        };
        let new = nodes[1];
        self.keep(at, nodes);
        if is_stored(at, new.leaves) {
            self.write(at, &row)?;
        } else {
            self.work.rows_written += 1;
            self.storage.remove_row(at).map_err(TreeError::Storage)?;
        }
        Ok(new)
    }

    /// Makes the subtree of exactly these leaves, where no rows are stored yet.
    fn build(&mut self, at: Prefix, leaves: &[Leaf]) -> Result<Summary, TreeError<S::Error>> {
        if !is_stored(at, leaves.len() as u64) {
            return Ok(summarize(leaves, at.depth(), &mut self.work.hashes));
        }
        let mut row = Row::EMPTY;
        for (child, group) in groups(leaves, at.depth() + ROW_LEVELS, |leaf| &leaf.key) {
            row.0[child.slot(ROW_LEVELS) as usize] = self.build(child, group)?;
        }
        self.write(at, &row)?;
        let nodes = row.nodes(at.depth(), &mut self.work.hashes);
        let new = nodes[1];
        self.keep(at, nodes);
        Ok(new)
    }

    fn keep(&mut self, at: Prefix, nodes: RowNodes) {
        if at.depth() == TOP_DEPTH {
            self.crowded.push((at, if_crowded(nodes)));
        }
    }

    fn read(&mut self, at: Prefix, old: &Summary) -> Result<Row, TreeError<S::Error>> {
        self.work.rows_read += 1;
        let bytes = self.storage.row(at).map_err(TreeError::Storage)?;
        // Comparing counts is free and catches a row of another moment; comparing hashes would
        // double the work of every write, and readers and `verify` do it.
        bytes
            .and_then(|bytes| Row::decode(&bytes))
            .filter(|row| row.leaves() == old.leaves)
            .ok_or(TreeError::DamagedRow { at })
    }

    fn write(&mut self, at: Prefix, row: &Row) -> Result<(), TreeError<S::Error>> {
        self.work.rows_written += 1;
        let row = row.encode();
        self.storage.set_row(at, &row).map_err(TreeError::Storage)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::merkle::memory::{Broken, Memory, any_batch, any_leaves, batch_changes};
    use crate::merkle::memory::{leaf, spread_key};
    use crate::merkle::trie::{root_of, summarize, within};

    fn put(leaf: Leaf) -> LeafChange {
        LeafChange {
            key: leaf.key,
            leaf: Some(leaf),
        }
    }

    fn puts(leaves: impl Iterator<Item = Leaf>) -> Vec<LeafChange> {
        let mut changed: Vec<LeafChange> = leaves.map(put).collect();
        changed.sort_by_key(|change| change.key);
        changed.dedup_by_key(|change| change.key);
        changed
    }

    fn filled(count: u64) -> (Memory, Top) {
        let mut memory = Memory::default();
        let top = memory.rebuild((0..count).map(|n| leaf(spread_key(n), n)));
        (memory, top)
    }

    /// What a tree of these leaves has to look like, made in one go.
    fn canonical(leaves: &[Leaf]) -> (Memory, Top) {
        let mut memory = Memory::default();
        let top = memory.rebuild(leaves.iter().copied());
        (memory, top)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_history_gives_the_trie_and_its_rows(
            batches in proptest::collection::vec(any_batch(), 1..8)
        ) {
            let (mut memory, mut top) = (Memory::default(), Top::default());
            for batch in batches {
                let root = memory.apply(&mut top, &batch_changes(&batch), &mut Work::default());
                let leaves = memory.sorted();
                prop_assert_eq!(root, root_of(&leaves));
                prop_assert!((memory.clone(), top.clone()) == canonical(&leaves));
                prop_assert!(Top::load(&memory) == Ok(top.clone()));
            }
        }

        #[test]
        fn order_and_batching_leave_no_trace(
            leaves in any_leaves(200),
            strangers in any_leaves(200),
            seed in any::<u64>(),
            size in 1usize..80,
        ) {
            let mut order: Vec<Leaf> = leaves.iter().chain(&strangers).copied().collect();
            order.sort_by_key(|leaf| spread_key(seed ^ u64::from(leaf.key.0[0]) ^ leaf.size));
            let (mut memory, mut top) = (Memory::default(), Top::default());
            for batch in order.chunks(size) {
                let changed = puts(batch.iter().copied());
                memory.apply(&mut top, &changed, &mut Work::default());
            }
            let wanted: BTreeSet<StateKey> = leaves.iter().map(|leaf| leaf.key).collect();
            let removed: Vec<LeafChange> = strangers
                .iter()
                .filter(|leaf| !wanted.contains(&leaf.key))
                .map(|leaf| LeafChange { key: leaf.key, leaf: None })
                .collect();
            memory.apply(&mut top, &removed, &mut Work::default());
            let last = puts(leaves.iter().copied());
            memory.apply(&mut top, &last, &mut Work::default());
            prop_assert!((memory, top) == canonical(&leaves));
        }
    }

    #[test]
    fn a_tree_that_is_emptied_leaves_nothing() {
        let (mut memory, mut top) = filled(3_000);
        let removed: Vec<LeafChange> = memory
            .leaves
            .keys()
            .map(|key| LeafChange {
                key: *key,
                leaf: None,
            })
            .collect();
        let root = memory.apply(&mut top, &removed, &mut Work::default());
        assert_eq!(root, Summary::EMPTY);
        assert!(memory.rows.is_empty() && top == Top::default());
    }

    #[test]
    fn one_put_among_100_000_is_cheap() {
        let (mut memory, mut top) = filled(100_000);
        let mut most = Work::default();
        // Half of them replace a leaf, half are new.
        for n in (0..400).map(|n| n * 500) {
            let mut work = Work::default();
            memory.apply(&mut top, &[put(leaf(spread_key(n), n + 1))], &mut work);
            most.hashes = most.hashes.max(work.hashes);
            most.rows_written = most.rows_written.max(work.rows_written);
            most.rows_read = most.rows_read.max(work.rows_read);
            most.leaves_scanned = most.leaves_scanned.max(work.leaves_scanned);
        }
        assert!(most.hashes <= 50, "{most:?}");
        assert!(most.rows_written <= 3 && most.rows_read <= 3, "{most:?}");
        assert!(most.leaves_scanned <= 9, "{most:?}");
    }

    /// As crowded as a tree of a million leaves is below each place at depth 12.
    #[test]
    fn one_put_where_it_is_crowded_is_cheap() {
        let in_slot = |slot: u64, n: u64| {
            let mut key = spread_key(n);
            key.0[0] = slot as u8;
            key.0[1] &= 0x0f;
            leaf(key, n)
        };
        let mut memory = Memory::default();
        let leaves = (0..40).flat_map(|slot| (0..250).map(move |n| in_slot(slot, slot << 32 | n)));
        let mut top = memory.rebuild(leaves);
        let mut over = 0;
        for slot in 0..40 {
            for n in 200..260 {
                let mut work = Work::default();
                memory.apply(&mut top, &[put(in_slot(slot, slot << 32 | n))], &mut work);
                assert!(work.hashes <= 55, "{work:?}");
                over += u64::from(work.hashes > 50);
                assert!(work.rows_written <= 3 && work.rows_read <= 2, "{work:?}");
                assert!(work.leaves_scanned <= 9, "{work:?}");
            }
        }
        // Now and then a leaf shares more bits with a neighbour than most, or fills a bucket.
        assert!(over <= 2, "{over} of 2,400");
        assert!((memory.clone(), top) == canonical(&memory.sorted()));
    }

    /// What bringing the touched places at `depth` up to date takes: each node between a row and its
    /// children once, and buckets as a whole.
    fn needed(leaves: &[Leaf], changed: &[LeafChange], depth: u8) -> Work {
        let mut needed = Work::default();
        for (at, group) in groups(changed, depth, |change| &change.key) {
            let below = within(leaves, at);
            if !is_stored(at, below.len() as u64) {
                summarize(below, depth, &mut needed.hashes);
                continue;
            }
            needed.rows_written += 1;
            for level in 0..ROW_LEVELS {
                let nodes = (0..1 << level).map(|n| at.child(n, level).unwrap());
                needed.hashes += nodes.filter(|at| within(below, *at).len() > 1).count() as u64;
            }
            needed.add(&self::needed(below, group, depth + ROW_LEVELS));
        }
        needed
    }

    #[test]
    fn a_batch_hashes_each_touched_node_once() {
        // Few enough that no row's inner nodes are kept in memory.
        let (mut memory, mut top) = filled(4_000);
        let changed = puts((0..1_000).map(|n| leaf(spread_key(n * 6), 7)));
        let mut work = Work::default();
        memory.apply(&mut top, &changed, &mut work);
        let leaves = memory.sorted();
        let above: usize = (0..TOP_DEPTH)
            .flat_map(|depth| groups(&changed, depth, |change| &change.key))
            .filter(|(at, _)| within(&leaves, *at).len() > 1)
            .count();
        let needed = needed(&leaves, &changed, TOP_DEPTH);
        assert_eq!(work.hashes, above as u64 + needed.hashes);
        assert_eq!(work.rows_written, needed.rows_written);
        assert!(work.rows_read <= work.rows_written, "{work:?}");
    }

    #[test]
    fn what_is_not_sorted_is_refused() {
        let (mut memory, mut top) = filled(10);
        let leaves = memory.sorted();
        let (first, second) = (put(leaves[0]), put(leaves[1]));
        let stray = LeafChange {
            key: first.key,
            leaf: Some(leaves[1]),
        };
        for (changed, key) in [
            (vec![second, first], first.key),
            (vec![first, first], first.key),
            (vec![stray], first.key),
        ] {
            let result = update(&mut top, &mut memory, &changed, &mut Work::default());
            assert_eq!(result, Err(TreeError::NotSorted { key }));
        }
        let twice = [Ok(leaves[0]), Ok(leaves[0])];
        let result = rebuild(&mut Memory::default(), twice, &mut Work::default());
        assert_eq!(result, Err(TreeError::NotSorted { key: first.key }));
    }

    #[test]
    fn failures_and_damage_leave_the_top_alone() {
        let (memory, top) = filled(3_000);
        let changed = puts((0..3).map(|n| leaf(spread_key(n), 9_999)));
        let attempt = |mut memory: Memory| {
            let leaves = changed.iter().filter_map(|change| change.leaf);
            memory.leaves.extend(leaves.map(|leaf| (leaf.key, leaf)));
            let mut after = top.clone();
            let result = update(&mut after, &mut memory, &changed, &mut Work::default());
            assert_eq!(result.is_err(), after == top);
            result.err()
        };
        let mut failures = 0;
        loop {
            let failing = memory.clone();
            failing.calls_left.set(failures);
            match attempt(failing) {
                Some(error) => assert_eq!(error, TreeError::Storage(Broken)),
                None => break,
            }
            failures += 1;
        }
        assert!(
            failures >= 6,
            "every call was made to fail, {failures} only"
        );
        let at = Prefix::of(&changed[1].key, TOP_DEPTH);
        let mut damaged = memory.clone();
        damaged.rows.remove(&at);
        assert_eq!(attempt(damaged), Some(TreeError::DamagedRow { at }));
        let mut stale = memory.clone();
        stale.rows.insert(
            at,
            Row([Summary::of_leaf(&leaf(spread_key(1), 1)); 16]).encode(),
        );
        assert_eq!(attempt(stale), Some(TreeError::DamagedRow { at }));
    }
}
