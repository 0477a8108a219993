//! The codec for states of which the receiver holds nothing: one zstd frame.

use crate::delta::codec::{Codec, CodecId, Effort};
use crate::delta::compress::{compress_within, decompress_exact, looks_incompressible};
use crate::delta::error::DeltaError;

/// Sends the whole state compressed.
pub struct Whole;

impl Codec for Whole {
    fn id(&self) -> CodecId {
        CodecId::WHOLE
    }

    fn name(&self) -> &'static str {
        "zstd"
    }

    fn encode(
        &self,
        _base: Option<&[u8]>,
        new: &[u8],
        effort: Effort,
    ) -> Result<Option<Vec<u8>>, DeltaError> {
        Ok(whole_within(new, effort, new.len().saturating_sub(1)))
    }

    fn decode(
        &self,
        _base: Option<&[u8]>,
        payload: &[u8],
        expected_len: usize,
    ) -> Result<Vec<u8>, DeltaError> {
        decompress_exact(payload, expected_len)
    }
}

/// A frame of at most `max_len` bytes, if zstd makes one and has the memory for it.
pub fn whole_within(new: &[u8], effort: Effort, max_len: usize) -> Option<Vec<u8>> {
    if looks_incompressible(new) {
        return None;
    }
    compress_within(new, effort.level(), max_len).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_the_first_release_are_read() {
        let state = b"turn 1, turn 2, turn 3, turn 4, turn 5, turn 6, turn 7, turn 8".repeat(2);
        let payload = Whole.encode(None, &state, Effort::Fast).unwrap().unwrap();
        assert!(payload.len() < state.len());
        assert_eq!(Whole.decode(None, &payload, state.len()).unwrap(), state);
        assert_eq!(Whole.decode(None, GOLDEN, state.len()).unwrap(), state);
        assert!(Whole.decode(None, GOLDEN, state.len() - 1).is_err());
        assert!(Whole.decode(None, GOLDEN, state.len() + 1).is_err());
    }

    #[test]
    fn every_changed_byte_gives_the_length_or_an_error() {
        for at in 0..GOLDEN.len() {
            for flip in 1..=255 {
                let mut changed = GOLDEN.to_vec();
                changed[at] ^= flip;
                if let Ok(state) = Whole.decode(None, &changed, 124) {
                    assert_eq!(state.len(), 124);
                }
            }
            assert!(Whole.decode(None, &GOLDEN[..at], 124).is_err());
        }
    }

    const GOLDEN: &[u8] = &[
        40, 181, 47, 253, 32, 124, 29, 1, 0, 120, 116, 117, 114, 110, 32, 49, 44, 32, 50, 51, 52,
        53, 54, 55, 56, 8, 0, 11, 130, 20, 144, 15, 100, 6, 178, 128, 124, 32, 51, 144, 98, 109,
        225, 2,
    ];
}
