//! Which openings a namespace's file has had, and how it is found out that a copy of the file went
//! another way: both would give the same names to different writes.
//!
//! Each time that a file is opened for writing its lineage grows by an [`Opening`] with a random
//! id. A peer remembers the newest ones as a [`Sighting`]. What it saw of an opening lies in front
//! of the next one, unless the file went back to an older state or there is a second one.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;

/// Openings that a file keeps.
pub const OPENINGS_KEPT: usize = 64;
/// Openings that a replica tells its peers, and that they remember.
pub const OPENINGS_TOLD: usize = 8;

/// A stretch of a change feed that one process writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Random, so that two copies of a file that are opened have different ones.
    pub id: u64,
    /// The life of the feed that it belongs to.
    pub epoch: Epoch,
    /// Position of the feed when it began: its own changes stand behind.
    pub first: u64,
}

/// Openings of a file, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    openings: Vec<Opening>,
    /// True when none is left out in front.
    is_whole: bool,
}

/// What a peer has seen of one life of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Which life.
    pub epoch: Epoch,
    /// Its newest openings as id and first position, oldest first.
    pub openings: Vec<(u64, u64)>,
    /// Newest position seen.
    pub seq: u64,
}

impl Sighting {
    /// Checks that it is no longer than what anybody is told. Other nonsense shows nothing, and is passed
    /// over.
    ///
    /// # Errors
    /// [`BadLineage`] when it is.
    pub fn check(&self) -> Result<(), BadLineage> {
        if self.openings.len() <= OPENINGS_TOLD {
            Ok(())
        } else {
            Err(BadLineage)
        }
    }
}

/// Where two copies of a file parted: behind `at` either may have used positions of `epoch` for
/// writes that the other one does not know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parting {
    /// The life of the feed.
    pub epoch: Epoch,
    /// The last position that both have in common; a smaller one when that is not known.
    pub at: u64,
}

/// Openings that no honest replica tells.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("a replica tells of 1 to {OPENINGS_TOLD} openings, in the order of their positions")]
pub struct BadLineage;

/// What a namespace's file keeps about itself beside its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// What its log is sealed with: the epoch that the file was made with.
    pub log: Epoch,
    /// Replica ids that the file belonged to before, oldest first.
    pub names: Vec<ReplicaId>,
    /// Its openings.
    pub lineage: Lineage,
    /// States behind this parting are still to be written again, under a name of their own.
    pub pending: Option<Parting>,
}

impl Provenance {
    /// Of a new file.
    pub fn new(epoch: Epoch) -> Self {
        Self {
            log: epoch,
            names: Vec::new(),
            lineage: Lineage {
                openings: Vec::new(),
                is_whole: true,
            },
            pending: None,
        }
    }

    /// Of a file that was made before openings were kept.
    pub fn unknown(epoch: Epoch) -> Self {
        let mut provenance = Self::new(epoch);
        provenance.lineage.is_whole = false;
        provenance
    }

    /// Remembers a replica id that is given up.
    pub fn give_up_name(&mut self, name: ReplicaId) {
        self.names.retain(|known| *known != name);
        self.names.push(name);
        let surplus = self.names.len().saturating_sub(OPENINGS_KEPT);
        self.names.drain(..surplus);
    }
}

impl Lineage {
    /// Adds an opening; the oldest ones beyond [`OPENINGS_KEPT`] are left out.
    pub fn begin(&mut self, opening: Opening) {
        self.openings.push(opening);
        let surplus = self.openings.len().saturating_sub(OPENINGS_KEPT);
        self.is_whole &= surplus == 0;
        self.openings.drain(..surplus);
    }

    /// True when the file has had this opening, as far as is known.
    pub fn contains(&self, id: u64) -> bool {
        self.openings.iter().any(|opening| opening.id == id)
    }

    /// The newest opening.
    pub fn newest(&self) -> Option<&Opening> {
        self.openings.last()
    }

