//! Blocks, of which data files consist: bounded in length, compressed, and checked together with
//! the place where they stand.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::delta::codec::{CodecId, Effort};
use crate::delta::registry::{decode, encode_smallest};

/// What a data file begins with; the version of the layout follows as a `u32`.
pub const MAGIC: &[u8; 16] = b"samestate backup";
/// Version of the layout of data files and manifests.
pub const FORMAT: u32 = 1;
/// Bytes in front of the first block.
pub const FILE_HEADER: u64 = 20;
/// Bytes in front of a block's content.
pub const BLOCK_HEADER: usize = 26;
/// Longest content of a block, in bytes.
pub const PLAIN_MAX: usize = 32 << 20;

const CHECK_BYTES: usize = 16;
const CHECKED_HEADER: usize = BLOCK_HEADER - CHECK_BYTES;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Entries of states, in order of key.
    States = 1,
    /// Bytes of states.
    Pieces = 2,
    /// Where pieces are, by hash.
    Index = 3,
    /// Where the blocks of states are.
    StatesTable = 4,
    /// Where the blocks of pieces are.
    PiecesTable = 5,
    /// Where the blocks of the index are.
    IndexTable = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        let kinds = [
            Self::States,
            Self::Pieces,
            Self::Index,
            Self::StatesTable,
            Self::PiecesTable,
            Self::IndexTable,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The fields in front of a block's content.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// What it holds.
    pub kind: Kind,
    /// Length of what follows, in bytes; at most [`PLAIN_MAX`].
    pub packed: usize,
    codec: CodecId,
    plain: usize,
    check: [u8; CHECK_BYTES],
}

impl Header {
    /// Reads a header, whose lengths are bounded then.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8; BLOCK_HEADER]) -> Result<Self, &'static str> {
        let number = |at: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(four) as usize
        };
        let (plain, packed) = (number(2), number(6));
        if plain > PLAIN_MAX || packed > plain {
            return Err("a block is longer than any that is written");
        }
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&bytes[CHECKED_HEADER..]);
        Ok(Self {
            kind: Kind::from_byte(bytes[0]).ok_or("a block of an unknown kind")?,
            packed,
            codec: CodecId(bytes[1]),
            plain,
            check,
        })
    }

    /// True when header and packed content are what was written at this place.
    pub fn fits(&self, offset: u64, packed: &[u8]) -> bool {
        let expected = check(offset, &self.checked(), packed);
        bool::from(expected.ct_eq(&self.check))
    }

    /// The content, once it is known to fit.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn unpack(&self, packed: &[u8]) -> Result<Vec<u8>, String> {
        decode(self.codec, None, packed, self.plain).map_err(|error| error.to_string())
    }

    fn checked(&self) -> [u8; CHECKED_HEADER] {
        header(self.kind, self.codec, self.plain, self.packed)
    }
}

/// A block as it is written at `offset` of a file. The content must not exceed [`PLAIN_MAX`].
pub fn seal(kind: Kind, offset: u64, plain: &[u8]) -> Vec<u8> {
    let encoded = encode_smallest(&[], plain, Effort::Fast);
    let header = header(kind, encoded.codec, plain.len(), encoded.payload.len());
    let check = check(offset, &header, &encoded.payload);
    [&header[..], &check, &encoded.payload].concat()
}

fn header(kind: Kind, codec: CodecId, plain: usize, packed: usize) -> [u8; CHECKED_HEADER] {
    let mut bytes = [0; CHECKED_HEADER];
    bytes[0] = kind as u8;
    bytes[1] = codec.0;
    bytes[2..6].copy_from_slice(&(plain as u32).to_le_bytes());
    bytes[6..10].copy_from_slice(&(packed as u32).to_le_bytes());
    bytes
}

fn check(offset: u64, header: &[u8; CHECKED_HEADER], packed: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hash = Sha256::new();
    hash.update(offset.to_le_bytes());
    hash.update(header);
    hash.update(packed);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash.finalize()[..CHECK_BYTES]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(offset: u64, block: &[u8]) -> Option<(Kind, Vec<u8>)> {
        let (front, packed) = block.split_at(BLOCK_HEADER);
        let header = Header::read(front.try_into().unwrap()).ok()?;
        let fits = header.packed == packed.len() && header.fits(offset, packed);
        fits.then(|| (header.kind, header.unpack(packed).unwrap()))
    }

    #[test]
    fn blocks_come_back_at_their_place_only() {
        for plain in [&b""[..], b"short", &[7; 100_000]] {
            for kind in [Kind::States, Kind::IndexTable] {
                let block = seal(kind, 77, plain);
                assert_eq!(open(77, &block), Some((kind, plain.to_vec())));
                assert_eq!(open(78, &block), None);
            }
        }
        assert!(seal(Kind::Pieces, 0, &[7; 100_000]).len() < 200);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let block = seal(Kind::States, 20, &b"turn 1, turn 2, turn 3".repeat(9));
        for at in 0..block.len() {
            for flip in [1, 0x80, 0xff] {
                let mut changed = block.clone();
                changed[at] ^= flip;
                assert_eq!(open(20, &changed), None, "byte {at}");
            }
        }
    }

    #[test]
    fn a_claimed_length_is_bounded_before_anything_is_read() {
        let mut block = seal(Kind::States, 0, b"x");
        block[2..6].copy_from_slice(&(PLAIN_MAX as u32 + 1).to_le_bytes());
        assert!(Header::read(block[..BLOCK_HEADER].try_into().unwrap()).is_err());
        block[2..10].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
        assert!(Header::read(block[..BLOCK_HEADER].try_into().unwrap()).is_err());
    }
}
