//! A state's record and the merge rule, the one place where versions meet.
//!
//! The merge rule is a pure function on sets of versions: keep those that no other version has
//! seen. It is commutative, associative and idempotent, so replicas agree whatever order versions
//! arrive in; nothing that somebody wrote is lost without another write having seen it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::types::hash::{LeafDigest, StateKey, hex};
use crate::types::id::GameId;
use crate::types::leaf::Leaf;
use crate::types::seen::Seen;
use crate::types::version::{BadVersion, Causality, Version};

/// Most versions of one state that may be current at once: one for each replica that may write it.
pub const CURRENT_VERSIONS_MAX: usize = 256;

/// Largest record, in bytes, estimated from above. Bounds what listing records takes.
pub const RECORD_BYTES_MAX: usize = 64 << 10;

/// How long a state is remembered after its end, in milliseconds: a day. Not a setting, because
/// replicas take their trees for equal only if they forget by one rule.
pub const HORIZON_MILLIS: u64 = 24 * HOUR_MILLIS;

const HOUR_MILLIS: u64 = 60 * 60 * 1000;

/// Opens the preimage of a leaf digest, so that it can never be mistaken for another hash's.
const LEAF_DOMAIN: &[u8] = b"samestate record v1\0";

/// A record from outside that no honest replica makes.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum BadRecord {
    /// A state with no version at all.
    #[error("a record needs at least one version")]
    NoVersion,
    /// More than [`CURRENT_VERSIONS_MAX`].
    #[error("a record may have at most {CURRENT_VERSIONS_MAX} current versions, this one has {0}")]
    TooManyVersions(usize),
    /// Not in the order or not reduced as [`StateRecord::from_versions`] leaves them.
    #[error("the versions of a record must be sorted and none may have seen another")]
    NotCanonical,
    /// More than [`RECORD_BYTES_MAX`].
    #[error("a record may have at most {RECORD_BYTES_MAX} bytes, this one has about {0}")]
    TooLarge(usize),
    /// One of its versions is malformed.
    #[error(transparent)]
    Version(#[from] BadVersion),
}

/// A state's id and its current versions: one, or several that did not see each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Decoded")]
pub struct StateRecord {
    /// The state's name.
    pub id: GameId,
    /// Greatest precedence first; the first one is shown to readers. Never empty.
    versions: Vec<Version>,
}

/// A record as bytes have it, before it is known to have a version that can be shown.
#[derive(Deserialize)]
struct Decoded {
    id: GameId,
    versions: Vec<Version>,
}

impl TryFrom<Decoded> for StateRecord {
    type Error = BadRecord;

    fn try_from(Decoded { id, versions }: Decoded) -> Result<Self, BadRecord> {
        if versions.is_empty() {
            return Err(BadRecord::NoVersion);
        }
        Ok(Self { id, versions })
    }
}

impl StateRecord {
    /// A record of one version.
    pub fn new(id: GameId, version: Version) -> Self {
        Self {
            id,
            versions: vec![version],
        }
    }

    /// A record of the versions that no other one of `versions` has seen, with those that were
    /// seen returned beside it. `None` when `versions` is empty.
    pub fn from_versions(id: GameId, mut versions: Vec<Version>) -> Option<(Self, Vec<Version>)> {
        versions.sort_by(|a, b| b.precedence(a));
        versions.dedup();
        let seen_by_another = |version: &Version| {
            versions
                .iter()
                .any(|other| other.vector.compare(&version.vector) == Causality::After)
        };
        let flags: Vec<bool> = versions.iter().map(seen_by_another).collect();
        let mut flags = flags.into_iter();
        let (superseded, current): (Vec<_>, Vec<_>) = versions
            .into_iter()
            .partition(|_| flags.next() == Some(true));
        if current.is_empty() {
            return None;
        }
        let record = Self {
            id,
            versions: current,
        };
        Some((record, superseded))
    }

