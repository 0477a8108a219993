//! A log of roots gone through from its first entry, with nothing kept of it but its peaks.

use crate::roots::entry::parent;
use crate::roots::mountains::Named;
use crate::types::hash::LogHash;

/// The peaks over the entries so far: at most one of each height, so never more than 64.
#[derive(Debug, Clone, Default)]
pub struct Peaks {
    size: u64,
    /// Highest first.
    peaks: Vec<(u8, LogHash)>,
}

impl Peaks {
    /// Entries so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next entry's leaf, and returns the nodes that it completes, lowest first.
    pub fn push(&mut self, leaf: LogHash) -> Vec<Named> {
        let (mut height, mut hash) = (0, leaf);
        let mut completed = Vec::new();
        while let Some((_, left)) = self.peaks.pop_if(|(peak, _)| *peak == height) {
            hash = parent(&left, &hash);
            height += 1;
            completed.push(Named {
                height,
                place: self.size >> height,
                hash,
            });
        }
        self.peaks.push((height, hash));
        self.size += 1;
        completed
    }

    /// The hash over the entries so far; `None` before the first.
    pub fn hash(&self) -> Option<LogHash> {
        let from_the_right = self.peaks.iter().rev().map(|(_, hash)| *hash);
        from_the_right.reduce(|right, left| parent(&left, &right))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;
    use crate::roots::mountains::{Nodes, nodes_above, root};

    #[derive(Default)]
    struct Kept(BTreeMap<(u8, u64), LogHash>);

    impl Nodes for Kept {
        type Error = Infallible;

        fn node(&self, height: u8, place: u64) -> Result<LogHash, Infallible> {
            Ok(self.0[&(height, place)])
        }
    }

    #[test]
    fn going_through_a_log_gives_the_nodes_and_hashes_that_it_keeps() {
        let (mut kept, mut peaks) = (Kept::default(), Peaks::default());
        assert_eq!((peaks.size(), peaks.hash()), (0, None));
        for place in 0..130u64 {
            let leaf = LogHash([place as u8; 32]);
            let Ok(above) = nodes_above(&kept, place, leaf);
            assert_eq!(peaks.push(leaf), above);
            kept.0.insert((0, place), leaf);
            kept.0
                .extend(above.iter().map(|n| ((n.height, n.place), n.hash)));
            assert_eq!(peaks.size(), place + 1);
            assert_eq!(Ok(peaks.hash()), root(&kept, place + 1));
            assert!(peaks.peaks.len() <= 8);
        }
    }
}
