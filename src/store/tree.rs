//! Where the Merkle tree finds its rows and leaves.

use std::ops::{Bound, ControlFlow};

use crate::merkle::prefix::Prefix;
use crate::merkle::row::TOP_DEPTH;
use crate::store::error::StoreError;
use crate::store::layered::Layered;
use crate::store::rows::leaf_of_row;
use crate::store::tables::{Nodes, Records};
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// A Merkle row.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn tree_row(rows: &Layered, at: Prefix) -> Result<Option<Vec<u8>>, StoreError> {
    rows.get::<Nodes, _>(&(at.depth(), at.bits()), <[u8]>::to_vec)
}

/// Every row at the depth from which the levels above are rebuilt, in order.
///
/// # Errors
/// [`StoreError`] when the engine fails or a row is damaged.
pub fn tree_top_rows(
    rows: &Layered,
    visit: &mut dyn FnMut(Prefix, &[u8]),
) -> Result<(), StoreError> {
    let (first, last) = ((TOP_DEPTH, 0), (TOP_DEPTH, u64::MAX));
    let range = (Bound::Included(first), Bound::Included(last));
    let mut misplaced = false;
    rows.visit::<Nodes>(range, |(depth, bits), row| {
        match Prefix::new(bits, depth) {
            Some(at) => visit(at, row),
            None => misplaced = true,
        }
        ControlFlow::Continue(())
    })?;
    if misplaced {
        return Err(StoreError::damaged("a Merkle row is too deep"));
    }
    Ok(())
}

/// The leaves below a prefix in order of key, at most `limit`.
///
/// # Errors
/// [`StoreError`] when the engine fails or a row is damaged.
pub fn tree_leaves(rows: &Layered, within: Prefix, limit: usize) -> Result<Vec<Leaf>, StoreError> {
    let (first, last) = within.key_range();
    let range = (Bound::Included(first.0), Bound::Included(last.0));
    rows.collect::<Records, _>(range, limit, |key, row| leaf_of_row(StateKey(*key), row))
}
