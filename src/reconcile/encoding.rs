//! Bytes of the reconciliation messages: variable-length integers, bitmaps and sorted numbers.
//!
//! Sorted numbers are Golomb-Rice coded gaps: about `64 - log2(count) + 1.5` bits for random
//! 64-bit values, within 5% of what any coding can do (Rice, 1979).

use bitvec::field::BitField;
use bitvec::prelude::{BitSlice, BitVec, Lsb0};
use bitvec::view::BitView;

use crate::reconcile::error::ReconcileError;

/// A row of bits as it travels: least significant bit of the first byte first.
pub type Bits = BitSlice<u8, Lsb0>;

const TRUNCATED: ReconcileError = ReconcileError::Malformed("it ends too early");

/// Builds a message.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Bytes whose number the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A number in 1 to 10 bytes: 7 bits each, lowest first, the top bit set on all but the last.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Bits whose number the reader knows, filled up with zeros to a whole byte.
    pub fn bitmap(&mut self, bits: impl IntoIterator<Item = bool>) {
        let mut row: BitVec<u8, Lsb0> = bits.into_iter().collect();
        row.set_uninitialized(false);
        self.bytes.extend_from_slice(row.as_raw_slice());
    }

    /// Numbers in ascending order: their count, the Rice parameter `k`, then of each gap the
    /// part above `k` bits in unary (ones, then a zero) and the lower `k` bits.
    pub fn sorted(&mut self, values: &[u64]) {
        debug_assert!(values.is_sorted());
        self.varint(values.len() as u64);
        let Some(&last) = values.last() else {
            return;
        };
        let parameter = (last / values.len() as u64).checked_ilog2().unwrap_or(0);
        self.byte(parameter as u8);
        let width = parameter as usize;
        let mut row: BitVec<u8, Lsb0> = BitVec::with_capacity(values.len() * (width + 3));
        let mut before = 0;
        for value in values {
            let gap = value - before;
            before = *value;
            row.resize(row.len() + (gap >> parameter) as usize, true);
            row.push(false);
            let start = row.len();
            row.resize(start + width, false);
            if width > 0 {
                row[start..].store_le(gap & ((1 << parameter) - 1));
            }
        }
        row.set_uninitialized(false);
        self.bytes.extend_from_slice(row.as_raw_slice());
    }
}

