//! What is given up: states that are over, expired bytes, history, chunks, stages; and how far our own
//! writes are gone by it.

use crate::replica::command::{Effect, Refusal, Step};
use crate::replica::decide::Decider;
use crate::replica::draft::Draft;
use crate::store::error::StoreError;
use crate::store::rows::STRIP_GRACE_MILLIS;
use crate::types::hash::StateKey;
use crate::types::record::StateRecord;
use crate::types::seen::Seen;

impl Decider<'_> {
    pub(in crate::replica) fn collect(
        &mut self,
        step: Step,
        draft: &mut Draft,
    ) -> Result<Option<Refusal>, StoreError> {
        let now = self.now;
        match step {
            Step::Depart(key) => {
                let departed = self.record(&key, draft)?;
                let departed = departed.filter(|record| record.has_departed(now));
                if let Some(record) = departed
                    && record.is_covered(self.seen()?)
                {
                    self.remove(key, Some(&record), draft);
                }
            }
            Step::Strip(key) => {
                let by = now.saturating_sub(STRIP_GRACE_MILLIS);
                let record = self.record(&key, draft)?;
                let mut versions = record.iter().flat_map(StateRecord::versions);
                if versions.any(|version| version.has_expired(by)) {
                    draft.decision.effects.push(Effect::Strip(key, by));
                }
            }
            Step::Trim(key, through) => {
                draft.decision.effects.push(Effect::Trim(key, through));
            }
            Step::Free(hash) => draft.decision.effects.push(Effect::Free(hash)),
            Step::Unstage(key) => {
                if !self.stages.contains(&key) {
                    draft.stages.insert(key);
                    draft.decision.effects.push(Effect::Unstage(key));
                }
            }
        }
        Ok(None)
    }

    pub(in crate::replica) fn remove(
        &self,
        key: StateKey,
        current: Option<&StateRecord>,
        draft: &mut Draft,
    ) {
        self.note_collected(current, None, draft);
        draft.pending.insert(key, None);
        draft.decision.effects.push(Effect::Remove(key));
    }

    /// Remembers how far our writes have been collected, when `rest` does not count them any more.
    pub(in crate::replica) fn note_collected(
        &self,
        current: Option<&StateRecord>,
        rest: Option<&StateRecord>,
        draft: &mut Draft,
    ) {
        let counted = current.map_or(0, |current| self.counted(current));
        if counted > rest.map_or(0, |rest| self.counted(rest)) {
            draft.collected = draft.collected.max(counted);
        }
    }

    /// How far the versions of a record count our writes.
    pub(in crate::replica) fn counted(&self, record: &StateRecord) -> u64 {
        let counters = record.versions().iter().map(|v| v.vector.get(self.writer));
        counters.max().unwrap_or(0)
    }

    /// Says how far our writes have been collected by what was decided, if that is news.
    pub(in crate::replica) fn tell_collected(
        &mut self,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        if draft.collected > self.source.collected()?.max(self.collected) {
            let mut seen = Seen::default();
            seen.raise(self.writer, draft.collected);
            draft.decision.effects.push(Effect::Learn(seen));
            self.collected = draft.collected;
        }
        Ok(())
    }
}