    /// Merges two records of one state. Returns the merged record and the versions of `self` that
    /// it no longer shows, which belong into history.
    pub fn merge(&self, other: &Self) -> (Self, Vec<Version>) {
        let both = self
            .versions
            .iter()
            .chain(&other.versions)
            .cloned()
            .collect();
        let Some((merged, mut superseded)) = Self::from_versions(self.id.clone(), both) else {
            return (self.clone(), Vec::new());
        };
        superseded.retain(|version| self.versions.contains(version));
        (merged, superseded)
    }

    /// The version readers see.
    pub fn shown(&self) -> &Version {
        &self.versions[0]
    }

    /// All current versions, the shown one first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// True when the shown version is a deletion.
    pub fn is_deleted(&self) -> bool {
        self.shown().tombstone
    }

    /// True when there is nothing to be shown at a moment: the shown version is a deletion, or its
    /// time is over.
    pub fn is_dead(&self, now: u64) -> bool {
        self.shown().is_dead(now)
    }

    /// When the record leaves the tree, in milliseconds since 1970-01-01 UTC: [`HORIZON_MILLIS`]
    /// after the last of its versions came to its end, at the next full hour, so that many states
    /// leave at once and roots seldom differ because of it. `None` while a version has no end.
    pub fn departs_at(&self) -> Option<u64> {
        let ends = self.versions.iter().map(|version| {
            if version.tombstone {
                Some(version.stamp.millis)
            } else {
                version.expires_at
            }
        });
        let last = ends.collect::<Option<Vec<u64>>>()?.into_iter().max()?;
        let at = last.saturating_add(HORIZON_MILLIS);
        Some(at.checked_next_multiple_of(HOUR_MILLIS).unwrap_or(u64::MAX))
    }

    /// True when the record has left the tree, by the rule that all replicas share.
    pub fn has_departed(&self, now: u64) -> bool {
        self.departs_at().is_some_and(|at| at <= now)
    }

    /// True when everything that the record knows of was taken in by whoever has `seen`.
    pub fn is_covered(&self, seen: &Seen) -> bool {
        self.versions.iter().all(|v| seen.covers(&v.vector))
    }

    /// How many other current versions say something else than the shown one.
    pub fn conflicts(&self) -> usize {
        let differs = |version: &&Version| !version.same_content(self.shown());
        self.versions[1..].iter().filter(differs).count()
    }

    /// About how many bytes the record takes, encoded or in memory; an estimate from above.
    pub fn weight(&self) -> usize {
        let versions = self.versions.iter().map(|version| {
            let text = version.content_type.as_ref().map_or(0, String::len);
            128 + text + 20 * version.vector.entries().len()
        });
        self.id.as_str().len() + versions.sum::<usize>()
    }

    /// Where the state stands in the tree.
    pub fn key(&self) -> StateKey {
        StateKey::of(&self.id)
    }

    /// Digest over the canonical encoding in docs/reference/merkle-tree.md.
    pub fn digest(&self) -> LeafDigest {
        let mut hash = Sha256::new();
        hash.update(LEAF_DOMAIN);
        update_text(&mut hash, self.id.as_str());
        hash.update((self.versions.len() as u32).to_le_bytes());
        for version in &self.versions {
            update_version(&mut hash, version);
        }
        LeafDigest(hash.finalize().into())
    }

    /// What the tree keeps of the state.
    pub fn leaf(&self) -> Leaf {
        self.leaf_at(self.key())
    }

    /// [`StateRecord::leaf`] of a state whose key has been computed already.
    pub fn leaf_at(&self, key: StateKey) -> Leaf {
        let newest = self.versions.iter().map(|v| v.stamp.millis).max();
        Leaf {
            key,
            digest: self.digest(),
            size: self.shown().size,
            updated_at: newest.unwrap_or(0),
        }
    }

