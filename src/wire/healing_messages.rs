//! The messages that ask for bytes by their hash, outside of sessions: replicas with equal roots have
//! none, and may have damage.

use serde::{Deserialize, Serialize};

use crate::types::hash::ContentHash;
use crate::wire::chunk_messages::PartRequest;

/// Most contents that one message may ask for.
pub const CONTENTS_MAX: usize = 256;

/// A content of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentWant {
    /// First 64 bits of the key of a state that has it, current or in history.
    pub state: u64,
    /// Its hash.
    pub content: ContentHash,
}

/// Asks for the bytes of contents that are damaged at the asker's.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContentsRequest {
    /// The contents, each once.
    pub wants: Vec<ContentWant>,
}

/// Asks outside of sessions for chunks of a large content, current or in history: what heals damage.
#[derive(Debug, Serialize, Deserialize)]
pub struct PiecesRequest {
    /// First 64 bits of the key of a state that has the content.
    pub state: u64,
    /// The content.
    pub content: ContentHash,
    /// Which chunks.
    pub part: PartRequest,
}
