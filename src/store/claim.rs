//! Who opens a namespace's file, and what is known of it beforehand.

use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;
use crate::types::lineage::Lineage;

/// Who opens a namespace's file, and what is known of it beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The replica that it belongs to from now on.
    pub replica: ReplicaId,
    /// Ids that this replica had before: a file of one of them is taken over.
    pub names: Vec<ReplicaId>,
    /// A random epoch: that of a new file, or of one that turns out to be a copy. It also names
    /// the opening.
    pub fresh: Epoch,
    /// What is known.
    pub known: Known,
}

/// What is known of a file before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing to compare it with: it is taken as it is.
    Unasked,
    /// It has had this opening; one that has not is an older copy.
    Opening(u64),
    /// It is a copy.
    Copy,
}

impl Claim {
    /// A claim by a replica that has always had this id, on a file that is taken as it is.
    pub fn plain(replica: ReplicaId, fresh: Epoch) -> Self {
        Self {
            replica,
            names: Vec::new(),
            fresh,
            known: Known::Unasked,
        }
    }

    /// True when a file that says it is `owner`'s is ours.
    pub fn covers(&self, owner: ReplicaId) -> bool {
        self.replica == owner || self.names.contains(&owner)
    }

    /// True when a file with this lineage has to begin a new life of its feed.
    pub fn renews(&self, lineage: &Lineage) -> bool {
        match self.known {
            Known::Unasked => false,
            Known::Opening(id) => !lineage.contains(id),
            Known::Copy => true,
        }
    }
}
