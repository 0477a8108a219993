//! What was seen of the feeds of peers, so that one whose data went back to an older state, or of
//! which there are two, is noticed and told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::replica::facts::Facts;
use crate::types::cursor::Epoch;
use crate::types::lineage::{Lineage, Sighting};

/// Feeds that are remembered.
const KNOWN_MAX: usize = 256;

/// Sightings that are shared with the writer, which makes them durable.
pub type SharedSightings = Arc<Mutex<Sightings>>;

/// What was seen of the feeds of peers.
#[derive(Debug, Default)]
pub struct Sightings {
    known: BTreeMap<Epoch, Known>,
    /// Counts meetings, to know what has not been seen for longest.
    meetings: u64,
    unsaved: BTreeSet<Epoch>,
    forgotten: Vec<Epoch>,
}

#[derive(Debug)]
struct Known {
    seen: Sighting,
    met: u64,
    /// The opening of a peer of which nothing seen before was known, and which was told so.
    doubted: Option<u64>,
}

impl Sightings {
    /// What was made durable before.
    pub fn new(seen: Vec<Sighting>) -> Self {
        let mut sightings = Self::default();
        for seen in seen {
            sightings.put(seen);
        }
        sightings.unsaved.clear();
        sightings
    }

    /// A peer tells of itself, with its feed at `seq`. When that does not go together with what
    /// was seen before, the peer is to be told what that was; otherwise it is remembered.
    ///
    /// What a peer that was opened many times has forgotten is no contradiction: it is told once.
    pub fn meet(&mut self, told: &Lineage, seq: u64) -> Option<Sighting> {
        for epoch in told.epochs() {
            if let Some(known) = self.known.get(&epoch)
                && told.parting(seq, &known.seen).is_some()
            {
                return Some(known.seen.clone());
            }
        }
        let (now, opening) = (told.sighting(seq)?, told.newest()?.id);
        if let Some(known) = self.known.get_mut(&now.epoch) {
            if !told.recognises(&known.seen) && known.doubted.replace(opening) != Some(opening) {
                return Some(known.seen.clone());
            }
            if known.seen == now || known.seen.seq > now.seq {
                return None;
            }
        }
        self.put(now);
        None
    }

    /// A peer that was told what was seen of it goes on as it was: from now on that is what is
    /// remembered.
    pub fn trust(&mut self, told: &Lineage, seq: u64) {
        if let Some(now) = told.sighting(seq) {
            self.put(now);
        }
    }

    fn put(&mut self, seen: Sighting) {
        self.meetings += 1;
        let (met, epoch) = (self.meetings, seen.epoch);
        let doubted = None;
        self.known.insert(epoch, Known { seen, met, doubted });
        self.unsaved.insert(epoch);
        if self.known.len() <= KNOWN_MAX {
            return;
        }
        let oldest = self.known.iter().min_by_key(|(_, known)| known.met);
        if let Some(oldest) = oldest.map(|(epoch, _)| *epoch) {
            self.known.remove(&oldest);
            self.unsaved.remove(&oldest);
            self.forgotten.push(oldest);
        }
    }

    /// What has changed since it was last asked for.
    pub fn take_unsaved(&mut self) -> Facts {
        let unsaved = std::mem::take(&mut self.unsaved);
        let seen = unsaved.iter().filter_map(|epoch| self.known.get(epoch));
        Facts {
            seen: seen.map(|known| known.seen.clone()).collect(),
            forgotten: std::mem::take(&mut self.forgotten),
            ..Facts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::lineage::{OPENINGS_TOLD, Opening, Provenance};

    fn lineage(epoch: u64, openings: impl IntoIterator<Item = (u64, u64)>) -> Lineage {
        let mut lineage = Provenance::new(Epoch(epoch)).lineage;
        for (id, first) in openings {
            lineage.begin(Opening {
                id,
                epoch: Epoch(epoch),
                first,
            });
        }
        lineage.told()
    }

    #[test]
    fn a_peer_that_goes_on_is_remembered_and_one_that_went_back_is_told() {
        let mut sightings = Sightings::default();
        assert_eq!(sightings.meet(&lineage(1, [(1, 0)]), 5), None);
        assert_eq!(sightings.meet(&lineage(1, [(1, 0), (2, 5)]), 9), None);
        let newest = sightings.take_unsaved().seen;
        assert_eq!(newest.len(), 1);
        assert_eq!(newest[0].seq, 9);
        assert!(sightings.take_unsaved().is_empty());
        let mut again = Sightings::new(newest.clone());
        for _ in 0..2 {
            let back = again.meet(&lineage(1, [(1, 0), (3, 5)]), 20);
            assert_eq!(back.as_ref(), Some(&newest[0]));
        }
        assert!(again.take_unsaved().is_empty());
        again.trust(&lineage(1, [(1, 0), (3, 5)]), 20);
        assert_eq!(again.meet(&lineage(1, [(1, 0), (3, 5)]), 20), None);
    }

    #[test]
    fn a_peer_that_was_opened_many_times_is_asked_once() {
        let mut sightings = Sightings::default();
        sightings.meet(&lineage(1, [(1, 0)]), 5);
        let later = lineage(1, (2..20).map(|n| (n, 5 + n)));
        assert!(later.check().is_ok() && OPENINGS_TOLD < 18);
        assert!(sightings.meet(&later, 40).is_some());
        assert_eq!(sightings.meet(&later, 41), None);
        assert_eq!(sightings.meet(&later, 42), None);
    }

    #[test]
    fn what_was_not_seen_for_longest_is_forgotten() {
        let mut sightings = Sightings::default();
        for epoch in 0..KNOWN_MAX as u64 {
            sightings.meet(&lineage(epoch, [(epoch, 0)]), 1);
        }
        sightings.meet(&lineage(0, [(0, 0)]), 2);
        sightings.meet(&lineage(9999, [(9999, 0)]), 1);
        let facts = sightings.take_unsaved();
        assert_eq!(facts.forgotten, [Epoch(1)]);
        assert_eq!(facts.seen.len(), KNOWN_MAX);
    }
}
