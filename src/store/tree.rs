//! Where the Merkle tree finds its rows and leaves, in tables opened for reading or for writing.

use redb::ReadableTable;

use crate::merkle::prefix::Prefix;
use crate::merkle::row::TOP_DEPTH;
use crate::store::error::StoreError;
use crate::store::rows::leaf_of_row;
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// A Merkle row from a table opened for reading or for writing.
///
/// # Errors
/// [`StoreError`] when the engine fails or a row is damaged.
pub fn tree_row(
    nodes: &impl ReadableTable<(u8, u64), &'static [u8]>,
    at: Prefix,
) -> Result<Option<Vec<u8>>, StoreError> {
    let value = nodes.get((at.depth(), at.bits()))?;
    Ok(value.map(|row| row.value().to_vec()))
}

/// Every row at the depth from which the levels above are rebuilt, in order.
///
/// # Errors
/// [`StoreError`] when the engine fails or a row is damaged.
pub fn tree_top_rows(
    nodes: &impl ReadableTable<(u8, u64), &'static [u8]>,
    visit: &mut dyn FnMut(Prefix, &[u8]),
) -> Result<(), StoreError> {
    for entry in nodes.range((TOP_DEPTH, 0)..=(TOP_DEPTH, u64::MAX))? {
        let (at, row) = entry?;
        let (depth, bits) = at.value();
        let at = Prefix::new(bits, depth)
            .ok_or_else(|| StoreError::damaged("a Merkle row is too deep"))?;
        visit(at, row.value());
    }
    Ok(())
}

/// The leaves of a bucket, from a table opened for reading or for writing.
///
/// # Errors
/// [`StoreError`] when the engine fails or a row is damaged.
pub fn tree_leaves(
    records: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    within: Prefix,
) -> Result<Vec<Leaf>, StoreError> {
    let (first, last) = within.key_range();
    records
        .range::<&[u8; 32]>(&first.0..=&last.0)?
        .map(|entry| {
            let (key, row) = entry?;
            leaf_of_row(StateKey(*key.value()), row.value())
        })
        .collect()
}
