//! Taking another name for writes, once it turns out that a copy of the file writes under the
//! same one: which states are written again, and what they become.
//!
//! Writes behind the place where the two parted count under a name that means other writes
//! elsewhere. Each of them gets a version under the new name that claims to have seen the old one
//! up to that place only, which is the truth. So it is superseded by nothing that did not see it,
//! and supersedes nothing that it did not see.

use std::fmt;

use crate::replica::command::Mutation;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::{Identity, RecordRow};
use crate::types::cursor::Epoch;
use crate::types::id::{ReplicaId, WriterId};
use crate::types::lineage::{Opening, Parting, Provenance, Sighting};
use crate::types::record::StateRecord;
use crate::types::version::Version;

/// States that one commit writes again.
const TOGETHER: usize = 1024;

/// Why a namespace should take another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A peer has seen this under the name of this one.
    Seen(Sighting),
    /// A record counts writes under our name that were not made here.
    ForeignHistory,
}

impl fmt::Display for Evidence {
    /// In a few words, however much there is of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen(seen) => {
                let (epoch, seq, openings) = (seen.epoch, seen.seq, seen.openings.len());
                write!(
                    f,
                    "epoch {epoch} was seen up to {seq}, with {openings} openings"
                )
            }
            Self::ForeignHistory => f.write_str("a record counts writes that were not made here"),
        }
    }
}

impl Evidence {
    /// Where the file of this lineage, whose feed is at `seq`, parted from a copy of it. `None` when the
    /// evidence shows nothing of the kind, or what it shows has been seen to.
    pub fn parting(&self, provenance: &Provenance, seq: u64) -> Option<Parting> {
        match self {
            Self::Seen(seen) => provenance.lineage.parting(seq, seen),
            Self::ForeignHistory => provenance.lineage.earliest_parting(),
        }
    }
}

/// What a namespace is after a parting: under a new epoch, if the parting is one of its own.
pub fn part(
    (identity, provenance): (&Identity, &Provenance),
    parting: Parting,
    fresh: Epoch,
) -> (Identity, Provenance) {
    let (mut identity, mut provenance) = (*identity, provenance.clone());
    if parting.epoch == identity.epoch {
        identity.epoch = fresh;
        provenance.lineage.begin(Opening {
            id: fresh.0,
            epoch: fresh,
            first: parting.at,
        });
    }
    provenance.lineage.part(parting);
    provenance.pending = Some(parting);
    (identity, provenance)
}

/// What a namespace is under another replica id.
pub fn rename(
    (identity, provenance): (&Identity, &Provenance),
    replica: ReplicaId,
) -> (Identity, Provenance) {
    let (mut identity, mut provenance) = (*identity, provenance.clone());
    provenance.give_up_name(identity.replica);
    identity.replica = replica;
    (identity, provenance)
}

/// A walk over the states that changed behind a parting.
#[derive(Debug, Clone, Copy)]
pub struct Rewriting {
    parting: Parting,
    at: u64,
    /// Where the feed ended when the walk began; what is written again stands behind.
    end: u64,
}

impl Rewriting {
    /// A walk behind `parting`, over a feed that ends at `end`.
    pub fn begin(parting: Parting, end: u64) -> Self {
        Self {
            parting,
            at: parting.at,
            end,
        }
    }

    /// The next states to be written again; none at the end of the walk.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn next(&mut self, view: &View) -> Result<Vec<Mutation>, StoreError> {
        let mut mutations = Vec::new();
        while mutations.is_empty() && self.at < self.end {
            let changes = view.snapshot().changes_after(self.at, TOGETHER)?;
            self.at = changes.last().map_or(self.end, |(seq, _)| *seq);
            for (_, key) in changes.into_iter().filter(|(seq, _)| *seq <= self.end) {
                let row = match view.snapshot().record(&key) {
                    // Nothing can be said of it, and nobody is sent it.
                    Err(StoreError::Damaged(_)) | Ok(None) => continue,
                    row => row?,
                };
                let seq = view.head().seq + mutations.len() as u64 + 1;
                let record = match &row {
                    Some(row) => self.renamed(view, row, seq)?,
                    None => None,
                };
                let change = |record| Mutation::new(key, seq, record, Vec::new());
                mutations.extend(record.map(change));
            }
        }
        Ok(mutations)
    }

    /// The record with the version that was made here behind the parting under another name;
    /// `None` when there is none.
    ///
    /// A write made here has seen all that was held, so it counts most under our own names. Others
    /// may have a replica id like ours in their stamps: they are left to who made them. (Two with
    /// equal counts stay as they are to each other.)
    fn renamed(
        &self,
        view: &View,
        row: &RecordRow,
        seq: u64,
    ) -> Result<Option<StateRecord>, StoreError> {
        let old = WriterId(self.parting.epoch.0);
        let new = view.identity().writer();
        let counts = |version: &Version| (version.vector.get(new), version.vector.get(old));
        let most = row.record.versions().iter().map(counts).max();
        let made_here = |version: &Version| {
            let stamped = version.stamp.replica;
            let ours =
                stamped == view.identity().replica || view.provenance().names.contains(&stamped);
            ours && version.vector.get(old) > self.parting.at && Some(counts(version)) == most
        };
        if !row.record.versions().iter().any(made_here) {
            return Ok(None);
        }
        let seen_of_old = self.seen_before(view, row)?;
        let versions = row.record.versions().iter().map(|version| {
            let mut renamed = version.clone();
            if made_here(version) {
                renamed.vector.remove(old);
                if seen_of_old > 0 {
                    renamed.vector.set(old, seen_of_old);
                }
                let counter = seq.max(renamed.vector.get(new).saturating_add(1));
                renamed.vector.set(new, counter);
            }
            renamed
        });
        let record = StateRecord::from_versions(row.record.id.clone(), versions.collect());
        // One with more writers than a version may name stays as it is.
        let record = record.map(|(record, _)| record);
        Ok(record.filter(|record| record.check().is_ok()))
    }

    /// How far versions made here behind the parting had seen what was written under the old name
    /// before: up to the last such write of the state that is known, and up to the parting at most.
    fn seen_before(&self, view: &View, row: &RecordRow) -> Result<u64, StoreError> {
        let old = WriterId(self.parting.epoch.0);
        let history = view.snapshot().history(&row.leaf.key)?;
        let before = history.iter().map(|placed| placed.version.vector.get(old));
        let known = before.filter(|counter| (1..=self.parting.at).contains(counter));
        Ok(known.max().unwrap_or(self.parting.at))
    }
}
