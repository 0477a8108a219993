//! Verification of what a log of roots proves, without any of its storage. RFC 9162 sections
//! 2.1.3.2 and 2.1.4.2.

use crate::roots::entry::{RootEntry, parent};
use crate::types::hash::LogHash;

/// Most hashes in a proof; one in a log of 2^63 entries has as many.
pub const PROOF_HASHES_MAX: usize = 128;

/// True when `path` proves that `entry` is at `place` among the `size` entries under `root`.
pub fn is_included(
    entry: &RootEntry,
    place: u64,
    size: u64,
    path: &[LogHash],
    root: &LogHash,
) -> bool {
    if place >= size || path.len() > PROOF_HASHES_MAX {
        return false;
    }
    let (mut at, mut last, mut hash) = (place, size - 1, entry.leaf());
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            hash = parent(sibling, &hash);
            while at.is_multiple_of(2) && at != 0 {
                (at, last) = (at / 2, last / 2);
            }
        } else {
            hash = parent(&hash, sibling);
        }
        (at, last) = (at / 2, last / 2);
    }
    last == 0 && hash.matches(root)
}

/// True when `proof` proves that the `old_size` entries under `old_root` are the first of the
/// `size` entries under `root`.
pub fn is_consistent(
    (old_size, old_root): (u64, &LogHash),
    (size, root): (u64, &LogHash),
    proof: &[LogHash],
) -> bool {
    if old_size == 0 || old_size > size || proof.len() > PROOF_HASHES_MAX {
        return false;
    }
    if old_size == size {
        return proof.is_empty() && old_root.matches(root);
    }
    let (mut at, mut last) = (old_size - 1, size - 1);
    while at % 2 == 1 {
        (at, last) = (at / 2, last / 2);
    }
    let mut rest = proof.iter();
    let begin = if old_size.is_power_of_two() {
        Some(old_root)
    } else {
        rest.next()
    };
    let Some(begin) = begin else {
        return false;
    };
    let (mut old_hash, mut hash) = (*begin, *begin);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            old_hash = parent(sibling, &old_hash);
            hash = parent(sibling, &hash);
            while at.is_multiple_of(2) && at != 0 {
                (at, last) = (at / 2, last / 2);
            }
        } else {
            hash = parent(&hash, sibling);
        }
        (at, last) = (at / 2, last / 2);
    }
    last == 0 && old_hash.matches(old_root) & hash.matches(root)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::roots::mountains::{Nodes, consistency, inclusion, nodes_above, root};
    use crate::types::cursor::Epoch;
    use crate::types::hash::NodeHash;

    /// The definition in RFC 9162 section 2.1.1, as it stands there.
    fn naive_root(leaves: &[LogHash]) -> LogHash {
        match leaves {
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(split);
                parent(&naive_root(left), &naive_root(right))
            }
        }
    }

    /// PATH(m, D_n) of section 2.1.3.1.
    fn naive_path(place: usize, leaves: &[LogHash]) -> Vec<LogHash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(split);
        let (mut path, beside) = if place < split {
            (naive_path(place, left), naive_root(right))
        } else {
            (naive_path(place - split, right), naive_root(left))
        };
        path.push(beside);
        path
    }

    /// SUBPROOF(m, D_n, b) of section 2.1.4.1.
    fn naive_proof(old: usize, leaves: &[LogHash], is_whole: bool) -> Vec<LogHash> {
        if old == leaves.len() {
            return if is_whole {
                vec![]
            } else {
                vec![naive_root(leaves)]
            };
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(split);
        let (mut proof, beside) = if old <= split {
            (naive_proof(old, left, is_whole), naive_root(right))
        } else {
            (naive_proof(old - split, right, false), naive_root(left))
        };
        proof.push(beside);
        proof
    }

    #[derive(Default)]
    struct Kept(std::collections::BTreeMap<(u8, u64), LogHash>);

    impl Nodes for Kept {
        type Error = Infallible;

        fn node(&self, height: u8, place: u64) -> Result<LogHash, Infallible> {
            Ok(self.0[&(height, place)])
        }
    }

    fn entry(number: u64) -> RootEntry {
        RootEntry {
            root: NodeHash([number as u8; 32]),
            seq: number * 3,
            epoch: Epoch(9),
            incarnation: 1,
            time: 1_700_000_000_000 + number,
        }
    }

    fn log(size: u64) -> (Kept, Vec<LogHash>) {
        let (mut kept, mut leaves) = (Kept::default(), Vec::new());
        for number in 0..size {
            let leaf = entry(number).leaf();
            let Ok(above) = nodes_above(&kept, number, leaf);
            kept.0.insert((0, number), leaf);
            for node in above {
                let before = kept.0.insert((node.height, node.place), node.hash);
                assert_eq!(before, None, "nodes never change");
            }
            leaves.push(leaf);
        }
        (kept, leaves)
    }

    #[test]
    fn every_small_log_is_that_of_the_rfc() {
        let (kept, leaves) = log(70);
        assert_eq!(root(&kept, 0), Ok(None));
        for size in 1..=70 {
            let all = &leaves[..size as usize];
            let top = naive_root(all);
            assert_eq!(root(&kept, size), Ok(Some(top)));
            for place in 0..size {
                let Ok(Some(path)) = inclusion(&kept, place, size) else {
                    panic!("{place} of {size}");
                };
                assert_eq!(path, naive_path(place as usize, all));
                assert!(is_included(&entry(place), place, size, &path, &top));
                assert!(!is_included(&entry(place + 1), place, size, &path, &top));
            }
            assert_eq!(inclusion(&kept, size, size), Ok(None));
            for old in 1..=size {
                let Ok(Some(proof)) = consistency(&kept, old, size) else {
                    panic!("{old} of {size}");
                };
                let before = naive_root(&leaves[..old as usize]);
                assert_eq!(proof, naive_proof(old as usize, all, true));
                assert!(is_consistent((old, &before), (size, &top), &proof));
                let other = entry(1000).leaf();
                assert!(!is_consistent((old, &other), (size, &top), &proof));
            }
            assert_eq!(consistency(&kept, 0, size), Ok(None));
            assert_eq!(consistency(&kept, size + 1, size), Ok(None));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_changed_proof_proves_nothing(size in 2u64..300, a in 0u64..300, b in 1u64..300) {
            let (place, old) = (a % size, 1 + b % (size - 1));
            let (kept, leaves) = log(size);
            let top = naive_root(&leaves);
            let before = naive_root(&leaves[..old as usize]);
            let Ok(Some(path)) = inclusion(&kept, place, size) else { panic!() };
            let Ok(Some(proof)) = consistency(&kept, old, size) else { panic!() };
            let includes = |path: &[LogHash]| is_included(&entry(place), place, size, path, &top);
            let goes_on = |proof: &[LogHash]| is_consistent((old, &before), (size, &top), proof);
            prop_assert!(includes(&path) && goes_on(&proof));
            for (hashes, holds) in [(&path, &includes as &dyn Fn(&[LogHash]) -> bool), (&proof, &goes_on)] {
                for at in 0..hashes.len() * 32 {
                    let mut changed = hashes.clone();
                    changed[at / 32].0[at % 32] ^= 1 << (at % 8);
                    prop_assert!(!holds(&changed), "byte {at}");
                }
                for at in 0..hashes.len() {
                    let mut shorter = hashes.clone();
                    let gone = shorter.remove(at);
                    prop_assert!(!holds(&shorter), "without {at}");
                    let mut longer = hashes.clone();
                    longer.insert(at, gone);
                    prop_assert!(!holds(&longer), "{at} twice");
                }
                let longer = [&hashes[..], &[top]].concat();
                prop_assert!(!holds(&longer));
            }
            // Another entry, place or root under the same proof.
            let bytes = entry(place).to_bytes();
            for at in 0..bytes.len() {
                let mut changed = bytes;
                changed[at] ^= 1;
                let changed = RootEntry::from_bytes(&changed).unwrap();
                prop_assert!(!is_included(&changed, place, size, &path, &top));
            }
            for other in (0..size).filter(|other| *other != place) {
                prop_assert!(!is_included(&entry(place), other, size, &path, &top));
            }
            for at in 0..32 {
                let (mut one, mut other) = (top, before);
                one.0[at] ^= 1;
                other.0[at] ^= 1;
                prop_assert!(!is_included(&entry(place), place, size, &path, &one));
                prop_assert!(!is_consistent((old, &before), (size, &one), &proof));
                prop_assert!(!is_consistent((old, &other), (size, &top), &proof));
            }
        }

        #[test]
        fn a_log_that_was_edited_is_not_the_one_of_before(size in 2u64..200, a in 0u64..200, b in 1u64..200) {
            let (old, edited) = (1 + b % (size - 1), a % size);
            let (kept, leaves) = log(size);
            let before = naive_root(&leaves[..old as usize]);
            prop_assert!(root(&kept, size).is_ok());
            // The same entries but for one, in a log made of them.
            let mut other = Kept::default();
            for number in 0..size {
                let number_there = if number == edited { number + 1000 } else { number };
                let leaf = entry(number_there).leaf();
                let Ok(above) = nodes_above(&other, number, leaf);
                other.0.insert((0, number), leaf);
                other.0.extend(above.iter().map(|n| ((n.height, n.place), n.hash)));
            }
            let Ok(Some(proof)) = consistency(&other, old, size) else { panic!() };
            let Ok(Some(top)) = root(&other, size) else { panic!() };
            prop_assert_eq!(is_consistent((old, &before), (size, &top), &proof), edited >= old);
        }
    }

    #[test]
    fn proofs_of_absurd_sizes_are_refused() {
        let hash = LogHash([1; 32]);
        let many = vec![hash; PROOF_HASHES_MAX + 1];
        assert!(!is_included(
            &entry(1),
            u64::MAX - 1,
            u64::MAX,
            &many,
            &hash
        ));
        assert!(!is_included(&entry(1), 0, 0, &[], &hash));
        assert!(!is_consistent((1, &hash), (u64::MAX, &hash), &many));
        assert!(!is_consistent(
            (u64::MAX, &hash),
            (u64::MAX - 1, &hash),
            &[]
        ));
        assert!(!is_consistent((0, &hash), (0, &hash), &[]));
    }
}
