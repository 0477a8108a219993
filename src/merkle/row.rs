//! A persisted row: the sixteen subtrees four levels below a place.
//!
//! Which rows exist follows from the set of leaves alone (see [`is_stored`]), so two replicas with
//! the same root also hold the same rows.

use crate::merkle::node::Summary;
use crate::merkle::numbers::{NUMBER_BYTES_MAX, read_number, step, take_step, write_number};
use crate::merkle::prefix::Prefix;
use crate::merkle::trie::join;
use crate::types::hash::NodeHash;

/// Depth of the last level kept in memory. The first rows stand there.
pub const TOP_DEPTH: u8 = 12;
/// Levels from a row's place down to its children. Rows stand at depths 12, 16, ... 60.
pub const ROW_LEVELS: u8 = 4;
/// Children of a row.
pub const ROW_CHILDREN: usize = 1 << ROW_LEVELS;
/// A subtree of at most so many leaves has no row below depth 12: a scan of the records is cheaper.
/// With more, hashing a full bucket anew would take a put past 50 hashes.
pub const BUCKET_LEAVES: u64 = 8;
/// No encoded row is longer.
pub const ROW_BYTES_MAX: usize =
    BITMAP_BYTES + ROW_CHILDREN * (HASH_BYTES + AGGREGATES * NUMBER_BYTES_MAX);

const BITMAP_BYTES: usize = 2;
const HASH_BYTES: usize = 32;
const AGGREGATES: usize = 3;
/// A hash, a byte or two for the leaves below, and steps of some minutes.
const CHILD_BYTES_USUAL: usize = HASH_BYTES + 9;

/// A row and the nodes between it and its children, in heap order: the node at the row's place is
/// 1, the children of node `i` are `2 * i` and `2 * i + 1`, the row itself is the upper half.
pub type RowNodes = [Summary; 2 * ROW_CHILDREN];

/// True when a subtree of so many leaves, at a depth where rows stand, keeps a row. At the depth
/// where the part in memory ends it always does, so that opening a tree reads no records.
pub fn is_stored(at: Prefix, leaves: u64) -> bool {
    match at.depth() {
        TOP_DEPTH => leaves > 0,
        depth => leaves > BUCKET_LEAVES && depth < Prefix::DEPTH_MAX,
    }
}

/// Where `at` stands in a heap of nodes whose root is `levels` bits above it.
pub fn heap_index(at: Prefix, levels: u8) -> usize {
    (1 << levels) + at.slot(levels) as usize
}

/// The sixteen children of a row, left to right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(pub [Summary; ROW_CHILDREN]);

impl Row {
    /// A row without leaves, which is never stored.
    pub const EMPTY: Self = Self([Summary::EMPTY; ROW_CHILDREN]);

    /// A bitmap of the children that have leaves (`u16`, little endian, bit 0 leftmost), then
    /// those children in order: hash, leaves, size, and the step to their newest update from that of
    /// the child before.
    pub fn encode(&self) -> Vec<u8> {
        let children = self.0.iter().filter(|child| child.leaves > 0).count();
        let mut bytes = Vec::with_capacity(BITMAP_BYTES + children * CHILD_BYTES_USUAL);
        bytes.extend_from_slice(&[0; BITMAP_BYTES]);
        let (mut bitmap, mut updated_at) = (0u16, 0);
        for (slot, child) in self.0.iter().enumerate() {
            if child.leaves > 0 {
                bitmap |= 1 << slot;
                bytes.extend_from_slice(&child.hash.0);
                write_number(&mut bytes, child.leaves);
                write_number(&mut bytes, child.size);
                write_number(&mut bytes, step(updated_at, child.updated_at));
                updated_at = child.updated_at;
            }
        }
        bytes[..BITMAP_BYTES].copy_from_slice(&bitmap.to_le_bytes());
        bytes
    }

