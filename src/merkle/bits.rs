//! Single bits and short numbers, packed without gaps, of proofs as bytes.

use crate::merkle::proof::BadProof;

/// How many low bits of a change of length are written as they are; the rest is counted in ones.
/// With 2, proofs in a tree of a million leaves were smallest.
const RICE_BITS: u32 = 2;

/// Most ones: a change by 64 bits is 128 as a number.
const ONES_MAX: u32 = (2 * u64::BITS) >> RICE_BITS;

/// The lengths that numbers of one kind had last. Numbers of one kind have about as many bits as the
/// one before, so only the difference is written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Length(u32);

impl Length {
    /// Begins with numbers of so many bits.
    pub(crate) const fn of(bits: u32) -> Self {
        Self(bits)
    }
}

/// Writes bits, the highest of each byte first.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

impl BitWriter {
    /// Appends one bit.
    pub(crate) fn bit(&mut self, bit: bool) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (7 - self.used % 8);
        }
        self.used = (self.used + 1) % 8;
    }

    /// Appends the `count` low bits of a number, highest first.
    fn low_bits(&mut self, number: u64, count: u32) {
        for place in (0..count).rev() {
            self.bit(number >> place & 1 == 1);
        }
    }

    /// Appends a number: how its length differs from the last one's of its kind, then its bits
    /// behind the first one.
    pub(crate) fn number(&mut self, number: u64, length: &mut Length) {
        let bits = u64::BITS - number.leading_zeros();
        let change = if bits >= length.0 {
            2 * (bits - length.0)
        } else {
            2 * (length.0 - bits) - 1
        };
        for _ in 0..change >> RICE_BITS {
            self.bit(true);
        }
        self.bit(false);
        self.low_bits(u64::from(change), RICE_BITS);
        self.low_bits(number, bits.saturating_sub(1));
        *length = Length(bits);
    }

    /// The bytes, the last one filled up with zeros.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads what a [`BitWriter`] wrote.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    /// From the first bit on.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bit.
    ///
    /// # Errors
    /// [`BadProof::Truncated`] behind the last one.
    pub(crate) fn bit(&mut self) -> Result<bool, BadProof> {
        let byte = self.bytes.get(self.at / 8).ok_or(BadProof::Truncated)?;
        let bit = byte >> (7 - self.at % 8) & 1 == 1;
        self.at += 1;
        Ok(bit)
    }

    /// The next `count` bits, at most 64, as a number.
    fn low_bits(&mut self, count: u32) -> Result<u64, BadProof> {
        let mut number = 0;
        let mut left = count as usize;
        while left > 0 {
            let byte = self.bytes.get(self.at / 8).ok_or(BadProof::Truncated)?;
            let here = 8 - self.at % 8;
            let taken = here.min(left);
            let part = u64::from(*byte) >> (here - taken) & ((1 << taken) - 1);
            number = number << taken | part;
            self.at += taken;
            left -= taken;
        }
        Ok(number)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`BadProof::Truncated`], or [`BadProof::Malformed`] for a length that no number has.
    pub(crate) fn number(&mut self, length: &mut Length) -> Result<u64, BadProof> {
        let mut ones = 0u32;
        while self.bit()? {
            ones += 1;
            if ones > ONES_MAX {
                return Err(TOO_LARGE);
            }
        }
        let change = ones << RICE_BITS | self.low_bits(RICE_BITS)? as u32;
        let bits = if change.is_multiple_of(2) {
            length.0.checked_add(change / 2)
        } else {
            length.0.checked_sub(change / 2 + 1)
        };
        let bits = bits.filter(|bits| *bits <= u64::BITS).ok_or(TOO_LARGE)?;
        *length = Length(bits);
        let Some(behind) = bits.checked_sub(1) else {
            return Ok(0);
        };
        Ok(1 << behind | self.low_bits(behind)?)
    }

    /// True when nothing but the zeros that fill the last byte is left.
    pub(crate) fn is_over(&self) -> bool {
        let last = self.bytes.last().copied().unwrap_or(0);
        let filling = (self.bytes.len() * 8).checked_sub(self.at);
        matches!(filling, Some(filling @ 0..8) if u32::from(last) & ((1 << filling) - 1) == 0)
    }
}

const TOO_LARGE: BadProof = BadProof::Malformed("a number is too large");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_and_numbers_come_back(
            numbers in proptest::collection::vec((any::<u64>(), 0u32..=64, any::<bool>()), 0..40),
            first in 0u32..=64,
        ) {
            let numbers: Vec<(u64, bool)> = numbers
                .into_iter()
                .map(|(number, bits, flag)| (number.checked_shr(64 - bits).unwrap_or(0), flag))
                .collect();
            let (mut writer, mut length) = (BitWriter::default(), Length::of(first));
            for (number, flag) in &numbers {
                writer.bit(*flag);
                writer.number(*number, &mut length);
            }
            let bytes = writer.into_bytes();
            let (mut reader, mut length) = (Bits::new(&bytes), Length::of(first));
            for (number, flag) in &numbers {
                prop_assert_eq!(reader.bit(), Ok(*flag));
                prop_assert_eq!(reader.number(&mut length), Ok(*number));
            }
            prop_assert!(reader.is_over());
        }

        #[test]
        fn whatever_is_read_is_what_would_be_written(bytes in any::<[u8; 24]>(), first in 0u32..=64) {
            let (mut reader, mut length) = (Bits::new(&bytes), Length::of(first));
            let mut written = Length::of(first);
            let mut writer = BitWriter::default();
            let mut end = 0;
            while let Ok(number) = reader.number(&mut length) {
                writer.number(number, &mut written);
                end = reader.at;
            }
            let again = writer.into_bytes();
            let whole = end / 8;
            prop_assert_eq!(&again[..whole], &bytes[..whole]);
        }
    }

    #[test]
    fn lengths_that_no_number_has_are_refused() {
        let read = |bytes: &[u8], first| Bits::new(bytes).number(&mut Length::of(first));
        // A change by -1 from 0, one by 1 from 64, and ones without end.
        assert_eq!(read(&[0b0010_0000], 0), Err(TOO_LARGE));
        assert_eq!(read(&[0b0100_0000], 64), Err(TOO_LARGE));
        assert_eq!(read(&[0xff; 40], 0), Err(TOO_LARGE));
        assert_eq!(read(&[0b1111_1110], 0), Err(BadProof::Truncated));
        assert_eq!(read(&[], 0), Err(BadProof::Truncated));
        assert_eq!(read(&[0], 0), Ok(0));
    }
}
