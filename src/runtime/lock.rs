//! Locking without a thought of poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose holders never leave it half-changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