    /// Checks a record from outside.
    ///
    /// # Errors
    /// [`BadRecord`] naming the rule it breaks.
    pub fn check(&self) -> Result<(), BadRecord> {
        if self.versions.len() > CURRENT_VERSIONS_MAX {
            return Err(BadRecord::TooManyVersions(self.versions.len()));
        }
        if self.weight() > RECORD_BYTES_MAX {
            return Err(BadRecord::TooLarge(self.weight()));
        }
        for version in &self.versions {
            version.check()?;
        }
        match Self::from_versions(self.id.clone(), self.versions.clone()) {
            Some((canonical, _)) if canonical == *self => Ok(()),
            _ => Err(BadRecord::NotCanonical),
        }
    }
}

/// What a replica that has taken in `seen` and holds `mine` of a state makes of it when it meets one
/// that has taken in `their_seen` and holds `theirs`; `None` when nothing of the state is left.
///
/// A version that one side has taken in and does not hold was superseded there. If by a version that
/// it still holds, merging says the same. If by one that has been collected since, nothing else is
/// left to say it: so such a version goes. One of ours only goes when we know as much ourselves, or
/// it could come back from elsewhere.
pub fn meet(
    mine: Option<&StateRecord>,
    seen: &Seen,
    theirs: Option<&StateRecord>,
    their_seen: &Seen,
) -> Option<StateRecord> {
    let held = |side: Option<&StateRecord>, version: &Version| {
        let mut versions = side.into_iter().flat_map(StateRecord::versions);
        versions.any(|other| other.vector == version.vector)
    };
    let kept = mine.into_iter().flat_map(StateRecord::versions);
    let kept = kept.filter(|version| {
        let vector = &version.vector;
        held(theirs, version) || !(their_seen.covers(vector) && seen.covers(vector))
    });
    let news = theirs.into_iter().flat_map(StateRecord::versions);
    let news = news.filter(|version| held(mine, version) || !seen.covers(&version.vector));
    let versions = kept.chain(news).cloned().collect();
    let id = &mine.or(theirs)?.id;
    StateRecord::from_versions(id.clone(), versions).map(|(record, _)| record)
}

/// The entity tag of a record with this digest (RFC 9110, strong), quotes included: it changes
/// with every write and every new conflict, and is the same on all replicas.
pub fn etag(digest: &LeafDigest) -> String {
    format!("\"{}\"", hex(&digest.0[..16]))
}

fn update_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u32).to_le_bytes());
    hash.update(text.as_bytes());
}

