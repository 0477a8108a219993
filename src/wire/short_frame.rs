//! A frame of version 4: one message, with two or three bytes in front of it.
//!
//! ```text
//! 0  1       bit 7 set; bit 6 set when head and blob are one zstd frame; bits 0 to 5: kind of message
//! 1  1 to 5  varint: length of head and blob together, before compression
//!            head (structured part, which says itself where it ends), then blob
//! ```
//!
//! The zstd frame has no magic number. Frames of other versions begin with a byte below 0x80.

use crate::delta::compress::decompress_exact;
use crate::wire::error::BadFrame;
use crate::wire::fields::{Fields, put_varint};
use crate::wire::head::Head;
use crate::wire::packing::packed;

/// Set in the first byte of every frame of this version.
const MARK: u8 = 0x80;
const COMPRESSED: u8 = 0x40;
const KINDS: u8 = 0x3f;
/// Most bytes in front of the head.
pub const HEADER_MAX: usize = 6;
/// Room for a head in bytes, which few of those that are written often exceed.
const HEAD_ROOM: usize = 128;
/// What every zstd frame begins with (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// True when a frame is one of this version, or a damaged one.
pub fn is_short(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & MARK != 0)
}

/// Puts a message into a frame.
pub fn seal<T: Head>(kind: u8, head: &T, blob: &[u8]) -> Vec<u8> {
    debug_assert!((1..=KINDS).contains(&kind));
    let mut written = Vec::with_capacity(HEAD_ROOM);
    head.write(&mut written);
    let length = written.len() + blob.len();
    let mut frame = Vec::with_capacity(HEADER_MAX + length);
    frame.push(MARK | kind);
    put_varint(&mut frame, length as u64);
    let begin = frame.len();
    frame.extend_from_slice(&written);
    frame.extend_from_slice(blob);
    if let Some(packed) = packed(kind, &frame[begin..])
        && let Some(bare) = packed.strip_prefix(&ZSTD_MAGIC)
    {
        frame.truncate(begin);
        frame.extend_from_slice(bare);
        frame[0] |= COMPRESSED;
    }
    frame
}

/// Takes a message out of its frame. `limit` bounds head and blob together.
///
/// # Errors
/// [`BadFrame`] when the bytes are not exactly one frame of this kind.
pub fn open<T: Head>(kind: u8, frame: &[u8], limit: usize) -> Result<(T, Vec<u8>), BadFrame> {
    let header = Header::read(frame)?;
    if header.kind != kind {
        return Err(BadFrame::Kind {
            got: header.kind,
            expected: kind,
        });
    }
    let (expected, body) = (header.length, header.body);
    if expected > limit {
        return Err(BadFrame::TooLarge {
            got: expected,
            limit,
        });
    }
    if header.compressed {
        let packed = [&ZSTD_MAGIC, body].concat();
        let plain = decompress_exact(&packed, expected);
        return take(plain.map_err(|error| BadFrame::Compression(error.to_string()))?);
    }
    match body.len().checked_sub(expected) {
        Some(0) => take(body.to_vec()),
        Some(surplus) => Err(BadFrame::Trailing(surplus)),
        None => Err(BadFrame::Short {
            got: frame.len(),
            expected: frame.len() - body.len() + expected,
        }),
    }
}

fn take<T: Head>(mut plain: Vec<u8>) -> Result<(T, Vec<u8>), BadFrame> {
    let mut fields = Fields::new(&plain);
    let head = T::read(&mut fields)?;
    let read = plain.len() - fields.left();
    plain.drain(..read);
    Ok((head, plain))
}

/// Bytes that [`open`] takes memory for, as the frame announces them: head and blob, and its own once
/// more when they are compressed. None for what it refuses.
pub fn plain_length(frame: &[u8]) -> usize {
    Header::read(frame).map_or(0, |header| {
        let packed = if header.compressed {
            header.body.len()
        } else {
            0
        };
        header.length.saturating_add(packed)
    })
}

struct Header<'f> {
    kind: u8,
    compressed: bool,
    length: usize,
    body: &'f [u8],
}

impl<'f> Header<'f> {
    fn read(frame: &'f [u8]) -> Result<Self, BadFrame> {
        let mut fields = Fields::new(frame);
        let first = fields.byte()?;
        if first & MARK == 0 {
            return Err(BadFrame::Magic);
        }
        let length = fields.u32()?;
        Ok(Self {
            kind: first & KINDS,
            compressed: first & COMPRESSED != 0,
            length: usize::try_from(length).unwrap_or(usize::MAX),
            body: fields.rest(),
        })
    }
}
