//! Making a namespace's file out of records: everything that is derived from them is made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::clock::{SystemClock, WallClock, is_believable};
use crate::delta::compress::pack;
use crate::merkle::top::Top;
use crate::replica::apply::{Batch, apply};
use crate::replica::command::{Effect, Mutation};
use crate::replica::facts::Facts;
use crate::replica::staging::checked;
use crate::store::body::{Body, StagedBody};
use crate::store::claim::Claim;
use crate::store::disk::MachineDisk;
use crate::store::engine_files::EngineFiles;
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::options::StoreOptions;
use crate::store::rows::{Agreement, Head, Identity, Placed, Placement};
use crate::store::salvage::REPAIR_CACHE_BYTES;
use crate::store::stage::{ChunkEntry, Stage, StageKey, StagedChunk, Staging};
use crate::types::hash::StateKey;
use crate::types::id::{GameId, ReplicaId};
use crate::types::lineage::Provenance;
use crate::types::record::StateRecord;
use crate::types::version::{Stamp, Version};

/// Bytes of states that are written together.
const BATCH_BYTES: usize = 16 << 20;
/// Records that are written together.
const BATCH_RECORDS: usize = 4096;

/// Chunks that are brought into a stage together: a megabyte and a half at most.
const STEP_CHUNKS: usize = 96;

/// A version with its bytes; a tombstone has none, nor need one that has expired.
pub struct Whole {
    /// The version.
    pub version: Version,
    /// Its bytes.
    pub body: Option<Body>,
}

/// A state to be written.
pub struct Salvaged {
    /// Its id.
    pub id: GameId,
    /// Its position in the feed, unless that is not known.
    pub seq: Option<u64>,
    /// Its current versions, at least one.
    pub versions: Vec<Whole>,
    /// Older ones by the change that superseded them.
    pub history: BTreeMap<u64, Vec<Whole>>,
}

/// A file in the making.
pub struct Builder {
    store: Store,
    file: EngineFiles,
    top: Top,
    head: Head,
    /// Newest position of the feed of before, when positions are kept.
    kept: Option<u64>,
    taken: BTreeSet<u64>,
    batch: Batch,
    history: Vec<(StateKey, u64, Vec<Whole>)>,
    bytes: usize,
}

impl Builder {
    /// Makes a new file. Positions in the feed are kept when it is known where it `stood`.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be made.
    pub fn create(path: &Path, claim: &Claim, stood: Option<&Head>) -> Result<Self, StoreError> {
        let options = StoreOptions {
            // What was kept is kept; the next start knows how much that is to be.
            history_versions: usize::MAX,
            cache_bytes: REPAIR_CACHE_BYTES,
            ..StoreOptions::default()
        };
        let (store, file) = Store::open_as(Arc::new(MachineDisk), path, claim, options)?;
        let head = Head {
            seq: stood.map_or(0, |head| head.seq),
            clock: stood.map_or(0, |head| head.clock),
            ..Head::default()
        };
        Ok(Self {
            store,
            file,
            top: Top::default(),
            head,
            kept: stood.map(|head| head.seq),
            taken: BTreeSet::new(),
            batch: Batch::default(),
            history: Vec::new(),
            bytes: 0,
        })
    }

    /// Records written so far.
    pub fn records(&self) -> u64 {
        self.head.root.leaves
    }

    /// A position in the feed: the one of before, or the next free one.
    fn position(&mut self, wanted: Option<u64>) -> u64 {
        let kept = self.kept.filter(|_| wanted.is_some());
        if let (Some(newest), Some(seq)) = (kept, wanted)
            && seq <= newest
            && self.taken.insert(seq)
        {
            return seq;
        }
        self.head.seq += 1;
        self.head.seq
    }

