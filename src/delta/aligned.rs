//! The codec for states of which the receiver holds an earlier version: stretches that go along with
//! the base, with what changed in them, and what is new compressed in the light of what it replaced.
//!
//! ```text
//! payload  = head, stretches, values, literals
//! head     = varint: 4 * length of the stretches + form
//! form     = 1 if the values are a zstd frame, + 2 if the literals are frames
//! values   = varint count, [varint frame length, frame] or bytes
//! literals = bytes, or for each window with literals: varint frame length, frame
//! ```
//!
//! The stretches are range-coded: how many there are, then for each its place and its changes.

use std::ops::Range;

use crate::delta::align::{Grain, STRETCH_MIN, Stretch, are_related, stretches};
use crate::delta::changes::Changes;
use crate::delta::codec::{CodecId, DeltaCodec, Effort};
use crate::delta::compress::{compress, decompress_exact, looks_incompressible};
use crate::delta::error::DeltaError;
use crate::delta::literals::{Layout, read_literals, write_literals};
use crate::delta::ops::{read_varint, take, write_varint};
use crate::delta::places::Places;
use crate::delta::range_coder::{Decoder, Encoder};
use crate::delta::windows::{Hole, Remains};

const FORM_VALUES_ZSTD: u64 = 1;
const FORM_LITERALS_ZSTD: u64 = 2;
/// Bits of the head that hold the form.
const FORM_BITS: u32 = 2;

/// Takes no longer than zstd takes for its level 3.
const GRAIN_FAST: Grain = Grain {
    begin_min: 48,
    alike_min: 56,
    stride: 16,
    patience: 7,
    follow_min: 16,
    good_min: 24,
    better_steps: 16,
    pause: 64,
    gain_min: 12,
};
/// Looks everywhere.
const GRAIN_SMALL: Grain = Grain {
    begin_min: 48,
    alike_min: 60,
    stride: 4,
    patience: 8,
    follow_min: 12,
    good_min: 31,
    better_steps: 32,
    pause: 0,
    gain_min: 12,
};
/// Leaves more to zstd; better for text of which little has changed.
const GRAIN_COARSE: Grain = Grain {
    begin_min: 96,
    alike_min: u32::MAX,
    ..GRAIN_SMALL
};
/// Payloads up to this many bytes are tried with the coarse grain as well: it takes little then.
const TRY_COARSE: usize = 16 << 10;
/// Up to this many bytes a state without any stretch is better off without the base.
const SHORT: usize = 64 << 10;
/// Values of fewer bytes gain nothing from zstd.
const COMPRESS_MIN: usize = 32;

/// Follows the base, and sends what changed.
pub struct Aligned;

impl DeltaCodec for Aligned {
    const ID: CodecId = CodecId::ALIGNED;
    const NAME: &'static str = "aligned";

    fn make(base: &[u8], new: &[u8], effort: Effort) -> Result<Option<Vec<u8>>, DeltaError> {
        if looks_incompressible(new) && !are_related(base, new) {
            return Ok(None);
        }
        let grain = match effort {
            Effort::Fast => GRAIN_FAST,
            Effort::Small => GRAIN_SMALL,
        };
        let found = stretches(base, new, grain);
        if found.is_empty() && new.len() <= SHORT {
            return Ok(None);
        }
        // Also without any stretch, zstd may find plenty of short matches in a large base.
        let mut payload = write_payload(base, new, &found, effort)?;
        if effort == Effort::Small && payload.len() <= TRY_COARSE {
            let found = stretches(base, new, GRAIN_COARSE);
            let coarse = write_payload(base, new, &found, effort)?;
            if coarse.len() < payload.len() {
                payload = coarse;
            }
        }
        Ok(Some(payload))
    }

    fn undo(base: &[u8], payload: &[u8], expected_len: usize) -> Result<Vec<u8>, DeltaError> {
        let mut input = payload;
        let head = read_varint(&mut input)?;
        let coded = take(&mut input, head >> FORM_BITS)?;
        let values = read_values(&mut input, head, expected_len)?;
        let (mut result, layout) = read_stretches(base, coded, values, expected_len)?;
        let packed = head & FORM_LITERALS_ZSTD != 0;
        read_literals(base, &layout, input, packed, &mut result)?;
        Ok(result)
    }
}

fn write_payload(
    base: &[u8],
    new: &[u8],
    found: &[Stretch],
    effort: Effort,
) -> Result<Vec<u8>, DeltaError> {
    let mut changes = Changes::default();
    let (coded, layout) = write_stretches(base, new, found, &mut changes);
    let mut form = 0;
    let values = write_values(changes.values(), effort, &mut form)?;
    let (literals, packed) = write_literals(base, new, &layout, effort)?;
    if packed {
        form |= FORM_LITERALS_ZSTD;
    }
    let mut payload = Vec::with_capacity(5 + coded.len() + values.len() + literals.len());
    write_varint(&mut payload, ((coded.len() as u64) << FORM_BITS) | form);
    payload.extend_from_slice(&coded);
    payload.extend_from_slice(&values);
    payload.extend_from_slice(&literals);
    Ok(payload)
}

