//! Deciding: from commands to mutations, in memory, without touching the disk.
//!
//! A decider sees the newest commit with everything decided since on top, so commands of one
//! batch see each other in order. What it decides is made durable and applied elsewhere.

use std::collections::{HashMap, HashSet};

use crate::clock::HybridClock;
use crate::replica::command::{Change, Command, Effect, Meeting, Receipt, Refusal, Refused, Write};
use crate::replica::conditions::check;
use crate::replica::draft::{Decision, Draft};
use crate::store::body::Body;
use crate::store::error::StoreError;
use crate::store::stage::{Stage, StageKey};
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::WriterId;
use crate::types::record::{StateRecord, etag};
use crate::types::seen::Seen;
use crate::types::version::{Version, VersionVector};

/// Where the decider finds a state's record as of the newest commit.
pub trait RecordSource {
    /// The record, if the state was ever written.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn record(&self, key: &StateKey) -> Result<Option<StateRecord>, StoreError>;

    /// What was taken in, own writes among it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn seen(&self) -> Result<Seen, StoreError>;

    /// How far a stage has come.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn stage(&self, key: StageKey) -> Result<Option<Stage>, StoreError>;

    /// How far our own writes have been collected: the greatest counter of one that no record
    /// counts any more because of it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn collected(&self) -> Result<u64, StoreError>;
}

/// Decides the commands of one batch in order.
pub struct Decider<'a> {
    pub(in crate::replica) source: &'a dyn RecordSource,
    pub(in crate::replica) clock: &'a mut HybridClock,
    pub(in crate::replica) writer: WriterId,
    pub(in crate::replica) now: u64,
    pub(in crate::replica) seq: u64,
    /// Records as decided; `None` for those that are removed.
    pub(in crate::replica) pending: HashMap<StateKey, Option<StateRecord>>,
    /// What was taken in before this batch and is learned in it, once somebody asks.
    pub(in crate::replica) seen: Option<Seen>,
    /// How far writes of ours are collected by this batch.
    pub(in crate::replica) collected: u64,
    /// Stages that this batch ends or gives up.
    pub(in crate::replica) stages: HashSet<StageKey>,
}

impl<'a> Decider<'a> {
    /// A decider on top of `source`, whose change feed ends at `seq`. `writer` is the name under
    /// which writes count in version vectors; it belongs to one life of the feed.
    pub fn new(
        source: &'a dyn RecordSource,
        clock: &'a mut HybridClock,
        writer: WriterId,
        now: u64,
        seq: u64,
    ) -> Self {
        Self {
            source,
            clock,
            writer,
            now,
            seq,
            pending: HashMap::new(),
            seen: None,
            collected: 0,
            stages: HashSet::new(),
        }
    }

    /// Decides one command. What is refused leaves no trace.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails: the whole batch must be given up.
    pub fn decide(&mut self, command: Command) -> Result<Result<Decision, Refused>, StoreError> {
        let mut draft = Draft {
            seq: self.seq,
            ..Draft::default()
        };
        match command {
            Command::Write(writes) => {
                for (index, write) in writes.into_iter().enumerate() {
                    let refusal = refusal_of(self.write(write, &mut draft))?;
                    if let Some(refusal) = refusal {
                        return Ok(Err(Refused { index, refusal }));
                    }
                }
            }
            Command::Merge(incoming) => {
                let meeting = Meeting {
                    incoming,
                    ..Meeting::default()
                };
                self.meet(meeting, &mut draft)?;
            }
            Command::Meet(meeting) => self.meet(meeting, &mut draft)?,
            Command::Learn(seen) => self.learn(&seen, &mut draft)?,
            Command::Collect(steps) => {
                for step in steps {
                    // What is damaged stays, and `samestate verify` names it.
                    refusal_of(self.collect(step, &mut draft))?;
                }
            }
            Command::Witness(head) => draft.decision.effects.push(Effect::Witness(head)),
            Command::Accuse(held) => draft.decision.effects.push(Effect::Accuse(held)),
            Command::Stage(staging) => draft.decision.effects.push(Effect::Stage(staging)),
            Command::Heal(healings) => {
                let healings = healings.into_iter().map(Effect::Heal);
                draft.decision.effects.extend(healings);
            }
        }
        self.tell_collected(&mut draft)?;
        self.seq = draft.seq;
        self.pending.extend(draft.pending);
        self.stages.extend(draft.stages);
        Ok(Ok(draft.decision))
    }

