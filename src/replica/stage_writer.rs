//! Storing a large content while it comes: it is cut into chunks, and each step is durable before the
//! next one is cut, so that memory does not grow with the content.

use std::convert::Infallible;

use crate::delta::chunker::Cutter;
use crate::delta::compress::pack;
use crate::replica::staging::{Stager, StagingError, admit, grow};
use crate::replica::view::View;
use crate::store::body::{Body, Form, StagedBody, WHOLE_BYTES_MAX};
use crate::store::stage::{STAGE_CHUNKS_MAX, Stage, StageKey, StagedChunk};
use crate::types::hash::{ChunkHash, ContentHash, ContentHasher};
use crate::types::limits::Limits;

/// Bytes of a content that are stored with one step.
pub const STEP: usize = 1 << 20;

/// A content on its way into its stage. Its methods block.
pub struct StageWriter {
    key: StageKey,
    stage: Stage,
    sink: Sink,
}

/// What was cut and is not stored yet.
#[derive(Default)]
struct Sink {
    length: u64,
    hasher: ContentHasher,
    cutter: Cutter,
    chunks: Vec<(ChunkHash, Vec<u8>)>,
    bytes: usize,
}

impl Sink {
    fn take(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
        let (chunks, waiting) = (&mut self.chunks, &mut self.bytes);
        let cut = self
            .cutter
            .push(bytes, |chunk| keep(chunks, waiting, chunk));
        cut.unwrap_or_else(|never| match never {});
    }
}

fn keep(
    chunks: &mut Vec<(ChunkHash, Vec<u8>)>,
    waiting: &mut usize,
    chunk: &[u8],
) -> Result<(), Infallible> {
    chunks.push((ChunkHash::of(chunk), chunk.to_vec()));
    *waiting += chunk.len();
    Ok(())
}

impl StageWriter {
    /// Begins a stage for a content of at most `size` bytes, whose hash nobody needs to know yet.
    ///
    /// # Errors
    /// [`StagingError::Full`] when there is no room.
    pub fn begin(
        stager: &dyn Stager,
        key: StageKey,
        size: u64,
        limits: &Limits,
    ) -> Result<Self, StagingError> {
        Ok(Self {
            key,
            stage: admit(stager, key, ContentHash::NONE, size, limits)?,
            sink: Sink::default(),
        })
    }

    /// Bytes that have come.
    pub fn length(&self) -> u64 {
        self.sink.length
    }

    /// Takes the next bytes, at most [`STEP`] at a time.
    ///
    /// # Errors
    /// [`StagingError`] when they cannot be stored.
    pub fn push(&mut self, stager: &dyn Stager, bytes: &[u8]) -> Result<(), StagingError> {
        for part in bytes.chunks(STEP) {
            self.sink.take(part);
            if self.sink.bytes >= STEP {
                self.step(stager)?;
            }
        }
        Ok(())
    }

    /// Stores what was cut.
    fn step(&mut self, stager: &dyn Stager) -> Result<(), StagingError> {
        let chunks = std::mem::take(&mut self.sink.chunks);
        self.sink.bytes = 0;
        for part in chunks.chunks(STAGE_CHUNKS_MAX) {
            let due = self.stage.chunks + part.len() as u32;
            // What the store has need not be written again, unless it is given up just now.
            for is_whole in [false, true] {
                if self.stage.chunks != due {
                    let view = stager.newest();
                    let part = part.iter().map(|chunk| staged(&view, chunk, is_whole));
                    let part = part.collect::<Result<_, StagingError>>()?;
                    self.stage = grow(stager, self.key, &self.stage, part)?;
                }
            }
            if self.stage.chunks != due {
                return Err(StagingError::Disturbed);
            }
        }
        Ok(())
    }

    /// Stores the rest, and returns the content for a record to refer to, under the hash that the
    /// bytes have. A short one comes back whole, and the stage is left empty.
    ///
    /// # Errors
    /// [`StagingError`] when it cannot be stored.
    pub fn finish(mut self, stager: &dyn Stager) -> Result<Body, StagingError> {
        let (chunks, waiting) = (&mut self.sink.chunks, &mut self.sink.bytes);
        let cutter = std::mem::take(&mut self.sink.cutter);
        let cut = cutter.finish(|chunk| keep(chunks, waiting, chunk));
        cut.unwrap_or_else(|never| match never {});
        if self.sink.length <= WHOLE_BYTES_MAX as u64 {
            let whole: Vec<u8> = self.sink.chunks.into_iter().flat_map(|(_, b)| b).collect();
            return Ok(Body::new(&whole));
        }
        self.step(stager)?;
        let (hasher, size) = (self.sink.hasher, self.sink.length);
        Ok(Body {
            hash: hasher.finish(),
            size,
            form: Form::Staged(StagedBody {
                stage: self.key,
                mark: self.stage.mark,
            }),
        })
    }
}

fn staged(
    view: &View,
    (hash, bytes): &(ChunkHash, Vec<u8>),
    is_whole: bool,
) -> Result<StagedChunk, StagingError> {
    let length = bytes.len() as u32;
    let is_here = !is_whole && view.snapshot().plain_chunk(&(*hash, length))?.is_some();
    Ok(StagedChunk {
        hash: *hash,
        length,
        packed: (!is_here).then(|| pack(bytes).into()),
    })
}
