//! What a start does: carries out what the log holds and the engine's file does not.

use std::sync::Arc;

use crate::clock::is_believable;
use crate::merkle::top::Top;
use crate::merkle::update::Work;
use crate::replica::apply::{Batch, apply};
use crate::replica::command::{Effect, Mutation};
use crate::replica::journal;
use crate::replica::read_ahead::read_ahead;
use crate::store::error::StoreError;
use crate::store::log::replay::Replay;
use crate::store::open::Store;
use crate::store::rows::{Head, Identity};
use crate::types::version::{Stamp, Version};

/// Where a store stands after its log was carried out.
pub struct Recovered {
    /// The upper levels of its tree.
    pub top: Top,
    /// Its head.
    pub head: Head,
    /// Tree work that was done.
    pub work: Work,
}

/// Carries out what the log holds as one commit, which takes the number of the newest one. `now` is
/// what the clock on the wall says, in milliseconds since 1970-01-01 UTC.
///
/// # Errors
/// [`StoreError::Damaged`] when the rows do not add up to the root in the head, or the log's
/// changes cannot be carried out.
pub fn recover(store: &mut Store, replay: Replay, now: u64) -> Result<Recovered, StoreError> {
    let snapshot = store.snapshot();
    let (mut head, mut top) = (snapshot.head()?, Top::load(&snapshot)?);
    if !top.root().hash.matches(&head.root.hash) || top.root() != head.root {
        return Err(StoreError::damaged(format!(
            "{}: the Merkle rows give root {}, the head says {}",
            store.path().display(),
            top.root().hash,
            head.root.hash
        )));
    }
    let mut batch = Batch::default();
    for changes in replay.commits.into_values() {
        let (facts, effects) = journal::from_bytes(changes)?;
        batch.effects.extend(effects);
        for epoch in facts.forgotten {
            batch.facts.seen.retain(|seen| seen.epoch != epoch);
            batch.facts.forgotten.push(epoch);
        }
        for seen in facts.seen {
            batch.facts.forgotten.retain(|epoch| *epoch != seen.epoch);
            batch.facts.seen.push(seen);
        }
        // What the file says itself is newer when it has been opened since.
        let newer = facts
            .identity
            .filter(|(identity, _)| identity.incarnation >= store.identity().incarnation);
        if let Some((identity, provenance)) = newer {
            store.adopt(identity, Arc::new(provenance));
        }
    }
    batch.clock = clock_of(&batch.effects, &store.identity(), now);
    let mut work = Work::default();
    while store.next_commit() < replay.newest {
        store.skip_commit();
    }
    if !batch.effects.is_empty() || !batch.facts.is_empty() {
        read_ahead(&snapshot, &batch);
        work = apply(store, &mut top, &mut head, &batch)?.work;
    } else if store.next_commit() == replay.newest {
        store.skip_commit();
    }
    Ok(Recovered { top, head, work })
}

/// The newest millisecond that the clock had reached, as far as the changes tell. It follows others'
/// stamps no further than it did when they came; those given here it stays behind however wrong the
/// machine's clock was then.
fn clock_of(effects: &[Effect], identity: &Identity, now: u64) -> u64 {
    let changes = effects.iter().filter_map(Effect::change);
    let versions = changes.flat_map(|change| {
        let versions = change.record.versions().iter();
        versions.map(move |version| (change, version))
    });
    let reached = versions.filter_map(|(change, version)| {
        let Stamp { millis, .. } = version.stamp;
        let counts = is_believable(version.stamp, now) || is_of(identity, change, version);
        counts.then_some(millis)
    });
    reached.max().unwrap_or(0)
}

/// True for the version that a change wrote here: its counter is the change's position in the feed,
/// which no record from elsewhere can have had.
fn is_of(identity: &Identity, change: &Mutation, version: &Version) -> bool {
    let counter = version.vector.get(identity.writer());
    version.stamp.replica == identity.replica && counter >= change.seq
}
