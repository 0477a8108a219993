//! Applying: decided mutations become rows, tree and head, in memory; the log makes them durable.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tracing::warn;

use crate::merkle::node::Summary;
use crate::merkle::top::Top;
use crate::merkle::update::{LeafChange, Work, update};
use crate::replica::command::{Effect, Healing, Mutation};
use crate::replica::facts::Facts;
use crate::replica::sketching::Moved;
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::rows::{Agreement, Head, Placed, Placement, RecordRow};
use crate::store::write::Tables;
use crate::types::hash::{LeafDigest, StateKey};
use crate::types::id::ReplicaId;
use crate::types::leaf::Leaf;
use crate::types::version::Version;

/// One commit's worth of effects.
#[derive(Debug, Default)]
pub struct Batch {
    /// Decided effects, in order.
    pub effects: Vec<Effect>,
    /// Moments of agreement with peers to be remembered along the way.
    pub agreements: BTreeMap<ReplicaId, Agreement>,
    /// What else is said.
    pub facts: Facts,
    /// Newest millisecond of the clock.
    pub clock: u64,
    /// Rows as the commit before left them, as far as deciding has read them.
    pub read: ReadRows,
}

/// Rows that were read; `None` for states that have none.
pub type ReadRows = HashMap<StateKey, Option<RecordRow>>;

/// What carrying a batch out came to.
#[derive(Debug, Default)]
pub struct Applied {
    /// Tree work.
    pub work: Work,
    /// Leaves that changed.
    pub moved: Vec<Moved>,
}

/// A touched state's leaf: its digest before the batch, and what it is afterwards.
struct Touched {
    before: Option<LeafDigest>,
    leaf: Option<Leaf>,
}

/// Carries a batch out as the store's next commit. `top` and `head` follow; when this fails,
/// everything is as it was.
///
/// # Errors
/// [`StoreError`] when a row that is needed cannot be read.
pub fn apply(
    store: &mut Store,
    top: &mut Top,
    head: &mut Head,
    batch: &Batch,
) -> Result<Applied, StoreError> {
    apply_with(store, top, head, batch, |top, tables, changed, work| {
        Ok(update(top, tables, changed, work)?)
    })
}

/// [`apply`] with another way to bring the tree up to the changed leaves. The benchmark that tells
/// what the tree costs has one that does nothing.
///
/// # Errors
/// As [`apply`], or what `keep` returns.
pub fn apply_with(
    store: &mut Store,
    top: &mut Top,
    head: &mut Head,
    batch: &Batch,
    keep: impl FnOnce(
        &mut Top,
        &mut Tables<'_>,
        &[LeafChange],
        &mut Work,
    ) -> Result<Summary, StoreError>,
) -> Result<Applied, StoreError> {
    let (mut next_top, mut next_head) = (top.clone(), *head);
    let applied = store.change(|tables| {
        let mut applied = Applied::default();
        let touched = carry_out(tables, batch, &mut next_head)?;
        if !touched.is_empty() {
            let changed: Vec<LeafChange> = touched
                .iter()
                .map(|(key, Touched { leaf, .. })| LeafChange {
                    key: *key,
                    leaf: *leaf,
                })
                .collect();
            next_head.root = keep(&mut next_top, tables, &changed, &mut applied.work)?;
            let moved = touched.into_iter().map(|(key, touched)| Moved {
                key,
                before: touched.before,
                after: touched.leaf.map(|leaf| leaf.digest),
            });
            applied.moved = moved.collect();
        }
        for (peer, agreement) in &batch.agreements {
            tables.set_agreement(*peer, agreement);
        }
        put_facts(tables, &batch.facts);
        next_head.clock = next_head.clock.max(batch.clock);
        tables.set_head(&next_head);
        Ok(applied)
    })?;
    (*top, *head) = (next_top, next_head);
    if let Some((identity, provenance)) = &batch.facts.identity {
        store.adopt(*identity, Arc::new(provenance.clone()));
    }
    Ok(applied)
}

