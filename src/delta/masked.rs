//! The codec for states in which every few bytes one has become what nobody could foresee, in the place
//! where it was: arrays of numbers with fractions, for one. A mask says which bytes changed.
//!
//! ```text
//! payload = form, mask, values
//! form    = one byte: 1 if the mask is a zstd frame, + 2 if the values are
//! mask    = [varint frame length, frame] or bytes: a bit for each byte that base and state both have
//! values  = frame or bytes: the changed ones in order, then what the state has behind the base's end
//! ```
//!
//! `aligned` takes as many bytes for such a state, and ten times as long to undo, since no processor
//! foresees which byte comes next.

use crate::delta::codec::{CodecId, DeltaCodec, Effort};
use crate::delta::compress::{compress, decompress_exact, looks_incompressible};
use crate::delta::error::{DeltaError, check_length};
use crate::delta::ops::{read_varint, take, write_varint};

const FORM_MASK_ZSTD: u8 = 1;
const FORM_VALUES_ZSTD: u8 = 2;
/// Bits of a word of the mask.
const WORD: usize = 64;

/// The sample that tells how many bytes changed: pieces, and bytes a piece.
const SAMPLE_PIECES: usize = 32;
const SAMPLE_PIECE: usize = 1 << 10;
/// One byte in so many has to have changed at least, and half of them at most.
const DENSE: usize = 16;

/// Says which bytes changed in place, and what they became.
pub struct Masked;

impl DeltaCodec for Masked {
    const ID: CodecId = CodecId::MASKED;
    const NAME: &'static str = "masked";

    fn make(base: &[u8], new: &[u8], effort: Effort) -> Result<Option<Vec<u8>>, DeltaError> {
        if !is_dense(base, new) {
            return Ok(None);
        }
        let common = base.len().min(new.len());
        let mut mask = vec![0u8; common.div_ceil(8)];
        let mut values = Vec::with_capacity(new.len() / 4);
        let both = base.chunks(8).zip(new.chunks(8));
        for (bits, (old, new)) in mask.iter_mut().zip(both) {
            for (place, (old, new)) in old.iter().zip(new).enumerate() {
                if old != new {
                    *bits |= 1 << place;
                    values.push(*new);
                }
            }
        }
        values.extend_from_slice(new.get(common..).unwrap_or_default());
        write(&mask, &values, effort).map(Some)
    }

    fn undo(base: &[u8], payload: &[u8], expected_len: usize) -> Result<Vec<u8>, DeltaError> {
        let mut input = payload;
        let form = take(&mut input, 1)?.first().copied().unwrap_or_default();
        if form & !(FORM_MASK_ZSTD | FORM_VALUES_ZSTD) != 0 {
            return Err(DeltaError::Malformed("a mask of an unknown form"));
        }
        let common = base.len().min(expected_len);
        let mask_len = common.div_ceil(8);
        let mask = if form & FORM_MASK_ZSTD == 0 {
            take(&mut input, mask_len as u64)?.to_vec()
        } else {
            let frame_len = read_varint(&mut input)?;
            decompress_exact(take(&mut input, frame_len)?, mask_len)?
        };
        let count: usize = mask.iter().map(|bits| bits.count_ones() as usize).sum();
        let behind = mask
            .last()
            .map_or(0, |last| last.checked_shr(behind_end(common)).unwrap_or(0));
        if behind != 0 {
            return Err(DeltaError::Malformed("a mask that goes on behind its end"));
        }
        let values_len = count + (expected_len - common);
        let values = if form & FORM_VALUES_ZSTD == 0 {
            check_length(input.to_vec(), values_len)?
        } else {
            decompress_exact(input, values_len)?
        };
        let (changed, tail) = values
            .split_at_checked(count)
            .ok_or(DeltaError::Malformed("fewer values than changes"))?;
        let mut result = Vec::with_capacity(expected_len);
        result.extend_from_slice(base.get(..common).unwrap_or_default());
        put(&mut result, &mask, changed);
        result.extend_from_slice(tail);
        check_length(result, expected_len)
    }
}