    pub(in crate::replica) fn record(
        &self,
        key: &StateKey,
        draft: &Draft,
    ) -> Result<Option<StateRecord>, StoreError> {
        let decided = draft.pending.get(key).or_else(|| self.pending.get(key));
        match decided {
            Some(record) => Ok(record.clone()),
            None => self.source.record(key),
        }
    }

    pub(in crate::replica) fn seen(&mut self) -> Result<&mut Seen, StoreError> {
        let seen = match self.seen.take() {
            Some(seen) => seen,
            None => self.source.seen()?,
        };
        Ok(self.seen.insert(seen))
    }

    fn write(&mut self, write: Write, draft: &mut Draft) -> Result<Option<Refusal>, StoreError> {
        let key = StateKey::of(&write.id);
        let current = self.record(&key, draft)?;
        let shown = current.as_ref().filter(|record| !record.is_dead(self.now));
        if let Some(refusal) = check(&write, shown) {
            return Ok(Some(refusal));
        }
        let created = shown.is_none();
        let version = self.next_version(draft.seq + 1, current.as_ref(), &write.change);
        if version.check().is_err() {
            return Ok(Some(Refusal::TooManyWriters { id: write.id }));
        }
        if let Change::Put(content) = &write.change
            && self.lacks_stage(std::slice::from_ref(&content.body), draft)?
        {
            let (id, hash) = (write.id, content.body.hash);
            return Ok(Some(Refusal::MissingBody { id, hash }));
        }
        let seq = draft.next_seq();
        let bodies = match write.change {
            Change::Put(content) => vec![content.body],
            Change::Delete => Vec::new(),
        };
        let (content_hash, size) = (version.content, version.size);
        let record = StateRecord::new(write.id.clone(), version);
        let digest = draft.push(key, seq, record, bodies);
        draft.decision.accepted.receipts.push(Receipt {
            id: write.id,
            etag: etag(&digest),
            content_hash,
            size,
            seq,
            created,
        });
        Ok(None)
    }

    /// The version of a write made here and now: it has seen everything this replica holds.
    fn next_version(
        &mut self,
        seq: u64,
        current: Option<&StateRecord>,
        change: &Change,
    ) -> Version {
        let mut vector = VersionVector::default();
        let mut lease_epoch = 0;
        for version in current.iter().flat_map(|record| record.versions()) {
            vector.join(&version.vector);
            self.clock.observe(version.stamp, self.now);
            lease_epoch = lease_epoch.max(version.lease_epoch);
        }
        let counter = seq.max(vector.get(self.writer).saturating_add(1));
        vector.set(self.writer, counter);
        let stamp = self.clock.tick(self.now);
        let content = match change {
            Change::Put(content) => Some(content),
            Change::Delete => None,
        };
        let ttl = content.and_then(|content| content.ttl);
        Version {
            vector,
            stamp,
            content: content.map_or(ContentHash::NONE, |content| content.body.hash),
            size: content.map_or(0, |content| content.body.size),
            content_type: content.and_then(|content| content.content_type.clone()),
            expires_at: ttl.map(|ttl| stamp.millis.saturating_add(ttl.millis())),
            tombstone: content.is_none(),
            lease_epoch,
        }
    }