fn update_version(hash: &mut Sha256, version: &Version) {
    hash.update((version.vector.entries().len() as u32).to_le_bytes());
    for (writer, counter) in version.vector.entries() {
        hash.update(writer.0.to_le_bytes());
        hash.update(counter.to_le_bytes());
    }
    hash.update(version.stamp.millis.to_le_bytes());
    hash.update(version.stamp.logical.to_le_bytes());
    hash.update(version.stamp.replica.0.to_le_bytes());
    hash.update(version.content.0);
    hash.update(version.size.to_le_bytes());
    update_text(hash, version.content_type.as_deref().unwrap_or(""));
    hash.update(version.expires_at.unwrap_or(0).to_le_bytes());
    hash.update([u8::from(version.tombstone)]);
    hash.update(version.lease_epoch.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::hash::ContentHash;
    use crate::types::id::{ReplicaId, WriterId};
    use crate::types::version::{Stamp, VersionVector};

    fn version(entries: &[(u64, u64)], byte: u8) -> Version {
        let mut vector = VersionVector::default();
        for (writer, counter) in entries {
            vector.set(WriterId(*writer), *counter);
        }
        Version {
            vector,
            stamp: Stamp {
                millis: u64::from(byte),
                logical: 0,
                replica: ReplicaId(entries[0].0),
            },
            content: ContentHash::of(&[byte]),
            size: 1,
            content_type: None,
            expires_at: None,
            tombstone: false,
            lease_epoch: 0,
        }
    }

    fn any_record() -> impl Strategy<Value = StateRecord> {
        let entry = (0u64..4, 1u64..4);
        let version = (proptest::collection::vec(entry, 1..4), 0u8..4)
            .prop_map(|(entries, byte)| version(&entries, byte));
        proptest::collection::vec(version, 1..5).prop_map(|versions| {
            let id = GameId::new("match/1").unwrap();
            StateRecord::from_versions(id, versions).unwrap().0
        })
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            a in any_record(), b in any_record(), c in any_record()
        ) {
            let merge = |x: &StateRecord, y: &StateRecord| x.merge(y).0;
            prop_assert_eq!(merge(&a, &b), merge(&b, &a));
            prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
            prop_assert_eq!(merge(&a, &a), a.clone());
            prop_assert!(merge(&a, &b).check().is_ok());
        }

        #[test]
        fn every_version_is_shown_or_seen_by_a_shown_one(a in any_record(), b in any_record()) {
            let (merged, superseded) = a.merge(&b);
            for version in a.versions().iter().chain(b.versions()) {
                let kept = merged.versions().contains(version);
                let seen = merged.versions().iter()
                    .any(|m| m.vector.compare(&version.vector) == Causality::After);
                prop_assert!(kept || seen);
            }
            for version in &superseded {
                prop_assert!(a.versions().contains(version));
                prop_assert!(!merged.versions().contains(version));
            }
        }
    }

    fn seen(entries: &[(u64, u64)]) -> Seen {
        let mut seen = Seen::default();
        for (writer, counter) in entries {
            seen.raise(WriterId(*writer), *counter);
        }
        seen
    }

    proptest! {
        #[test]
        fn meeting_somebody_who_collected_nothing_is_merging(a in any_record(), b in any_record()) {
            let merged = a.merge(&b).0;
            let nothing = Seen::default();
            prop_assert_eq!(meet(Some(&a), &nothing, Some(&b), &nothing), Some(merged));
            prop_assert_eq!(meet(None, &nothing, Some(&b), &nothing), Some(b.clone()));
            prop_assert_eq!(meet(Some(&a), &nothing, None, &nothing), Some(a));
        }

        #[test]
        fn both_sides_make_the_same_of_it_once_they_have_seen_the_same(
            a in any_record(), b in any_record(),
            mine in prop::collection::vec(0u64..4, 4), theirs in prop::collection::vec(0u64..4, 4),
        ) {
            // Whatever a side holds it has taken in, so each knows its own versions.
            let known = |record: &StateRecord, more: &[u64]| {
                let mut known = seen(&[]);
                for version in record.versions() {
                    version.vector.entries().for_each(|(w, c)| { known.raise(w, c); });
                }
                for (writer, counter) in (0..).zip(more) {
                    known.raise(WriterId(writer), *counter);
                }
                known
            };
            let (mine, theirs) = (known(&a, &mine), known(&b, &theirs));
            let here = meet(Some(&a), &mine, Some(&b), &theirs);
            let there = meet(Some(&b), &theirs, Some(&a), &mine);
            let mut both = mine.clone();
            both.join(&theirs);
            // With what the other side knows as well, what is left over here goes, too.
            let then = |first: Option<&StateRecord>, other: &StateRecord, known: &Seen| {
                first.and_then(|first| meet(Some(first), &both, Some(other), known))
            };
            let (here, there) = (then(here.as_ref(), &b, &theirs), then(there.as_ref(), &a, &mine));
            prop_assert_eq!(here, there);
        }
    }

    #[test]
    fn what_the_other_side_has_seen_and_does_not_hold_was_collected() {
        let id = || GameId::new("match/1").unwrap();
        let record = |versions: &[Version]| {
            StateRecord::from_versions(id(), versions.to_vec())
                .unwrap()
                .0
        };
        let (old, new) = (version(&[(1, 3)], 1), version(&[(2, 9)], 2));
        let (none, both) = (seen(&[]), record(&[old.clone(), new.clone()]));
        let collector = seen(&[(1, 5), (3, 7)]);
        // Offered what it has collected, the collector takes nothing; a write it has not seen, it does.
        let offered = |theirs: &StateRecord| meet(None, &collector, Some(theirs), &none);
        assert_eq!(offered(&record(std::slice::from_ref(&old))), None);
        assert_eq!(offered(&both), Some(record(std::slice::from_ref(&new))));
        // The other side lets go of the same, once it knows as much itself.
        let ours = |seen: &Seen| meet(Some(&both), seen, None, &collector);
        assert_eq!(ours(&none), Some(both.clone()));
        assert_eq!(ours(&collector), Some(record(&[new])));
        // Two lives of one writer that gave the same counter twice lose nothing by it.
        let twice = version(&[(1, 3)], 9);
        let met = meet(
            Some(&record(&[old])),
            &collector,
            Some(&record(&[twice])),
            &collector,
        );
        assert_eq!(met.unwrap().versions().len(), 2);
    }

    #[test]
    fn a_record_departs_a_day_after_its_last_end_at_the_full_hour() {
        let id = || GameId::new("match/1").unwrap();
        let at = |millis| Stamp {
            millis,
            logical: 0,
            replica: ReplicaId(1),
        };
        let grave = |writer, millis| Version {
            stamp: at(millis),
            tombstone: true,
            ..version(&[(writer, 1)], 1)
        };
        let expiring = |writer, millis| Version {
            expires_at: Some(millis),
            ..version(&[(writer, 1)], 1)
        };
        let departs = |versions: Vec<Version>| {
            StateRecord::from_versions(id(), versions)
                .unwrap()
                .0
                .departs_at()
        };
        let (hour, day) = (HOUR_MILLIS, HORIZON_MILLIS);
        assert_eq!(departs(vec![version(&[(1, 1)], 1)]), None);
        assert_eq!(departs(vec![grave(1, 0)]), Some(day));
        assert_eq!(departs(vec![grave(1, 1)]), Some(day + hour));
        assert_eq!(departs(vec![expiring(1, hour)]), Some(day + hour));
        let mixed = vec![grave(1, 5), expiring(2, 3 * hour + 1)];
        assert_eq!(departs(mixed), Some(day + 4 * hour));
        assert_eq!(departs(vec![grave(1, 5), version(&[(2, 1)], 1)]), None);
        assert_eq!(departs(vec![expiring(1, u64::MAX)]), Some(u64::MAX));
        let record = StateRecord::new(id(), expiring(1, hour));
        assert!(!record.is_dead(hour - 1) && record.is_dead(hour));
        assert!(!record.has_departed(day + hour - 1) && record.has_departed(day + hour));
    }

    #[test]
    fn the_same_bytes_written_twice_are_no_conflict() {
        let id = GameId::new("match/1").unwrap();
        let versions = vec![version(&[(1, 1)], 7), version(&[(2, 1)], 7)];
        let (same, _) = StateRecord::from_versions(id.clone(), versions).unwrap();
        assert_eq!((same.versions().len(), same.conflicts()), (2, 0));
        let versions = vec![version(&[(1, 1)], 7), version(&[(2, 1)], 8)];
        let (other, _) = StateRecord::from_versions(id, versions).unwrap();
        assert_eq!(other.conflicts(), 1);
    }

    #[test]
    fn the_digest_covers_every_field() {
        let id = GameId::new("match/1").unwrap();
        let base = version(&[(1, 1)], 1);
        let changed: Vec<Version> = vec![
            Version {
                size: 2,
                ..base.clone()
            },
            Version {
                content_type: Some("a".into()),
                ..base.clone()
            },
            Version {
                expires_at: Some(5),
                ..base.clone()
            },
            Version {
                tombstone: true,
                ..base.clone()
            },
            Version {
                lease_epoch: 1,
                ..base.clone()
            },
            Version {
                content: ContentHash::of(b"z"),
                ..base.clone()
            },
            Version {
                stamp: Stamp {
                    logical: 1,
                    ..base.stamp
                },
                ..base.clone()
            },
            version(&[(1, 2)], 1),
        ];
        let first = StateRecord::new(id.clone(), base).digest();
        for version in changed {
            let digest = StateRecord::new(id.clone(), version.clone()).digest();
            assert_ne!(digest, first, "{version:?}");
        }
    }
}