    /// The row with these nodes.
    pub fn of_nodes(nodes: &RowNodes) -> Self {
        let mut row = Self::EMPTY;
        row.0.copy_from_slice(&nodes[ROW_CHILDREN..]);
        row
    }

    /// Length of the encoded row with these nodes.
    pub fn encoded_bytes(nodes: &RowNodes) -> usize {
        Self::of_nodes(nodes).encode().len()
    }

    /// Reads what [`Row::encode`] wrote; `None` for anything it does not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (bitmap, mut input) = bytes.split_first_chunk::<BITMAP_BYTES>()?;
        let bitmap = u16::from_le_bytes(*bitmap);
        let mut row = Self::EMPTY;
        let mut updated_at = 0;
        for (slot, child) in row.0.iter_mut().enumerate() {
            if bitmap >> slot & 1 == 1 {
                *child = read_child(&mut input, updated_at)?;
                updated_at = child.updated_at;
            }
        }
        (bitmap != 0 && input.is_empty()).then_some(row)
    }

    /// Leaves below.
    pub fn leaves(&self) -> u64 {
        let sum = |sum: u64, child: &Summary| sum.saturating_add(child.leaves);
        self.0.iter().fold(0, sum)
    }

    /// Hashes the nodes above the children, `depth` being the row's; adds to `hashes` how many.
    pub fn nodes(&self, depth: u8, hashes: &mut u64) -> RowNodes {
        let mut nodes = [Summary::EMPTY; 2 * ROW_CHILDREN];
        nodes[ROW_CHILDREN..].copy_from_slice(&self.0);
        hash_above(&mut nodes, u32::MAX, depth, hashes);
        nodes
    }

    /// [`Row::nodes`] from those before the children in the slots `changed` became these.
    pub fn nodes_after(
        &self,
        depth: u8,
        before: &RowNodes,
        changed: &[usize],
        hashes: &mut u64,
    ) -> RowNodes {
        let mut nodes = *before;
        nodes[ROW_CHILDREN..].copy_from_slice(&self.0);
        let bit = |bits: u32, slot: &usize| bits | 1 << (ROW_CHILDREN + slot);
        hash_above(&mut nodes, changed.iter().fold(0, bit), depth, hashes);
        nodes
    }
}

/// Hashes the nodes of a heap above those that have changed, each once. The heap's root stands at `depth`;
/// `changed` has a bit for each node of the heap, by its place there.
pub fn hash_above(nodes: &mut [Summary], mut changed: u32, depth: u8, hashes: &mut u64) {
    for at in (1..nodes.len() / 2).rev() {
        if changed >> (2 * at) & 0b11 != 0 {
            let depth = depth.saturating_add(at.ilog2() as u8);
            nodes[at] = join(depth, &nodes[2 * at], &nodes[2 * at + 1], hashes);
            changed |= 1 << at;
        }
    }
}

