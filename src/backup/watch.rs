//! How long work shows how far it is, and hears that it is to stop.

use crate::backup::error::BackupError;

/// Whoever waits for a backup or a restore.
pub trait Watch {
    /// A new step begins: what is being done, and how much of which unit it takes.
    fn begin(&self, doing: &'static str, total: u64, unit: &'static str);

    /// So much more of the step is done.
    fn advance(&self, by: u64);

    /// True when the work is to end without a result.
    fn stopped(&self) -> bool;
}

/// Nobody waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn begin(&self, _doing: &'static str, _total: u64, _unit: &'static str) {}

    fn advance(&self, _by: u64) {}

    fn stopped(&self) -> bool {
        false
    }
}

/// Counts one more state.
///
/// # Errors
/// [`BackupError::Stopped`].
pub fn step(watch: &dyn Watch) -> Result<(), BackupError> {
    watch.advance(1);
    if watch.stopped() {
        return Err(BackupError::Stopped);
    }
    Ok(())
}
