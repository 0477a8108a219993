//! Reading tables that lie in layers: rows in memory in front of the engine's.

use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use redb::{AccessGuard, TableHandle};

use crate::store::cut::KeyBounds;
use crate::store::error::StoreError;
use crate::store::forms::{KeyForm, RowForm};
use crate::store::guard::guarded;
use crate::store::layer::{Known, is_empty};
use crate::store::memtable::Memtable;
use crate::store::shards::{EngineTables, TablePart, lend};
use crate::store::suspects::Suspects;
use crate::store::tables::{EngineKey, EngineRow, KeyRef, RowRef, Table};

/// Rows that are taken from a memtable at a time while a range is read.
const STRIDE: usize = 64;

/// Both ends of a range of keys.
pub type KeyRange<T> = KeyBounds<<T as Table>::Key>;

/// All tables as of one commit: newer layers in front of older ones, the engine last.
#[derive(Clone)]
pub struct Layered {
    engine: Arc<EngineTables>,
    /// Newest first; a row in one hides those behind it.
    memtables: Vec<Arc<Memtable>>,
    commit: u64,
    suspects: Arc<Suspects>,
}

impl Layered {
    /// The tables as of a commit. `memtables` stand newest first; `suspects` takes note of damage.
    pub fn new(
        engine: Arc<EngineTables>,
        memtables: Vec<Arc<Memtable>>,
        commit: u64,
        suspects: Arc<Suspects>,
    ) -> Self {
        Self {
            engine,
            memtables,
            commit,
            suspects,
        }
    }

    /// Reads of the engine's files by anybody that had to wait for the disk since they were
    /// opened, about.
    pub fn slow_reads(&self) -> u64 {
        self.engine.slow_reads()
    }

    /// Contents that reads found damaged.
    pub fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    /// Reads a row without copying it.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn get<T: Table, R>(
        &self,
        key: &T::Key,
        read: impl FnOnce(RowRef<'_, T>) -> R,
    ) -> Result<Option<R>, StoreError> {
        for memtable in &self.memtables {
            match memtable.get::<T>(key, self.commit) {
                Some(Known::Row(row)) => return Ok(Some(read(row.lend()))),
                Some(Known::Removed) => return Ok(None),
                None => {}
            }
        }
        let found = guarded(|| {
            let found = self.engine.table_of::<T>(key).get(key.lend())?;
            // Looking at it may panic as well; from here on it does not.
            let _ = found.as_ref().map(AccessGuard::value);
            Ok::<_, StoreError>(found)
        })?;
        Ok(found.map(|row| read(row.value())))
    }

    /// Visits the rows of a range in order of key, until the visitor breaks off.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit<T: Table>(
        &self,
        range: KeyRange<T>,
        mut visit: impl FnMut(KeyRef<'_, T>, RowRef<'_, T>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if is_empty(&range) {
            return Ok(());
        }
        let mut engine = Stored::<T>::new(&self.engine, range.clone());
        let mut memory: Vec<Front<'_, T>> = self
            .memtables
            .iter()
            .map(|memtable| Front::new(memtable, self.commit, &range))
            .collect();
        let mut stored = engine.next()?;
        loop {
            let mut first = None;
            for front in &mut memory {
                first = match (first, front.key()) {
                    (Some(first), Some(key)) if key >= &first => Some(first),
                    (first, key) => key.cloned().or(first),
                };
            }
            let order = match (&first, &engine.key) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(first), Some(stored)) => first.cmp(stored),
            };
            let known = first
                .filter(|_| order != Ordering::Greater)
                .and_then(|key| take(&mut memory, &key).map(|known| (key, known)));
            let step = match (known, &stored) {
                (Some((key, Known::Row(row))), _) => visit(key.lend(), row.lend()),
                (None, Some((key, row))) => visit(key.value(), row.value()),
                _ => ControlFlow::Continue(()),
            };
            if step.is_break() {
                return Ok(());
            }
            if order != Ordering::Less {
                stored = engine.next()?;
            }
        }
    }

    /// Visits every row in order of key.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn visit_all<T: Table>(
        &self,
        visit: &mut dyn FnMut(KeyRef<'_, T>, RowRef<'_, T>),
    ) -> Result<(), StoreError> {
        let everything = (Bound::Unbounded, Bound::Unbounded);
        self.visit::<T>(everything, |key, row| {
            visit(key, row);
            ControlFlow::Continue(())
        })
    }

    /// Reads at most `limit` rows of a range, in order of key, each made into something else.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails, or the first that `make` returns.
    pub fn collect<T: Table, R>(
        &self,
        range: KeyRange<T>,
        limit: usize,
        mut make: impl FnMut(KeyRef<'_, T>, RowRef<'_, T>) -> Result<R, StoreError>,
    ) -> Result<Vec<R>, StoreError> {
        let mut made = Ok(Vec::new());
        if limit == 0 {
            return made;
        }
        self.visit::<T>(range, |key, row| {
            let next = make(key, row);
            made = match (std::mem::replace(&mut made, Ok(Vec::new())), next) {
                (Ok(mut so_far), Ok(next)) => {
                    so_far.push(next);
                    Ok(so_far)
                }
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            match &made {
                Ok(so_far) if so_far.len() < limit => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        })?;
        made
    }

    /// The last key of a range.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn last_key<T: Table>(&self, range: &KeyRange<T>) -> Result<Option<T::Key>, StoreError> {
        if is_empty(range) {
            return Ok(None);
        }
        let mut last: Option<T::Key> = None;
        for (place, memtable) in self.memtables.iter().enumerate() {
            let mut within = range.clone();
            // A row that a newer layer has removed hides nothing before it.
            while let Some((key, _)) = memtable.last::<T>(within.clone(), self.commit) {
                if !self.hidden::<T>(&key, place) {
                    last = last.max(Some(key));
                    break;
                }
                within.1 = Bound::Excluded(key);
            }
        }
        for part in self.engine.parts::<T>(range.clone()).into_iter().rev() {
            let stored = self.last_stored::<T>(&part)?;
            if stored.is_some() {
                return Ok(last.max(stored));
            }
        }
        Ok(last)
    }

    /// The last key of a part of the engine's table that no layer has removed.
    fn last_stored<T: Table>(
        &self,
        (table, range): &TablePart<'_, T>,
    ) -> Result<Option<T::Key>, StoreError> {
        let mut stored = guarded(|| table.range::<KeyRef<'_, T>>(lend::<T>(range)))?;
        loop {
            let key = guarded(|| {
                let entry = stored.next_back().transpose()?;
                Ok::<_, StoreError>(entry.map(|(key, _)| T::Key::keep(key.value())))
            })?;
            match key {
                Some(key) if self.hidden::<T>(&key, self.memtables.len()) => {}
                found => return Ok(found),
            }
        }
    }

    /// True when one of the first `place` layers has removed the row.
    fn hidden<T: Table>(&self, key: &T::Key, place: usize) -> bool {
        let mut newer = self.memtables[..place].iter();
        let known = newer.find_map(|memtable| memtable.get::<T>(key, self.commit));
        matches!(known, Some(Known::Removed))
    }
}

/// The rows of a range in the engine's files.
pub(in crate::store) struct Stored<'e, T: Table> {
    /// What comes behind the part that is being read.
    parts: std::vec::IntoIter<TablePart<'e, T>>,
    rows: Option<redb::Range<'e, EngineKey<T>, EngineRow<T>>>,
    /// The key of the newest row.
    key: Option<T::Key>,
}

