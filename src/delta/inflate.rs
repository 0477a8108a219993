//! zstd frames that are decompressed while they arrive, in memory that does not grow with them.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::delta::compress::zstd_error;
use crate::delta::error::DeltaError;

/// The largest window that is taken: 8 MiB, which is what a content coding may ask for (RFC 9659).
const WINDOW_LOG_MAX: u32 = 23;
/// Bytes that are decompressed at a time.
const PIECE: usize = 128 << 10;

/// Decompresses one frame, or several one after the other, piece by piece.
pub struct Inflater {
    context: DCtx<'static>,
    /// True between frames, where the input may end.
    is_whole: bool,
    piece: Vec<u8>,
}

impl Inflater {
    /// An inflater that has seen nothing yet.
    ///
    /// # Errors
    /// [`DeltaError::Zstd`] when zstd cannot be set up.
    pub fn new() -> Result<Self, DeltaError> {
        let mut context = DCtx::create();
        let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
        context.set_parameter(window).map_err(zstd_error)?;
        Ok(Self {
            context,
            is_whole: false,
            piece: Vec::with_capacity(PIECE),
        })
    }

    /// Decompresses what comes next, and hands it to `take` piece by piece.
    ///
    /// # Errors
    /// [`DeltaError::Zstd`] when the bytes are not a frame, or one with a larger window; the first
    /// error of `take`.
    pub fn push<E: From<DeltaError>>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut input = InBuffer::around(bytes);
        loop {
            self.piece.clear();
            let mut output = OutBuffer::around(&mut self.piece);
            let more = self.context.decompress_stream(&mut output, &mut input);
            let more = more.map_err(|code| E::from(zstd_error(code)))?;
            let is_full = output.pos() == output.capacity();
            self.is_whole = more == 0;
            take(&self.piece)?;
            // Behind a frame nothing waits to come out, however full the piece was.
            if input.pos() == bytes.len() && (self.is_whole || !is_full) {
                return Ok(());
            }
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`DeltaError::Malformed`] when the last frame is not complete.
    pub fn finish(self) -> Result<(), DeltaError> {
        if self.is_whole {
            return Ok(());
        }
        Err(DeltaError::Malformed("not whole zstd frames"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::compress::compress;
    use crate::delta::sample::noise;

    fn inflated(frames: &[u8], step: usize) -> Result<Vec<u8>, DeltaError> {
        let (mut inflater, mut content) = (Inflater::new()?, Vec::new());
        for piece in frames.chunks(step) {
            inflater.push(piece, |bytes| {
                content.extend_from_slice(bytes);
                Ok::<_, DeltaError>(())
            })?;
        }
        inflater.finish()?;
        Ok(content)
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        for content in [
            Vec::new(),
            noise(700_000, 1),
            vec![7; 1_000_000],
            vec![7; PIECE],
            noise(4 * PIECE, 2),
        ] {
            let frame = compress(&content, 3).unwrap();
            for step in [1_000, 65_536, usize::MAX] {
                assert!(inflated(&frame, step).unwrap() == content);
            }
            let two = [&frame[..], &frame].concat();
            assert!(inflated(&two, 777).unwrap() == [&content[..], &content].concat());
            assert!(inflated(&frame[..frame.len() - 1], 1_000).is_err());
            assert!(inflated(&[&frame[..], b"behind"].concat(), 1_000).is_err());
        }
        assert!(inflated(&[], 1).is_err());
    }
}
