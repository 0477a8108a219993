//! Deltas of every codec, dictionary-compressed bodies of HTTP clients, and archives of states.

use samestate::delta::archive;
use samestate::delta::codec::CodecId;
use samestate::delta::dcz;
use samestate::delta::registry::decode;

/// Bytes of a state at most.
const STATE: usize = 1 << 20;

/// A codec in the first byte, the length of the base and that of the state in two and three bytes, and
/// then base and payload.
pub fn deltas(input: &[u8]) {
    let Some(([codec, b0, b1, l0, l1, l2], rest)) = input.split_first_chunk::<6>() else {
        return;
    };
    let base = usize::from(u16::from_le_bytes([*b0, *b1])).min(rest.len());
    let length = u32::from_le_bytes([*l0, *l1, *l2, 0]) as usize % (STATE + 1);
    let (base, payload) = rest.split_at(base);
    for base in [Some(base), None] {
        if let Ok(state) = decode(CodecId(*codec), base, payload, length) {
            assert_eq!(state.len(), length);
        }
    }
    if let Ok((_, frame)) = dcz::split(payload)
        && let Ok(state) = dcz::decode(base, frame, length)
    {
        assert!(state.len() <= length);
    }
}

/// The length of an index in two bytes, the index, and the pack.
pub fn archives(input: &[u8]) {
    let Some((length, rest)) = input.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (index, pack) = rest.split_at(length);
    let Ok(index) = std::str::from_utf8(index) else {
        return;
    };
    if let Ok(entries) = archive::read(index, pack) {
        assert_eq!(entries.len(), index.lines().count());
    }
}
