//! What can be wrong with compressed bytes and deltas.

use thiserror::Error;

/// Why bytes could not be compressed or decoded. Whatever the reason, the bytes are of no use:
/// ask for the state again, or for the whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeltaError {
    /// From a newer release, or damaged.
    #[error("unknown codec {0}; ask the sender for a codec that this build knows")]
    UnknownCodec(u8),
    /// A delta arrived without the version it was made from.
    #[error("codec {0} needs the base version that the delta was made from; ask for the whole")]
    MissingBase(&'static str),
    /// The output would exceed what the caller allows. Nothing was allocated for it.
    #[error("decoded bytes would exceed the allowed {limit} bytes")]
    TooLarge {
        /// The bound that the caller set, in bytes.
        limit: usize,
    },
    /// Well formed, but not as long as announced.
    #[error("decoded to {actual} bytes where {expected} were announced")]
    WrongLength {
        /// Announced length in bytes.
        expected: usize,
        /// Decoded length in bytes.
        actual: usize,
    },
    /// Not in the format. The text names the rule it breaks.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Refused by zstd.
    #[error("zstd: {0}")]
    Zstd(&'static str),
}

/// Refuses output of another length than announced.
///
/// # Errors
/// [`DeltaError::WrongLength`].
pub fn check_length(bytes: Vec<u8>, expected: usize) -> Result<Vec<u8>, DeltaError> {
    if bytes.len() == expected {
        return Ok(bytes);
    }
    let actual = bytes.len();
    Err(DeltaError::WrongLength { expected, actual })
}
