//! Numbers of any size in as few bytes as they need, in rows and proofs.

/// Most bytes of a number.
pub(crate) const NUMBER_BYTES_MAX: usize = 10;

/// Why bytes are no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotANumber {
    /// They end within it.
    Truncated,
    /// It is written with more bytes than it needs.
    Padded,
    /// It has more than 64 bits.
    TooLarge,
}

/// Appends 7 bits a byte, lowest first, the highest bit set on all but the last (LEB128).
pub(crate) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number in its shortest form from the front.
pub(crate) fn read_number(input: &mut &[u8]) -> Result<u64, NotANumber> {
    let mut number = 0u64;
    for place in 0..NUMBER_BYTES_MAX as u32 {
        let (byte, rest) = input.split_first().ok_or(NotANumber::Truncated)?;
        *input = rest;
        let part = u64::from(byte & 0x7f);
        let shifted = part << (7 * place);
        if shifted >> (7 * place) != part {
            break;
        }
        number |= shifted;
        if byte & 0x80 == 0 {
            let padded = *byte == 0 && place > 0;
            return if padded {
                Err(NotANumber::Padded)
            } else {
                Ok(number)
            };
        }
    }
    Err(NotANumber::TooLarge)
}

/// The step between two numbers, modulo 2^64, as a number that is small when the step is, whichever
/// way it goes: 0, -1, 1, -2 become 0, 1, 2, 3.
pub(crate) fn step(from: u64, to: u64) -> u64 {
    let step = to.wrapping_sub(from) as i64;
    ((step << 1) ^ (step >> 63)) as u64
}

/// Where a [`step`] leads.
pub(crate) fn take_step(from: u64, step: u64) -> u64 {
    from.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_steps_come_back() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX / 2, u64::MAX] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number);
            assert!(bytes.len() <= NUMBER_BYTES_MAX);
            let mut input = &bytes[..];
            assert_eq!((read_number(&mut input), input), (Ok(number), &[][..]));
            for from in [0, 7, u64::MAX] {
                assert_eq!(take_step(from, step(from, number)), number);
            }
        }
        assert_eq!([5, 4, 6, 3].map(|to| step(5, to)), [0, 1, 2, 3]);
    }

    #[test]
    fn each_number_has_one_form() {
        let most = [&[0xff; 9][..], &[0x01]].concat();
        for (bytes, expected) in [
            (&most[..], Ok(u64::MAX)),
            (&[0xff; 10], Err(NotANumber::TooLarge)),
            (&[0x81, 0], Err(NotANumber::Padded)),
            (&[0x81], Err(NotANumber::Truncated)),
            (&[], Err(NotANumber::Truncated)),
        ] {
            assert_eq!(read_number(&mut &bytes[..]), expected);
        }
    }
}
