//! The upper levels of the tree, kept in memory and rebuilt at open from the rows below them.

use std::fmt;
use std::sync::Arc;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::row::{Row, RowNodes, TOP_DEPTH, hash_above, heap_index};
use crate::merkle::storage::{TreeError, TreeStorage};

/// Levels of one page, from its root down to its last nodes.
const PAGE_LEVELS: u8 = 3;
const PAGE_WIDTH: usize = 1 << PAGE_LEVELS;

/// Rows at depth 12 with more leaves below than this are kept with the nodes above their children,
/// so that a write reads no row, and hashes four of these nodes and not all fifteen. With fewer leaves
/// most of the fifteen are single leaves, and the 1.8 KiB would be much beside the records themselves.
pub(crate) const CROWDED_LEAVES: u64 = 16;

/// Three levels of the tree, and what is below. 1 KiB: every write copies the pages on its way, so
/// they are small, and every batch counts up the pages beside its way, so they are not smaller.
#[derive(Clone, PartialEq, Eq)]
struct Page<B> {
    /// In heap order, as in [`crate::merkle::row::RowNodes`].
    nodes: [Summary; 2 * PAGE_WIDTH],
    /// One for each of the last nodes.
    below: [B; PAGE_WIDTH],
}

/// The row at a node of depth 12, if it is crowded.
type Crowded = Option<Arc<RowNodes>>;
/// Depth 9 to 12.
type Lowest = Arc<Page<Crowded>>;
/// Depth 0 to 12.
type Pages = Arc<Page<Arc<Page<Arc<Page<Lowest>>>>>>;

/// What is kept of the subtree at a node.
trait Part {
    /// Of the node, in bits.
    const DEPTH: u8;

    /// A subtree without leaves.
    fn empty() -> Self;

    /// A node in it, above depth 12 or there.
    fn summary(&self, at: Prefix) -> Summary;

    /// The row at a prefix of 12 bits in it, if it is crowded.
    fn row(&self, at: Prefix) -> Option<&RowNodes>;

    /// Keeps the row at a prefix of 12 bits in it, or does not any more.
    fn keep(&mut self, at: Prefix, row: Crowded);

    /// Replaces nodes at depth 12 in it, sorted by prefix and at least one, and returns the node.
    fn set(&mut self, slots: &[(Prefix, Summary)], hashes: &mut u64) -> Summary;
}

impl Part for Crowded {
    const DEPTH: u8 = TOP_DEPTH;

    fn empty() -> Self {
        None
    }

    /// The page above has the node at depth 12 itself.
    fn summary(&self, _: Prefix) -> Summary {
        self.as_ref().map_or(Summary::EMPTY, |nodes| nodes[1])
    }

    fn row(&self, _: Prefix) -> Option<&RowNodes> {
        self.as_deref()
    }

    fn keep(&mut self, _: Prefix, row: Crowded) {
        *self = row;
    }

    fn set(&mut self, slots: &[(Prefix, Summary)], _: &mut u64) -> Summary {
        slots.last().map_or(Summary::EMPTY, |(_, node)| *node)
    }
}

impl<B: Part + Clone> Part for Arc<Page<B>> {
    const DEPTH: u8 = B::DEPTH - PAGE_LEVELS;

    fn empty() -> Self {
        let below = B::empty();
        Self::new(Page {
            nodes: [Summary::EMPTY; 2 * PAGE_WIDTH],
            below: std::array::from_fn(|_| below.clone()),
        })
    }

    fn summary(&self, at: Prefix) -> Summary {
        if at.depth() <= B::DEPTH {
            return self.nodes[heap_index(at, at.depth() - Self::DEPTH)];
        }
        self.below[slot_of::<B>(at)].summary(at)
    }

    fn row(&self, at: Prefix) -> Option<&RowNodes> {
        self.below[slot_of::<B>(at)].row(at)
    }

    fn keep(&mut self, at: Prefix, row: Crowded) {
        Self::make_mut(self).below[slot_of::<B>(at)].keep(at, row);
    }

    fn set(&mut self, slots: &[(Prefix, Summary)], hashes: &mut u64) -> Summary {
        let page = Self::make_mut(self);
        // A bit for each node, by its place in the heap.
        let mut changed = 0_u32;
        for group in slots.chunk_by(|(a, _), (b, _)| slot_of::<B>(*a) == slot_of::<B>(*b)) {
            let slot = slot_of::<B>(group[0].0);
            page.nodes[PAGE_WIDTH + slot] = page.below[slot].set(group, hashes);
            changed |= 1 << (PAGE_WIDTH + slot);
        }
        hash_above(&mut page.nodes, changed, Self::DEPTH, hashes);
        page.nodes[1]
    }
}

/// Which of the eight parts of a page a prefix leads to.
fn slot_of<B: Part>(at: Prefix) -> usize {
    at.ancestor(B::DEPTH).slot(PAGE_LEVELS) as usize
}

/// The tree down to depth 12.
///
/// A clone is a snapshot and costs a counter. The first update after one copies the pages that it
/// touches, 4 KiB for a single leaf, and not the whole 550 KiB, or 8 MiB with all rows crowded.
#[derive(Clone, PartialEq, Eq)]
pub struct Top(Pages);