    /// True when the stage of one of the bodies does not hold all of it (any more), or serves
    /// another write of this batch.
    pub(in crate::replica) fn lacks_stage(
        &self,
        bodies: &[Body],
        draft: &mut Draft,
    ) -> Result<bool, StoreError> {
        let mut own = HashSet::new();
        for body in bodies {
            let Some(staged) = body.staged().filter(|staged| own.insert(staged.stage)) else {
                continue;
            };
            let is_free = !self.stages.contains(&staged.stage) && draft.stages.insert(staged.stage);
            let stage = self.source.stage(staged.stage)?;
            let holds = |stage: Stage| stage.mark == staged.mark && stage.bytes == body.size;
            if !is_free || !stage.is_some_and(holds) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// One damaged record must not fail the commands that share its batch.
pub(in crate::replica) fn refusal_of(
    step: Result<Option<Refusal>, StoreError>,
) -> Result<Option<Refusal>, StoreError> {
    match step {
        Err(damage @ StoreError::Damaged(_)) => Ok(Some(Refusal::Damaged {
            error: damage.to_string(),
        })),
        step => step,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::replica::command::{Content, Incoming, Mutation, Precondition};
    use crate::types::id::{GameId, ReplicaId};

    struct Memory(BTreeMap<StateKey, StateRecord>);

    impl RecordSource for Memory {
        fn record(&self, key: &StateKey) -> Result<Option<StateRecord>, StoreError> {
            Ok(self.0.get(key).cloned())
        }

        fn seen(&self) -> Result<Seen, StoreError> {
            Ok(Seen::default())
        }

        fn stage(&self, _: StageKey) -> Result<Option<Stage>, StoreError> {
            Ok(None)
        }

        fn collected(&self) -> Result<u64, StoreError> {
            Ok(0)
        }
    }

    fn put(id: &str, byte: u8, precondition: Precondition) -> Write {
        Write {
            id: GameId::new(id).unwrap(),
            precondition,
            change: Change::Put(Content::new(&[byte], None)),
        }
    }

    fn delete(id: &str) -> Write {
        Write {
            change: Change::Delete,
            ..put(id, 0, Precondition::None)
        }
    }

    #[test]
    fn commands_of_a_batch_see_each_other() {
        let (source, mut clock) = (Memory(BTreeMap::new()), HybridClock::new(ReplicaId(1), 0));
        let mut decider = Decider::new(&source, &mut clock, WriterId(1), 1000, 7);
        let mut decide = |write| decider.decide(Command::Write(vec![write])).unwrap();
        let first = decide(put("a", 1, Precondition::Absent)).unwrap();
        assert_eq!(
            (
                first.accepted.receipts[0].seq,
                first.accepted.receipts[0].created
            ),
            (8, true)
        );
        let again = decide(put("a", 2, Precondition::Absent));
        assert!(matches!(
            again.unwrap_err().refusal,
            Refusal::PreconditionFailed { .. }
        ));
        let tag = first.accepted.receipts[0].etag.clone();
        let second = decide(put("a", 2, Precondition::Matches(vec![tag]))).unwrap();
        assert_eq!(
            (
                second.accepted.receipts[0].seq,
                second.accepted.receipts[0].created
            ),
            (9, false)
        );
        assert!(decide(delete("a")).is_ok());
        let nothing = decide(delete("a")).unwrap_err();
        assert!(matches!(nothing.refusal, Refusal::NotFound { .. }));
        assert!(
            decide(put("a", 3, Precondition::Absent))
                .unwrap()
                .accepted
                .receipts[0]
                .created
        );
    }

    struct Damaged;

    impl RecordSource for Damaged {
        fn record(&self, _: &StateKey) -> Result<Option<StateRecord>, StoreError> {
            Err(StoreError::damaged("a row"))
        }

        fn seen(&self) -> Result<Seen, StoreError> {
            Ok(Seen::default())
        }

        fn stage(&self, _: StageKey) -> Result<Option<Stage>, StoreError> {
            Ok(None)
        }

        fn collected(&self) -> Result<u64, StoreError> {
            Ok(0)
        }
    }

    #[test]
    fn a_damaged_record_is_refused_with_what_to_do_about_it() {
        let mut clock = HybridClock::new(ReplicaId(1), 0);
        let mut decider = Decider::new(&Damaged, &mut clock, WriterId(1), 1000, 0);
        let write = Command::Write(vec![put("a", 1, Precondition::None)]);
        let refused = decider.decide(write).unwrap().unwrap_err();
        assert!(refused.to_string().contains("samestate verify"));
    }

    #[test]
    fn a_refused_command_leaves_no_trace() {
        let (source, mut clock) = (Memory(BTreeMap::new()), HybridClock::new(ReplicaId(1), 0));
        let mut decider = Decider::new(&source, &mut clock, WriterId(1), 1000, 0);
        let both = vec![
            put("a", 1, Precondition::None),
            put("b", 1, Precondition::Exists),
        ];
        let refused = decider.decide(Command::Write(both)).unwrap().unwrap_err();
        assert_eq!(refused.index, 1);
        let alone = Command::Write(vec![put("a", 1, Precondition::Absent)]);
        assert_eq!(
            decider.decide(alone).unwrap().unwrap().accepted.receipts[0].seq,
            1
        );
    }

    #[test]
    fn a_record_without_its_bytes_is_refused() {
        let (source, mut clock) = (Memory(BTreeMap::new()), HybridClock::new(ReplicaId(1), 0));
        let mut decider = Decider::new(&source, &mut clock, WriterId(1), 1000, 0);
        let write = Command::Write(vec![put("a", 1, Precondition::None)]);
        let effect = decider.decide(write).unwrap().unwrap().effects.remove(0);
        let mutation = effect.change().unwrap().clone();
        let mut other_clock = HybridClock::new(ReplicaId(2), 0);
        let mut other = Decider::new(&source, &mut other_clock, WriterId(2), 1000, 0);
        let bare = Incoming {
            record: mutation.record.clone(),
            bodies: Vec::new(),
        };
        let bare_merge = Command::Merge(vec![bare.clone()]);
        let refused = other.decide(bare_merge).unwrap().unwrap().accepted.refused;
        assert!(matches!(refused[0].refusal, Refusal::MissingBody { .. }));
        let full = Incoming {
            bodies: mutation.bodies,
            ..bare
        };
        let merged = other.decide(Command::Merge(vec![full.clone()])).unwrap();
        assert_eq!(changed(&merged.unwrap())[0].record, mutation.record);
        let again = other.decide(Command::Merge(vec![full])).unwrap().unwrap();
        assert!(again.effects.is_empty(), "merging twice changes nothing");
    }

    fn changed(decision: &Decision) -> Vec<&Mutation> {
        decision.effects.iter().filter_map(Effect::change).collect()
    }

    /// A record of one version by the given writers, with its bytes.
    fn foreign(id: &str, writers: impl Iterator<Item = (u64, u64)>) -> Incoming {
        let mut vector = VersionVector::default();
        writers.for_each(|(writer, counter)| vector.set(WriterId(writer), counter));
        let body = Body::new(b"foreign");
        let version = Version {
            vector,
            stamp: HybridClock::new(ReplicaId(9), 0).tick(500),
            content: body.hash,
            size: body.size,
            content_type: None,
            expires_at: None,
            tombstone: false,
            lease_epoch: 0,
        };
        Incoming {
            bodies: vec![body],
            record: StateRecord::new(GameId::new(id).unwrap(), version),
        }
    }

    #[test]
    fn one_refused_record_does_not_hold_up_the_others() {
        let (source, mut clock) = (Memory(BTreeMap::new()), HybridClock::new(ReplicaId(1), 0));
        let mut decider = Decider::new(&source, &mut clock, WriterId(1), 1000, 5);
        let forged = foreign("forged", [(1, 6), (2, 1)].into_iter());
        let possible = foreign("possible", [(1, 5), (2, 1)].into_iter());
        let merge = Command::Merge(vec![forged, possible]);
        let decision = decider.decide(merge).unwrap().unwrap();
        let refused = &decision.accepted.refused;
        assert_eq!((refused.len(), refused[0].index), (1, 0));
        assert!(matches!(refused[0].refusal, Refusal::ForeignHistory { .. }));
        let changed = changed(&decision);
        assert_eq!(changed[0].record.id.as_str(), "possible");
        assert_eq!(changed.len(), 1);
    }

    #[test]
    fn no_write_makes_a_version_that_peers_would_refuse() {
        let (source, mut clock) = (Memory(BTreeMap::new()), HybridClock::new(ReplicaId(1), 0));
        let mut decider = Decider::new(&source, &mut clock, WriterId(1), 1000, 5);
        let full = foreign("full", (1000..1256).map(|writer| (writer, 1)));
        assert!(full.record.check().is_ok());
        let merged = decider.decide(Command::Merge(vec![full])).unwrap().unwrap();
        assert_eq!(merged.effects.len(), 1);
        let write = Command::Write(vec![put("full", 1, Precondition::None)]);
        let refused = decider.decide(write).unwrap().unwrap_err();
        assert!(matches!(refused.refusal, Refusal::TooManyWriters { .. }));
        let other = Command::Write(vec![put("other", 1, Precondition::None)]);
        let receipt = decider.decide(other).unwrap().unwrap().accepted.receipts[0].seq;
        assert_eq!(receipt, 7, "the refused write left a gap in the feed");
    }
}