    /// What peers are told.
    pub fn told(&self) -> Self {
        let surplus = self.openings.len().saturating_sub(OPENINGS_TOLD);
        Self {
            openings: self.openings[surplus..].to_vec(),
            is_whole: self.is_whole && surplus == 0,
        }
    }

    /// Checks what a peer tells.
    ///
    /// # Errors
    /// [`BadLineage`].
    pub fn check(&self) -> Result<(), BadLineage> {
        let fits = (1..=OPENINGS_TOLD).contains(&self.openings.len());
        let in_order = self.openings.windows(2).all(|w| w[0].first <= w[1].first);
        if fits && in_order {
            Ok(())
        } else {
            Err(BadLineage)
        }
    }

    /// The lives of the feed, oldest first.
    pub fn epochs(&self) -> impl Iterator<Item = Epoch> + '_ {
        let mut last = None;
        let epochs = self.openings.iter().map(|opening| opening.epoch);
        epochs.filter(move |epoch| last.replace(*epoch) != Some(*epoch))
    }

    /// Lives of the feed that are over, with the position up to which each of them is that of this
    /// file: a copy may have used those behind it.
    pub fn past_lives(&self) -> impl Iterator<Item = (Epoch, u64)> + '_ {
        self.openings.windows(2).filter_map(|pair| match pair {
            [last, next] if last.epoch != next.epoch => Some((last.epoch, next.first)),
            _ => None,
        })
    }

    /// What somebody who is told this lineage, with the feed at `seq`, has seen of its newest life.
    pub fn sighting(&self, seq: u64) -> Option<Sighting> {
        let epoch = self.newest()?.epoch;
        let same = self.openings.iter().filter(|o| o.epoch == epoch);
        let openings: Vec<(u64, u64)> = same.map(|o| (o.id, o.first)).collect();
        let surplus = openings.len().saturating_sub(OPENINGS_TOLD);
        Some(Sighting {
            epoch,
            openings: openings[surplus..].to_vec(),
            seq,
        })
    }

    /// True when an opening that was seen is among these: then [`Lineage::parting`] tells all.
    pub fn recognises(&self, seen: &Sighting) -> bool {
        let mut openings = self.openings.iter().filter(|o| o.epoch == seen.epoch);
        openings.any(|opening| seen.openings.iter().any(|(id, _)| *id == opening.id))
    }

    /// Where the file of this lineage, whose feed is at `seq`, parted from one that was seen under
    /// the same name, if it did and that can do harm.
    ///
    /// One that never parted from what was seen is never said to have.
    pub fn parting(&self, seq: u64, seen: &Sighting) -> Option<Parting> {
        let epoch = seen.epoch;
        let begin = self.openings.iter().position(|o| o.epoch == epoch)?;
        let behind = self.openings[begin..].iter().position(|o| o.epoch != epoch);
        let end = behind.map_or(self.openings.len(), |length| begin + length);
        let mine = &self.openings[begin..end];
        // A life that goes on takes any further position; one that is over took those up to here.
        let until = self.openings.get(end).map(|next| next.first);
        let at_most = until.unwrap_or(seq);
        let position = |id: u64| seen.openings.iter().rposition(|(seen, _)| *seen == id);
        let common = mine
            .iter()
            .enumerate()
            .rev()
            .find_map(|(here, opening)| Some((here, position(opening.id)?)));
        let at = match common {
            Some((here, there)) => {
                let their_next = seen.openings.get(there + 1).map(|(_, first)| *first);
                let our_next = mine.get(here + 1).map(|opening| opening.first);
                if (their_next, our_next, until) == (None, None, None) {
                    // One opening that has gone on in two processes.
                    return (seen.seq > seq).then_some(Parting {
                        epoch,
                        at: mine[here].first,
                    });
                }
                let theirs = their_next.unwrap_or(seen.seq);
                let at = theirs.min(our_next.unwrap_or(at_most));
                // Whatever they say, it was after both were opened as one.
                at.max(mine[here].first)
            }
            // Nobody writes under the name any more: the others may have had many openings since.
            None if until.is_some() => return None,
            None if self.is_whole || begin > 0 => mine.first()?.first,
            // They may have been seen in an opening that is not kept any more.
            None if seen.seq <= mine.first()?.first => return None,
            None => 0,
        };
        let may_collide = seen.seq > at && (until.is_none() || at_most > at);
        may_collide.then_some(Parting { epoch, at })
    }

    /// The earliest place where the newest life can have parted, when nothing else is known.
    pub fn earliest_parting(&self) -> Option<Parting> {
        let epoch = self.newest()?.epoch;
        let first = self.openings.iter().position(|o| o.epoch == epoch)?;
        let is_known = self.is_whole || first > 0;
        Some(Parting {
            epoch,
            at: if is_known {
                self.openings[first].first
            } else {
                0
            },
        })
    }

    /// Takes note that nothing written behind a parting counts under its epoch any more.
    pub fn part(&mut self, parting: Parting) {
        let Parting { epoch, at } = parting;
        let newest = self.openings.iter().rposition(|o| o.epoch == epoch);
        if let Some(next) = newest.and_then(|newest| self.openings.get_mut(newest + 1)) {
            next.first = next.first.min(at);
        }
        self.openings.retain(|o| o.epoch != epoch || o.first < at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const W: Epoch = Epoch(7);

    fn lineage(openings: &[(u64, u64)]) -> Lineage {
        let mut lineage = Provenance::new(W).lineage;
        for (id, first) in openings {
            lineage.begin(Opening {
                id: *id,
                epoch: W,
                first: *first,
            });
        }
        lineage
    }

    fn seen(openings: &[(u64, u64)], seq: u64) -> Sighting {
        lineage(openings).sighting(seq).unwrap()
    }

    #[test]
    fn a_file_that_went_back_parted_where_it_was_opened_again() {
        let peer = seen(&[(1, 0), (2, 80)], 150);
        let at = |lineage: Lineage, seq| lineage.parting(seq, &peer).map(|parting| parting.at);
        let restored = [(1, 0), (2, 80), (3, 100)];
        assert_eq!(at(lineage(&restored), 100), Some(100), "before any write");
        assert_eq!(at(lineage(&restored), 120), Some(100));
        assert_eq!(at(lineage(&restored), 500), Some(100), "far beyond");
        let again = [(1, 0), (2, 80), (3, 100), (4, 120)];
        assert_eq!(at(lineage(&again), 130), Some(100), "after another start");
        let older = [(1, 0), (9, 40)];
        assert_eq!(at(lineage(&older), 60), Some(40), "two openings ago");
        let running = [(1, 0), (2, 80)];
        assert_eq!(at(lineage(&running), 120), Some(80), "memory put back");
        assert_eq!(at(lineage(&running), 150), None);
        let honest = [(1, 0), (2, 80), (3, 150)];
        assert_eq!(at(lineage(&honest), 170), None);
    }

    #[test]
    fn what_is_settled_is_not_said_again() {
        let peer = seen(&[(1, 0)], 150);
        let mut back = lineage(&[(1, 0), (3, 100), (4, 120)]);
        let parting = back.parting(130, &peer).unwrap();
        back.begin(Opening {
            id: 5,
            epoch: Epoch(8),
            first: 130,
        });
        assert_eq!(back.parting(140, &peer), Some(parting), "not settled yet");
        back.part(parting);
        assert_eq!(back.parting(140, &peer), None);
        assert_eq!(back.epochs().collect::<Vec<_>>(), [W, Epoch(8)]);
        let earlier = seen(&[(1, 0)], 60);
        assert_eq!(back.parting(140, &earlier), None);
    }

    #[test]
    fn a_copy_that_took_a_name_of_its_own_leaves_the_old_one_to_the_others() {
        let mut copy = lineage(&[(1, 0), (2, 80)]);
        copy.begin(Opening {
            id: 5,
            epoch: Epoch(8),
            first: 100,
        });
        let others: Vec<(u64, u64)> = (20..40).map(|id| (id, 100 + id)).collect();
        assert_eq!(copy.parting(300, &seen(&[(1, 0), (2, 80)], 150)), None);
        assert_eq!(copy.parting(300, &seen(&others, 900)), None);
    }

    #[test]
    fn whatever_is_said_the_lineage_stays_in_order() {
        let mut renewed = lineage(&[(1, 0), (2, 80)]);
        renewed.begin(Opening {
            id: 5,
            epoch: Epoch(8),
            first: 90,
        });
        let lies = [
            vec![(5, 90), (6, 0)],
            vec![(6, 0), (5, 0), (7, u64::MAX)],
            vec![(6, 0)],
            vec![],
        ];
        for openings in lies {
            for seq in [0, 50, 95, u64::MAX] {
                let lie = Sighting {
                    epoch: Epoch(8),
                    openings: openings.clone(),
                    seq,
                };
                if let Some(parting) = renewed.parting(100, &lie) {
                    let mut after = renewed.clone();
                    after.begin(Opening {
                        id: 9,
                        epoch: Epoch(9),
                        first: parting.at,
                    });
                    after.part(parting);
                    assert!(after.check().is_ok(), "{lie:?}: {after:?}");
                }
            }
        }
    }

    #[test]
    fn a_lineage_from_outside_is_bounded_and_in_order() {
        let many: Vec<(u64, u64)> = (0..100).map(|n| (n, n)).collect();
        let kept = lineage(&many);
        assert_eq!(kept.openings.len(), OPENINGS_KEPT);
        assert!(kept.check().is_err() && kept.told().check().is_ok());
        assert!(!kept.told().is_whole);
        assert!(lineage(&[]).check().is_err());
        assert!(lineage(&[(1, 5), (2, 4)]).check().is_err());
    }

    /// A file as it opens and writes; copies are clones of it.
    #[derive(Debug, Clone)]
    struct Written {
        lineage: Lineage,
        seq: u64,
    }

    impl Written {
        fn live(&mut self, steps: &[(u8, u64)], id: &mut u64) -> Vec<Sighting> {
            let mut sightings = Vec::new();
            for (step, amount) in steps {
                if step % 3 == 0 {
                    *id += 1;
                    self.lineage.begin(Opening {
                        id: *id,
                        epoch: W,
                        first: self.seq,
                    });
                }
                self.seq += amount;
                sightings.extend(self.lineage.told().sighting(self.seq));
            }
            sightings
        }
    }

    fn steps() -> impl Strategy<Value = Vec<(u8, u64)>> {
        proptest::collection::vec((any::<u8>(), 0..5u64), 0..50)
    }

    proptest! {
        #[test]
        fn only_files_that_parted_are_said_to_have(before in steps(), one in steps(), other in steps()) {
            let mut id = 0;
            let mut original = Written { lineage: Provenance::new(W).lineage, seq: 0 };
            let mut all = original.live(&[(0, 1)], &mut id);
            all.extend(original.live(&before, &mut id));
            for seen in &all {
                prop_assert_eq!(original.lineage.parting(original.seq, seen), None);
                prop_assert_eq!(original.lineage.told().parting(original.seq, seen), None);
            }
            let (mut copy, parted_at) = (original.clone(), original.seq);
            let news = original.live(&one, &mut id);
            copy.live(&[(0, 0)], &mut id);
            copy.live(&other, &mut id);
            for seen in news.iter().filter(|seen| seen.seq > parted_at) {
                let found = copy.lineage.parting(copy.seq, seen);
                prop_assert!(found.is_some_and(|parting| parting.at <= parted_at), "{found:?}");
                let told = copy.lineage.told();
                let noticed = told.parting(copy.seq, seen).is_some() || !told.recognises(seen);
                prop_assert!(noticed, "peers say what they have seen");
            }
        }
    }
}
