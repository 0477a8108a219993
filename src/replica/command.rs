//! What can be asked of the writer, and what it answers.

use thiserror::Error;

use crate::store::body::Body;
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::GameId;
use crate::types::record::StateRecord;

/// One unit of work for the writer.
#[derive(Debug, Clone)]
pub enum Command {
    /// Writes by a client of this replica. All of them happen, or none.
    Write(Vec<Write>),
    /// Records from another replica, with the bytes that this one lacked. Each is merged or refused
    /// by itself: one bad record must not keep others from spreading.
    Merge(Vec<Incoming>),
    /// Bytes that were found damaged here, as another replica has them. No record changes.
    Heal(Vec<Healing>),
}

impl Command {
    /// True when it stores no bytes.
    pub fn only_deletes(&self) -> bool {
        match self {
            Self::Write(writes) => writes.iter().all(|w| matches!(w.change, Change::Delete)),
            Self::Merge(_) | Self::Heal(_) => false,
        }
    }

    /// Bytes of states that the command holds in memory.
    pub fn weight(&self) -> usize {
        match self {
            Self::Write(writes) => writes.iter().map(Write::weight).sum(),
            Self::Merge(incoming) => incoming.iter().map(Incoming::weight).sum(),
            Self::Heal(healings) => healings.iter().map(|h| h.body.weight()).sum(),
        }
    }
}

/// A write of one state.
#[derive(Debug, Clone)]
pub struct Write {
    /// Which state.
    pub id: GameId,
    /// What must hold for the write to happen.
    pub precondition: Precondition,
    /// What it does.
    pub change: Change,
}

impl Write {
    fn weight(&self) -> usize {
        match &self.change {
            Change::Put(content) => content.body.weight(),
            Change::Delete => 0,
        }
    }
}

/// What a write does.
#[derive(Debug, Clone)]
pub enum Change {
    /// Replaces the state's bytes.
    Put(Content),
    /// Deletes the state.
    Delete,
}

/// New bytes of a state.
#[derive(Debug, Clone)]
pub struct Content {
    /// The bytes, packed.
    pub body: Body,
    /// Their media type.
    pub content_type: Option<String>,
}

impl Content {
    /// Hashes and packs bytes: a few milliseconds for each megabyte.
    pub fn new(bytes: &[u8], content_type: Option<String>) -> Self {
        let body = Body::new(bytes);
        Self { body, content_type }
    }
}

/// A condition on the state as it is when the writer gets to the write (RFC 9110 section 13.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// None.
    #[default]
    None,
    /// The state exists (`If-Match: *`).
    Exists,
    /// The state exists with one of these entity tags.
    Matches(Vec<String>),
    /// The state does not exist (`If-None-Match: *`).
    Absent,
}

/// A record from another replica.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The record, already checked.
    pub record: StateRecord,
    /// Bytes of its versions, each already checked against its hash.
    pub bodies: Vec<Body>,
}

impl Incoming {
    fn weight(&self) -> usize {
        self.bodies.iter().map(Body::weight).sum()
    }
}

/// Bytes to be put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healing {
    /// A state that has a version with these bytes.
    pub key: StateKey,
    /// The bytes, already checked against their hash.
    pub body: Body,
    /// How many versions refer to them by their hash; counts when the content's row is gone.
    pub references: u64,
}

/// Why the writer refused a command. Nothing of the command happened.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A precondition does not hold.
    #[error(
        "the precondition on {id:?} does not hold: {}; read the state and try again",
        .current.as_ref().map_or_else(|| "it does not exist".to_owned(), |tag| format!("its entity tag is {tag}"))
    )]
    PreconditionFailed {
        /// The state.
        id: GameId,
        /// Its entity tag now, if it exists.
        current: Option<String>,
    },
    /// There is nothing to delete.
    #[error("there is no state {id:?}")]
    NotFound {
        /// The id asked for.
        id: GameId,
    },
    /// A record brings a version whose bytes are neither held nor sent.
    #[error("the bytes of version {hash} of {id:?} are missing; sync again")]
    MissingBody {
        /// The state.
        id: GameId,
        /// The version's content.
        hash: ContentHash,
    },
    /// The state's own record cannot be read, so nothing can be decided about it.
    #[error("{error}")]
    Damaged {
        /// What was found, and what to do about it.
        error: String,
    },
    /// More writers than a version may name.
    #[error(
        "{id:?} has been written by too many replicas; delete it everywhere and use another id"
    )]
    TooManyWriters {
        /// The state.
        id: GameId,
    },
    /// A version that counts writes of ours which we never made.
    #[error(
        "{id:?} names writes of this replica that it never made: its data directory was copied or \
         put back from an older copy; it takes another name now, and the next session can succeed"
    )]
    ForeignHistory {
        /// The state.
        id: GameId,
    },
    /// Merging would give a state more current versions than allowed.
    #[error("{id:?} has too many conflicting versions; resolve them with a PUT first")]
    TooManyVersions {
        /// The state.
        id: GameId,
    },
}

/// A refusal, and what it was of the command that was refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{refusal}")]
pub struct Refused {
    /// Place of the write or record in the command, counted from 0.
    pub index: usize,
    /// Why.
    pub refusal: Refusal,
}

/// What became of one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The state.
    pub id: GameId,
    /// Its entity tag after the write.
    pub etag: String,
    /// SHA-256 of its bytes; [`ContentHash::NONE`] after a deletion.
    pub content_hash: ContentHash,
    /// Length of its bytes.
    pub size: u64,
    /// Position of the write in the change feed.
    pub seq: u64,
    /// True when the state did not exist before.
    pub created: bool,
}

/// What became of a command that was carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// One for each write of a [`Command::Write`].
    pub receipts: Vec<Receipt>,
    /// The records of a [`Command::Merge`] that were left out.
    pub refused: Vec<Refused>,
}

/// One state's change, decided and ready to be made durable. Holds everything that applying it
/// needs, so that it can be logged and replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Where the state stands.
    pub key: StateKey,
    /// Position in the change feed.
    pub seq: u64,
    /// The state's record afterwards.
    pub record: StateRecord,
    /// Bytes of versions that are new in the record.
    pub bodies: Vec<Body>,
}
