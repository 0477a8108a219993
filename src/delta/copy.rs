//! The codec for states of which the receiver holds an earlier version: copies from that version,
//! and what is new compressed in the light of what it replaced.
//!
//! ```text
//! payload  = head, table, literals
//! head     = varint: 4 * number of copies + form
//! form     = 1 if the table is a zstd frame, + 2 if the literals are one
//! table    = the columns of `ops`, or varint raw length, varint frame length, frame
//! literals = what no copy makes, in order, to the end of the payload;
//!            a frame has the gap prefix of `ops` as its prefix
//! ```
//!
//! The literals behind the last copy need no instruction: the length of the result is known.

use crate::delta::codec::{CodecId, DeltaCodec, Effort};
use crate::delta::compress::{
    compress, compress_with_prefix, decompress_exact, decompress_with_prefix, looks_incompressible,
};
use crate::delta::error::DeltaError;
use crate::delta::matcher::{Grain, copies};
use crate::delta::ops::{
    OP_BYTES_MAX, Op, copied_len, gap_prefix, read_ops, read_varint, write_ops, write_varint,
};

const FORM_TABLE_ZSTD: u64 = 1;
const FORM_LITERALS_ZSTD: u64 = 2;
/// Bits of the head that hold the form.
const FORM_BITS: u32 = 2;

/// Up to this length of base and state, short copies pay.
const SMALL: usize = 64 << 10;
const GRAIN_SMALL: Grain = Grain {
    copy_min: 8,
    stride: 2,
    patience: 6,
};
/// Copies shorter than 64 bytes are left to zstd, which finds them in the gap prefix.
const GRAIN_LARGE: Grain = Grain {
    copy_min: 64,
    stride: 16,
    patience: 6,
};
/// Up to this many literal bytes, a higher level costs little and saves a twentieth.
const LITERALS_SHORT: usize = 64 << 10;
/// The least zstd level for that many literals.
const LITERALS_SHORT_LEVEL: i32 = 5;
/// Tables and literals shorter than this many bytes gain nothing from zstd.
const COMPRESS_MIN: usize = 96;

/// Sends copies from a base, and literals.
pub struct CopyDelta;

impl DeltaCodec for CopyDelta {
    const ID: CodecId = CodecId::COPY;
    const NAME: &'static str = "copy";

    fn make(base: &[u8], new: &[u8], effort: Effort) -> Result<Option<Vec<u8>>, DeltaError> {
        let ops = if base.len().max(new.len()) <= SMALL {
            let ops = copies::<8>(base, new, GRAIN_SMALL);
            if ops.is_empty() {
                return Ok(None);
            }
            ops
        } else {
            // Also without any copy, zstd may find plenty of short ones in the base.
            copies::<16>(base, new, GRAIN_LARGE)
        };
        write_payload(base, new, &ops, effort).map(Some)
    }

    fn undo(base: &[u8], payload: &[u8], expected_len: usize) -> Result<Vec<u8>, DeltaError> {
        let mut input = payload;
        let head = read_varint(&mut input)?;
        let ops = read_table(&mut input, head, base.len(), expected_len)?;
        let literal_len = expected_len - copied_len(&ops);
        if head & FORM_LITERALS_ZSTD == 0 {
            return assemble(base, &ops, input, literal_len);
        }
        let literals = decompress_with_prefix(input, &gap_prefix(base, &ops), literal_len)?;
        assemble(base, &ops, &literals, literal_len)
    }
}

fn write_payload(
    base: &[u8],
    new: &[u8],
    ops: &[Op],
    effort: Effort,
) -> Result<Vec<u8>, DeltaError> {
    let mut form = 0;
    let mut table = Vec::new();
    write_ops(ops, &mut table);
    if table.len() >= COMPRESS_MIN {
        let frame = compress(&table, effort.level())?;
        let mut compressed = Vec::new();
        write_varint(&mut compressed, table.len() as u64);
        write_varint(&mut compressed, frame.len() as u64);
        compressed.extend_from_slice(&frame);
        if compressed.len() < table.len() {
            form |= FORM_TABLE_ZSTD;
            table = compressed;
        }
    }
    let mut literals = collect_literals(new, ops);
    if literals.len() >= COMPRESS_MIN && !looks_incompressible(&literals) {
        let level = match effort.level() {
            level if literals.len() > LITERALS_SHORT => level,
            level => level.max(LITERALS_SHORT_LEVEL),
        };
        let frame = compress_with_prefix(&literals, &gap_prefix(base, ops), level)?;
        if frame.len() < literals.len() {
            form |= FORM_LITERALS_ZSTD;
            literals = frame;
        }
    }
    let mut payload = Vec::with_capacity(5 + table.len() + literals.len());
    write_varint(&mut payload, ((ops.len() as u64) << FORM_BITS) | form);
    payload.extend_from_slice(&table);
    payload.extend_from_slice(&literals);
    Ok(payload)
}