/// The next child of an encoded row, the one before having been updated at `before`.
fn read_child(input: &mut &[u8], before: u64) -> Option<Summary> {
    let (hash, rest) = input.split_first_chunk::<HASH_BYTES>()?;
    *input = rest;
    let leaves = read_number(input).ok().filter(|leaves| *leaves > 0)?;
    let size = read_number(input).ok()?;
    let updated_at = take_step(before, read_number(input).ok()?);
    Some(Summary {
        hash: NodeHash(*hash),
        leaves,
        size,
        updated_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::memory::{leaf, spread_key};
    use crate::merkle::trie::summary_at;

    fn row_of(slots: &[usize]) -> Row {
        let mut row = Row::EMPTY;
        for slot in slots {
            row.0[*slot] = Summary::of_leaf(&leaf(spread_key(*slot as u64), 1));
        }
        row
    }

    #[test]
    fn changed_children_take_their_ancestors_only() {
        let (before, after) = (row_of(&[0, 3, 9, 12, 15]), row_of(&[0, 4, 9, 10, 12, 15]));
        let known = before.nodes(TOP_DEPTH, &mut 0);
        let mut hashes = 0;
        let nodes = after.nodes_after(TOP_DEPTH, &known, &[3, 4, 10], &mut hashes);
        assert_eq!(nodes, after.nodes(TOP_DEPTH, &mut 0));
        let mut one = after.clone();
        one.0[12] = Summary::of_leaf(&leaf(spread_key(99), 1));
        let mut hashes = 0;
        let renewed = one.nodes_after(TOP_DEPTH, &nodes, &[12], &mut hashes);
        assert_eq!(renewed, one.nodes(TOP_DEPTH, &mut 0));
        assert!(hashes <= 4, "{hashes}");
    }

    #[test]
    fn rows_round_trip_and_their_length_follows_from_their_nodes() {
        let full: Vec<usize> = (0..ROW_CHILDREN).collect();
        for slots in [&[0][..], &[15], &[3, 7, 8], &full] {
            let row = row_of(slots);
            let bytes = row.encode();
            // A leaf, size 3 and time 1: a byte for each, behind the bitmap and the hashes.
            assert_eq!(bytes.len(), 2 + slots.len() * 35);
            assert_eq!(Row::decode(&bytes).as_ref(), Some(&row));
            let nodes = row.nodes(TOP_DEPTH, &mut 0);
            assert_eq!(Row::encoded_bytes(&nodes), bytes.len());
        }
        let most = Summary {
            leaves: u64::MAX,
            size: u64::MAX,
            updated_at: 1 << 63,
            ..row_of(&[0]).0[0]
        };
        let mut longest = Row([most; ROW_CHILDREN]);
        for child in longest.0.iter_mut().step_by(2) {
            child.updated_at = 0;
        }
        let bytes = longest.encode();
        assert!(bytes.len() <= ROW_BYTES_MAX);
        assert_eq!(Row::decode(&bytes), Some(longest));
    }

    #[test]
    fn what_encode_does_not_write_is_refused() {
        let bytes = row_of(&[1, 4]).encode();
        for length in 0..bytes.len() {
            assert_eq!(Row::decode(&bytes[..length]), None, "{length} bytes");
        }
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut changed = bytes.clone();
            change(&mut changed);
            Row::decode(&changed)
        };
        assert_eq!(changed(&|row| row.push(0)), None);
        assert_eq!(Row::decode(&[0, 0]), None);
        assert_eq!(changed(&|row| row[0] |= 1), None, "a third child");
        assert_eq!(changed(&|row| row[2 + 32] = 0), None, "without leaves");
        let padded = |row: &mut Vec<u8>| {
            row[2 + 32] = 0x81;
            row.insert(2 + 33, 0);
        };
        assert_eq!(changed(&padded), None, "a longer number");
    }

    #[test]
    fn rows_are_stored_where_the_reference_says() {
        let at = |depth| Prefix::of(&spread_key(1), depth);
        for (depth, leaves, stored) in [
            (12, 0, false),
            (12, 1, true),
            (16, 8, false),
            (16, 9, true),
            (60, 9, true),
            (64, 9, false),
        ] {
            assert_eq!(is_stored(at(depth), leaves), stored, "{leaves} at {depth}");
        }
    }

    #[test]
    fn nodes_are_those_of_the_trie() {
        let mut leaves: Vec<_> = (0..60).map(|n| leaf(spread_key(n), n)).collect();
        leaves.sort_by_key(|leaf| leaf.key);
        let mut row = Row::EMPTY;
        for group in leaves.chunk_by(|a, b| a.key.0[0] >> 4 == b.key.0[0] >> 4) {
            row.0[usize::from(group[0].key.0[0] >> 4)] = summary_at(group, 4);
        }
        let mut hashes = 0;
        assert_eq!(row.nodes(0, &mut hashes)[1], summary_at(&leaves, 0));
        assert_eq!((row.leaves(), hashes), (60, 15));
    }
}
