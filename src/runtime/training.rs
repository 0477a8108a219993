//! When a namespace's dictionary is trained, and from what: a sample of its short states, the ones with the
//! smallest keys. Keys are hashes, so that is as good as drawn by lot, and the same states give the same
//! dictionary.

use std::time::{Duration, Instant};

use tracing::debug;

use crate::delta::dictionary::{SAMPLE_MAX, retrain};
use crate::merkle::prefix::Prefix;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::sync::dictionaries::Dictionaries;
use crate::sync::transfer::SMALL_STATE;

/// Fewer states are no sample.
const STATES_MIN: u64 = 48;
/// Changes between one training and the next, at least; otherwise twice as many as there had been.
const CHANGES_MIN: u64 = 256;
/// Time between one training and the next.
const PAUSE: Duration = Duration::from_secs(30);
/// Records that are looked at for a sample, short or not.
const LOOKED_AT: usize = 16_384;
const PAGE: usize = 256;

/// When a namespace was trained from last.
#[derive(Debug, Default)]
pub struct Training {
    last: Option<(u64, Instant)>,
}

impl Training {
    /// Trains, when enough has changed or the present dictionary does poorly. What was trained is used
    /// when it saves enough over the present one, which may be a peer's.
    ///
    /// # Errors
    /// [`StoreError`] when the view cannot be read.
    pub fn round(&mut self, view: &View, dictionaries: &Dictionaries) -> Result<(), StoreError> {
        if !self.is_due(view, dictionaries.is_poor()) {
            return Ok(());
        }
        self.last = Some((view.head().seq, Instant::now()));
        let states = sample(view)?;
        let states: Vec<&[u8]> = states.iter().map(Vec::as_slice).collect();
        if let Some(trained) = retrain(&states, dictionaries.current().as_deref()) {
            debug!(states = states.len(), ?trained, "trained a dictionary");
            dictionaries.replace(trained);
        }
        Ok(())
    }

    fn is_due(&self, view: &View, is_poor: bool) -> bool {
        let head = view.head();
        let paused = self.last.is_none_or(|(_, at)| at.elapsed() >= PAUSE);
        paused && has_enough(head.live, head.seq, self.last.map(|(seq, _)| seq), is_poor)
    }
}

/// True when there are enough states, and enough has changed since the change `last` that was trained
/// at.
pub fn has_enough(live: u64, seq: u64, last: Option<u64>, is_poor: bool) -> bool {
    let Some(last) = last else {
        return live >= STATES_MIN;
    };
    let doubled = last.saturating_mul(2).saturating_add(CHANGES_MIN);
    seq >= doubled || (is_poor && seq >= last.saturating_add(CHANGES_MIN))
}

/// Short states in order of key, as many as are trained from.
fn sample(view: &View) -> Result<Vec<Vec<u8>>, StoreError> {
    let (mut states, mut bytes, mut after) = (Vec::new(), 0, None);
    for _ in 0..LOOKED_AT / PAGE {
        let rows = view.snapshot().records_below(Prefix::ROOT, after, PAGE)?;
        let is_last = rows.len() < PAGE;
        after = rows.last().map(|row| row.leaf.key);
        for row in rows {
            let Some((version, placement)) = row.placed().next() else {
                continue;
            };
            let is_short = (1..=SMALL_STATE).contains(&version.size);
            if !row.is_live() || !is_short {
                continue;
            }
            bytes += version.size as usize;
            if bytes > SAMPLE_MAX {
                return Ok(states);
            }
            match view.snapshot().content(version, placement) {
                Ok(content) => states.extend(content),
                // The scrub tells of it.
                Err(StoreError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if is_last {
            break;
        }
    }
    Ok(states)
}
