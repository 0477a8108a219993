//! Random numbers, where two files, processes or uploads must not have the same one.

use crate::store::error::StoreError;

/// A random number, from the operating system.
///
/// # Errors
/// [`StoreError::NoRandomNumbers`].
pub fn random_u64() -> Result<u64, StoreError> {
    getrandom::u64().map_err(|error| StoreError::NoRandomNumbers(error.to_string()))
}
