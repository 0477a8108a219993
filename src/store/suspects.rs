//! Contents that reads found damaged, for whoever can put them right.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::types::hash::ContentHash;

/// Contents that are remembered; a background scrub finds the rest.
const SUSPECTS_MAX: usize = 1024;

/// Contents that reads found damaged since somebody last asked.
#[derive(Debug, Default)]
pub struct Suspects(Mutex<BTreeSet<ContentHash>>);

impl Suspects {
    /// Takes note of a content whose bytes are missing or not those that were written.
    pub fn note(&self, content: ContentHash) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < SUSPECTS_MAX {
            noted.insert(content);
        }
    }

    /// What was noted since this was last called.
    pub fn take(&self) -> BTreeSet<ContentHash> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
