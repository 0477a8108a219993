//! What sending and receiving the bytes of states have in common: how it can fail, and how the
//! short names of a message are looked up.

use thiserror::Error;

use crate::delta::error::DeltaError;
use crate::merkle::prefix::Prefix;
use crate::replica::staging::StagingError;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::{Placement, RecordRow};
use crate::types::id::GameId;
use crate::types::limits::{STAGED_FROM, WHOLE_STATE_MAX};
use crate::wire::messages::{BaseHint, Want};

/// States up to this size travel raw or as a tiny delta, since the frame around a batch of them
/// is compressed as one; and no other state is their base.
pub const SMALL_STATE: u64 = 4096;

/// States above this size travel chunk by chunk when there is no base for a delta.
pub const STREAMED_FROM: u64 = STAGED_FROM;

/// Why bytes from a peer were not taken.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The bytes are not those that the record's hash speaks of.
    #[error("wrong bytes for {0:?}: they do not have the content hash of its record")]
    WrongHash(GameId),
    /// The payload does not decode.
    #[error("the bytes of {id:?} do not decode: {source}")]
    Undecodable {
        /// The state.
        id: GameId,
        /// What is wrong with them.
        source: DeltaError,
    },
    /// The message's parts do not fit together.
    #[error("malformed transfer: {0}")]
    Malformed(&'static str),
    /// History moved on while the session ran.
    #[error("the version that a delta of {0:?} was made from is gone; sync again")]
    BaseGone(GameId),
    /// A dictionary was named that is not here any more.
    #[error("the dictionary that states were compressed with is gone; sync again")]
    DictionaryGone,
    /// The sender cannot read the version any more.
    #[error("the peer cannot read its copy of {0:?}; run `samestate verify` there")]
    Unreadable(GameId),
    /// A state larger than this replica takes.
    #[error("{id:?} has {size} bytes, this replica takes at most {limit}; raise max_state_bytes")]
    TooLarge {
        /// The state.
        id: GameId,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A state that has to travel chunk by chunk, and was asked for or sent as a whole.
    #[error("{0:?} is too large to travel as a whole; upgrade the older replica")]
    NotInChunks(GameId),
    /// A large state could not be kept.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// Our own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// True when a version travels chunk by chunk, each kept as it arrives, and not in one piece:
/// when it is too large for memory, or so large that it is worth the round trips and there is
/// nothing at the receiver's from which a delta could be made.
pub fn is_streamed(want: &Want, size: u64) -> bool {
    size > WHOLE_STATE_MAX
        || (size > STREAMED_FROM && want.bases.iter().all(BaseHint::is_dictionary))
}

/// The only record below a 64-bit prefix; of several the first, whose bytes then fail their hash.
///
/// # Errors
/// [`StoreError`] when it cannot be read.
pub fn record_at(view: &View, bits: u64) -> Result<Option<RecordRow>, StoreError> {
    let at = Prefix::new(bits, Prefix::DEPTH_MAX);
    let at = at.ok_or_else(|| StoreError::damaged("a prefix is too deep"))?;
    Ok(view.snapshot().records_below(at, None, 1)?.pop())
}

/// Bytes of a version of a state that are held here, current or in history, and not more than
/// `longest`. Bytes that cannot be read count as not held.
///
/// # Errors
/// [`StoreError`] when the engine fails.
pub fn held_content(
    view: &View,
    state: u64,
    content: u64,
    longest: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(row) = record_at(view, state)? else {
        return Ok(None);
    };
    let known = view.versions(&row.leaf.key)?;
    let found = known.iter().find(|held| {
        let is_here = held.placement != Placement::Nothing;
        let fits = held.version.size <= longest;
        is_here && fits && held.version.content.prefix64() == content
    });
    match found.map(|placed| view.content(placed)) {
        // A base that cannot be read is no base.
        None | Some(Err(StoreError::Damaged(_))) => Ok(None),
        Some(result) => result,
    }
}