    /// Adds a state that is not there yet.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn add(&mut self, state: Salvaged) -> Result<(), StoreError> {
        let versions = state.versions.iter().map(|whole| whole.version.clone());
        let record = StateRecord::from_versions(state.id, versions.collect());
        let Some((record, _)) = record else {
            return Ok(());
        };
        let key = record.key();
        let bodies: Vec<Body> = state.versions.into_iter().filter_map(|w| w.body).collect();
        self.bytes += bodies.iter().map(Body::weight).sum::<usize>() + record.weight();
        for (seq, versions) in state.history {
            // Without the positions of before those of its changes come in front of the state's own.
            let seq = match self.kept {
                Some(_) => seq,
                None => self.position(None),
            };
            let bodies = versions.iter().filter_map(|whole| whole.body.as_ref());
            self.bytes += bodies.map(Body::weight).sum::<usize>();
            self.history.push((key, seq, versions));
        }
        let seq = self.position(state.seq);
        let change = Mutation::new(key, seq, record, bodies);
        self.batch.effects.push(Effect::Change(change));
        if self.bytes >= BATCH_BYTES || self.batch.effects.len() >= BATCH_RECORDS {
            self.flush()?;
        }
        Ok(())
    }

    /// Stores a large content chunk by chunk, as a stage for a state to refer to; `None` when a chunk
    /// cannot be `read`, or all of them are not the content. Nothing is left of it then.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn stage_content(
        &mut self,
        key: StageKey,
        version: &Version,
        list: &[ChunkEntry],
        read: &dyn Fn(&ChunkEntry) -> Option<Vec<u8>>,
    ) -> Result<Option<Body>, StoreError> {
        let stage = Stage::new(version.content, version.size, 0);
        if !self.stage(key, &stage, list, read)? {
            return Ok(None);
        }
        match checked(&self.store.snapshot(), key, &version.content) {
            Ok(Some(body)) if body.size == version.size => Ok(Some(body)),
            Ok(_) | Err(StoreError::Damaged(_)) => {
                self.give_up(key)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Stores the chunks of a `list` as a stage, a few at a time; false when one cannot be `read`. Nothing is
    /// left of it then.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn stage(
        &mut self,
        key: StageKey,
        stage: &Stage,
        list: &[ChunkEntry],
        read: &dyn Fn(&ChunkEntry) -> Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        for (part, from) in list.chunks(STEP_CHUNKS).zip((0..).step_by(STEP_CHUNKS)) {
            let chunk = |entry: &ChunkEntry| {
                Some(StagedChunk {
                    hash: entry.0,
                    length: entry.1,
                    packed: Some(pack(&read(entry)?).into()),
                })
            };
            let Some(chunks) = part.iter().map(chunk).collect::<Option<Vec<_>>>() else {
                self.give_up(key)?;
                return Ok(false);
            };
            let staging = Staging {
                key,
                content: stage.content,
                size: stage.size,
                from,
                chunks,
                at: stage.touched_at,
            };
            self.store.change(|tables| tables.stage(&staging))?;
            self.bytes += staging.weight();
            if self.bytes >= BATCH_BYTES {
                self.flush()?;
            }
        }
        Ok(true)
    }

    /// Gives up a stage that nobody refers to, if it is there.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn give_up(&mut self, key: StageKey) -> Result<(), StoreError> {
        while self.store.snapshot().stage(key)?.is_some() {
            self.store.change(|tables| tables.unstage(key))?;
        }
        Ok(())
    }

    /// True when a stage holds all of a content, which may have come by several commits of the log.
    fn has_staged(&mut self, body: &Body, staged: &StagedBody) -> Result<bool, StoreError> {
        self.flush()?;
        match checked(&self.store.snapshot(), staged.stage, &body.hash) {
            Ok(found) => Ok(found.is_some_and(|found| found.size == body.size)),
            Err(StoreError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bodies whose bytes are there.
    fn whole(&mut self, bodies: Vec<Body>) -> Result<Vec<Body>, StoreError> {
        let mut whole = Vec::with_capacity(bodies.len());
        for body in bodies {
            let is_whole = match body.staged().copied() {
                Some(staged) => self.has_staged(&body, &staged)?,
                None => body.unpacked().is_some(),
            };
            whole.extend(is_whole.then_some(body));
        }
        Ok(whole)
    }

    /// Carries out a change that the log remembers; false when bytes that it needs are lost. Its
    /// position in the feed is kept when it `follows` all that came before.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn change(&mut self, mutation: Mutation, follows: bool) -> Result<bool, StoreError> {
        let key = mutation.key();
        if self
            .batch
            .effects
            .iter()
            .any(|pending| pending.key() == Some(key))
        {
            self.flush()?;
        }
        let held = self.store.snapshot().record(&key)?;
        let merged = match &held {
            // What stands in between is lost, and may have been something else than it is here.
            Some(row) if !follows => row.record.merge(&mutation.record).0,
            _ => mutation.record,
        };
        if held.as_ref().is_some_and(|row| row.record == merged) {
            return Ok(true);
        }
        let bodies = self.whole(mutation.bodies)?;
        let now = SystemClock.now_millis();
        let is_there = |version: &Version| {
            let held = held.iter().flat_map(|row| row.record.versions());
            // The same write may go on under another name.
            let same = |held: &Version| held.stamp == version.stamp && held.same_content(version);
            version.is_dead(now)
                || held.into_iter().any(|held| held == version || same(held))
                || bodies.iter().any(|body| body.hash == version.content)
        };
        let versions: Vec<Version> = merged.versions().to_vec();
        let (there, lost): (Vec<_>, Vec<_>) = versions.into_iter().partition(is_there);
        let Some((record, _)) = StateRecord::from_versions(merged.id.clone(), there) else {
            return Ok(false);
        };
        if held.as_ref().is_some_and(|row| row.record == record) {
            return Ok(lost.is_empty());
        }
        let is_new = follows && self.kept.is_some() && mutation.seq > self.head.seq;
        let seq = if is_new {
            self.head.seq = mutation.seq;
            mutation.seq
        } else {
            self.position(None)
        };
        self.bytes += bodies.iter().map(Body::weight).sum::<usize>() + record.weight();
        let change = Mutation::new(key, seq, record, bodies);
        self.batch.effects.push(Effect::Change(change));
        if self.bytes >= BATCH_BYTES || self.batch.effects.len() >= BATCH_RECORDS {
            self.flush()?;
        }
        Ok(lost.is_empty())
    }

    /// Effects that wait to be written.
    pub fn effects(&self) -> usize {
        self.batch.effects.len()
    }

    /// Takes note that states were removed since the newest entry of the log of roots. Everything in
    /// front must have been written.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn leave_root_behind(&mut self) -> Result<(), StoreError> {
        self.store.change(|tables| {
            tables.leave_root_behind()?;
            Ok(())
        })
    }

    /// Carries out something else that the log remembers. Everything in front must have been written.
    pub fn carry_out(&mut self, effect: Effect) {
        self.batch.effects.push(effect);
    }

    /// Writes what was added.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let mut batch = std::mem::take(&mut self.batch);
        let changes = batch.effects.iter().filter_map(Effect::change);
        let stamps = changes.flat_map(|change| change.record.versions());
        let (replica, now) = (self.store.identity().replica, SystemClock.now_millis());
        let counts = |stamp: &Stamp| stamp.replica == replica || is_believable(*stamp, now);
        let reached = stamps.map(|version| version.stamp).filter(counts);
        batch.clock = reached.map(|stamp| stamp.millis).max().unwrap_or(0);
        if !batch.effects.is_empty() {
            apply(&mut self.store, &mut self.top, &mut self.head, &batch)?;
        }
        for (key, seq, versions) in std::mem::take(&mut self.history) {
            self.store.change(|tables| {
                let mut placed = Vec::with_capacity(versions.len());
                for Whole { version, body } in versions {
                    let placement = match body {
                        Some(body) => tables.place(&body)?,
                        None => Placement::Nothing,
                    };
                    placed.push(Placed { version, placement });
                }
                tables.remember(&key, seq, &placed)
            })?;
        }
        self.bytes = 0;
        self.checkpoint()
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        if let Some(frozen) = self.store.freeze() {
            let flushed = self.file.flush(&frozen)?;
            self.store.flushed(&flushed);
        }
        Ok(())
    }

    /// Says what the file is, what else is known, and that it holds every commit up to `newest`.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn finish(
        mut self,
        (identity, provenance): (&Identity, &Provenance),
        agreements: BTreeMap<ReplicaId, Agreement>,
        facts: Facts,
        newest: u64,
    ) -> Result<(), StoreError> {
        let batch = Batch {
            agreements,
            facts,
            ..Batch::default()
        };
        apply(&mut self.store, &mut self.top, &mut self.head, &batch)?;
        self.store.go_on_behind(newest);
        self.checkpoint()?;
        self.file.set_identity(identity, provenance)?;
        Ok(())
    }
}
