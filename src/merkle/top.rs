//! The upper levels of the tree, kept in memory and rebuilt at open from the rows below them.

use std::fmt;
use std::sync::Arc;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::row::{Row, RowNodes, TOP_DEPTH, heap_index};
use crate::merkle::storage::{TreeError, TreeStorage};
use crate::merkle::trie::join;

/// Levels of one page, from its root down to its last nodes.
const PAGE_LEVELS: u8 = TOP_DEPTH / 2;
const PAGE_WIDTH: usize = 1 << PAGE_LEVELS;

/// Six levels in heap order, as in [`crate::merkle::row::RowNodes`]. 7 KiB.
type Page = [Summary; 2 * PAGE_WIDTH];

/// Rows at depth 12 with more leaves below than this are kept with the nodes above their children,
/// so that a write reads no row, and hashes four of these nodes and not all fifteen. With fewer leaves
/// most of the fifteen are single leaves, and the 1.8 KiB would be much beside the records themselves.
pub(crate) const CROWDED_LEAVES: u64 = 16;

/// The crowded rows below one node at depth 6.
type Rows = [Option<Arc<RowNodes>>; PAGE_WIDTH];

#[derive(Clone, PartialEq, Eq)]
struct Pages {
    /// Depth 0 to 6.
    upper: Arc<Page>,
    /// Depth 6 to 12, one for each node at depth 6.
    lower: [Arc<Page>; PAGE_WIDTH],
    /// The rows at depth 12 with more than [`CROWDED_LEAVES`] below, one page likewise.
    rows: [Arc<Rows>; PAGE_WIDTH],
}

/// The tree down to depth 12.
///
/// A clone is a snapshot and costs a counter. The first update after one copies the pages that it
/// touches, 17 KiB for a single leaf, and not the whole 455 KiB, or 8 MiB with all rows crowded.
#[derive(Clone, PartialEq, Eq)]
pub struct Top(Arc<Pages>);

impl Default for Top {
    /// The tree without leaves.
    fn default() -> Self {
        let page = Arc::new([Summary::EMPTY; 2 * PAGE_WIDTH]);
        let rows: Arc<Rows> = Arc::new([const { None }; PAGE_WIDTH]);
        Self(Arc::new(Pages {
            upper: Arc::clone(&page),
            lower: std::array::from_fn(|_| Arc::clone(&page)),
            rows: std::array::from_fn(|_| Arc::clone(&rows)),
        }))
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
        let at = at.ancestor(TOP_DEPTH);
        match at.depth().checked_sub(PAGE_LEVELS) {
            None => self.0.upper[heap_index(at, at.depth())],
            Some(levels) => self.0.lower[page_of(at)][heap_index(at, levels)],
        }
    }

    /// The row at `at`, a prefix of 12 bits, if it is crowded.
    pub(crate) fn row(&self, at: Prefix) -> Option<&RowNodes> {
        let rows = self.0.rows.get(page_of(at))?;
        rows.get(at.slot(PAGE_LEVELS) as usize)?.as_deref()
    }

    /// Replaces rows at depth 12 by those that are crowded, or by nothing.
    pub(crate) fn keep_rows(&mut self, rows: Vec<(Prefix, Option<Arc<RowNodes>>)>) {
        for (at, row) in rows {
            if row.is_some() || self.row(at).is_some() {
                let pages = Arc::make_mut(&mut self.0);
                let page = Arc::make_mut(&mut pages.rows[page_of(at)]);
                page[at.slot(PAGE_LEVELS) as usize] = row;
            }
        }
    }

    /// Replaces nodes at depth 12, sorted by prefix, and hashes each node above them once.
    pub(crate) fn set(&mut self, slots: &[(Prefix, Summary)], hashes: &mut u64) {
        if slots.is_empty() {
            return;
        }
        let pages = Arc::make_mut(&mut self.0);
        let mut roots = Vec::new();
        for group in slots.chunk_by(|(a, _), (b, _)| page_of(*a) == page_of(*b)) {
            let page = page_of(group[0].0);
            let changed: Vec<_> = group
                .iter()
                .map(|(at, node)| (heap_index(*at, PAGE_LEVELS), *node))
                .collect();
            let lower = Arc::make_mut(&mut pages.lower[page]);
            let root = set_page(lower, PAGE_LEVELS, &changed, hashes);
            roots.push((PAGE_WIDTH + page, root));
        }
        set_page(Arc::make_mut(&mut pages.upper), 0, &roots, hashes);
    }
}

/// The nodes of a row at depth 12 that is to be kept.
pub(crate) fn if_crowded(nodes: RowNodes) -> Option<Arc<RowNodes>> {
    (nodes[1].leaves > CROWDED_LEAVES).then(|| Arc::new(nodes))
}

/// Which lower page holds a prefix of at least six bits.
fn page_of(at: Prefix) -> usize {
    at.ancestor(PAGE_LEVELS).slot(PAGE_LEVELS) as usize
}

/// Replaces some of a page's last nodes, in order, and returns its new root, which is at `depth`.
fn set_page(page: &mut Page, depth: u8, changed: &[(usize, Summary)], hashes: &mut u64) -> Summary {
    for (index, node) in changed {
        page[*index] = *node;
    }
    let mut touched: Vec<usize> = changed.iter().map(|(index, _)| *index).collect();
    for level in (0..PAGE_LEVELS).rev() {
        for index in &mut touched {
            *index /= 2;
        }
        touched.dedup();
        for index in &touched {
            let (left, right) = (page[2 * index], page[2 * index + 1]);
            page[*index] = join(depth + level, &left, &right, hashes);
        }
    }
    page[1]
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
    fn a_snapshot_stays_and_an_update_copies_two_pages() {
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
        let pages = top.0.lower.iter().zip(&snapshot.0.lower);
        assert_eq!(pages.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
    }

    #[test]
    fn loading_names_the_damaged_row() {
        let (mut memory, _) = filled();
        let at = *memory.rows.keys().nth(7).unwrap();
        memory.rows.get_mut(&at).unwrap().push(0);
        assert_eq!(Top::load(&memory), Err(TreeError::DamagedRow { at }));
    }
}
