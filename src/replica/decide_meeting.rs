//! What becomes of records of other replicas: merged, refused, or let go of.

use crate::replica::command::{Effect, Incoming, Meeting, Refusal, Refused};
use crate::replica::conditions::missing;
use crate::replica::decide::{Decider, refusal_of};
use crate::replica::draft::Draft;
use crate::store::error::StoreError;
use crate::types::hash::StateKey;
use crate::types::record::{StateRecord, meet};
use crate::types::seen::Seen;
use crate::types::version::Version;

impl Decider<'_> {
    pub(in crate::replica) fn meet(
        &mut self,
        meeting: Meeting,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        for (index, incoming) in meeting.incoming.into_iter().enumerate() {
            let refusal = refusal_of(self.merge(incoming, &meeting.seen, draft))?;
            let refused = refusal.map(|refusal| Refused { index, refusal });
            draft.decision.accepted.refused.extend(refused);
        }
        for key in meeting.absent {
            // What is damaged stays, and `samestate verify` names it.
            refusal_of(self.let_go(key, &meeting.seen, draft).map(|()| None))?;
        }
        Ok(())
    }

    fn merge(
        &mut self,
        incoming: Incoming,
        theirs: &Seen,
        draft: &mut Draft,
    ) -> Result<Option<Refusal>, StoreError> {
        let key = incoming.record.key();
        let current = self.record(&key, draft)?;
        if self.is_of_a_namesake(&incoming.record, current.as_ref(), draft)? {
            let id = incoming.record.id;
            return Ok(Some(Refusal::ForeignHistory { id }));
        }
        let merged = meet(
            current.as_ref(),
            self.seen()?,
            Some(&incoming.record),
            theirs,
        );
        if current == merged {
            return Ok(None);
        }
        let Some(merged) = merged else {
            self.remove(key, current.as_ref(), draft);
            return Ok(None);
        };
        let held = current.as_ref().map_or(&[][..], StateRecord::versions);
        if let Some(refusal) = missing(&merged, held, &incoming, self.now) {
            return Ok(Some(refusal));
        }
        if self.lacks_stage(&incoming.bodies, draft)? {
            let (id, hash) = (merged.id.clone(), merged.shown().content);
            return Ok(Some(Refusal::MissingBody { id, hash }));
        }
        for version in incoming.record.versions() {
            self.clock.observe(version.stamp, self.now);
        }
        self.note_collected(current.as_ref(), Some(&merged), draft);
        let seq = draft.next_seq();
        draft.push(key, seq, merged, incoming.bodies);
        Ok(None)
    }

    /// True when a record counts writes under our name that were not made here.
    ///
    /// Whatever was written here is counted in what is held, unless that, or what was held before,
    /// has been collected; and of two writes with one count and our id in their stamps one is
    /// somebody else's.
    fn is_of_a_namesake(
        &self,
        incoming: &StateRecord,
        held: Option<&StateRecord>,
        draft: &Draft,
    ) -> Result<bool, StoreError> {
        let made = held.map_or(draft.seq, |held| self.counted(held));
        if self.counted(incoming) > made {
            let collected = self.source.collected()?.max(self.collected);
            if self.counted(incoming) > collected.max(draft.collected) {
                return Ok(true);
            }
        }
        let (replica, held) = (
            self.clock.replica(),
            held.map_or(&[][..], StateRecord::versions),
        );
        let count = |version: &Version| version.vector.get(self.writer);
        let is_other = |theirs: &Version, ours: &Version| {
            let stamped = theirs.stamp.replica == replica && ours.stamp.replica == replica;
            let same_count = count(theirs) > 0 && count(theirs) == count(ours);
            stamped && same_count && theirs.stamp != ours.stamp
        };
        let mut theirs = incoming.versions().iter();
        Ok(theirs.any(|theirs| held.iter().any(|ours| is_other(theirs, ours))))
    }

    /// Removes what whoever has `seen` has collected.
    fn let_go(
        &mut self,
        key: StateKey,
        theirs: &Seen,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        let Some(current) = self.record(&key, draft)? else {
            return Ok(());
        };
        match meet(Some(&current), self.seen()?, None, theirs) {
            None => self.remove(key, Some(&current), draft),
            Some(rest) if rest != current => {
                self.note_collected(Some(&current), Some(&rest), draft);
                let seq = draft.next_seq();
                draft.push(key, seq, rest, Vec::new());
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Nobody else knows how far our own writes go.
    pub(in crate::replica) fn learn(
        &mut self,
        theirs: &Seen,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        let (writer, mut theirs) = (self.writer, theirs.clone());
        theirs.forget(writer);
        let news = self.seen()?.learn(&theirs);
        if news != Seen::default() {
            draft.decision.effects.push(Effect::Learn(news));
        }
        Ok(())
    }
}
