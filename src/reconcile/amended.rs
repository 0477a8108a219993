//! A set as it will be once what was found so far is taken over: what the next strategy compares,
//! so that it looks for the rest alone.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::trie::summary_at;
use crate::merkle::update::LeafChange;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::strategy::Difference;
use crate::reconcile::view::{SetView, SketchView, ViewError};
use crate::sketch::cell::Cell;
use crate::sketch::estimator::Estimator;
use crate::sketch::key::SketchKey;
use crate::sketch::table::{Change, apply_to_fold};
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// Subtrees with more leaves are taken apart instead of being read.
const READ_LEAVES: u64 = 512;
/// Levels by which they are.
const LEVELS: u8 = 4;

/// What taking over the peer's leaves does: they come in place of all that we have below the prefixes
/// of a difference, and what was found to be absent there goes. Sorted by key.
///
/// # Errors
/// [`ReconcileError`] when the view fails, or the difference has prefixes that cannot be.
pub fn changes(
    view: &dyn SetView,
    difference: &Difference,
    theirs: impl IntoIterator<Item = Leaf>,
) -> Result<Vec<LeafChange>, ReconcileError> {
    let mut changes: BTreeMap<StateKey, Option<Leaf>> = BTreeMap::new();
    changes.extend(difference.absent.iter().map(|key| (*key, None)));
    for bits in &difference.differing {
        let at = Prefix::new(*bits, difference.depth);
        let at = at.ok_or(ReconcileError::Inconsistent("a prefix is too deep"))?;
        let ours = view.leaves(at, usize::MAX)?;
        changes.extend(ours.into_iter().map(|leaf| (leaf.key, None)));
    }
    changes.extend(theirs.into_iter().map(|leaf| (leaf.key, Some(leaf))));
    let changes = changes.into_iter();
    Ok(changes
        .map(|(key, leaf)| LeafChange { key, leaf })
        .collect())
}

/// Changes and later ones, which count.
pub fn join(changes: Vec<LeafChange>, later: Vec<LeafChange>) -> Vec<LeafChange> {
    let all = changes.into_iter().chain(later);
    let joined: BTreeMap<StateKey, Option<Leaf>> =
        all.map(|change| (change.key, change.leaf)).collect();
    let joined = joined.into_iter();
    joined.map(|(key, leaf)| LeafChange { key, leaf }).collect()
}

/// A view seen through changes.
pub struct Amended<'v> {
    view: &'v dyn SetView,
    changes: &'v [LeafChange],
    sketch: Option<AmendedSketch<'v>>,
}

/// A sketch seen through the same changes.
struct AmendedSketch<'v> {
    sketch: &'v dyn SketchView,
    moved: Vec<Change>,
}

impl<'v> Amended<'v> {
    /// `changes` are sorted by key, no key comes twice.
    ///
    /// # Errors
    /// [`ViewError`] when the view fails.
    pub fn new(view: &'v dyn SetView, changes: &'v [LeafChange]) -> Result<Self, ViewError> {
        let Some(sketch) = view.sketch() else {
            let sketch = None;
            return Ok(Self {
                view,
                changes,
                sketch,
            });
        };
        let mut moved = Vec::with_capacity(changes.len());
        for change in changes {
            let at = Prefix::of(&change.key, Prefix::DEPTH_MAX);
            let there = view.leaves(at, usize::MAX)?;
            let before = there.iter().find(|leaf| leaf.key == change.key);
            let digests = (
                before.map(|leaf| &leaf.digest),
                change.leaf.as_ref().map(|leaf| &leaf.digest),
            );
            moved.push(Change::of(sketch.key(), &change.key, digests.0, digests.1));
        }
        let sketch = Some(AmendedSketch { sketch, moved });
        Ok(Self {
            view,
            changes,
            sketch,
        })
    }

    fn changes_below(&self, at: Prefix) -> &'v [LeafChange] {
        let (first, last) = at.key_range();
        let from = self.changes.partition_point(|change| change.key < first);
        let to = self.changes.partition_point(|change| change.key <= last);
        self.changes.get(from..to).unwrap_or_default()
    }

    /// The summary of a subtree that has `plain` without the changes.
    fn amend(&self, at: Prefix, plain: Summary) -> Result<Summary, ViewError> {
        if self.changes_below(at).is_empty() {
            return Ok(plain);
        }
        if plain.leaves <= READ_LEAVES || at.depth() + LEVELS > Prefix::DEPTH_MAX {
            let leaves = self.leaves(at, usize::MAX)?;
            return Ok(summary_at(&leaves, at.depth()));
        }
        let mut level = self.children(at, LEVELS)?;
        for depth in (at.depth()..at.depth() + LEVELS).rev() {
            let pairs = level.chunks_exact(2);
            level = pairs
                .map(|pair| Summary::of_children(depth, &pair[0], &pair[1]))
                .collect();
        }
        let whole = level.first().copied();
        whole.ok_or_else(|| ViewError("a subtree without parts".to_owned()))
    }
}