fn put_facts(tables: &mut Tables<'_>, facts: &Facts) {
    if let Some((identity, provenance)) = &facts.identity {
        tables.set_identity(identity, provenance);
    }
    for seen in &facts.seen {
        tables.set_sighting(seen);
    }
    for epoch in &facts.forgotten {
        tables.forget_sighting(*epoch);
    }
}

/// A state whose rows are damaged themselves is left to `samestate verify`; others go on.
fn heal(tables: &mut Tables<'_>, healing: &Healing) -> Result<(), StoreError> {
    match tables.heal(&healing.key, &healing.body, healing.references) {
        Err(StoreError::Damaged(what)) => {
            warn!(content = %healing.body.hash, %what, "a content could not be put right");
            Ok(())
        }
        healed => healed,
    }
}

/// A stage that is damaged is no reason to fail what else is to be done: it stays as it is.
fn pass_over_damage(staged: Result<(), StoreError>) -> Result<(), StoreError> {
    match staged {
        Err(StoreError::Damaged(what)) => {
            warn!(%what, "a stage is left as it is");
            Ok(())
        }
        staged => staged,
    }
}

/// Carries the effects out in order of key, those on one state as they were decided, and returns
/// what became of each touched state's leaf.
fn carry_out(
    tables: &mut Tables<'_>,
    batch: &Batch,
    head: &mut Head,
) -> Result<BTreeMap<StateKey, Touched>, StoreError> {
    let mut sorted: Vec<&Effect> = batch.effects.iter().collect();
    // Bytes are put right once the changes have been carried out.
    sorted.sort_by_key(|effect| (matches!(effect, Effect::Heal(_)), effect.key()));
    let (mut touched, mut last) = (BTreeMap::new(), None);
    let mut has_removed = false;
    let mut touch = |key: StateKey, previous: Option<&RecordRow>, leaf: Option<Leaf>| {
        let before = previous.map(|row| row.leaf.digest);
        let state = touched.entry(key).or_insert(Touched { before, leaf });
        state.leaf = leaf;
    };
    for effect in sorted {
        let key = effect.key();
        let is_first = key != last;
        last = key;
        match effect {
            Effect::Change(mutation) => {
                let read = batch.read.get(&mutation.key()).filter(|_| is_first);
                let stored = match read {
                    Some(_) => None,
                    None => tables.record(&mutation.key())?,
                };
                let previous = read.map_or(stored.as_ref(), Option::as_ref);
                let leaf = put_record(tables, mutation, previous, head)?;
                touch(mutation.key(), previous, Some(leaf));
            }
            Effect::Remove(key) => {
                if let Some(row) = tables.record(key)? {
                    tables.remove_record(&row)?;
                    head.live = head.live.saturating_sub(u64::from(row.is_live()));
                    touch(*key, Some(&row), None);
                    has_removed = true;
                }
            }
            Effect::Strip(key, by) => {
                if let Some(row) = tables.record(key)? {
                    let stripped = tables.strip(&row, *by)?;
                    note_given_up(head, &stripped);
                    count(head, Some(&row), &stripped);
                }
            }
            Effect::Trim(key, through) => tables.trim_history(key, *through)?,
            Effect::Free(hash) => tables.free(hash)?,
            Effect::Heal(healing) => heal(tables, healing)?,
            Effect::Seal(entry) => tables.append_root(entry)?,
            Effect::Witness(witnessed) => tables.set_witnessed(witnessed)?,
            Effect::Accuse(accusation) => tables.accuse(accusation)?,
            Effect::Stage(staging) => pass_over_damage(tables.stage(staging))?,
            Effect::Unstage(key) => pass_over_damage(tables.unstage(*key))?,
            Effect::Learn(seen) => {
                let mut all = tables.seen()?;
                if all.join(seen) {
                    tables.set_seen(&all);
                }
            }
        }
    }
    if has_removed {
        tables.leave_root_behind()?;
    }
    Ok(touched)
}

