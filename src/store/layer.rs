//! The rows of one table that are in memory only, each with its states as of several commits.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What is known of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known<R> {
    /// It is there.
    Row(R),
    /// It was removed.
    Removed,
}

/// One state of a row: the commit that brought it, and the row or its removal.
type Dated<R> = (u64, Known<R>);

/// Rows, each with its states in order of commits.
type Rows<K, R> = BTreeMap<K, Vec<Dated<R>>>;

/// Rows of one table.
pub struct Layer<K, R> {
    rows: RwLock<Rows<K, R>>,
}

impl<K, R> Default for Layer<K, R> {
    fn default() -> Self {
        Self {
            rows: RwLock::default(),
        }
    }
}

impl<K: Ord + Clone, R: Clone> Layer<K, R> {
    fn read(&self) -> RwLockReadGuard<'_, Rows<K, R>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Rows<K, R>> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows that were touched.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// True when no row was touched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row as of a commit; `None` when it was not touched up to then.
    pub fn get(&self, key: &K, commit: u64) -> Option<Known<R>> {
        newest(self.read().get(key)?, commit).cloned()
    }

    /// At most `limit` rows of a range as of a commit, in order of key.
    pub fn range(
        &self,
        range: impl RangeBounds<K>,
        commit: u64,
        limit: usize,
    ) -> Vec<(K, Known<R>)> {
        if is_empty(&range) {
            return Vec::new();
        }
        let rows = self.read();
        let touched = rows.range(range);
        let seen = touched.filter_map(|(key, states)| {
            newest(states, commit).map(|known| (key.clone(), known.clone()))
        });
        seen.take(limit).collect()
    }

    /// The last row of a range that is there as of a commit.
    pub fn last(&self, range: impl RangeBounds<K>, commit: u64) -> Option<(K, R)> {
        if is_empty(&range) {
            return None;
        }
        let rows = self.read();
        let mut touched = rows.range(range).rev();
        touched.find_map(|(key, states)| match newest(states, commit)? {
            Known::Row(row) => Some((key.clone(), row.clone())),
            Known::Removed => None,
        })
    }

    /// Sets or removes a row as part of a commit, the newest there is.
    pub fn set(&self, key: K, known: Known<R>, commit: u64) {
        let mut rows = self.write();
        let states = rows.entry(key).or_default();
        match states.last_mut() {
            Some(last) if last.0 == commit => last.1 = known,
            _ => states.push((commit, known)),
        }
    }

    /// Takes back everything that belongs to a commit or a later one.
    pub fn roll_back(&self, commit: u64) {
        self.write().retain(|_, states| {
            states.retain(|(at, _)| *at < commit);
            !states.is_empty()
        });
    }
}

/// The newest state of a row that is not newer than a commit.
fn newest<R>(states: &[Dated<R>], commit: u64) -> Option<&Known<R>> {
    let mut newest_first = states.iter().rev();
    newest_first.find_map(|(at, known)| (*at <= commit).then_some(known))
}

/// True for ranges that end before they begin, on which maps and the engine would panic.
pub fn is_empty<K: Ord>(range: &impl RangeBounds<K>) -> bool {
    match (range.start_bound(), range.end_bound()) {
        (Bound::Excluded(first), Bound::Excluded(last)) => first >= last,
        (Bound::Included(first), Bound::Excluded(last) | Bound::Included(last))
        | (Bound::Excluded(first), Bound::Included(last)) => first > last,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
