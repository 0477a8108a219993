//! The fields of version 4 that are not encoded values: bytes, numbers of 64 bits, and varints, of which
//! each number has one only.

use crate::types::binary::decode_bare;
use crate::wire::error::BadFrame;

/// Writes a number in groups of 7 bits, low groups first, the high bit of a byte set when more follow.
pub fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// What is left of a message to be read.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'m> {
    rest: &'m [u8],
}

impl<'m> Fields<'m> {
    /// Reads from the front of `bytes`.
    pub fn new(bytes: &'m [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read.
    pub fn rest(&self) -> &'m [u8] {
        self.rest
    }

    /// How many bytes were not read.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`BadFrame::CutOff`] when there is none.
    pub fn byte(&mut self) -> Result<u8, BadFrame> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// 64 bits, most significant byte first.
    ///
    /// # Errors
    /// [`BadFrame::CutOff`] when there are fewer.
    pub fn bits(&mut self) -> Result<u64, BadFrame> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadFrame> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(BadFrame::CutOff)?;
        self.rest = rest;
        Ok(*array)
    }

    /// A varint of at most 32 bits.
    ///
    /// # Errors
    /// [`BadFrame`] when it is cut off, longer, or written with more bytes than it needs.
    pub fn u32(&mut self) -> Result<u32, BadFrame> {
        let mut value: u32 = 0;
        for shift in (0..32).step_by(7) {
            let byte = self.byte()?;
            let part = u32::from(byte & 0x7f);
            if (part << shift) >> shift != part || (byte == 0 && shift > 0) {
                break;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(BadFrame::Number)
    }

    /// How many things follow, at most `limit`.
    ///
    /// # Errors
    /// [`BadFrame`] when there is no such number, or it is larger.
    pub fn count(&mut self, limit: usize) -> Result<usize, BadFrame> {
        let got = self.u32()? as usize;
        if got > limit {
            return Err(BadFrame::TooMany { got, limit });
        }
        Ok(got)
    }

    /// An encoded value without its format byte.
    ///
    /// # Errors
    /// [`BadFrame::Head`] when there is none.
    pub fn value<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BadFrame> {
        let (value, used) = decode_bare(self.rest)?;
        self.rest = self.rest.get(used..).unwrap_or_default();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX - 1, u32::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, u64::from(value));
            let mut fields = Fields::new(&bytes);
            assert_eq!((fields.u32().unwrap(), fields.left()), (value, 0));
            for cut in 0..bytes.len() {
                let cut = Fields::new(&bytes[..cut]).u32();
                assert!(matches!(cut, Err(BadFrame::CutOff)));
            }
        }
        for strange in [
            &[0x80, 0][..],
            &[0xff, 0x80, 0],
            &[0xff, 0xff, 0xff, 0xff, 0x10],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 1],
        ] {
            let number = Fields::new(strange).u32();
            assert!(matches!(number, Err(BadFrame::Number)), "{strange:?}");
        }
    }

    #[test]
    fn counts_are_bounded_before_anything_is_read() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, 5000);
        let many = BadFrame::TooMany {
            got: 5000,
            limit: 4096,
        };
        let counted = Fields::new(&bytes).count(4096).unwrap_err();
        assert_eq!(counted.to_string(), many.to_string());
        assert_eq!(Fields::new(&bytes).count(5000).unwrap(), 5000);
    }
}
