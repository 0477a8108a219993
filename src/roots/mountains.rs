//! The Merkle mountain range of the log of roots: perfect binary trees ("mountains") of falling
//! size, whose nodes never change once they are there.
//!
//! A node is named by its height and its place among the nodes of that height; the node `(h, i)`
//! stands over the entries from `i << h` up to, not including, `(i + 1) << h`. Peaks are bagged
//! from the right, which gives the same hash as the tree of RFC 9162 section 2.1.1, so its proofs
//! are ours.

use crate::roots::entry::parent;
use crate::types::hash::LogHash;

/// Where the nodes of a range are kept.
pub trait Nodes {
    /// Why a node cannot be read.
    type Error;

    /// The node at a height and place. Only nodes whose entries are all there are asked for.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    fn node(&self, height: u8, place: u64) -> Result<LogHash, Self::Error>;
}

/// A node with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// 0 for leaves.
    pub height: u8,
    /// Among the nodes of that height, counted from 0.
    pub place: u64,
    /// Its hash.
    pub hash: LogHash,
}

/// The nodes above the leaves that come with one entry more, lowest first. `size` is the number of
/// entries before it.
///
/// # Errors
/// When a node cannot be read.
pub fn nodes_above<N: Nodes>(nodes: &N, size: u64, leaf: LogHash) -> Result<Vec<Named>, N::Error> {
    let (mut height, mut place, mut hash) = (0, size, leaf);
    let mut above = Vec::new();
    while place % 2 == 1 {
        hash = parent(&nodes.node(height, place - 1)?, &hash);
        (height, place) = (height + 1, place / 2);
        above.push(Named {
            height,
            place,
            hash,
        });
    }
    Ok(above)
}

/// The hash over the first `size` entries; `None` for no entries.
///
/// # Errors
/// When a node cannot be read.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Option<LogHash>, N::Error> {
    (size > 0).then(|| hash(nodes, 0, size)).transpose()
}

/// The proof that the entry at `place` is among the first `size`: PATH of RFC 9162 section 2.1.3.1.
/// `None` when it is not.
///
/// # Errors
/// When a node cannot be read.
pub fn inclusion<N: Nodes>(
    nodes: &N,
    place: u64,
    size: u64,
) -> Result<Option<Vec<LogHash>>, N::Error> {
    if place >= size {
        return Ok(None);
    }
    let (mut from, mut to, mut path) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = from + split(to - from);
        if place < middle {
            path.push(hash(nodes, middle, to)?);
            to = middle;
        } else {
            path.push(hash(nodes, from, middle)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(Some(path))
}

/// The proof that the log of the first `old` entries is a prefix of that of the first `size`:
/// PROOF of RFC 9162 section 2.1.4.1. Empty for equal sizes; `None` when there were no entries, or
/// more.
///
/// # Errors
/// When a node cannot be read.
pub fn consistency<N: Nodes>(
    nodes: &N,
    old: u64,
    size: u64,
) -> Result<Option<Vec<LogHash>>, N::Error> {
    if old == 0 || old > size {
        return Ok(None);
    }
    let (mut from, mut to, mut proof) = (0, size, Vec::new());
    while old < to {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(hash(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(hash(nodes, from, middle)?);
            from = middle;
        }
    }
    if from > 0 {
        // The old root is not a node of its own: the verifier needs its last part.
        proof.push(hash(nodes, from, to)?);
    }
    proof.reverse();
    Ok(Some(proof))
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// The hash over entries `from..to`. `from` is a multiple of the least power of two that is not
/// below the count.
fn hash<N: Nodes>(nodes: &N, from: u64, to: u64) -> Result<LogHash, N::Error> {
    let (mut from, mut peaks) = (from, Vec::new());
    while from < to {
        let height = (to - from).ilog2();
        peaks.push(nodes.node(height as u8, from >> height)?);
        from += 1 << height;
    }
    let bagged = peaks
        .into_iter()
        .rev()
        .reduce(|right, left| parent(&left, &right));
    // There is at least one: nobody asks for nothing.
    Ok(bagged.unwrap_or(LogHash([0; 32])))
}