impl Default for Top {
    /// The tree without leaves.
    fn default() -> Self {
        Self(Part::empty())
    }
}

impl fmt::Debug for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Top").field(&self.root()).finish()
    }
}

impl Top {
    /// Computes the upper levels from the rows at depth 12.
    ///
    /// # Errors
    /// [`TreeError::Storage`], or [`TreeError::DamagedRow`] for one that is malformed.
    pub fn load<S: TreeStorage>(storage: &S) -> Result<Self, TreeError<S::Error>> {
        let mut hashes = 0;
        let (mut slots, mut rows) = (Vec::new(), Vec::new());
        let mut damaged = None;
        let mut take = |at: Prefix, bytes: &[u8]| match Row::decode(bytes) {
            Some(row) if at.depth() == TOP_DEPTH => {
                let nodes = row.nodes(TOP_DEPTH, &mut hashes);
                slots.push((at, nodes[1]));
                rows.extend(if_crowded(nodes).map(|nodes| (at, Some(nodes))));
            }
            _ => damaged = damaged.or(Some(at)),
        };
        storage.top_rows(&mut take).map_err(TreeError::Storage)?;
        if let Some(at) = damaged {
            return Err(TreeError::DamagedRow { at });
        }
        let mut top = Self::default();
        top.set(&slots, &mut hashes);
        top.keep_rows(rows);
        Ok(top)
    }

    /// The whole tree.
    pub fn root(&self) -> Summary {
        self.summary(Prefix::ROOT)
    }

    /// The subtree at `at`, of which at most the first 12 bits count.
    pub fn summary(&self, at: Prefix) -> Summary {
        self.0.summary(at.ancestor(TOP_DEPTH))
    }

    /// The row at `at`, a prefix of 12 bits, if it is crowded.
    pub(crate) fn row(&self, at: Prefix) -> Option<&RowNodes> {
        self.0.row(at)
    }

    /// Replaces rows at depth 12 by those that are crowded, or by nothing.
    pub(crate) fn keep_rows(&mut self, rows: Vec<(Prefix, Crowded)>) {
        for (at, row) in rows {
            if row.is_some() || self.row(at).is_some() {
                self.0.keep(at, row);
            }
        }
    }

    /// Replaces nodes at depth 12, sorted by prefix, and hashes each node above them once.
    pub(crate) fn set(&mut self, slots: &[(Prefix, Summary)], hashes: &mut u64) {
        if !slots.is_empty() {
            self.0.set(slots, hashes);
        }
    }
}

/// The nodes of a row at depth 12 that is to be kept.
pub(crate) fn if_crowded(nodes: RowNodes) -> Crowded {
    (nodes[1].leaves > CROWDED_LEAVES).then(|| Arc::new(nodes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::memory::{Memory, leaf, spread_key};
    use crate::merkle::trie::{root_of, summary_at, within};

    fn filled() -> (Memory, Top) {
        let mut memory = Memory::default();
        let top = memory.rebuild((0..5_000).map(|n| leaf(spread_key(n), n)));
        (memory, top)
    }

    #[test]
    fn loading_gives_every_node_of_the_trie() {
        let (memory, top) = filled();
        let leaves = memory.sorted();
        let loaded = Top::load(&memory).unwrap();
        assert!(loaded == top);
        assert_eq!(loaded.root(), root_of(&leaves));
        for depth in 0..=TOP_DEPTH {
            for slot in 0..1 << depth {
                let at = Prefix::ROOT.child(slot, depth).unwrap();
                let expected = summary_at(within(&leaves, at), depth);
                assert_eq!(loaded.summary(at), expected, "{at}");
            }
        }
        let deeper = Prefix::of(&leaves[0].key, 40);
        assert_eq!(loaded.summary(deeper), loaded.summary(deeper.ancestor(12)));
    }

    #[test]
    fn a_snapshot_stays_and_an_update_copies_a_page_of_each_size() {
        let (_, mut top) = filled();
        let snapshot = top.clone();
        let before = snapshot.root();
        let at = Prefix::of(&spread_key(1), TOP_DEPTH);
        let mut hashes = 0;
        top.set(
            &[(at, Summary::of_leaf(&leaf(spread_key(1), 99)))],
            &mut hashes,
        );
        assert_eq!(hashes, u64::from(TOP_DEPTH));
        assert_eq!(snapshot.root(), before);
        assert_ne!(top.root(), before);
        let differing = |one: &Top, other: &Top| {
            let mut count = 0;
            for (a, b) in one.0.below.iter().zip(&other.0.below) {
                for (a, b) in a.below.iter().zip(&b.below) {
                    let pages = a.below.iter().zip(&b.below);
                    count += pages.filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
                }
            }
            count
        };
        assert_eq!(differing(&top, &snapshot), 1);
    }

    #[test]
    fn loading_names_the_damaged_row() {
        let (mut memory, _) = filled();
        let at = *memory.rows.keys().nth(7).unwrap();
        memory.rows.get_mut(&at).unwrap().push(0);
        assert_eq!(Top::load(&memory), Err(TreeError::DamagedRow { at }));
    }
}