fn write_stretches(
    base: &[u8],
    new: &[u8],
    found: &[Stretch],
    changes: &mut Changes,
) -> (Vec<u8>, Layout) {
    let (mut out, mut places) = (Encoder::default(), Places::default());
    let (mut holes, mut remains) = (Vec::new(), Remains::default());
    places.write_count(&mut out, found.len());
    let (mut at, mut previous_end) = (0usize, 0usize);
    for stretch in found {
        places.write(&mut out, stretch, previous_end);
        let (start, from) = (at + stretch.literal as usize, stretch.from as usize);
        let len = stretch.len as usize;
        Hole::push(&mut holes, at..start, previous_end);
        let (old, now) = (&base[from..from + len], &new[start..start + len]);
        changes.write(&mut out, old, now, |run| remains.note(from, run));
        at = start + len;
        previous_end = from + len;
    }
    Hole::push(&mut holes, at..new.len(), previous_end);
    remains.sort();
    (out.finish(), Layout { holes, remains })
}

fn write_values(values: &[u8], effort: Effort, form: &mut u64) -> Result<Vec<u8>, DeltaError> {
    let mut out = Vec::with_capacity(values.len() + 8);
    write_varint(&mut out, values.len() as u64);
    if values.len() >= COMPRESS_MIN {
        let frame = compress(values, effort.level())?;
        if frame.len() < values.len() {
            *form |= FORM_VALUES_ZSTD;
            write_varint(&mut out, frame.len() as u64);
            out.extend_from_slice(&frame);
            return Ok(out);
        }
    }
    out.extend_from_slice(values);
    Ok(out)
}

fn read_values(input: &mut &[u8], head: u64, expected_len: usize) -> Result<Vec<u8>, DeltaError> {
    let count = read_varint(input)?;
    let known = usize::try_from(count)
        .ok()
        .filter(|len| *len <= expected_len);
    let len = known.ok_or(DeltaError::Malformed("more values than bytes"))?;
    if head & FORM_VALUES_ZSTD == 0 {
        return Ok(take(input, count)?.to_vec());
    }
    let frame_len = read_varint(input)?;
    decompress_exact(take(input, frame_len)?, len)
}

