//! What a replica has taken in: for each writer how far, without gaps. It is what tells a write
//! that never arrived from one that arrived, was deleted, and has been forgotten since.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::id::WriterId;
use crate::types::version::VersionVector;

/// Most writers that are told apart. Those beyond are not remembered: what they wrote then counts as
/// never seen, and what they deleted is never forgotten.
pub const SEEN_WRITERS_MAX: usize = 1024;

/// How many of them are kept for the names under which a replica writes itself: whatever it is told,
/// it must know its own writes again.
const OWN_WRITERS: usize = 64;

/// More writers than a replica remembers.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("at most {SEEN_WRITERS_MAX} writers are remembered, these are {0}")]
pub struct TooManyWriters(usize);

/// For each writer the counter up to which everything that it wrote in a namespace was taken in:
/// it is held, or superseded by what is held, or was so and has been collected.
///
/// This is the causal context of Almeida, Shoker and Baquero, "Delta State Replicated Data Types"
/// (2018), in its compressed form: whoever holds a state that the other side lacks although its
/// context has it knows that the other side has removed it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<WriterId, u64>")]
pub struct Seen(BTreeMap<WriterId, u64>);

impl TryFrom<BTreeMap<WriterId, u64>> for Seen {
    type Error = TooManyWriters;

    fn try_from(entries: BTreeMap<WriterId, u64>) -> Result<Self, TooManyWriters> {
        if entries.len() > SEEN_WRITERS_MAX {
            return Err(TooManyWriters(entries.len()));
        }
        Ok(Self(entries))
    }
}

impl Seen {
    /// How far a writer's writes were taken in, 0 when none were.
    pub fn get(&self, writer: WriterId) -> u64 {
        self.0.get(&writer).copied().unwrap_or(0)
    }

    /// Takes note that everything that `writer` wrote up to `counter` was taken in. True when that
    /// was not known.
    pub fn raise(&mut self, writer: WriterId, counter: u64) -> bool {
        let is_full = self.0.len() >= SEEN_WRITERS_MAX && !self.0.contains_key(&writer);
        if is_full || self.get(writer) >= counter {
            return false;
        }
        self.0.insert(writer, counter);
        true
    }

    /// Takes note of everything that `other` has seen. True when any of it was not known.
    pub fn join(&mut self, other: &Self) -> bool {
        let mut learned = false;
        for (writer, counter) in &other.0 {
            learned |= self.raise(*writer, *counter);
        }
        learned
    }

    /// Takes note of what others have seen, as far as there is room. Returns what was not known.
    pub fn learn(&mut self, theirs: &Self) -> Self {
        let mut news = Self::default();
        for (writer, counter) in &theirs.0 {
            let has_room = self.0.len() < SEEN_WRITERS_MAX - OWN_WRITERS;
            if (has_room || self.0.contains_key(writer)) && self.raise(*writer, *counter) {
                news.raise(*writer, *counter);
            }
        }
        news
    }

    /// Leaves a writer out.
    pub fn forget(&mut self, writer: WriterId) {
        self.0.remove(&writer);
    }

    /// True when every write that the vector speaks of was taken in.
    pub fn covers(&self, vector: &VersionVector) -> bool {
        let mut entries = vector.entries();
        entries.all(|(writer, counter)| counter <= self.get(writer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::binary::{decode, encode};

    #[test]
    fn what_is_covered_was_seen_of_every_writer() {
        let mut seen = Seen::default();
        assert!(seen.raise(WriterId(1), 5) && seen.raise(WriterId(2), 3));
        assert!(!seen.raise(WriterId(1), 5) && !seen.raise(WriterId(1), 4));
        for (entries, covered) in [
            (vec![(1, 5)], true),
            (vec![(1, 5), (2, 3)], true),
            (vec![(1, 6)], false),
            (vec![(1, 5), (2, 4)], false),
            (vec![(1, 1), (3, 1)], false),
        ] {
            let mut vector = VersionVector::default();
            for (writer, counter) in &entries {
                vector.set(WriterId(*writer), *counter);
            }
            assert_eq!(seen.covers(&vector), covered, "{entries:?}");
        }
        let mut other = Seen::default();
        other.raise(WriterId(2), 1);
        assert!(!seen.clone().join(&other));
        assert!(other.join(&seen));
        assert_eq!(other, seen);
    }

    #[test]
    fn the_number_of_writers_is_bounded() {
        let mut seen = Seen::default();
        for writer in 0..SEEN_WRITERS_MAX as u64 {
            assert!(seen.raise(WriterId(writer), 1));
        }
        assert!(!seen.raise(WriterId(u64::MAX), 1));
        assert!(seen.raise(WriterId(0), 2));
        assert_eq!(decode::<Seen>(&encode(&seen)).unwrap(), seen);
        // However many others told of, there is room for writers of one's own.
        let mut crowded = Seen::default();
        let taken = crowded.learn(&seen);
        assert_eq!(taken, crowded);
        assert_eq!(crowded.learn(&seen), Seen::default());
        assert_eq!(crowded.0.len(), SEEN_WRITERS_MAX - OWN_WRITERS);
        assert!(crowded.raise(WriterId(u64::MAX), 7));
        let mut surplus: BTreeMap<WriterId, u64> = seen.0.clone();
        surplus.insert(WriterId(u64::MAX), 1);
        assert!(decode::<Seen>(&encode(&surplus)).is_err());
    }
}
