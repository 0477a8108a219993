//! The messages of a sync session, request and reply by request and reply.
//!
//! The initiator opens a session on a snapshot that the responder pins, finds out what differs,
//! asks for records, proves with its own tree that they add up to the announced root, and only
//! then moves bytes of states.

use serde::{Deserialize, Serialize};

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::reconcile::strategy::StrategyName;
use crate::types::binary::encode;
use crate::types::cursor::Epoch;
use crate::types::hash::{ContentHash, NodeHash, StateKey};
use crate::types::id::ReplicaId;
use crate::types::lineage::{Lineage, Sighting};
use crate::types::record::StateRecord;
use crate::types::seen::Seen;

/// Most entries of a list in one message.
pub const LIST_MAX: usize = 4096;

/// A request and its reply share one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// [`OpenRequest`] -> [`OpenReply`]; as blobs the first question of `sketch`, or nothing, and its
    /// answer, or nothing.
    Open,
    /// [`CompareRequest`] with a strategy's question as blob -> `()` with its answer as blob.
    Compare,
    /// [`RecordsRequest`] with slots as blob -> [`RecordsReply`].
    Records,
    /// [`SubtreesRequest`] -> [`SubtreesReply`].
    Subtrees,
    /// [`RangeRequest`] -> [`RangeReply`].
    Range,
    /// [`BodiesRequest`] -> [`BodyHeads`] with the payloads as blob.
    Bodies,
    /// [`OfferRequest`] -> [`OfferReply`].
    Offer,
    /// [`StoreRequest`] with the payloads as blob -> [`StoreReply`].
    Store,
    /// [`CloseRequest`] -> [`CloseReply`].
    Close,
    /// [`ContentsRequest`] -> [`BodyHeads`] with the payloads as blob. Outside of sessions.
    Contents,
    /// [`ForgetRequest`] -> [`ForgetReply`].
    Forget,
    /// [`ProbeRequest`] -> [`ProbeReply`]. Outside of sessions.
    Probe,
    /// [`DictionaryRequest`] -> [`DictionaryReply`] with the dictionary as blob, or nothing. Outside of
    /// sessions.
    Dictionary,
    /// `ChunksRequest` -> `ChunksReply` with the bytes of the wanted chunks as blob.
    Chunks,
    /// `StageRequest` with the bytes of the sent chunks as blob -> `StageReply`.
    Stage,
    /// `PiecesRequest` -> `ChunksReply` with the bytes of the wanted chunks as blob. Outside of sessions.
    Pieces,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Open,
        Self::Compare,
        Self::Records,
        Self::Subtrees,
        Self::Range,
        Self::Bodies,
        Self::Offer,
        Self::Store,
        Self::Close,
        Self::Contents,
        Self::Forget,
        Self::Probe,
        Self::Dictionary,
        Self::Chunks,
        Self::Stage,
        Self::Pieces,
    ];

    /// Last part of the URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Compare => "compare",
            Self::Records => "records",
            Self::Subtrees => "subtrees",
            Self::Range => "range",
            Self::Bodies => "bodies",
            Self::Offer => "offer",
            Self::Store => "store",
            Self::Forget => "forget",
            Self::Probe => "probe",
            Self::Dictionary => "dictionary",
            Self::Chunks => "chunks",
            Self::Stage => "stage",
            Self::Pieces => "pieces",
            Self::Close => "close",
            Self::Contents => "contents",
        }
    }

    /// The endpoint of a URL's last part.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|endpoint| endpoint.name() == name)
    }

    /// Kind byte of its frames.
    pub fn kind(self) -> u8 {
        self as u8 + 1
    }
}

/// What a side has taken in when it held a root. Believing more than was said would lose states, so
/// it comes with a checksum: a bit that is flipped on the way does not pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Testimony {
    seen: Seen,
    /// First 64 bits of the SHA-256 of the root and the encoded `seen`.
    check: u64,
}

impl Testimony {
    /// What is said by whoever holds `root`.
    pub fn new(root: &NodeHash, seen: Seen) -> Self {
        let check = Self::checksum(root, &seen);
        Self { seen, check }
    }

    /// What was said, unless it was changed on the way.
    pub fn read(&self, root: &NodeHash) -> Option<&Seen> {
        (self.check == Self::checksum(root, &self.seen)).then_some(&self.seen)
    }

    fn checksum(root: &NodeHash, seen: &Seen) -> u64 {
        ContentHash::of(&[&root.0[..], &encode(seen)].concat()).prefix64()
    }
}

