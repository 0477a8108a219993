//! How messages are compressed, in all versions of frames.

use crate::delta::compress::{compress, looks_incompressible};
use crate::wire::messages::Endpoint;

/// Shorter messages gain nothing from compression.
const COMPRESS_FROM: usize = 32;
/// Longest message that is compressed with care, which takes 8 ms then, instead of 3.
const CARE_UNTIL: usize = 1 << 20;
/// Reads several hundred megabytes a second.
const FAST: i32 = 3;
/// Reads more than the 125 megabytes a second that a gigabit link takes as they are.
const CAREFUL: i32 = 6;

/// The zstd level for a message. Parts of large states are not held up for the little that a higher level
/// saves of them, nor is what looks random, in which it would look for matches.
pub fn level(kind: u8, plain: &[u8]) -> i32 {
    let of_parts = [Endpoint::Chunks, Endpoint::Stage, Endpoint::Pieces];
    let is_part = of_parts.iter().any(|part| part.kind() == kind);
    if is_part || plain.len() > CARE_UNTIL || looks_incompressible(plain) {
        FAST
    } else {
        CAREFUL
    }
}

/// A frame of a message that is shorter than the message; `None` where that is not to be had.
pub fn packed(kind: u8, plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() < COMPRESS_FROM {
        return None;
    }
    let frame = compress(plain, level(kind, plain)).ok();
    frame.filter(|frame| frame.len() < plain.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::sample::{noise, text};

    #[test]
    fn short_messages_are_packed_with_care_and_random_ones_are_not() {
        let kind = Endpoint::Bodies.kind();
        assert_eq!(level(kind, &vec![7; CARE_UNTIL]), CAREFUL);
        assert_eq!(level(kind, &vec![7; CARE_UNTIL + 1]), FAST);
        assert_eq!(level(kind, &noise(CARE_UNTIL, 1)), FAST);
        assert_eq!(level(Endpoint::Chunks.kind(), &text(9000)), FAST);
        let frames = compress(&text(200_000), 1).unwrap();
        assert_eq!(level(kind, &frames), FAST, "{}", frames.len());
    }

    #[test]
    fn messages_are_packed_when_that_makes_them_shorter() {
        let kind = Endpoint::Bodies.kind();
        assert_eq!(packed(kind, &noise(5000, 1)), None);
        assert_eq!(packed(kind, &text(COMPRESS_FROM - 1)), None);
        let state = text(5000);
        let frame = packed(kind, &state).unwrap();
        assert!(frame.len() * 2 < state.len());
    }
}
