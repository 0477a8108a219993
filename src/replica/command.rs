//! What can be asked of the writer, and what it answers.

use std::sync::Arc;

use thiserror::Error;

use crate::roots::entry::RootEntry;
use crate::roots::witness::{Accusation, Witnessed};
use crate::store::body::Body;
use crate::store::stage::{StageKey, Staging};
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::GameId;
use crate::types::leaf::Leaf;
use crate::types::record::StateRecord;
use crate::types::seen::Seen;
use crate::types::ttl::Ttl;

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
    /// What a replica that was met holds, and what it has collected.
    Meet(Meeting),
    /// To take note that everything a peer had seen was taken in.
    Learn(Arc<Seen>),
    /// To collect what is over. Steps that the rules do not allow (any more) are left out.
    Collect(Vec<Step>),
    /// To remember a head of another replica's log of roots.
    Witness(Arc<Witnessed>),
    /// To keep evidence against another replica.
    Accuse(Arc<Accusation>),
    /// To let a stage grow.
    Stage(Staging),
}

impl Command {
    /// True when it stores no bytes.
    pub fn only_deletes(&self) -> bool {
        match self {
            Self::Write(writes) => writes.iter().all(|w| matches!(w.change, Change::Delete)),
            Self::Merge(_) | Self::Heal(_) | Self::Stage(_) => false,
            Self::Meet(meeting) => meeting.incoming.is_empty(),
            Self::Learn(_) | Self::Collect(_) | Self::Witness(_) | Self::Accuse(_) => true,
        }
    }

    /// Bytes of states that the command holds in memory.
    pub fn weight(&self) -> usize {
        match self {
            Self::Write(writes) => writes.iter().map(Write::weight).sum(),
            Self::Merge(incoming) => incoming.iter().map(Incoming::weight).sum(),
            Self::Heal(healings) => healings.iter().map(|h| h.body.weight()).sum(),
            Self::Meet(meeting) => meeting.incoming.iter().map(Incoming::weight).sum(),
            Self::Stage(staging) => staging.weight(),
            Self::Learn(_) | Self::Collect(_) | Self::Witness(_) | Self::Accuse(_) => 0,
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
    /// How long they are there.
    pub ttl: Option<Ttl>,
}

impl Content {
    /// Hashes and packs bytes: a few milliseconds for each megabyte.
    pub fn new(bytes: &[u8], content_type: Option<String>) -> Self {
        Self {
            body: Body::new(bytes),
            content_type,
            ttl: None,
        }
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

/// What another replica holds of some states, and what it has seen. See
/// [`crate::types::record::meet`].
#[derive(Debug, Clone, Default)]
pub struct Meeting {
    /// Its records, with the bytes that this replica lacked.
    pub incoming: Vec<Incoming>,
    /// States that it does not hold.
    pub absent: Vec<StateKey>,
    /// What it had taken in when it held this.
    pub seen: Arc<Seen>,
}

/// One step of collecting what is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// To forget what the changes of a state up to a feed position superseded.
    Trim(StateKey, u64),
    /// To give up the bytes of a state's expired versions.
    Strip(StateKey),
    /// To remove a state that has departed, with everything of it.
    Depart(StateKey),
    /// To go on giving up a large content that nobody refers to.
    Free(ContentHash),
    /// To give up the end of a stage.
    Unstage(StageKey),
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

/// One effect of a command, decided and ready to be made durable. Holds everything that carrying it
/// out needs, so that it can be logged and replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A state's record changes.
    Change(Mutation),
    /// A state is removed, with everything of it.
    Remove(StateKey),
    /// The bytes of a state's versions that expired at this moment or before are given up.
    Strip(StateKey, u64),
    /// What the changes of a state up to this feed position superseded is forgotten.
    Trim(StateKey, u64),
    /// A part of a large content that nobody refers to is given up.
    Free(ContentHash),
    /// What was taken in, joined with what was before.
    Learn(Seen),
    /// Bytes are put right, once everything else of the commit has been carried out.
    Heal(Healing),
    /// The log of roots grows by an entry.
    Seal(RootEntry),
    /// A head of another replica's log is remembered.
    Witness(Arc<Witnessed>),
    /// Evidence against another replica is kept.
    Accuse(Arc<Accusation>),
    /// A stage grows.
    Stage(Staging),
    /// The end of a stage is given up.
    Unstage(StageKey),
}

impl Effect {
    /// The state it is about, if it is about one.
    pub fn key(&self) -> Option<StateKey> {
        match self {
            Self::Change(mutation) => Some(mutation.key()),
            Self::Remove(key) | Self::Strip(key, _) | Self::Trim(key, _) => Some(*key),
            Self::Heal(healing) => Some(healing.key),
            Self::Free(_)
            | Self::Learn(_)
            | Self::Seal(_)
            | Self::Witness(_)
            | Self::Accuse(_)
            | Self::Stage(_)
            | Self::Unstage(_) => None,
        }
    }

    /// The change of a record, if it is one.
    pub fn change(&self) -> Option<&Mutation> {
        match self {
            Self::Change(mutation) => Some(mutation),
            _ => None,
        }
    }
}

/// One state's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// What the tree is to know of the state.
    pub leaf: Leaf,
    /// Position in the change feed.
    pub seq: u64,
    /// The state's record afterwards.
    pub record: StateRecord,
    /// Bytes of versions that are new in the record.
    pub bodies: Vec<Body>,
}

impl Mutation {
    /// The change that makes `record` the one of the state at `key`, which is the key of its id.
    pub fn new(key: StateKey, seq: u64, record: StateRecord, bodies: Vec<Body>) -> Self {
        Self {
            leaf: record.leaf_at(key),
            seq,
            record,
            bodies,
        }
    }

    /// Where the state stands.
    pub fn key(&self) -> StateKey {
        self.leaf.key
    }
}