fn put_record(
    tables: &mut Tables<'_>,
    mutation: &Mutation,
    previous: Option<&RecordRow>,
    head: &mut Head,
) -> Result<Leaf, StoreError> {
    let row = put_row(tables, mutation, previous)?;
    note_given_up(head, &row);
    count(head, previous, &row);
    head.seq = head.seq.max(mutation.seq);
    Ok(row.leaf)
}

/// Counts the states that have something to show.
fn count(head: &mut Head, previous: Option<&RecordRow>, row: &RecordRow) {
    let was_live = previous.is_some_and(RecordRow::is_live);
    head.live = (head.live + u64::from(row.is_live())).saturating_sub(u64::from(was_live));
}

/// Keeps the clock behind the end of every version without bytes, which is how a check tells that
/// they were not lost.
fn note_given_up(head: &mut Head, row: &RecordRow) {
    let bare = row
        .placed()
        .filter(|(_, place)| **place == Placement::Nothing);
    let ends = bare.filter_map(|(version, _)| version.expires_at.filter(|_| !version.tombstone));
    head.clock = ends.fold(head.clock, u64::max);
}

fn put_row(
    tables: &mut Tables<'_>,
    mutation: &Mutation,
    previous: Option<&RecordRow>,
) -> Result<RecordRow, StoreError> {
    let mut placements = Vec::with_capacity(mutation.record.versions().len());
    let renames = renames(mutation, previous);
    for version in mutation.record.versions() {
        placements.push(place(tables, mutation, previous, version, &renames)?);
    }
    let row = RecordRow {
        leaf: mutation.leaf,
        seq: mutation.seq,
        record: mutation.record.clone(),
        placements,
    };
    tables.put_record(&row, previous);
    let superseded: Vec<Placed> = previous
        .iter()
        .flat_map(|previous| previous.placed())
        .filter(|(version, _)| !mutation.record.versions().contains(version))
        .filter(|(version, _)| renames.iter().all(|(old, _)| old != version))
        .map(Placed::of)
        .collect();
    if !superseded.is_empty() {
        tables.remember(&mutation.key(), mutation.seq, &superseded)?;
    }
    Ok(row)
}

/// Versions that go on under another name, with their new forms: one write has one stamp. The new
/// one takes over the place of the old one, and there is nothing to remember.
fn renames<'m>(
    mutation: &'m Mutation,
    previous: Option<&'m RecordRow>,
) -> Vec<(&'m Version, &'m Version)> {
    let held = previous.map_or(&[][..], |previous| previous.record.versions());
    let now = mutation.record.versions();
    let mut renames: Vec<(&Version, &Version)> = Vec::new();
    for new in now.iter().filter(|version| !held.contains(version)) {
        let old = held.iter().find(|old| {
            let is_same_write = old.stamp == new.stamp && old.same_content(new);
            let is_free = renames.iter().all(|(taken, _)| taken != old);
            is_same_write && is_free && !now.contains(old)
        });
        renames.extend(old.map(|old| (old, new)));
    }
    renames
}

/// A version that stays current keeps its place, also under another name; a new one gets a place
/// for its bytes.
fn place(
    tables: &mut Tables<'_>,
    mutation: &Mutation,
    previous: Option<&RecordRow>,
    version: &Version,
    renames: &[(&Version, &Version)],
) -> Result<Placement, StoreError> {
    if version.tombstone {
        return Ok(Placement::Nothing);
    }
    let before = renames.iter().find(|(_, new)| *new == version);
    let wanted = before.map_or(version, |(old, _)| *old);
    let mut held = previous.iter().flat_map(|previous| previous.placed());
    if let Some((_, placement)) = held.find(|(held, _)| *held == wanted) {
        return Ok(placement.clone());
    }
    let mut bodies = mutation.bodies.iter();
    match bodies.find(|body| body.hash == version.content) {
        Some(body) => tables.place(body),
        // It had expired when it was merged.
        None if version.expires_at.is_some() => Ok(Placement::Nothing),
        None => Err(StoreError::damaged(format!(
            "a change of {:?} was decided without its bytes",
            mutation.record.id
        ))),
    }
}