/// Begins a session.
#[derive(Debug, Serialize, Deserialize)]
pub struct OpenRequest {
    /// Who asks.
    pub replica: ReplicaId,
    /// The asker's root: when it equals the responder's, the session is over with the reply.
    pub root: NodeHash,
    /// True when the asker follows the responder's change feed and will come back by itself for
    /// whatever changes; the responder then need not push.
    pub follows: bool,
    /// Openings of the asker's file.
    pub lineage: Lineage,
    /// Newest change of the asker.
    pub seq: u64,
    /// What the asker has seen of the responder, when that does not go together with what the
    /// responder said of itself.
    pub seen: Option<Sighting>,
    /// What the asker has taken in.
    pub testimony: Testimony,
}

impl OpenRequest {
    /// Stands for all of it but what the asker has seen of the responder.
    pub fn digest(&self) -> u64 {
        let said = (self.replica, &self.root, self.follows, &self.lineage);
        digest_of(&(said, self.seq, &self.testimony))
    }
}

fn digest_of(said: &impl Serialize) -> u64 {
    ContentHash::of(&encode(said)).prefix64()
}

/// The responder's snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct OpenReply {
    /// Who answers.
    pub replica: ReplicaId,
    /// The life of its change feed.
    pub epoch: Epoch,
    /// How often its file has been opened.
    pub incarnation: u64,
    /// Newest change in the snapshot.
    pub seq: u64,
    /// Root of the snapshot.
    pub root: Summary,
    /// What was taken in up to the snapshot.
    pub testimony: Testimony,
    /// Number of the session; `None` when the roots are equal.
    pub session: Option<u64>,
    /// Openings of its file.
    pub lineage: Lineage,
    /// What it has seen of the asker, when that does not go together with what the asker said of
    /// itself.
    pub seen: Option<Sighting>,
}

impl OpenReply {
    /// Stands for all of it but the session and what the responder has seen of the asker.
    pub fn digest(&self) -> u64 {
        let said = (self.replica, self.epoch, self.incarnation, self.seq);
        digest_of(&(said, &self.root, &self.testimony, &self.lineage))
    }
}

/// Asks whether anything has changed since both said what they had to say, and were equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRequest {
    /// The asker's root.
    pub root: NodeHash,
    /// Stands for what the asker would say in [`OpenRequest`].
    pub said: u64,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReply {
    /// Stands for what the responder would say in [`OpenReply`]; `None` when its root is another one,
    /// or it does not know what the asker would say.
    pub said: Option<u64>,
}

/// Carries one question of a strategy.
#[derive(Debug, Serialize, Deserialize)]
pub struct CompareRequest {
    /// The session.
    pub session: u64,
    /// Whose question it is.
    pub strategy: StrategyName,
}

/// Asks for all records below prefixes of keys, which the blob names: their slots, none twice, as
/// [`crate::reconcile::encoding`] writes sorted numbers.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordsRequest {
    /// The session.
    pub session: u64,
    /// How many first bits of keys a slot is made of, 1 to 64.
    pub depth: u8,
}

/// Records in order of key.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordsReply {
    /// How many of the prefixes are answered, at least one; the rest is to be asked for again.
    pub answered: u32,
    /// The records.
    pub records: Vec<StateRecord>,
}

/// Asks for the subtrees some levels below a place.
#[derive(Debug, Serialize, Deserialize)]
pub struct SubtreesRequest {
    /// The session.
    pub session: u64,
    /// The place.
    pub at: Prefix,
    /// How many levels below, 1 to 8.
    pub levels: u8,
}

/// The `2^levels` subtrees from left to right.
#[derive(Debug, Serialize, Deserialize)]
pub struct SubtreesReply {
    /// The subtrees.
    pub subtrees: Vec<Summary>,
}

/// Asks for the records below a place.
#[derive(Debug, Serialize, Deserialize)]
pub struct RangeRequest {
    /// The session.
    pub session: u64,
    /// The place.
    pub at: Prefix,
    /// The last key that is known already.
    pub after: Option<StateKey>,
}

/// Records in order of key.
#[derive(Debug, Serialize, Deserialize)]
pub struct RangeReply {
    /// True when no further ones follow.
    pub complete: bool,
    /// The records, at least one unless there are none.
    pub records: Vec<StateRecord>,
}

/// A version of a state that the receiver holds, so that the sender can send a delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseHint {
    /// First 64 bits of the key of the state it belongs to; `None`: the wanted state itself.
    pub state: Option<u64>,
    /// First 64 bits of its content hash.
    pub content: u64,
}

