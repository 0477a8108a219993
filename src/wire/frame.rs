//! Frames: one message of the replication protocol each. A frame of version 3 has its lengths up front:
//!
//! ```text
//! 0   4  magic "SMST"
//! 4   1  protocol version, 3
//! 5   1  kind of message
//! 6   1  flags: bit 0 set when head and blob are one zstd frame
//! 7   1  newest version that the sender reads, 4; 0 from builds that know no other than 3
//! 8   4  length of the head, little endian
//! 12  4  length of the blob, little endian
//! 16     head (structured part), then blob (bytes of states, questions, answers)
//! ```
//!
//! Those of version 4 are in `short_frame`. Whoever does not know what the other side reads sends version 3, and
//! is answered in version 4 if it can be.

use serde::Serialize;

use crate::delta::compress::decompress_exact;
use crate::types::binary::{decode, encode};
use crate::wire::error::BadFrame;
use crate::wire::head::Head;
use crate::wire::packing::packed;
use crate::wire::short_frame::{self, is_short};
use crate::wire::version::{LONG, PROTOCOL, Protocol};

/// Most bytes in front of the head.
pub const HEADER_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"SMST";
const COMPRESSED: u8 = 1;

/// The newest version that the sender of a frame reads.
pub fn read_by_sender(frame: &[u8]) -> Protocol {
    let newest = frame.get(7).filter(|_| frame.starts_with(&MAGIC));
    if is_short(frame) || newest.is_some_and(|newest| *newest >= PROTOCOL) {
        return Protocol::V4;
    }
    Protocol::V3
}

/// Puts a message into a frame that a peer of this version reads.
pub fn seal_for<T: Head>(peer: Protocol, kind: u8, head: &T, blob: &[u8]) -> Vec<u8> {
    match peer {
        Protocol::V3 => seal(kind, head, blob),
        Protocol::V4 => short_frame::seal(kind, head, blob),
    }
}

