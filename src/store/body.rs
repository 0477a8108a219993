//! Bytes of a version in the form in which they are stored and logged. They are brought into it
//! before they reach the writer, which then does not compress anything while others wait.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::delta::chunker::{CHUNK_MAX, chunks};
use crate::delta::compress::{pack, unpack};
use crate::store::stage::StageKey;
use crate::types::hash::{ChunkHash, ContentHash};

/// Contents above this many bytes are cut into chunks.
pub const WHOLE_BYTES_MAX: usize = CHUNK_MAX;

/// Bytes of a version, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// SHA-256 of the bytes.
    pub hash: ContentHash,
    /// Length of the bytes.
    pub size: u64,
    /// The bytes.
    pub form: Form,
}

/// How the bytes are packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// As one value.
    Whole(Bytes),
    /// In content-defined chunks, in order.
    Chunks(Vec<PackedChunk>),
    /// In the store already.
    Staged(StagedBody),
}

/// Bytes that a stage holds, all of them, and checked against the content's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedBody {
    /// The stage.
    pub stage: StageKey,
    /// The stage's mark when it was checked.
    pub mark: u64,
}

/// One chunk of a large content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedChunk {
    /// SHA-256 of its bytes.
    pub hash: ChunkHash,
    /// Length of its bytes.
    pub length: u32,
    /// Its bytes, packed.
    pub packed: Bytes,
}

impl Body {
    /// Hashes and packs bytes: a few milliseconds for each megabyte.
    pub fn new(bytes: &[u8]) -> Self {
        Self::of_hashed(ContentHash::of(bytes), bytes)
    }

    /// Packs bytes whose hash is known already.
    pub fn of_hashed(hash: ContentHash, bytes: &[u8]) -> Self {
        let form = if bytes.len() <= WHOLE_BYTES_MAX {
            Form::Whole(pack(bytes).into())
        } else {
            Form::Chunks(packed_chunks(bytes))
        };
        let size = bytes.len() as u64;
        Self { hash, size, form }
    }

    /// Bytes of memory it holds, roughly.
    pub fn weight(&self) -> usize {
        match &self.form {
            Form::Whole(packed) => packed.len(),
            Form::Chunks(chunks) => chunks.iter().map(|chunk| chunk.packed.len() + 64).sum(),
            Form::Staged(_) => 64,
        }
    }

    /// What refers to the bytes in a stage, if they are in one.
    pub fn staged(&self) -> Option<&StagedBody> {
        match &self.form {
            Form::Staged(staged) => Some(staged),
            Form::Whole(_) | Form::Chunks(_) => None,
        }
    }

    /// What a log entry says of the body; its bytes follow apart.
    pub fn head(&self) -> BodyHead {
        let parts = match &self.form {
            Form::Whole(packed) => Parts::Whole(packed.len() as u32),
            Form::Chunks(chunks) => {
                let part = |chunk: &PackedChunk| (chunk.hash, chunk.length, packed_len(chunk));
                Parts::Chunks(chunks.iter().map(part).collect())
            }
            Form::Staged(staged) => Parts::Staged(*staged),
        };
        BodyHead {
            hash: self.hash,
            size: self.size,
            parts,
        }
    }

    /// The packed bytes, one after another.
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        match &self.form {
            Form::Whole(packed) => bytes.extend_from_slice(packed),
            Form::Chunks(chunks) => {
                for chunk in chunks {
                    bytes.extend_from_slice(&chunk.packed);
                }
            }
            Form::Staged(_) => {}
        }
    }

    /// A body from its head and the packed bytes at the front of `bytes`, which are taken off.
    /// `None` when there are too few.
    pub fn take(head: BodyHead, bytes: &mut Bytes) -> Option<Self> {
        let mut part = |length: u32| {
            let length = length as usize;
            (length <= bytes.len()).then(|| bytes.split_to(length))
        };
        let form = match head.parts {
            Parts::Whole(length) => Form::Whole(part(length)?),
            Parts::Chunks(parts) => {
                let chunk = |(hash, length, packed)| {
                    Some(PackedChunk {
                        hash,
                        length,
                        packed: part(packed)?,
                    })
                };
                Form::Chunks(parts.into_iter().map(chunk).collect::<Option<_>>()?)
            }
            Parts::Staged(staged) => Form::Staged(staged),
        };
        Some(Self {
            hash: head.hash,
            size: head.size,
            form,
        })
    }

    /// The bytes themselves; `None` when the packed ones are not intact, or not here but in the
    /// store.
    pub fn unpacked(&self) -> Option<Vec<u8>> {
        let bytes = match &self.form {
            Form::Whole(packed) => unpack(packed, usize::try_from(self.size).ok()?).ok()?,
            Form::Chunks(chunks) => {
                let mut bytes = Vec::new();
                for chunk in chunks {
                    bytes.extend(unpack(&chunk.packed, chunk.length as usize).ok()?);
                }
                bytes
            }
            Form::Staged(_) => return None,
        };
        ContentHash::of(&bytes).matches(&self.hash).then_some(bytes)
    }
}

fn packed_len(chunk: &PackedChunk) -> u32 {
    chunk.packed.len() as u32
}

fn packed_chunks(bytes: &[u8]) -> Vec<PackedChunk> {
    let chunk = |range: std::ops::Range<usize>| {
        let chunk = &bytes[range];
        PackedChunk {
            hash: ChunkHash::of(chunk),
            length: chunk.len() as u32,
            packed: pack(chunk).into(),
        }
    };
    chunks(bytes).map(chunk).collect()
}

/// What a log entry says of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyHead {
    hash: ContentHash,
    size: u64,
    parts: Parts,
}

/// Lengths of the packed bytes that follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Parts {
    Whole(u32),
    /// Hash, length, packed length of each chunk.
    Chunks(Vec<(ChunkHash, u32, u32)>),
    /// Nothing follows.
    Staged(StagedBody),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 28) as u8
        };
        (0..len).map(|_| byte()).collect()
    }

    #[test]
    fn a_body_comes_back_from_its_head_and_bytes_and_from_no_fewer() {
        for len in [0, 1, 500, WHOLE_BYTES_MAX, WHOLE_BYTES_MAX + 1, 300_000] {
            let bytes = noise(len);
            let body = Body::new(&bytes);
            assert_eq!(body.unpacked().as_deref(), Some(&bytes[..]));
            let mut packed = Vec::new();
            body.append_to(&mut packed);
            let mut whole = Bytes::from(packed.clone());
            assert_eq!(Body::take(body.head(), &mut whole), Some(body.clone()));
            assert!(whole.is_empty());
            packed.pop();
            assert_eq!(Body::take(body.head(), &mut packed.into()), None);
        }
    }
}