/// How many bits of the last byte of a mask stand for something.
fn behind_end(common: usize) -> u32 {
    match common % 8 {
        0 => 8,
        rest => rest as u32,
    }
}

/// Writes changed bytes over those that the mask names, a word of it at a time.
fn put(result: &mut [u8], mask: &[u8], changed: &[u8]) {
    let mut changed = changed.iter();
    for (part, bits) in result.chunks_mut(WORD).zip(mask.chunks(WORD / 8)) {
        let mut word = [0; WORD / 8];
        for (byte, bits) in word.iter_mut().zip(bits) {
            *byte = *bits;
        }
        let mut word = u64::from_le_bytes(word);
        while word != 0 {
            let place = word.trailing_zeros() as usize;
            if let (Some(byte), Some(value)) = (part.get_mut(place), changed.next()) {
                *byte = *value;
            }
            word &= word - 1;
        }
    }
}

fn write(mask: &[u8], values: &[u8], effort: Effort) -> Result<Vec<u8>, DeltaError> {
    let (mask_frame, values_frame) = (shorter(mask, effort)?, shorter(values, effort)?);
    let mut form = 0;
    let mut payload = vec![form];
    match mask_frame {
        Some(frame) => {
            form |= FORM_MASK_ZSTD;
            write_varint(&mut payload, frame.len() as u64);
            payload.extend_from_slice(&frame);
        }
        None => payload.extend_from_slice(mask),
    }
    match values_frame {
        Some(frame) => {
            form |= FORM_VALUES_ZSTD;
            payload.extend_from_slice(&frame);
        }
        None => payload.extend_from_slice(values),
    }
    if let Some(first) = payload.first_mut() {
        *first = form;
    }
    Ok(payload)
}

/// A frame of some bytes, if that is shorter.
fn shorter(bytes: &[u8], effort: Effort) -> Result<Option<Vec<u8>>, DeltaError> {
    if looks_incompressible(bytes) {
        return Ok(None);
    }
    let mut frame = compress(bytes, Effort::Fast.level())?;
    if effort == Effort::Small {
        // In a mask without order it finds matches that cost more than they save.
        let other = compress(bytes, effort.level())?;
        if other.len() < frame.len() {
            frame = other;
        }
    }
    Ok(Some(frame).filter(|frame| frame.len() < bytes.len()))
}