/// Puts a message into a frame that every peer reads, and that says what this build reads.
pub fn seal<T: Serialize>(kind: u8, head: &T, blob: &[u8]) -> Vec<u8> {
    let head = encode(head);
    let mut frame = Vec::with_capacity(HEADER_BYTES + head.len() + blob.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[LONG, kind, 0, PROTOCOL]);
    frame.extend_from_slice(&(head.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(blob.len() as u32).to_le_bytes());
    frame.extend_from_slice(&head);
    frame.extend_from_slice(blob);
    if let Some(packed) = packed(kind, &frame[HEADER_BYTES..]) {
        frame.truncate(HEADER_BYTES);
        frame[6] = COMPRESSED;
        frame.extend_from_slice(&packed);
    }
    frame
}

/// Takes a message out of its frame. `limit` bounds head and blob together.
///
/// # Errors
/// [`BadFrame`] when the bytes are not exactly one frame of this kind.
pub fn open<T: Head>(kind: u8, frame: &[u8], limit: usize) -> Result<(T, Vec<u8>), BadFrame> {
    if is_short(frame) {
        return short_frame::open(kind, frame, limit);
    }
    let header = Header::read(frame)?;
    if header.kind != kind {
        return Err(BadFrame::Kind {
            got: header.kind,
            expected: kind,
        });
    }
    let expected = header.head.saturating_add(header.blob);
    if expected > limit {
        return Err(BadFrame::TooLarge {
            got: expected,
            limit,
        });
    }
    let body = &frame[HEADER_BYTES..];
    let mut plain = if header.compressed {
        decompress_exact(body, expected).map_err(|e| BadFrame::Compression(e.to_string()))?
    } else {
        exactly(body, expected)?.to_vec()
    };
    let head = decode(&plain[..header.head])?;
    plain.drain(..header.head);
    Ok((head, plain))
}

/// Bytes that [`open`] takes memory for, as the frame's header announces them; none for what has no
/// header of ours, which it refuses.
pub fn plain_length(frame: &[u8]) -> usize {
    if is_short(frame) {
        return short_frame::plain_length(frame);
    }
    Header::read(frame).map_or(0, |header| header.head.saturating_add(header.blob))
}

struct Header {
    kind: u8,
    compressed: bool,
    head: usize,
    blob: usize,
}

impl Header {
    fn read(frame: &[u8]) -> Result<Self, BadFrame> {
        let short = BadFrame::Short {
            got: frame.len(),
            expected: HEADER_BYTES,
        };
        let Some((header, _)) = frame.split_first_chunk::<HEADER_BYTES>() else {
            return Err(short);
        };
        let [m0, m1, m2, m3, version, kind, flags, _, lengths @ ..] = header;
        if [*m0, *m1, *m2, *m3] != MAGIC {
            return Err(BadFrame::Magic);
        }
        if *version != LONG {
            return Err(BadFrame::Version(*version));
        }
        let [h0, h1, h2, h3, b0, b1, b2, b3] = *lengths;
        Ok(Self {
            kind: *kind,
            compressed: flags & COMPRESSED != 0,
            head: u32::from_le_bytes([h0, h1, h2, h3]) as usize,
            blob: u32::from_le_bytes([b0, b1, b2, b3]) as usize,
        })
    }
}

fn exactly(body: &[u8], expected: usize) -> Result<&[u8], BadFrame> {
    match body.len().checked_sub(expected) {
        Some(0) => Ok(body),
        Some(surplus) => Err(BadFrame::Trailing(surplus)),
        None => Err(BadFrame::Short {
            got: body.len() + HEADER_BYTES,
            expected: expected + HEADER_BYTES,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    impl Head for u64 {}
    impl Head for (u64, String) {}
    impl Head for Vec<(u64, String)> {}

    #[test]
    fn frames_round_trip() {
        for length in [0, 1, 199, 5000] {
            let blob = vec![7u8; length];
            let frame = seal(3, &(1u64, "x".to_owned()), &blob);
            let (head, back): ((u64, String), _) = open(3, &frame, LIMIT).unwrap();
            assert_eq!((head.0, back), (1, blob.clone()));
            let encoded = encode(&(1u64, "x".to_owned())).len();
            assert_eq!(plain_length(&frame), encoded + length);
            assert!(frame.len() <= HEADER_BYTES + 8 + length);
            assert_eq!(read_by_sender(&frame), Protocol::V4);
            let short = seal_for(Protocol::V4, 3, &(1u64, "x".to_owned()), &blob);
            let again: ((u64, String), _) = open(3, &short, LIMIT).unwrap();
            assert_eq!(again, ((1, "x".to_owned()), vec![7; length]));
            assert_eq!(read_by_sender(&short), Protocol::V4);
            let header = short_frame::HEADER_MAX;
            assert!(short.len() <= header + 3 + length && short.len() + 14 <= frame.len());
            assert!((length + 3..length + 60).contains(&plain_length(&short)));
        }
    }

    #[test]
    fn what_a_sender_reads_is_told_by_its_frame() {
        let mut frame = seal(3, &1u64, b"");
        frame[7] = 0;
        assert_eq!(read_by_sender(&frame), Protocol::V3);
        frame[7] = 200;
        assert_eq!(read_by_sender(&frame), Protocol::V4);
        for other in [&b""[..], b"SMST", b"HTTP/1.1 400 Bad Request"] {
            assert_eq!(read_by_sender(other), Protocol::V3);
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let frame = seal(3, &1u64, b"blob");
        let fault = |bytes: &[u8], kind| open::<u64>(kind, bytes, LIMIT).unwrap_err();
        assert!(matches!(fault(&frame[..10], 3), BadFrame::Short { .. }));
        assert!(matches!(fault(&frame[..18], 3), BadFrame::Short { .. }));
        assert!(matches!(
            fault(&[&frame[..], b"x"].concat(), 3),
            BadFrame::Trailing(1)
        ));
        assert!(matches!(fault(b"HTTP/1.1 200 OK\r\n", 3), BadFrame::Magic));
        assert_eq!(plain_length(b"HTTP/1.1 200 OK\r\n"), 0);
        assert!(matches!(
            fault(&frame, 4),
            BadFrame::Kind {
                got: 3,
                expected: 4
            }
        ));
        let mut newer = frame.clone();
        newer[4] = 9;
        assert!(matches!(fault(&newer, 3), BadFrame::Version(9)));
        let mut huge = frame.clone();
        huge[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(fault(&huge, 3), BadFrame::TooLarge { .. }));
        huge[6] = COMPRESSED;
        assert!(matches!(fault(&huge, 3), BadFrame::TooLarge { .. }));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_quietly(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            place in 0usize..300,
            flip in 1u8..,
        ) {
            let _ = open::<Vec<(u64, String)>>(3, &bytes, LIMIT);
            let mut frame = seal(3, &vec![(1u64, "name".to_owned()); 40], &[9; 100]);
            let place = place % frame.len();
            frame[place] ^= flip;
            let _ = open::<Vec<(u64, String)>>(3, &frame, LIMIT);
            let mut frame = seal_for(Protocol::V4, 3, &vec![(1u64, "name".to_owned()); 40], &[9; 100]);
            let place = place % frame.len();
            frame[place] ^= flip;
            let _ = open::<Vec<(u64, String)>>(3, &frame, LIMIT);
            let _ = plain_length(&frame);
        }
    }
}
