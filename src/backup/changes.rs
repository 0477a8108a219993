//! What a namespace holds that a chain of backups does not, in order of key.
//!
//! The change feed proposes and the tree proves: with the chain's records in place of those that
//! changed since, the namespace's tree must have the root of the earlier backup. When it has not
//! (states were removed altogether, the feed is another one, the data directory was put back from a copy),
//! everything is compared.

use crate::backup::chain::Chain;
use crate::backup::entry::Entry;
use crate::backup::error::BackupError;
use crate::backup::manifest::NamespacePart;
use crate::backup::watch::{Watch, step};
use crate::merkle::overlay::root_with;
use crate::merkle::prefix::Prefix;
use crate::merkle::stream::RootStream;
use crate::merkle::update::LeafChange;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::RecordRow;
use crate::types::hash::StateKey;
use crate::types::id::GameId;

/// Changes that are kept in memory; with more of them comparing everything costs little more.
const CHANGES_MAX: usize = 256 << 10;
/// Entries of the feed, and records, that are read at once.
const PAGE: usize = 256;

/// A difference.
pub enum Change {
    /// A state that is new or changed, and what the chain has of it.
    Written(Box<RecordRow>, Option<Entry>),
    /// A state that the chain has and the namespace has not.
    Removed(GameId),
}

/// Takes differences, in order of key.
pub type Take<'a> = &'a mut dyn FnMut(StateKey, Change) -> Result<(), BackupError>;

/// Finds every difference between a namespace and a chain, whose newest backup is `parent`.
///
/// # Errors
/// [`BackupError`] when either cannot be read, or of what `take` returns.
pub fn find(
    view: &View,
    chain: &Chain,
    parent: Option<&NamespacePart>,
    watch: &dyn Watch,
    take: Take<'_>,
) -> Result<(), BackupError> {
    let keys = match parent {
        Some(parent) => by_feed(view, chain, parent)?,
        None => None,
    };
    match keys {
        Some(keys) => {
            watch.begin("saving", keys.len() as u64, "states");
            read(view, chain, &keys, watch, take)
        }
        None => {
            watch.begin("saving", view.head().root.leaves, "states");
            compare(view, chain, watch, take)
        }
    }
}

/// The keys of what changed since, sorted, by the feed; `None` when that is not all of it.
fn by_feed(
    view: &View,
    chain: &Chain,
    parent: &NamespacePart,
) -> Result<Option<Vec<StateKey>>, BackupError> {
    let cursor = view.cursor();
    if parent.cursor.epoch != cursor.epoch || parent.cursor.seq > cursor.seq {
        return Ok(None);
    }
    let (mut seq, mut keys) = (parent.cursor.seq, Vec::new());
    loop {
        let page = view.snapshot().changes_after(seq, PAGE)?;
        let Some((last, _)) = page.last() else {
            break;
        };
        seq = *last;
        keys.extend(page.into_iter().map(|(_, key)| key));
        if keys.len() > CHANGES_MAX {
            return Ok(None);
        }
    }
    keys.sort_unstable();
    let mut states = chain.states()?;
    let mut before = Vec::with_capacity(keys.len());
    for key in &keys {
        let state = states.seek(key)?;
        before.push(LeafChange {
            key: *key,
            leaf: state.map(|state| state.record.leaf()),
        });
    }
    let root = root_with(view.top(), view.snapshot(), &before).map_err(StoreError::from)?;
    Ok(root.matches(&parent.summary()).then_some(keys))
}

fn read(
    view: &View,
    chain: &Chain,
    keys: &[StateKey],
    watch: &dyn Watch,
    take: Take<'_>,
) -> Result<(), BackupError> {
    let mut states = chain.states()?;
    for key in keys {
        let row = view.snapshot().record(key)?;
        let row = row.ok_or_else(|| StoreError::damaged(format!("{key} has no record")))?;
        let known = states.seek(key)?.map(|state| state.entry);
        take(*key, Change::Written(Box::new(row), known))?;
        step(watch)?;
    }
    Ok(())
}

/// Walks both in order of key. On the way it makes sure that the records add up to the root, which
/// is what a restored replica has to have.
fn compare(
    view: &View,
    chain: &Chain,
    watch: &dyn Watch,
    take: Take<'_>,
) -> Result<(), BackupError> {
    let mut states = chain.states()?;
    let mut head = states.next_state()?;
    let mut root = RootStream::default();
    let mut after = None;
    loop {
        let page = view.snapshot().records_below(Prefix::ROOT, after, PAGE)?;
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.leaf.key);
        for row in page {
            let key = row.leaf.key;
            while let Some(gone) = head.take_if(|state| state.key < key) {
                take(gone.key, Change::Removed(gone.entry.id))?;
                head = states.next_state()?;
            }
            let pushed = root.push(row.leaf);
            pushed.map_err(|error| StoreError::damaged(error.to_string()))?;
            let known = head.take_if(|state| state.key == key);
            if known.is_some() {
                head = states.next_state()?;
            }
            if known.as_ref().map(|state| state.record.leaf()) != Some(row.leaf) {
                let known = known.map(|state| state.entry);
                take(key, Change::Written(Box::new(row), known))?;
            }
            step(watch)?;
        }
    }
    while let Some(gone) = head {
        take(gone.key, Change::Removed(gone.entry.id))?;
        head = states.next_state()?;
    }
    let (root, expected) = (root.finish(), view.head().root);
    if root.matches(&expected) {
        return Ok(());
    }
    Err(StoreError::damaged(format!(
        "the records have root {}, the head says {}",
        root.hash, expected.hash
    ))
    .into())
}
