//! Why a message of another replica was not answered.

use thiserror::Error;

use crate::replica::staging::StagingError;
use crate::runtime::pins::PinError;
use crate::runtime::queue::SubmitError;
use crate::store::error::StoreError;
use crate::sync::responder::ResponderError;
use crate::sync::transfer::TransferError;

/// Why a message was not answered.
#[derive(Debug, Error)]
pub enum SyncError {
    /// The session cannot be opened or found.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The message is malformed.
    #[error("{0}")]
    BadMessage(String),
    /// The bytes of a state do not have its hash.
    #[error("{0}")]
    HashMismatch(String),
    /// The writer did not take the states.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A large state could not be kept.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// There is a copy of this replica, which is to write under another name.
    #[error("this replica is taking another name for its writes; try again in a moment")]
    Renewing,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ResponderError> for SyncError {
    fn from(error: ResponderError) -> Self {
        match error {
            ResponderError::Store(error)
            | ResponderError::Transfer(TransferError::Store(error)) => Self::Store(error),
            ResponderError::Transfer(TransferError::Staging(error)) => Self::Staging(error),
            ResponderError::Transfer(TransferError::WrongHash(id)) => {
                Self::HashMismatch(TransferError::WrongHash(id).to_string())
            }
            other => Self::BadMessage(other.to_string()),
        }
    }
}
