//! The messages of large states that travel chunk by chunk, in either direction.

use serde::{Deserialize, Serialize};

use crate::types::hash::{ChunkHash, ContentHash};
use crate::wire::messages::{BodyHead, InSession};

/// Most chunks of one message.
pub const CHUNKS_MAX: usize = 440;

/// A chunk in the list of a large content: its hash, and the length of its bytes.
pub type ListedChunk = (ChunkHash, u32);

/// Asks for chunks of a large version of which the list is known, and for the next part of the list.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChunksRequest {
    /// The session.
    pub session: u64,
    /// First 64 bits of the state's key.
    pub state: u64,
    /// Which of the record's versions, in the record's order.
    pub version: u8,
    /// Which chunks.
    pub part: PartRequest,
}

/// Names chunks of a list that is known as far as they are, and asks for how it goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartRequest {
    /// Place in the list of the first chunk of the part that is known.
    pub from: u32,
    /// How many chunks that part has; none at first.
    pub count: u32,
    /// Which of them are wanted: places in that part, ascending.
    pub wanted: Vec<u32>,
    /// Bytes of the version that the next part of the list may stand for; one chunk it has anyway.
    pub bytes: u32,
}

/// The bytes of the wanted chunks follow as blob, one after the other.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChunksReply {
    /// The next part of the list, empty behind its end; `None` when the sender cannot read its copy.
    pub next: Option<Vec<ListedChunk>>,
}

/// Sends chunks of a large content, and offers the next ones. The bytes of those that are sent follow
/// as blob, one after the other.
#[derive(Debug, Serialize, Deserialize)]
pub struct StageRequest {
    /// The session.
    pub session: u64,
    /// The content.
    pub content: ContentHash,
    /// Its length.
    pub size: u64,
    /// Place in the list of the first chunk of `chunks`.
    pub from: u32,
    /// A part of the list that was offered before; none at first.
    pub chunks: Vec<ListedChunk>,
    /// Which of them are sent: places in that part, ascending. The others are there already.
    pub sent: Vec<u32>,
    /// The part of the list behind that.
    pub next: Vec<ListedChunk>,
}

/// What has arrived of a content is durable.
#[derive(Debug, Serialize, Deserialize)]
pub struct StageReply {
    /// How many chunks of the list have arrived.
    pub held: u32,
    /// Which chunks of the next part are lacking: places in it, ascending. Means nothing unless all
    /// chunks in front of that part have arrived.
    pub lacking: Vec<u32>,
}

impl InSession for ChunksRequest {
    fn session(&self) -> u64 {
        self.session
    }
}

impl BodyHead {
    /// All chunks of the version were sent before, with `StageRequest`; there is no payload.
    pub const STAGED: u8 = 254;

    /// The head of a version whose chunks were sent before.
    pub fn staged() -> Self {
        Self {
            codec: Self::STAGED,
            ..Self::missing()
        }
    }
}
