//! The newest commit as deciding reads it.

use std::cell::RefCell;

use crate::replica::apply::ReadRows;
use crate::replica::decide::RecordSource;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::stage::{Stage, StageKey};
use crate::types::hash::StateKey;
use crate::types::record::StateRecord;
use crate::types::seen::Seen;

/// A view to decide on. What was read is kept for carrying out.
pub struct Source<'v> {
    view: &'v View,
    read: RefCell<ReadRows>,
}

impl<'v> Source<'v> {
    /// Reads from `view`.
    pub fn new(view: &'v View) -> Self {
        Self {
            view,
            read: RefCell::default(),
        }
    }

    /// What was read.
    pub fn into_read(self) -> ReadRows {
        self.read.into_inner()
    }
}

impl RecordSource for Source<'_> {
    fn record(&self, key: &StateKey) -> Result<Option<StateRecord>, StoreError> {
        let row = self.view.snapshot().record(key)?;
        let record = row.as_ref().map(|row| row.record.clone());
        self.read.borrow_mut().insert(*key, row);
        Ok(record)
    }

    fn seen(&self) -> Result<Seen, StoreError> {
        self.view.seen()
    }

    fn stage(&self, key: StageKey) -> Result<Option<Stage>, StoreError> {
        self.view.snapshot().stage(key)
    }

    fn collected(&self) -> Result<u64, StoreError> {
        Ok(self
            .view
            .snapshot()
            .seen()?
            .get(self.view.identity().writer()))
    }
}
