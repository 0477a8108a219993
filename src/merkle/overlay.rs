//! What the root would be with some leaves replaced or removed, writing nothing. This is how a
//! session proves that the records a peer sent add up to the root that it announced.

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::storage::{TreeError, TreeStorage, TreeStorageMut};
use crate::merkle::top::Top;
use crate::merkle::update::{LeafChange, Work, update};
use crate::types::leaf::Leaf;

/// The root as it would be after `changed`, sorted by key and unique, on top of what is stored.
///
/// # Errors
/// As [`update`].
pub fn root_with<S: TreeStorage>(
    top: &Top,
    storage: &S,
    changed: &[LeafChange],
) -> Result<Summary, TreeError<S::Error>> {
    let mut overlay = Overlay { storage, changed };
    update(
        &mut top.clone(),
        &mut overlay,
        changed,
        &mut Work::default(),
    )
}

/// A storage seen through changes. Rows written are dropped: one update reads each row before it
/// writes it and never again.
struct Overlay<'a, S> {
    storage: &'a S,
    changed: &'a [LeafChange],
}

impl<S: TreeStorage> TreeStorage for Overlay<'_, S> {
    type Error = S::Error;

    fn row(&self, at: Prefix) -> Result<Option<Vec<u8>>, S::Error> {
        self.storage.row(at)
    }

    fn top_rows(&self, visit: &mut dyn FnMut(Prefix, &[u8])) -> Result<(), S::Error> {
        self.storage.top_rows(visit)
    }

    fn leaves(&self, within: Prefix) -> Result<Vec<Leaf>, S::Error> {
        let (first, last) = within.key_range();
        let from = self.changed.partition_point(|change| change.key < first);
        let to = self.changed.partition_point(|change| change.key <= last);
        let changed = self.changed.get(from..to).unwrap_or_default();
        Ok(merge(self.storage.leaves(within)?, changed))
    }
}

impl<S: TreeStorage> TreeStorageMut for Overlay<'_, S> {
    fn set_row(&mut self, _at: Prefix, _row: &[u8]) -> Result<(), S::Error> {
        Ok(())
    }

    fn remove_row(&mut self, _at: Prefix) -> Result<(), S::Error> {
        Ok(())
    }
}

fn merge(stored: Vec<Leaf>, changed: &[LeafChange]) -> Vec<Leaf> {
    let mut merged = Vec::with_capacity(stored.len() + changed.len());
    let mut stored = stored.into_iter().peekable();
    for change in changed {
        while let Some(leaf) = stored.next_if(|leaf| leaf.key < change.key) {
            merged.push(leaf);
        }
        stored.next_if(|leaf| leaf.key == change.key);
        merged.extend(change.leaf);
    }
    merged.extend(stored);
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::memory::{Memory, any_batch, any_leaves, batch_changes};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_root_with_changes_is_that_after_them(
            leaves in any_leaves(300), batch in any_batch()
        ) {
            let mut memory = Memory::default();
            let mut top = memory.rebuild(leaves);
            let before = (memory.clone(), top.clone());
            let changed = batch_changes(&batch);
            let predicted = root_with(&top, &memory, &changed).unwrap();
            prop_assert!(before == (memory.clone(), top.clone()), "something was written");
            let actual = memory.apply(&mut top, &changed, &mut Work::default());
            prop_assert_eq!(predicted, actual);
        }
    }
}
