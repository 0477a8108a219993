//! The root of leaves that come one by one in order of key. Holds the leaves below one place at
//! depth 12 in memory, a 4096th of all.

use std::convert::Infallible;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::row::TOP_DEPTH;
use crate::merkle::storage::TreeError;
use crate::merkle::top::Top;
use crate::merkle::trie::summary_at;
use crate::types::leaf::Leaf;

/// Leaves so far.
#[derive(Debug, Default)]
pub struct RootStream {
    slots: Vec<(Prefix, Summary)>,
    slot: Vec<Leaf>,
}

impl RootStream {
    /// Takes the next leaf.
    ///
    /// # Errors
    /// [`TreeError::NotSorted`] when its key is not behind that of the leaf before.
    pub fn push(&mut self, leaf: Leaf) -> Result<(), TreeError<Infallible>> {
        if let Some(last) = self.slot.last() {
            if last.key >= leaf.key {
                return Err(TreeError::NotSorted { key: leaf.key });
            }
            if !Prefix::of(&last.key, TOP_DEPTH).covers(&leaf.key) {
                self.close_slot();
            }
        }
        self.slot.push(leaf);
        Ok(())
    }

    /// The root of all of them.
    pub fn finish(mut self) -> Summary {
        self.close_slot();
        let mut top = Top::default();
        top.set(&self.slots, &mut 0);
        top.root()
    }

    fn close_slot(&mut self) {
        if let Some(last) = self.slot.last() {
            let at = Prefix::of(&last.key, TOP_DEPTH);
            self.slots.push((at, summary_at(&self.slot, TOP_DEPTH)));
            self.slot.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::memory::{any_leaves, leaf, spread_key};
    use crate::merkle::trie::root_of;

    proptest! {
        #[test]
        fn the_root_is_that_of_the_trie(leaves in any_leaves(300)) {
            let mut stream = RootStream::default();
            for leaf in &leaves {
                stream.push(*leaf).unwrap();
            }
            prop_assert_eq!(stream.finish(), root_of(&leaves));
        }
    }

    #[test]
    fn leaves_out_of_order_are_refused() {
        let mut keys = [spread_key(1), spread_key(2)];
        keys.sort();
        let [low, high] = keys;
        let mut stream = RootStream::default();
        stream.push(leaf(high, 1)).unwrap();
        for key in [high, low] {
            let refused = stream.push(leaf(key, 2));
            assert_eq!(refused, Err(TreeError::NotSorted { key }));
        }
    }
}