/// True when a sample says that changes in place are as close together as this is made for.
fn is_dense(base: &[u8], new: &[u8]) -> bool {
    let common = base.len().min(new.len());
    let distance = (common / SAMPLE_PIECES).max(SAMPLE_PIECE);
    let both = base.chunks(distance).zip(new.chunks(distance));
    let (mut seen, mut changed) = (0, 0);
    for (old, new) in both {
        let piece = old.iter().zip(new).take(SAMPLE_PIECE);
        seen += old.len().min(new.len()).min(SAMPLE_PIECE);
        changed += piece.filter(|(old, new)| old != new).count();
    }
    (seen / DENSE..=seen / 2).contains(&changed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delta::codec::Codec;
    use crate::delta::sample::noise;

    fn payload(base: &[u8], new: &[u8]) -> Option<Vec<u8>> {
        Masked.encode(Some(base), new, Effort::Fast).unwrap()
    }

    fn decode(base: &[u8], payload: &[u8], len: usize) -> Result<Vec<u8>, DeltaError> {
        Masked.decode(Some(base), payload, len)
    }

    /// Records of 32 bytes, in each of which so many became random ones.
    fn worn(base: &[u8], each: usize) -> Vec<u8> {
        let (mut new, random) = (base.to_vec(), noise(base.len() * each / 16 + 64, 77));
        let mut random = random.iter();
        for record in new.chunks_exact_mut(32) {
            for _ in 0..each {
                let place = usize::from(*random.next().unwrap()) % 32;
                record[place] = *random.next().unwrap();
            }
        }
        new
    }

    #[test]
    fn what_changed_everywhere_costs_its_own_bytes_and_little_more() {
        let base = noise(100_000, 9);
        for (each, percent) in [(4, 20), (8, 35)] {
            let new = worn(&base, each);
            let payload = payload(&base, &new).unwrap();
            assert!(
                payload.len() * 100 <= new.len() * percent,
                "{}",
                payload.len()
            );
            assert_eq!(decode(&base, &payload, new.len()), Ok(new));
        }
        assert_eq!(payload(&base, &worn(&base, 1)), None, "seldom");
        assert_eq!(payload(&base, &noise(100_000, 10)), None, "everything");
        assert_eq!(payload(&base, &base), None, "nothing");
        assert_eq!(payload(b"", b"state"), None);
    }

    #[test]
    fn payloads_of_the_first_release_are_read() {
        let base = noise(800, 5);
        let mut new = base.clone();
        let changed = new.iter_mut().skip(3).step_by(5);
        changed
            .zip(b"hp and fuel".iter().cycle())
            .for_each(|(byte, value)| *byte = *value);
        new.extend_from_slice(b", and what is behind, and what is behind");
        let golden = include_bytes!("../../tests/fixtures/masked.payload");
        assert_eq!(payload(&base, &new).unwrap(), golden);
        assert_eq!(golden.first(), Some(&(FORM_MASK_ZSTD | FORM_VALUES_ZSTD)));
        assert_eq!(decode(&base, golden, new.len()).unwrap(), new);
        let made = payload(&base, &new).unwrap();
        assert_eq!(decode(&base, &made, new.len()).unwrap(), new);
        for len in [0, 799, 800, new.len() - 1, new.len() + 1] {
            assert!(decode(&base, golden, len).is_err(), "{len}");
        }
        assert!(decode(&base[1..], golden, new.len()) != Ok(new));
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let base = [7; 12];
        // Two bits changed, the second one of them in the last byte.
        assert_eq!(decode(&base, &[0, 1, 8, 1, 2], 12).unwrap()[11], 2);
        for bad in [
            &[][..],
            &[4, 0, 0],
            &[0, 0],
            &[0, 0, 0x10],
            &[0, 1, 0],
            &[0, 0, 0, 1],
            &[1, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[2, 0, 0],
        ] {
            assert!(decode(&base, bad, 12).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn states_of_any_length_round_trip(
            base_len in 0usize..700,
            new_len in 0usize..700,
            each in 3usize..12,
            small: bool,
        ) {
            let base = noise(base_len, 3);
            let mut new = worn(&base, each);
            new.resize(new_len, 9);
            let effort = if small { Effort::Small } else { Effort::Fast };
            if let Some(payload) = Masked.encode(Some(&base), &new, effort).unwrap() {
                prop_assert!(payload.len() < new.len());
                prop_assert_eq!(decode(&base, &payload, new.len()), Ok(new));
            }
        }

        #[test]
        fn arbitrary_payloads_give_the_length_or_an_error(
            payload in proptest::collection::vec(any::<u8>(), 0..60),
            len in 0usize..400,
        ) {
            if let Ok(decoded) = decode(&noise(300, 1), &payload, len) {
                prop_assert_eq!(decoded.len(), len);
            }
        }

        #[test]
        fn damaged_payloads_give_the_length_or_an_error(at in any::<usize>(), flip in 1u8..) {
            let base = noise(3000, 2);
            let new = worn(&base, 4);
            let mut payload = payload(&base, &new).unwrap();
            let at = at % payload.len();
            payload[at] ^= flip;
            if let Ok(decoded) = decode(&base, &payload, new.len()) {
                prop_assert_eq!(decoded.len(), new.len());
            }
        }
    }
}
