//! Dictionary-compressed zstd (RFC 9842): what HTTP clients send and get instead of a whole state when
//! both sides hold another version of it. Behind 40 bytes that name the dictionary stands one ordinary
//! frame of `zstd --patch-from`; command line tools skip the 40 bytes.

use crate::delta::compress::{compress_windowed, decompress_patch};
use crate::delta::error::DeltaError;

/// A skippable frame of 32 bytes.
const MAGIC: [u8; 8] = [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0];
/// Bytes in front of the frame.
pub const HEADER_BYTES: usize = MAGIC.len() + 32;
/// zstd's default: an answer must not take long to make.
const LEVEL: i32 = 3;
/// The window that every decoder takes, as a power of two: 8 MiB.
const WINDOW_LOG: u32 = 23;

/// Makes a delta of `new` against `dictionary`, whose SHA-256 is `hash`.
///
/// # Errors
/// [`DeltaError::Zstd`] when zstd cannot get the memory.
pub fn encode(dictionary: &[u8], hash: &[u8; 32], new: &[u8]) -> Result<Vec<u8>, DeltaError> {
    // RFC 9842, section 2.2: at most 8 MiB or 1.25 times the dictionary, whichever is larger.
    let most = (dictionary.len() / 4 * 5).max(1 << WINDOW_LOG).ilog2();
    let frame = compress_windowed(new, dictionary, LEVEL, most)?;
    Ok([&MAGIC[..], hash, &frame].concat())
}

/// Takes the hash of the dictionary off a delta, and leaves the frame.
///
/// # Errors
/// [`DeltaError::Malformed`] when it does not begin as one.
pub fn split(delta: &[u8]) -> Result<(&[u8; 32], &[u8]), DeltaError> {
    let named = delta
        .strip_prefix(&MAGIC)
        .and_then(|rest| rest.split_first_chunk());
    named.ok_or(DeltaError::Malformed("no header of RFC 9842 (dcz)"))
}

/// Gets the new version, of at most `max_len` bytes, from a frame and its dictionary.
///
/// # Errors
/// [`DeltaError`] when the frame is damaged, was made with another dictionary, or says too much.
pub fn decode(dictionary: &[u8], frame: &[u8], max_len: usize) -> Result<Vec<u8>, DeltaError> {
    decompress_patch(frame, dictionary, max_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::sample::{noise, text};

    #[test]
    fn deltas_name_their_dictionary_and_come_back() {
        let old = text(100_000);
        let new = [&old[..50_000], b"edit", &old[50_004..]].concat();
        let delta = encode(&old, &[7; 32], &new).unwrap();
        assert!(delta.len() < 200, "{}", delta.len());
        assert_eq!(delta[..8], [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0]);
        let (hash, frame) = split(&delta).unwrap();
        assert_eq!(hash, &[7; 32]);
        assert_eq!(decode(&old, frame, 1 << 20).unwrap(), new);
        let limit = new.len() - 1;
        assert_eq!(
            decode(&old, frame, limit),
            Err(DeltaError::TooLarge { limit })
        );
        let other = decode(&old[..99_999], frame, 1 << 20);
        assert!(other != Ok(new));
        assert!(split(&delta[..HEADER_BYTES - 1]).is_err());
        assert!(split(frame).is_err());
    }

    #[test]
    fn windows_stay_within_what_decoders_take() {
        let old = noise(9 << 20, 3);
        let new = [&noise(3000, 4)[..], &old].concat();
        let delta = encode(&old, &[0; 32], &new).unwrap();
        let (_, frame) = split(&delta).unwrap();
        assert_eq!(decode(&old, frame, 10 << 20).unwrap(), new);
        // Frame_Header_Descriptor says whether there is a window descriptor (RFC 8878, 3.1.1.1).
        let is_single_segment = frame[4] & 0x20 != 0;
        assert!(
            !is_single_segment && frame[5] >> 3 <= 13,
            "{:?}",
            &frame[..6]
        );
    }
}
