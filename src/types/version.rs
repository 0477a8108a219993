//! One write of a state: who wrote it having seen what (version vector), when (hybrid logical
//! clock), and which bytes.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::hash::ContentHash;
use crate::types::id::{ReplicaId, WriterId};

/// Most writers that one state may have. Bounds the size of a record from outside.
pub const VECTOR_ENTRIES_MAX: usize = 256;
/// Longest content type, in bytes.
pub const CONTENT_TYPE_MAX: usize = 255;

/// How two version vectors relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Causality {
    /// Both saw the same writes.
    Equal,
    /// The left one saw everything the right one saw, and more.
    After,
    /// The right one saw everything the left one saw, and more.
    Before,
    /// Neither saw the other: a conflict.
    Concurrent,
}

/// A version that no honest replica makes.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum BadVersion {
    /// A write by nobody.
    #[error("a version vector needs at least one entry")]
    EmptyVector,
    /// More than [`VECTOR_ENTRIES_MAX`] entries.
    #[error("a version vector may have at most {VECTOR_ENTRIES_MAX} entries, this one has {0}")]
    LongVector(usize),
    /// Counters start at 1.
    #[error("a version vector may not hold a zero counter")]
    ZeroCounter,
    /// Not printable ASCII or too long.
    #[error("a content type has 1 to {CONTENT_TYPE_MAX} characters of printable ASCII")]
    ContentType,
    /// Zero stands for "never" in the digest.
    #[error("an expiry may not be zero")]
    ZeroExpiry,
    /// A tombstone that claims to have bytes.
    #[error("a tombstone has neither bytes nor a content type")]
    TombstoneWithContent,
}

/// Which writes a version has seen: the highest counter of each writer of the state.
///
/// A writer's counter is its change-feed position at the write, so it grows for ever, even when a
/// deleted state is created anew. See Parker et al., "Detection of Mutual Inconsistency in
/// Distributed Systems" (1983).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct VersionVector(BTreeMap<WriterId, u64>);

impl VersionVector {
    /// The counter of a writer, 0 when it never wrote.
    pub fn get(&self, writer: WriterId) -> u64 {
        self.0.get(&writer).copied().unwrap_or(0)
    }

    /// Records that `writer` wrote with `counter`.
    pub fn set(&mut self, writer: WriterId, counter: u64) {
        self.0.insert(writer, counter);
    }

    /// Takes back what was recorded of `writer`.
    pub fn remove(&mut self, writer: WriterId) {
        self.0.remove(&writer);
    }

    /// Afterwards this vector has seen whatever either has seen.
    pub fn join(&mut self, other: &Self) {
        for (writer, counter) in &other.0 {
            let mine = self.0.entry(*writer).or_insert(0);
            *mine = (*mine).max(*counter);
        }
    }

    /// Entries in order of writer.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (WriterId, u64)> + '_ {
        self.0.iter().map(|(writer, counter)| (*writer, *counter))
    }

    /// How this vector relates to another one.
    pub fn compare(&self, other: &Self) -> Causality {
        let (mut ahead, mut behind) = (false, false);
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        // Both are sorted by writer, so one walk meets every writer of either.
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((mine, _)), Some((theirs, _))) => mine.cmp(theirs),
            };
            let mine = left
                .next_if(|_| order.is_le())
                .map_or(0, |(_, counter)| *counter);
            let theirs = right
                .next_if(|_| order.is_ge())
                .map_or(0, |(_, counter)| *counter);
            ahead |= mine > theirs;
            behind |= mine < theirs;
        }
        match (ahead, behind) {
            (false, false) => Causality::Equal,
            (true, false) => Causality::After,
            (false, true) => Causality::Before,
            (true, true) => Causality::Concurrent,
        }
    }
}

/// Hybrid logical clock stamp (Kulkarni et al., "Logical Physical Clocks", 2014): close to wall
/// time, never going back, and unique through the replica id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since 1970-01-01 UTC.
    pub millis: u64,
    /// Orders writes within one millisecond.
    pub logical: u32,
    /// Who stamped it.
    pub replica: ReplicaId,
}

/// One write of a state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// What this write had seen, itself included.
    pub vector: VersionVector,
    /// When it was made.
    pub stamp: Stamp,
    /// SHA-256 of the bytes; [`ContentHash::NONE`] for a tombstone.
    pub content: ContentHash,
    /// Length of the bytes.
    pub size: u64,
    /// Media type as given by the writer.
    pub content_type: Option<String>,
    /// When the state ceases to be, in milliseconds since 1970-01-01 UTC.
    pub expires_at: Option<u64>,
    /// True when this write deleted the state.
    pub tombstone: bool,
    /// Fencing epoch of the lease the writer held; 0 when leases are not used.
    pub lease_epoch: u64,
}

