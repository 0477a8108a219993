//! Stages: what has arrived of a large content, chunk by chunk, until all of it is there and a
//! record can refer to it.
//!
//! A stage is the first part of a content's list of chunks. It grows at its end, by one row of the
//! list with each step, and is given up from its end, so that what is left is always a first part.
//! The chunks stand with those of all other contents, and are counted for the stage.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::error::StoreError;
use crate::types::hash::{ChunkHash, ContentHash};
use crate::types::id::ReplicaId;

/// Most chunks that one step adds: a row of the list stays below 16,000 bytes.
pub const STAGE_CHUNKS_MAX: usize = 440;

/// A chunk in a list: its hash, and the length of its bytes.
pub type ChunkEntry = (ChunkHash, u32);

/// A stage's key with how far it is, or what is wrong with it.
pub type KeyAndStage = (StageKey, Result<Stage, StoreError>);

/// Names a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageKey(pub [u8; 32]);

impl StageKey {
    /// The stage of a content that a replica sends. Each sender has its own, so that nobody is
    /// blamed for what another one has sent.
    pub fn of_transfer(content: &ContentHash, from: ReplicaId) -> Self {
        let parts = [b"transfer", &content.0[..], &from.0.to_le_bytes()];
        Self(ContentHash::of(&parts.concat()).0)
    }

    /// The stage of a content that a peer at this address heals.
    pub fn of_healing(content: &ContentHash, address: &str) -> Self {
        let parts = [b"healing", &content.0[..], address.as_bytes()];
        Self(ContentHash::of(&parts.concat()).0)
    }

    /// The stage of an upload with a random number. What it is going to be nobody knows yet.
    pub fn of_upload(number: u64) -> Self {
        let parts = [&b"upload"[..], &number.to_le_bytes()];
        Self(ContentHash::of(&parts.concat()).0)
    }
}

/// How far a stage has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The content's hash; [`ContentHash::NONE`] while nobody knows it.
    pub content: ContentHash,
    /// Length of the content, or the most that it may have.
    pub size: u64,
    /// Chunks that are there.
    pub chunks: u32,
    /// Length of their bytes.
    pub bytes: u64,
    /// Rows of the list that are there.
    pub rows: u32,
    /// When it last grew, in milliseconds since 1970-01-01 UTC.
    pub touched_at: u64,
    /// Another number after every change, also when the stage was given up and begun anew.
    pub mark: u64,
}

impl Stage {
    /// A stage with nothing in it.
    pub fn new(content: ContentHash, size: u64, now: u64) -> Self {
        Self {
            content,
            size,
            chunks: 0,
            bytes: 0,
            rows: 0,
            touched_at: now,
            mark: now,
        }
    }

    /// Takes note of a change.
    pub fn step(&mut self) {
        self.mark = self.mark.wrapping_add(1);
    }
}

/// One step of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    /// The stage.
    pub key: StageKey,
    /// As in [`Stage`].
    pub content: ContentHash,
    /// As in [`Stage`].
    pub size: u64,
    /// How many chunks the stage has. With any other number nothing happens.
    pub from: u32,
    /// The chunks behind them.
    pub chunks: Vec<StagedChunk>,
    /// What the clock on the wall says, in milliseconds since 1970-01-01 UTC.
    pub at: u64,
}

/// A chunk that a stage grows by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedChunk {
    /// SHA-256 of its bytes.
    pub hash: ChunkHash,
    /// Length of its bytes.
    pub length: u32,
    /// Its bytes, packed; `None` when the store has them. If it does not any more, nothing
    /// happens.
    pub packed: Option<Bytes>,
}

impl Staging {
    /// Bytes of memory it holds, roughly.
    pub fn weight(&self) -> usize {
        let packed = |chunk: &StagedChunk| chunk.packed.as_ref().map_or(0, Bytes::len);
        self.chunks.iter().map(|chunk| 64 + packed(chunk)).sum()
    }

    /// What a log entry says of it; the bytes of its chunks follow apart.
    pub fn head(&self) -> StagingHead {
        let entry = |chunk: &StagedChunk| {
            let packed = chunk.packed.as_ref().map(|packed| packed.len() as u32);
            (chunk.hash, chunk.length, packed)
        };
        StagingHead {
            key: self.key,
            content: self.content,
            size: self.size,
            from: self.from,
            at: self.at,
            chunks: self.chunks.iter().map(entry).collect(),
        }
    }

    /// The packed bytes, one chunk after another.
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        for packed in self.chunks.iter().filter_map(|c| c.packed.as_ref()) {
            bytes.extend_from_slice(packed);
        }
    }

    /// A step from its head and the packed bytes at the front of `bytes`, which are taken off.
    /// `None` when there are too few.
    pub fn take(head: StagingHead, bytes: &mut Bytes) -> Option<Self> {
        let mut chunks = Vec::with_capacity(head.chunks.len());
        for (hash, length, packed) in head.chunks {
            let packed = match packed {
                Some(length) if length as usize > bytes.len() => return None,
                Some(length) => Some(bytes.split_to(length as usize)),
                None => None,
            };
            chunks.push(StagedChunk {
                hash,
                length,
                packed,
            });
        }
        Some(Self {
            key: head.key,
            content: head.content,
            size: head.size,
            from: head.from,
            chunks,
            at: head.at,
        })
    }
}

/// What a log entry says of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingHead {
    key: StageKey,
    content: ContentHash,
    size: u64,
    from: u32,
    at: u64,
    /// Hash, length, packed length of each chunk.
    chunks: Vec<(ChunkHash, u32, Option<u32>)>,
}
