//! The instructions of a copy delta: how they are written down, checked, and what they leave over.

use crate::delta::error::DeltaError;

/// Shortest copy that the format allows, in bytes. Bounds the number of instructions by the
/// length of the result.
pub const COPY_MIN: usize = 8;
/// Bytes at both ends of a copied range that stay in the gap prefix, so that zstd can match
/// literals across the seam.
const GAP_CONTEXT: usize = 16;
/// Longest variable-length integer in bytes: 33 bits in groups of 7.
const VARINT_MAX: usize = 5;
/// Most bytes that one instruction takes.
pub const OP_BYTES_MAX: usize = 3 * VARINT_MAX;

/// One instruction: so many literal bytes, then a copy from the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// Literal bytes before the copy.
    pub literal: u32,
    /// Bytes to copy.
    pub len: u32,
    /// Where in the base they begin.
    pub from: u32,
}

impl Op {
    fn end(&self) -> u64 {
        u64::from(self.from) + u64::from(self.len)
    }
}

/// Appends the instructions column by column: literal lengths, copy lengths, and how far each copy
/// begins from where the one before it would have gone on. Alike numbers side by side compress.
pub fn write_ops(ops: &[Op], out: &mut Vec<u8>) {
    for op in ops {
        write_varint(out, u64::from(op.literal));
    }
    for op in ops {
        write_varint(out, u64::from(op.len));
    }
    let mut previous_end = 0;
    for op in ops {
        let jump = i64::from(op.from) - (previous_end + i64::from(op.literal));
        write_varint(out, zigzag(jump));
        previous_end = i64::from(op.from) + i64::from(op.len);
    }
}

/// Reads `count` instructions from the front of `input` and checks them: no copy reaches out of
/// the base or is too short, and together they make no more than `expected_len` bytes.
///
/// # Errors
/// [`DeltaError::Malformed`] naming the rule that is broken.
pub fn read_ops(
    input: &mut &[u8],
    count: usize,
    base_len: usize,
    expected_len: usize,
) -> Result<Vec<Op>, DeltaError> {
    if count > expected_len / COPY_MIN || count > input.len() / 3 {
        return Err(DeltaError::Malformed("more copies than bytes allow"));
    }
    let mut ops = Vec::with_capacity(count);
    for _ in 0..count {
        ops.push(Op {
            literal: read_u32(input)?,
            len: 0,
            from: 0,
        });
    }
    for op in &mut ops {
        op.len = read_u32(input)?;
    }
    let mut previous_end = 0u64;
    let mut made = 0u64;
    for op in &mut ops {
        let start = previous_end + u64::from(op.literal);
        let from = start.checked_add_signed(unzigzag(read_varint(input)?));
        op.from = from
            .and_then(|from| u32::try_from(from).ok())
            .ok_or(DeltaError::Malformed("copy from outside the base"))?;
        check_op(op, base_len)?;
        previous_end = op.end();
        made += u64::from(op.literal) + u64::from(op.len);
    }
    if made > expected_len as u64 {
        return Err(DeltaError::Malformed("copies exceed the announced length"));
    }
    Ok(ops)
}

/// Bytes that the instructions copy.
pub fn copied_len(ops: &[Op]) -> usize {
    ops.iter().map(|op| op.len as usize).sum()
}

/// The parts of the base that no copy takes, and both ends of each copied range, joined in their
/// order: what is new resembles most what it replaced. Copies of up to 32 bytes stay whole.
pub fn gap_prefix(base: &[u8], ops: &[Op]) -> Vec<u8> {
    let mut inner: Vec<(usize, usize)> = ops
        .iter()
        .filter(|op| op.len as usize > 2 * GAP_CONTEXT)
        .map(|op| {
            (
                op.from as usize + GAP_CONTEXT,
                op.end() as usize - GAP_CONTEXT,
            )
        })
        .collect();
    inner.sort_unstable();
    let mut gaps = Vec::new();
    let mut covered = 0;
    for (start, end) in inner {
        gaps.extend_from_slice(base.get(covered..start).unwrap_or_default());
        covered = covered.max(end);
    }
    gaps.extend_from_slice(base.get(covered..).unwrap_or_default());
    gaps
}