impl Version {
    /// Total order in which versions of one state are shown: the greatest is the current one.
    ///
    /// Every field takes part, so that the order is the same on every replica whatever versions
    /// arrive in.
    pub fn precedence(&self, other: &Self) -> Ordering {
        (self.lease_epoch, self.stamp, self.tombstone, self.content)
            .cmp(&(
                other.lease_epoch,
                other.stamp,
                other.tombstone,
                other.content,
            ))
            .then_with(|| self.vector.cmp(&other.vector))
            .then_with(|| self.size.cmp(&other.size))
            .then_with(|| self.content_type.cmp(&other.content_type))
            .then_with(|| self.expires_at.cmp(&other.expires_at))
    }

    /// True when the version has nothing to show at a moment, in milliseconds since 1970-01-01 UTC:
    /// it is a deletion, or its time is over.
    pub fn is_dead(&self, now: u64) -> bool {
        self.tombstone || self.has_expired(now)
    }

    /// True when the version had a time to live and that is over.
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// True when a reader could not tell the two apart: same bytes, type, expiry and deletion.
    /// Replicas that write the same thing independently are not in conflict.
    pub fn same_content(&self, other: &Self) -> bool {
        self.tombstone == other.tombstone
            && self.content == other.content
            && self.content_type == other.content_type
            && self.expires_at == other.expires_at
    }

    /// Checks what a version from outside must hold.
    ///
    /// # Errors
    /// [`BadVersion`] naming the rule it breaks.
    pub fn check(&self) -> Result<(), BadVersion> {
        if self.vector.0.is_empty() {
            return Err(BadVersion::EmptyVector);
        }
        if self.vector.0.len() > VECTOR_ENTRIES_MAX {
            return Err(BadVersion::LongVector(self.vector.0.len()));
        }
        if self.vector.entries().any(|(_, counter)| counter == 0) {
            return Err(BadVersion::ZeroCounter);
        }
        if let Some(text) = &self.content_type {
            check_content_type(text)?;
        }
        if self.expires_at == Some(0) {
            return Err(BadVersion::ZeroExpiry);
        }
        let has_content = self.size > 0 || self.content != ContentHash::NONE;
        if self.tombstone && (has_content || self.content_type.is_some()) {
            return Err(BadVersion::TombstoneWithContent);
        }
        Ok(())
    }
}

/// Checks a media type before it is stored.
///
/// # Errors
/// [`BadVersion::ContentType`] when it is empty, too long or not printable ASCII.
pub fn check_content_type(text: &str) -> Result<(), BadVersion> {
    let fits = (1..=CONTENT_TYPE_MAX).contains(&text.len());
    if fits && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        Ok(())
    } else {
        Err(BadVersion::ContentType)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(entries: &[(u64, u64)]) -> VersionVector {
        let mut vector = VersionVector::default();
        for (writer, counter) in entries {
            vector.set(WriterId(*writer), *counter);
        }
        vector
    }

    #[test]
    fn vectors_compare_as_sets_of_seen_writes() {
        let cases = [
            (vec![(1, 1)], vec![(1, 1)], Causality::Equal),
            (vec![(1, 2)], vec![(1, 1)], Causality::After),
            (vec![(1, 1)], vec![(1, 1), (2, 1)], Causality::Before),
            (vec![(1, 2)], vec![(1, 1), (2, 1)], Causality::Concurrent),
            (vec![(2, 1)], vec![(1, 1)], Causality::Concurrent),
            (vec![], vec![(1, 1)], Causality::Before),
        ];
        for (left, right, expected) in cases {
            assert_eq!(vector(&left).compare(&vector(&right)), expected);
        }
    }

    proptest! {
        #[test]
        fn a_vector_is_after_another_when_joining_it_changes_nothing(
            left in prop::collection::vec((0u64..6, 0u64..3), 0..6),
            right in prop::collection::vec((0u64..6, 0u64..3), 0..6),
        ) {
            let (left, right) = (vector(&left), vector(&right));
            // A counter of zero says as much as none.
            let seen = |vector: &VersionVector| -> Vec<u64> {
                (0..6).map(|writer| vector.get(WriterId(writer))).collect()
            };
            let mut both = left.clone();
            both.join(&right);
            let expected = match (seen(&both) == seen(&left), seen(&both) == seen(&right)) {
                (true, true) => Causality::Equal,
                (true, false) => Causality::After,
                (false, true) => Causality::Before,
                (false, false) => Causality::Concurrent,
            };
            prop_assert_eq!(left.compare(&right), expected);
        }
    }
}