impl SetView for Amended<'_> {
    fn root(&self) -> Result<Summary, ViewError> {
        self.amend(Prefix::ROOT, self.view.root()?)
    }

    fn children(&self, at: Prefix, levels: u8) -> Result<Vec<Summary>, ViewError> {
        let plain = self.view.children(at, levels)?;
        let children = (0..).zip(plain);
        children
            .map(|(slot, plain)| match at.child(slot, levels) {
                Some(child) => self.amend(child, plain),
                None => Ok(plain),
            })
            .collect()
    }

    fn leaves(&self, within: Prefix, limit: usize) -> Result<Vec<Leaf>, ViewError> {
        let changes = self.changes_below(within);
        // As many may be taken away again.
        let plain = self
            .view
            .leaves(within, limit.saturating_add(changes.len()))?;
        let mut merged = Vec::with_capacity(plain.len());
        let mut plain = plain.into_iter().peekable();
        for change in changes {
            while let Some(leaf) = plain.next_if(|leaf| leaf.key < change.key) {
                merged.push(leaf);
            }
            plain.next_if(|leaf| leaf.key == change.key);
            merged.extend(change.leaf);
        }
        merged.extend(plain);
        merged.truncate(limit);
        Ok(merged)
    }

    fn changes_after(&self, seq: u64, limit: usize) -> Result<Vec<(u64, Leaf)>, ViewError> {
        self.view.changes_after(seq, limit)
    }

    fn sketch(&self) -> Option<&dyn SketchView> {
        self.sketch.as_ref().map(|sketch| sketch as &dyn SketchView)
    }
}

impl SketchView for AmendedSketch<'_> {
    fn key(&self) -> &SketchKey {
        self.sketch.key()
    }

    fn levels(&self) -> u8 {
        self.sketch.levels()
    }

    fn estimator(&self) -> Option<Estimator> {
        let mut estimator = self.sketch.estimator()?;
        for change in &self.moved {
            estimator.count(&self.key().spot(change.place), change.steps);
        }
        Some(estimator)
    }

    fn fold(&self, levels: u8, slots: &[u32], range: &Range<usize>) -> Option<Vec<Cell>> {
        let mut cells = self.sketch.fold(levels, slots, range)?;
        for change in &self.moved {
            apply_to_fold(&mut cells, self.key(), change, (levels, slots, range));
        }
        Some(cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::memory::{Random, Set};

    /// What the changes turn the set into.
    fn changed(of: &Set, changes: &[LeafChange]) -> Set {
        let mut leaves: BTreeMap<StateKey, (u64, Leaf)> = BTreeMap::new();
        leaves.extend(of.all().iter().map(|leaf| (leaf.key, (1, *leaf))));
        for change in changes {
            match change.leaf {
                Some(leaf) => leaves.insert(change.key, (2, leaf)),
                None => leaves.remove(&change.key),
            };
        }
        Set::new(leaves)
    }

    fn prefixes(random: &mut Random) -> Vec<Prefix> {
        let some = (1..60).map(|at| Prefix::new(random.number() & (!0 << (64 - at)), at as u8));
        let mut prefixes: Vec<Prefix> = some.flatten().collect();
        prefixes.push(Prefix::ROOT);
        prefixes
    }

    #[test]
    fn it_is_the_set_with_the_changes() {
        for (seed, states, changes) in [(1, 0, 5), (2, 40, 30), (3, 3000, 1), (4, 9000, 700)] {
            let mut random = Random(seed);
            let leaves: Vec<Leaf> = (0..states).map(|_| random.leaf()).collect();
            let set = leaves.iter().map(|leaf| (leaf.key, (1, *leaf)));
            let set = Set::new(set.collect());
            let mut moved = BTreeMap::new();
            for turn in 0..changes {
                // New ones, other versions, removed ones, and some that change nothing.
                let leaf = match leaves.get(random.below(states.max(1))) {
                    Some(held) if turn % 4 != 0 => *held,
                    _ => random.leaf(),
                };
                let after = match turn % 4 {
                    0 | 3 => Some(leaf),
                    1 => Some(random.version_of(leaf.key)),
                    _ => None,
                };
                moved.insert(leaf.key, after);
            }
            let moved = moved.into_iter();
            let moved: Vec<LeafChange> =
                moved.map(|(key, leaf)| LeafChange { key, leaf }).collect();
            let (expected, amended) = (changed(&set, &moved), Amended::new(&set, &moved).unwrap());
            assert_eq!(amended.root(), expected.root(), "seed {seed}");
            for at in prefixes(&mut random) {
                for limit in [0, 1, 7, usize::MAX] {
                    assert_eq!(amended.leaves(at, limit), expected.leaves(at, limit));
                }
                for levels in [1, 4, 8] {
                    if at.depth() + levels <= Prefix::DEPTH_MAX {
                        let there = expected.children(at, levels);
                        assert_eq!(amended.children(at, levels), there, "seed {seed}, {at:?}");
                    }
                }
            }
            let (got, wanted) = (amended.sketch().unwrap(), expected.sketch().unwrap());
            assert_eq!(got.estimator(), wanted.estimator());
            let range = 0..500;
            assert_eq!(got.fold(0, &[0], &range), wanted.fold(0, &[0], &range));
        }
    }
}