/// Appends an unsigned integer, 7 bits a byte, low bits first.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads an integer of at most 35 bits from the front of `input`.
///
/// # Errors
/// [`DeltaError::Malformed`] when it is cut off or longer.
pub fn read_varint(input: &mut &[u8]) -> Result<u64, DeltaError> {
    let mut value = 0;
    for group in 0..VARINT_MAX {
        let (&byte, rest) = input
            .split_first()
            .ok_or(DeltaError::Malformed("cut off within a number"))?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << (7 * group);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DeltaError::Malformed("number too long"))
}

fn read_u32(input: &mut &[u8]) -> Result<u32, DeltaError> {
    u32::try_from(read_varint(input)?).map_err(|_| DeltaError::Malformed("number above 32 bits"))
}

fn check_op(op: &Op, base_len: usize) -> Result<(), DeltaError> {
    if (op.len as usize) < COPY_MIN {
        return Err(DeltaError::Malformed("copy too short"));
    }
    if op.end() > base_len as u64 {
        return Err(DeltaError::Malformed("copy from outside the base"));
    }
    Ok(())
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Takes so many bytes from the front.
///
/// # Errors
/// [`DeltaError`] when there are fewer.
pub fn take<'a>(input: &mut &'a [u8], len: u64) -> Result<&'a [u8], DeltaError> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let (taken, rest) = input
        .split_at_checked(len)
        .ok_or(DeltaError::Malformed("a part is cut off"))?;
    *input = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(literal: u32, len: u32, from: u32) -> Op {
        Op { literal, len, from }
    }

    fn written(ops: &[Op]) -> Vec<u8> {
        let mut out = Vec::new();
        write_ops(ops, &mut out);
        out
    }

    #[test]
    fn instructions_round_trip_also_at_the_far_ends() {
        let ops = [
            op(0, 8, 100),
            op(3, 1000, 0),
            op(0, 9, u32::MAX - 9),
            op(1, 8, 0),
        ];
        let table = written(&ops);
        assert!(table.len() <= ops.len() * OP_BYTES_MAX);
        let base_len = u32::MAX as usize;
        let mut input = table.as_slice();
        assert_eq!(read_ops(&mut input, 4, base_len, 1029), Ok(ops.to_vec()));
        assert!(input.is_empty());
        assert!(read_ops(&mut table.as_slice(), 4, base_len, 1028).is_err());
        assert!(read_ops(&mut table.as_slice(), 4, base_len - 1, 1029).is_err());
        for len in 0..table.len() {
            assert!(read_ops(&mut &table[..len], 4, base_len, 1029).is_err());
        }
    }

    #[test]
    fn instructions_that_reach_outside_are_refused() {
        let cases = [
            (op(0, 7, 0), 100, 100),
            (op(0, 101, 0), 100, 1000),
            (op(0, 10, 91), 100, 1000),
            (op(91, 10, 0), 100, 100),
            (op(u32::MAX, u32::MAX, 0), usize::MAX, 1000),
        ];
        for (op, base_len, expected_len) in cases {
            let table = written(&[op]);
            assert!(read_ops(&mut table.as_slice(), 1, base_len, expected_len).is_err());
        }
        // A jump before the beginning, numbers that never end, more copies than bytes.
        for (table, count) in [
            (&[0, 8, 1][..], 1),
            (&[0x80; 30], 1),
            (&[0xff, 0xff, 0xff, 0xff, 0x7f, 8, 0], 1),
            (&[0; 30], 10),
            (&[0; 30], usize::MAX),
        ] {
            assert!(read_ops(&mut &table[..], count, 1000, 64).is_err());
        }
    }

    #[test]
    fn gaps_keep_what_no_copy_takes_and_a_seam() {
        let base: Vec<u8> = (0..200).collect();
        assert_eq!(gap_prefix(&base, &[]), base);
        let ops = [op(0, 60, 140), op(5, 32, 0), op(0, 50, 50), op(0, 40, 80)];
        let gaps: Vec<u8> = (0..66)
            .chain(84..96)
            .chain(104..156)
            .chain(184..200)
            .collect();
        assert_eq!(gap_prefix(&base, &ops), gaps);
        assert_eq!(gap_prefix(&base, &[op(0, 200, 0)]).len(), 32);
    }
}