/// A row of the engine.
pub(in crate::store) type StoredRow<'e, T> =
    (AccessGuard<'e, EngineKey<T>>, AccessGuard<'e, EngineRow<T>>);

impl<'e, T: Table> Stored<'e, T> {
    /// Nothing is read yet.
    pub fn new(engine: &'e EngineTables, range: KeyRange<T>) -> Self {
        Self {
            parts: engine.parts::<T>(range).into_iter(),
            rows: None,
            key: None,
        }
    }

    fn read(&mut self) -> Result<Option<StoredRow<'e, T>>, StoreError> {
        loop {
            if let Some(rows) = &mut self.rows
                && let Some(row) = rows.next().transpose()?
            {
                return Ok(Some(row));
            }
            let Some((table, range)) = self.parts.next() else {
                return Ok(None);
            };
            self.rows = Some(table.range::<KeyRef<'_, T>>(lend::<T>(&range))?);
        }
    }

    /// The next row. A damaged page can lead anywhere, even in circles, but not so that keys go on
    /// growing.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails, or keys do not grow.
    pub fn next(&mut self) -> Result<Option<StoredRow<'e, T>>, StoreError> {
        let (next, key) = guarded(|| {
            let next = self.read()?;
            let key = next.as_ref().map(|(key, row)| {
                // Looking at it may panic as well; from here on it does not.
                let _ = row.value();
                T::Key::keep(key.value())
            });
            Ok::<_, StoreError>((next, key))
        })?;
        if key.is_some() && key <= self.key {
            return Err(StoreError::damaged(format!(
                "the rows of table {} are out of order",
                T::DEFINITION.name()
            )));
        }
        self.key = key;
        Ok(next)
    }
}

/// Takes a key off the front of every layer that has it; the newest layer is believed.
fn take<T: Table>(memory: &mut [Front<'_, T>], key: &T::Key) -> Option<Known<T::Row>> {
    let mut newest = None;
    for front in memory {
        let known = front.take(key);
        newest = newest.or(known);
    }
    newest
}

/// The rows of a range in one memtable, read a few at a time.
struct Front<'m, T: Table> {
    memtable: &'m Memtable,
    commit: u64,
    rest: Option<KeyRange<T>>,
    rows: std::vec::IntoIter<(T::Key, Known<T::Row>)>,
    first: Option<(T::Key, Known<T::Row>)>,
}

impl<'m, T: Table> Front<'m, T> {
    fn new(memtable: &'m Memtable, commit: u64, range: &KeyRange<T>) -> Self {
        let mut front = Self {
            memtable,
            commit,
            rest: Some(range.clone()),
            rows: Vec::new().into_iter(),
            first: None,
        };
        front.advance();
        front
    }

    fn key(&self) -> Option<&T::Key> {
        self.first.as_ref().map(|(key, _)| key)
    }

    fn take(&mut self, wanted: &T::Key) -> Option<Known<T::Row>> {
        let (key, known) = self.first.take()?;
        if key == *wanted {
            self.advance();
            return Some(known);
        }
        self.first = Some((key, known));
        None
    }

    fn advance(&mut self) {
        self.first = self.rows.next();
        let Some(range) = self.rest.take_if(|_| self.first.is_none()) else {
            return;
        };
        let end = range.1.clone();
        let rows = self.memtable.range::<T>(range, self.commit, STRIDE);
        if let (STRIDE, Some((last, _))) = (rows.len(), rows.last()) {
            self.rest = Some((Bound::Excluded(last.clone()), end));
        }
        self.rows = rows.into_iter();
        self.first = self.rows.next();
    }
}