fn collect_literals(new: &[u8], ops: &[Op]) -> Vec<u8> {
    let mut literals = Vec::with_capacity(new.len() - copied_len(ops));
    let mut rest = new;
    for op in ops {
        let (literal, copied) = rest.split_at(op.literal as usize);
        literals.extend_from_slice(literal);
        rest = &copied[op.len as usize..];
    }
    literals.extend_from_slice(rest);
    literals
}

fn read_table(
    input: &mut &[u8],
    head: u64,
    base_len: usize,
    expected_len: usize,
) -> Result<Vec<Op>, DeltaError> {
    let count = usize::try_from(head >> FORM_BITS).unwrap_or(usize::MAX);
    if head & FORM_TABLE_ZSTD == 0 {
        return read_ops(input, count, base_len, expected_len);
    }
    let table_len = read_varint(input)?;
    let frame_len = read_varint(input)?;
    // Bounded by the result before memory is taken for it; `read_ops` looks closer.
    let most = count
        .saturating_mul(OP_BYTES_MAX)
        .min(expected_len.saturating_mul(2));
    let table_len = usize::try_from(table_len).ok().filter(|len| *len <= most);
    let table_len = table_len.ok_or(DeltaError::Malformed("instructions too long"))?;
    let frame = usize::try_from(frame_len).ok();
    let (frame, rest) = frame
        .and_then(|len| input.split_at_checked(len))
        .ok_or(DeltaError::Malformed("instructions cut off"))?;
    *input = rest;
    let table = decompress_exact(frame, table_len)?;
    let mut table = table.as_slice();
    let ops = read_ops(&mut table, count, base_len, expected_len)?;
    if table.is_empty() {
        Ok(ops)
    } else {
        Err(DeltaError::Malformed("bytes behind the instructions"))
    }
}

