//! What makes deltas: our codecs, zstd with the base as prefix, chunks, and programs that are installed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cli::bench::delta::tools::{Tool, installed};
use crate::cli::bench::error::BenchError;
use crate::cli::bench::measure::thread_ms;
use crate::cli::error::CliError;
use crate::delta::chunker::chunks;
use crate::delta::codec::Effort;
use crate::delta::compress::{
    Patch, compress, compress_patch, decompress_exact, decompress_with_prefix, pack,
};
use crate::delta::error::DeltaError;
use crate::delta::registry::{decode, encode_smallest};

/// Above this many bytes, what takes minutes is left out.
const PATIENCE: usize = 8 << 20;
/// A chunk that the receiver has is named by some bytes of its hash.
const CHUNK_NAME: usize = 8;

/// One way to make a delta.
pub struct Method {
    /// Its name in the table.
    pub name: &'static str,
    /// Largest state that it is tried with.
    pub largest: usize,
    how: How,
}

enum How {
    Ours(Effort),
    Whole(i32),
    Patch(Patch),
    Chunks,
    /// With the folder in which it works.
    Tool(Tool, PathBuf),
}

/// One delta.
pub struct Made {
    /// Its length.
    pub bytes: usize,
    /// Time to make it, in milliseconds.
    pub encode_ms: f64,
    /// Time to undo it, in milliseconds; 0 where that was not measured.
    pub decode_ms: f64,
}

/// All methods; those of other programs only when asked for and installed.
pub fn all(tools: bool, folder: &Path) -> Vec<Method> {
    let method = |name, how, largest| Method { name, largest, how };
    let patch = |level, long| How::Patch(Patch { level, long });
    let mut methods = vec![
        method("samestate fast", How::Ours(Effort::Fast), usize::MAX),
        method("samestate small", How::Ours(Effort::Small), PATIENCE),
        method("zstd 3, whole", How::Whole(3), usize::MAX),
        method("patch 1", patch(1, false), usize::MAX),
        method("patch 3", patch(3, false), usize::MAX),
        method("patch 3 long", patch(3, true), usize::MAX),
        method("patch 9", patch(9, false), PATIENCE),
        method("patch 19", patch(19, false), PATIENCE),
        method("chunks, new ones packed", How::Chunks, usize::MAX),
    ];
    if tools {
        let found = installed().into_iter();
        methods.extend(
            found.map(|tool| method(tool.name, How::Tool(tool, folder.to_owned()), PATIENCE)),
        );
    }
    methods
}

impl Method {
    /// True when it runs in a process of its own.
    pub fn is_process(&self) -> bool {
        matches!(self.how, How::Tool(..))
    }

    /// Makes a delta, and undoes it where that is possible here.
    ///
    /// # Errors
    /// [`CliError`] when it fails, or does not give back the new version.
    pub fn measure(&self, base: &[u8], new: &[u8]) -> Result<Made, CliError> {
        let (begin, wall) = (thread_ms(), Instant::now());
        let elapsed = || thread_ms() - begin;
        let (bytes, encode_ms, back) = match &self.how {
            How::Ours(effort) => {
                let made = encode_smallest(&[base], new, *effort);
                let (time, from) = (elapsed(), made.base.map(|_| base));
                let decoding = thread_ms();
                let back = decode(made.codec, from, &made.payload, new.len());
                (made.payload.len(), time, Some((back, decoding)))
            }
            How::Whole(level) => {
                let frame = compress(new, *level).map_err(failed)?;
                let (time, decoding) = (elapsed(), thread_ms());
                let back = decompress_exact(&frame, new.len());
                (frame.len(), time, Some((back, decoding)))
            }
            How::Patch(patch) => {
                let frame = compress_patch(new, base, *patch).map_err(failed)?;
                let (time, decoding) = (elapsed(), thread_ms());
                let back = decompress_with_prefix(&frame, base, new.len());
                (frame.len(), time, Some((back, decoding)))
            }
            How::Chunks => (chunked(base, new), elapsed(), None),
            How::Tool(tool, folder) => {
                let bytes = tool.delta(base, new, folder)?;
                (bytes, wall.elapsed().as_secs_f64() * 1e3, None)
            }
        };
        let mut decode_ms = 0.0;
        if let Some((back, decoding)) = back {
            decode_ms = thread_ms() - decoding;
            if back.map_err(failed)? != new {
                return Err(BenchError::WrongDelta(self.name).into());
            }
        }
        Ok(Made {
            bytes,
            encode_ms,
            decode_ms,
        })
    }
}

fn failed(error: DeltaError) -> CliError {
    BenchError::Delta(error).into()
}

/// Bytes when chunks of the base are named and all others sent.
fn chunked(base: &[u8], new: &[u8]) -> usize {
    let held: HashSet<&[u8]> = chunks(base).map(|range| &base[range]).collect();
    let sent = chunks(new).map(|range| match &new[range] {
        chunk if held.contains(chunk) => CHUNK_NAME,
        chunk => CHUNK_NAME + pack(chunk).len(),
    });
    sent.sum()
}