impl BaseHint {
    /// In place of a state: the first 64 bits of the hash of a dictionary follow, which the receiver
    /// has. Named at the first want of a message.
    pub const DICTIONARY: u64 = 0;

    /// True when it names a dictionary.
    pub fn is_dictionary(&self) -> bool {
        self.state == Some(Self::DICTIONARY)
    }
}

/// A version whose bytes the receiver lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// First 64 bits of the state's key.
    pub state: u64,
    /// Which of the record's versions, in the record's order.
    pub version: u8,
    /// Versions that the receiver holds, the most promising first.
    pub bases: Vec<BaseHint>,
}

/// Most bases that a [`Want`] may name.
pub const BASES_MAX: usize = 4;

/// Asks for bytes of versions.
#[derive(Debug, Serialize, Deserialize)]
pub struct BodiesRequest {
    /// The session.
    pub session: u64,
    /// The versions, in the order in which they are to be decoded.
    pub wants: Vec<Want>,
}

/// How one version travels; its payload stands in the blob, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyHead {
    /// Wire id of the codec; [`BodyHead::MISSING`] when the sender cannot read the bytes.
    pub codec: u8,
    /// Which of the wanted bases it was made from.
    pub base: Option<u8>,
    /// Length of the payload.
    pub length: u32,
}

impl BodyHead {
    /// The sender's copy is damaged or gone.
    pub const MISSING: u8 = 255;

    /// The head of a version that the sender cannot read.
    pub fn missing() -> Self {
        Self {
            codec: Self::MISSING,
            base: None,
            length: 0,
        }
    }
}

/// Answers the first wants, as many as fit into one message, at least one.
#[derive(Debug, Serialize, Deserialize)]
pub struct BodyHeads {
    /// One for each answered want.
    pub heads: Vec<BodyHead>,
}

/// Offers records that the responder may lack.
#[derive(Debug, Serialize, Deserialize)]
pub struct OfferRequest {
    /// The session.
    pub session: u64,
    /// The records.
    pub records: Vec<StateRecord>,
}

/// What the responder lacks of an offer.
#[derive(Debug, Serialize, Deserialize)]
pub struct OfferReply {
    /// Positions in the offer of the records that are news.
    pub wanted: Vec<u32>,
    /// Bytes that are lacking for them.
    pub wants: Vec<Want>,
}

/// Hands over records with the bytes that were wanted.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoreRequest {
    /// The session.
    pub session: u64,
    /// The records.
    pub records: Vec<StateRecord>,
    /// The wants these bodies answer, as the responder named them.
    pub wants: Vec<Want>,
    /// How each of them travels.
    pub heads: Vec<BodyHead>,
}

/// The records are durable, but for those that the responder's rules refuse.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoreReply {
    /// How many records were taken over, or were no news.
    pub stored: u32,
}

/// Names states that the initiator has collected, so that the responder collects them, too.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgetRequest {
    /// The session.
    pub session: u64,
    /// Their keys.
    pub keys: Vec<StateKey>,
}

/// What the responder did not collect: it knows of a write that the initiator does not, or not yet
/// all that the initiator knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgetReply {
    /// Positions in the request, ascending.
    pub kept: Vec<u32>,
}

/// Ends a session.
#[derive(Debug, Serialize, Deserialize)]
pub struct CloseRequest {
    /// The session.
    pub session: u64,
    /// Where the initiator stands now, unless the session failed.
    pub root: Option<NodeHash>,
    /// True when the responder now holds everything that the initiator did when it opened the
    /// session.
    pub complete: bool,
}

/// Where the responder stands now.
#[derive(Debug, Serialize, Deserialize)]
pub struct CloseReply {
    /// Its newest root.
    pub root: Summary,
    /// Its newest change.
    pub seq: u64,
}

/// Most dictionaries that one message may name.
pub const DICTIONARIES_MAX: usize = 16;

/// Asks for the dictionary that the responder uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DictionaryRequest {
    /// First 64 bits of the hashes of those that are held already.
    pub held: Vec<u64>,
}

/// A dictionary of zstd, which is the blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DictionaryReply {
    /// Its hash; `None` when there is none, or none that is not held.
    pub hash: Option<ContentHash>,
}

/// A request within an open session.
pub trait InSession {
    /// The session's number.
    fn session(&self) -> u64;
}

macro_rules! in_session {
    ($($request:ty),*) => {
        $(impl InSession for $request {
            fn session(&self) -> u64 {
                self.session
            }
        })*
    };
}

in_session!(
    CompareRequest,
    RecordsRequest,
    SubtreesRequest,
    RangeRequest,
    BodiesRequest
);