fn read_stretches(
    base: &[u8],
    coded: &[u8],
    values: Vec<u8>,
    expected_len: usize,
) -> Result<(Vec<u8>, Layout), DeltaError> {
    const TOO_LONG: DeltaError = DeltaError::Malformed("stretches exceed the announced length");
    const OUTSIDE: DeltaError = DeltaError::Malformed("stretch outside the base");
    let (mut input, mut places) = (Decoder::new(coded), Places::default());
    let mut changes = Changes::of_values(values);
    let count = places.read_count(&mut input)?;
    if count > expected_len / STRETCH_MIN {
        return Err(TOO_LONG);
    }
    let mut result = Vec::with_capacity(expected_len);
    let (mut holes, mut remains) = (Vec::new(), Remains::default());
    let (mut at, mut previous_end) = (0usize, 0usize);
    for _ in 0..count {
        let (literal, from, len) = places.read(&mut input, previous_end)?;
        let start = at.checked_add(literal).ok_or(TOO_LONG)?;
        let (end, base_end) = (start.checked_add(len), from.checked_add(len));
        let (end, base_end) = end.zip(base_end).ok_or(TOO_LONG)?;
        if end > expected_len {
            return Err(TOO_LONG);
        }
        let old = base.get(from..base_end).ok_or(OUTSIDE)?;
        result.resize(start, 0);
        changes.read(&mut input, old, &mut result, |run: Range<usize>| {
            remains.note(from, run);
        })?;
        Hole::push(&mut holes, at..start, previous_end);
        (at, previous_end) = (end, base_end);
    }
    result.resize(expected_len, 0);
    Hole::push(&mut holes, at..expected_len, previous_end);
    remains.sort();
    changes.check()?;
    Ok((result, Layout { holes, remains }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delta::codec::Codec;
    use crate::delta::sample::{any_edit, apply, noise, text};

    fn decode(base: &[u8], payload: &[u8], len: usize) -> Result<Vec<u8>, DeltaError> {
        Aligned.decode(Some(base), payload, len)
    }

    fn payload(base: &[u8], new: &[u8]) -> Vec<u8> {
        let found = stretches(base, new, GRAIN_FAST);
        write_payload(base, new, &found, Effort::Fast).unwrap()
    }

    proptest! {
        #[test]
        fn edited_states_round_trip(
            len in prop_oneof![0usize..3000, 60_000usize..90_000],
            edits in proptest::collection::vec(any_edit(), 0..8),
            effort in prop_oneof![Just(Effort::Fast), Just(Effort::Small)],
        ) {
            let base = text(len);
            let mut new = base.clone();
            edits.iter().for_each(|edit| apply(&mut new, edit));
            if let Some(payload) = Aligned.encode(Some(&base), &new, effort).unwrap() {
                prop_assert!(payload.len() < new.len());
                prop_assert_eq!(decode(&base, &payload, new.len()), Ok(new));
            }
        }

        #[test]
        fn unrelated_states_round_trip(
            base in proptest::collection::vec(0u8..4, 0..2000),
            new in proptest::collection::vec(0u8..4, 0..2000),
        ) {
            let payload = payload(&base, &new);
            prop_assert_eq!(decode(&base, &payload, new.len()), Ok(new));
        }

        #[test]
        fn arbitrary_payloads_give_the_length_or_an_error(
            payload in proptest::collection::vec(any::<u8>(), 0..60),
            len in 0usize..400,
        ) {
            if let Ok(decoded) = decode(&text(300), &payload, len) {
                prop_assert_eq!(decoded.len(), len);
            }
        }

        #[test]
        fn damaged_payloads_give_the_length_or_an_error(at in any::<usize>(), flip in 1u8..) {
            let base = text(3000);
            let mut new = base.clone();
            new.splice(1000..1010, noise(200, 3));
            (0..40).for_each(|place| new[1500 + 30 * place] ^= 3);
            let mut payload = payload(&base, &new);
            let at = at % payload.len();
            payload[at] ^= flip;
            if let Ok(decoded) = decode(&base, &payload, new.len()) {
                prop_assert_eq!(decoded.len(), new.len());
            }
        }
    }

    #[test]
    fn counters_that_went_up_cost_less_than_a_byte_each() {
        let record = |tick: u32| {
            move |n: u32| {
                let mut bytes = (n * 7919).to_le_bytes().repeat(3);
                bytes.push((tick + n % 5) as u8);
                bytes
            }
        };
        let base: Vec<u8> = (0..5000).flat_map(record(10)).collect();
        let new: Vec<u8> = (0..5000).flat_map(record(11)).collect();
        let payload = payload(&base, &new);
        assert!(payload.len() < 4000, "{}", payload.len());
        assert_eq!(decode(&base, &payload, new.len()), Ok(new));
    }

    #[test]
    fn large_states_are_cut_into_windows() {
        let base = noise(18 << 20, 5);
        let mut new = base.clone();
        for place in 0..18 {
            let at = (place << 20) + 500;
            new[at..at + 300].copy_from_slice(&text(300));
        }
        let payload = payload(&base, &new);
        assert!(payload.len() < 3000, "{}", payload.len());
        assert!(decode(&base, &payload, new.len()) == Ok(new));
    }

    #[test]
    fn random_bytes_are_left_alone_unless_the_base_has_them() {
        let bytes = noise(300_000, 9);
        let mut near = bytes.clone();
        near.splice(70_001..70_010, b"edit".iter().copied());
        let encode = |base: &[u8]| Aligned.encode(Some(base), &bytes, Effort::Fast).unwrap();
        assert_eq!(encode(&noise(300_000, 10)), None);
        let payload = encode(&near).unwrap();
        assert!(payload.len() < 100, "{}", payload.len());
    }

    /// A base and a state with changes, an insertion, a move and something new.
    fn example() -> (Vec<u8>, Vec<u8>) {
        let base = text(2000);
        let mut new = [&base[1200..], &base[..1200]].concat();
        (0..30).for_each(|place| new[100 + 11 * place] = b'0' + (place % 10) as u8);
        new.splice(900..903, text(2300)[2000..].iter().copied());
        (base, new)
    }

    #[test]
    fn payloads_of_the_first_release_are_read() {
        let (base, new) = example();
        let payload = payload(&base, &new);
        assert_eq!(decode(&base, &payload, new.len()).unwrap(), new);
        let golden = include_bytes!("../../tests/fixtures/aligned.payload");
        assert_eq!(decode(&base, golden, new.len()).unwrap(), new);
        for len in [new.len() - 1, new.len() + 1] {
            assert!(decode(&base, golden, len).is_err());
        }
        assert!(decode(&base[1..], golden, new.len()) != Ok(new));
    }

    #[test]
    fn memory_is_not_taken_for_what_cannot_be() {
        let base = text(100);
        // More stretches, values or coded bytes than there can be.
        for payload in [
            &[0x7f, 0xff][..],
            &[0, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[5, 0xff, 0xff, 0xff, 0xff, 0x7f, 0],
            &[0xff, 0xff, 0xff, 0xff, 0x7f],
            &[],
        ] {
            assert!(decode(&base, payload, 64).is_err(), "{payload:?}");
        }
    }
}
