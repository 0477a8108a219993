//! What a side must offer so that it can be compared with another.

use std::ops::Range;

use thiserror::Error;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::sketch::cell::Cell;
use crate::sketch::estimator::Estimator;
use crate::sketch::key::SketchKey;
use crate::sketch::table::Sketch;
use crate::types::leaf::Leaf;

/// The storage under a view failed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("the states to compare could not be read: {0}")]
pub struct ViewError(pub String);

/// A set of leaves that stays as it is for as long as the view lives.
pub trait SetView {
    /// The whole tree.
    ///
    /// # Errors
    /// [`ViewError`] when the storage fails; so for every other method.
    fn root(&self) -> Result<Summary, ViewError>;

    /// The `2^levels` subtrees that are `levels` (at most [`crate::merkle::view::CHILD_LEVELS_MAX`]) bits below a prefix, left to right.
    ///
    /// # Errors
    /// See [`SetView::root`].
    fn children(&self, at: Prefix, levels: u8) -> Result<Vec<Summary>, ViewError>;

    /// The first leaves below a prefix, at most `limit`, sorted by key.
    ///
    /// # Errors
    /// See [`SetView::root`].
    fn leaves(&self, within: Prefix, limit: usize) -> Result<Vec<Leaf>, ViewError>;

    /// The first changes behind a feed position, at most `limit`, in the feed's order: each state
    /// once, with the position of its last change and its leaf as it is now.
    ///
    /// # Errors
    /// See [`SetView::root`].
    fn changes_after(&self, seq: u64, limit: usize) -> Result<Vec<(u64, Leaf)>, ViewError>;

    /// The sketch of exactly these leaves, when there is one.
    fn sketch(&self) -> Option<&dyn SketchView> {
        None
    }
}

/// A sketch that may be kept up to date elsewhere and taken back to what a view shows. `None` says
/// that it went on too far for that.
pub trait SketchView {
    /// What places are hashed with.
    fn key(&self) -> &SketchKey;

    /// There are `2^levels` partitions.
    fn levels(&self) -> u8;

    /// See [`Sketch::estimator`].
    fn estimator(&self) -> Option<Estimator>;

    /// See [`Sketch::fold`].
    fn fold(&self, levels: u8, slots: &[u32], range: &Range<usize>) -> Option<Vec<Cell>>;
}

impl SketchView for Sketch {
    fn key(&self) -> &SketchKey {
        self.key()
    }

    fn levels(&self) -> u8 {
        self.levels()
    }

    fn estimator(&self) -> Option<Estimator> {
        Some(self.estimator().clone())
    }

    fn fold(&self, levels: u8, slots: &[u32], range: &Range<usize>) -> Option<Vec<Cell>> {
        self.fold(levels, slots, range)
    }
}