/// Puts the result together. The instructions were checked against base and length when read.
fn assemble(
    base: &[u8],
    ops: &[Op],
    literals: &[u8],
    literal_len: usize,
) -> Result<Vec<u8>, DeltaError> {
    const OUTSIDE: DeltaError = DeltaError::Malformed("instruction out of bounds");
    if literals.len() != literal_len {
        return Err(DeltaError::Malformed("literals of another length"));
    }
    let mut result = Vec::with_capacity(literal_len + copied_len(ops));
    let mut rest = literals;
    for op in ops {
        let (literal, after) = rest.split_at_checked(op.literal as usize).ok_or(OUTSIDE)?;
        let from = op.from as usize;
        let copied = base.get(from..from + op.len as usize).ok_or(OUTSIDE)?;
        result.extend_from_slice(literal);
        result.extend_from_slice(copied);
        rest = after;
    }
    result.extend_from_slice(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delta::codec::Codec;
    use crate::delta::sample::{Edit, any_edit, apply, text};

    fn payload(base: &[u8], new: &[u8]) -> Vec<u8> {
        let ops = copies::<8>(base, new, GRAIN_SMALL);
        write_payload(base, new, &ops, Effort::Fast).unwrap()
    }

    fn decode(base: &[u8], payload: &[u8], len: usize) -> Result<Vec<u8>, DeltaError> {
        CopyDelta.decode(Some(base), payload, len)
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
            let encoded = CopyDelta.encode(Some(&base), &new, effort).unwrap();
            if let Some(payload) = encoded {
                prop_assert!(payload.len() < new.len());
                let decoded = decode(&base, &payload, new.len());
                prop_assert_eq!(decoded, Ok(new));
            } else {
                let edited: usize = edits.iter().map(|edit| match edit {
                    Edit::Insert(_, bytes) | Edit::Overwrite(_, bytes) => bytes.len(),
                    Edit::Delete(..) | Edit::Move(..) => 0,
                }).sum();
                prop_assert!(new.len() < 64 || 2 * edited > new.len());
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
    }

    /// A base, a version of it, and its payloads without and with zstd.
    fn samples() -> [(Vec<u8>, Vec<u8>, Vec<u8>); 2] {
        let base = text(4000);
        let mut small = base.clone();
        apply(&mut small, &Edit::Insert(1000, b"inserted".to_vec()));
        let mut large = base.clone();
        for at in (0..40).map(|n| n * 90 + n % 7) {
            apply(
                &mut large,
                &Edit::Insert(at, format!("[turn {}]", at % 13).into_bytes()),
            );
        }
        [small, large].map(|new| {
            let payload = payload(&base, &new);
            (base.clone(), new, payload)
        })
    }

    #[test]
    fn both_forms_are_made() {
        let [plain, compressed] = samples();
        assert_eq!(plain.2[0], 2 << FORM_BITS);
        let both = FORM_TABLE_ZSTD | FORM_LITERALS_ZSTD;
        assert_eq!(u64::from(compressed.2[0]) & both, both);
        let same = payload(&plain.0, &plain.0);
        assert!(same.len() <= 5, "{same:?}");
    }

    #[test]
    fn a_changed_payload_gives_the_length_or_an_error() {
        for (base, new, payload) in samples() {
            for at in 0..payload.len() {
                for flip in 1..=255 {
                    let mut changed = payload.clone();
                    changed[at] ^= flip;
                    if let Ok(decoded) = decode(&base, &changed, new.len()) {
                        assert_eq!(decoded.len(), new.len());
                    }
                }
                assert!(decode(&base, &payload[..at], new.len()).is_err());
            }
            for len in [0, 1, new.len() - 1, new.len() + 1, usize::MAX] {
                assert!(decode(&base, &payload, len).is_err(), "{len}");
            }
            let trailing = [&payload[..], &[0]].concat();
            assert!(decode(&base, &trailing, new.len()).is_err());
            assert!(decode(&base[..500], &payload, new.len()).is_err());
        }
    }

    #[test]
    fn bombs_are_refused() {
        let zeros = compress(&vec![0; 32 << 20], 3).unwrap();
        // Literals that unpack to more than the result.
        let literals = [&[FORM_LITERALS_ZSTD as u8][..], &zeros].concat();
        let too_large = Err(DeltaError::TooLarge { limit: 1000 });
        assert_eq!(decode(b"", &literals, 1000), too_large);
        // A table that unpacks to more than such a result can need.
        let mut table = Vec::new();
        write_varint(&mut table, ((5 << 20) << FORM_BITS) | FORM_TABLE_ZSTD);
        write_varint(&mut table, 32 << 20);
        write_varint(&mut table, zeros.len() as u64);
        table.extend_from_slice(&zeros);
        let too_long = Err(DeltaError::Malformed("instructions too long"));
        assert_eq!(decode(b"", &table, 1000), too_long);
        // One byte of the base copied over and over is not even expressible.
        let repeated = [4 << FORM_BITS, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1];
        let too_short = Err(DeltaError::Malformed("copy too short"));
        assert_eq!(decode(b"a", &repeated, 40), too_short);
    }

    #[test]
    fn payloads_of_the_first_release_are_read() {
        let [plain, compressed] = samples();
        for ((base, new, _), payload) in [(plain, GOLDEN_PLAIN), (compressed, GOLDEN_COMPRESSED)] {
            assert!(decode(&base, payload, new.len()) == Ok(new), "{payload:?}");
        }
    }

    /// Two copies around eight inserted bytes, nothing compressed.
    const GOLDEN_PLAIN: &[u8] = b"\x08\x00\x08\xe8\x07\xb8\x17\x00\x0finserted";

    /// Instructions and literals compressed.
    const GOLDEN_COMPRESSED: &[u8] = &[
        195, 1, 161, 1, 126, 40, 181, 47, 253, 32, 161, 173, 3, 0, 146, 198, 22, 31, 176, 39, 29,
        100, 154, 116, 147, 96, 112, 94, 28, 132, 180, 46, 73, 1, 53, 134, 8, 17, 196, 36, 115,
        229, 46, 251, 223, 201, 19, 91, 6, 182, 109, 124, 144, 113, 120, 192, 196, 29, 54, 232, 92,
        242, 36, 11, 27, 29, 248, 176, 17, 5, 210, 56, 27, 53, 200, 96, 84, 64, 142, 1, 136, 255,
        15, 52, 7, 41, 83, 177, 20, 244, 74, 151, 100, 78, 232, 151, 254, 204, 155, 204, 202, 172,
        109, 37, 107, 203, 90, 109, 10, 0, 96, 36, 56, 98, 53, 111, 128, 230, 64, 24, 46, 132, 74,
        148, 221, 213, 96, 24, 2, 96, 1, 40, 181, 47, 253, 96, 82, 0, 109, 1, 0, 160, 91, 116, 117,
        114, 110, 32, 48, 93, 54, 55, 49, 50, 53, 93, 51, 57, 49, 49, 55, 52, 9, 32, 80, 162, 251,
        107, 148, 7, 47, 122, 240, 49, 161, 47, 17, 149, 144, 175, 176, 163, 216, 78, 198, 5,
    ];
}