/// Takes a message apart. Every method fails with [`ReconcileError::Malformed`] on bytes that
/// [`Writer`] does not write.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of a message.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Bytes of the message, the number of which is known.
    ///
    /// # Errors
    /// [`ReconcileError::Malformed`] when there are fewer.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], ReconcileError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    /// As many bytes as the type says.
    ///
    /// # Errors
    /// [`ReconcileError::Malformed`] when there are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReconcileError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`ReconcileError::Malformed`] at the end.
    pub fn byte(&mut self) -> Result<u8, ReconcileError> {
        Ok(self.array::<1>()?[0])
    }

    /// What [`Writer::varint`] wrote.
    ///
    /// # Errors
    /// [`ReconcileError::Malformed`] at the end, or over 64 bits.
    pub fn varint(&mut self) -> Result<u64, ReconcileError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if (part << shift) >> shift != part {
                break;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ReconcileError::Malformed("a number over 64 bits"))
    }

    /// A number of things, at most `limit`.
    ///
    /// # Errors
    /// [`ReconcileError::TooMany`] above the limit.
    pub fn count(&mut self, limit: usize) -> Result<usize, ReconcileError> {
        let got = self.varint()?;
        match usize::try_from(got) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(ReconcileError::TooMany { got, limit }),
        }
    }

    /// What [`Writer::bitmap`] wrote for `count` bits.
    ///
    /// # Errors
    /// [`ReconcileError::Malformed`] when there are fewer, or ones behind them.
    pub fn bitmap(&mut self, count: usize) -> Result<&'a Bits, ReconcileError> {
        let row = self.raw(count.div_ceil(8))?.view_bits::<Lsb0>();
        let (bits, padding) = row.split_at(count);
        if padding.any() {
            return Err(ReconcileError::Malformed("padding that is not zero"));
        }
        Ok(bits)
    }

    /// What [`Writer::sorted`] wrote, at most `limit` numbers.
    ///
    /// # Errors
    /// [`ReconcileError::TooMany`] above the limit, [`ReconcileError::Malformed`] when the bits
    /// end early or a number overflows.
    pub fn sorted(&mut self, limit: usize) -> Result<Vec<u64>, ReconcileError> {
        let count = self.count(limit)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let parameter = self.byte()?;
        if parameter > 63 {
            return Err(ReconcileError::Malformed("a Rice parameter over 63"));
        }
        let width = usize::from(parameter);
        let row = self.rest.view_bits::<Lsb0>();
        // Checked before memory is taken: every number has at least these bits.
        if count > row.len() / (width + 1) {
            return Err(TRUNCATED);
        }
        let mut values = Vec::with_capacity(count);
        let (mut at, mut value) = (0, 0u64);
        for _ in 0..count {
            let quotient = row.get(at..).ok_or(TRUNCATED)?.leading_ones();
            at += quotient + 1;
            let low = row.get(at..at + width).ok_or(TRUNCATED)?;
            at += width;
            let low = if width > 0 { low.load_le::<u64>() } else { 0 };
            value = (quotient as u64)
                .checked_mul(1 << parameter)
                .and_then(|high| value.checked_add(high)?.checked_add(low))
                .ok_or(ReconcileError::Malformed("sorted numbers over 64 bits"))?;
            values.push(value);
        }
        self.raw(at.div_ceil(8))?;
        Ok(values)
    }

    /// All that is left, which ends the message.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`ReconcileError::Malformed`] when bytes are left.
    pub fn end(self) -> Result<(), ReconcileError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ReconcileError::Malformed("bytes behind the end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::reconcile::memory::Random;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        write(&mut writer);
        writer.finish()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            mut values in prop::collection::vec(any::<u64>(), 0..200),
            shift in 0u32..64,
            number in any::<u64>(),
            bits in prop::collection::vec(any::<bool>(), 0..100),
        ) {
            for value in &mut values {
                *value >>= shift;
            }
            values.sort_unstable();
            let message = written(|writer| {
                writer.varint(number);
                writer.sorted(&values);
                writer.bitmap(bits.iter().copied());
            });
            let mut reader = Reader::new(&message);
            prop_assert_eq!(reader.varint(), Ok(number));
            prop_assert_eq!(reader.sorted(values.len()), Ok(values));
            let read = reader.bitmap(bits.len()).unwrap();
            prop_assert!(read.iter().by_vals().eq(bits.iter().copied()));
            prop_assert_eq!(reader.end(), Ok(()));
            for cut in 0..message.len() {
                let mut reader = Reader::new(&message[..cut]);
                let whole = reader.varint().is_ok()
                    && reader.sorted(usize::MAX).is_ok()
                    && reader.bitmap(bits.len()).is_ok();
                prop_assert!(!whole, "cut at {}", cut);
            }
        }

        #[test]
        fn garbage_is_refused_or_read_as_sorted(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(values) = Reader::new(&garbage).sorted(1000) {
                prop_assert!(values.is_sorted() && values.len() <= 1000);
            }
        }
    }

    #[test]
    fn a_claimed_count_takes_no_memory() {
        let message = written(|writer| {
            writer.varint(1 << 40);
            writer.byte(0);
        });
        let read = Reader::new(&message).sorted(usize::MAX);
        assert_eq!(read, Err(TRUNCATED));
        let read = Reader::new(&message).sorted(10);
        assert!(matches!(read, Err(ReconcileError::TooMany { .. })));
    }

    #[test]
    fn numbers_over_64_bits_are_refused() {
        assert!(Reader::new(&[0xff; 10]).varint().is_err());
        let mut largest = [0xff; 10];
        largest[9] = 1;
        assert_eq!(Reader::new(&largest).varint(), Ok(u64::MAX));
        largest[9] = 2;
        assert!(Reader::new(&largest).varint().is_err());
        // Two gaps of 2^63 each: ones and zeros with the parameter 63.
        let mut message = vec![2, 63, 0b01];
        message.extend([0; 7]);
        message.extend([0b01, 0, 0, 0, 0, 0, 0, 0]);
        assert!(Reader::new(&message).sorted(2).is_err());
    }

    #[test]
    fn random_numbers_cost_what_the_theory_says() {
        let mut random = Random(1);
        let mut values: Vec<u64> = (0..1000).map(|_| random.number()).collect();
        values.sort_unstable();
        // 64 - log2(1000) + 1.5 = 55.5 bits each, and a count.
        let bytes = written(|writer| writer.sorted(&values)).len();
        assert!((6_900..7_000).contains(&bytes), "{bytes}");
    }
}
