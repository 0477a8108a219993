//! Bytes for the tests of this layer.

use proptest::prelude::*;

/// Random bytes, the same ones for a seed (xorshift64).
pub fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let next = |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) as u8
    };
    (0..len).map(next).collect()
}

/// Text of numbered lines, so that parts are alike but not equal.
pub fn text(bytes: usize) -> Vec<u8> {
    let line = |n: u32| format!("unit {n}: {}, {}\n", n * 7919 % 1000, n * 104_729 % 97);
    let mut text: Vec<u8> = (0..)
        .flat_map(|n| line(n).into_bytes())
        .take(bytes)
        .collect();
    text.truncate(bytes);
    text
}

/// A change of a state.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Bytes put in at a place.
    Insert(usize, Vec<u8>),
    /// Bytes put over others.
    Overwrite(usize, Vec<u8>),
    /// Bytes left out.
    Delete(usize, usize),
    /// Bytes put elsewhere.
    Move(usize, usize, usize),
}

/// Any of them.
pub fn any_edit() -> impl Strategy<Value = Edit> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        (any::<usize>(), bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<usize>(), bytes()).prop_map(|(at, bytes)| Edit::Overwrite(at, bytes)),
        (any::<usize>(), 0usize..5000).prop_map(|(at, len)| Edit::Delete(at, len)),
        (any::<usize>(), 0usize..5000, any::<usize>())
            .prop_map(|(from, len, to)| Edit::Move(from, len, to)),
    ]
}

/// Changes a state.
pub fn apply(state: &mut Vec<u8>, edit: &Edit) {
    let place = |at: usize, state: &[u8]| at % (state.len() + 1);
    let range = |at: usize, len: usize, state: &[u8]| {
        let start = place(at, state);
        start..(start + len).min(state.len())
    };
    match edit {
        Edit::Insert(at, bytes) => {
            let at = place(*at, state);
            state.splice(at..at, bytes.iter().copied());
        }
        Edit::Overwrite(at, bytes) => {
            let range = range(*at, bytes.len(), state);
            state.splice(range, bytes.iter().copied());
        }
        Edit::Delete(at, len) => {
            let range = range(*at, *len, state);
            state.drain(range);
        }
        Edit::Move(from, len, to) => {
            let range = range(*from, *len, state);
            let moved: Vec<u8> = state.drain(range).collect();
            let to = place(*to, state);
            state.splice(to..to, moved);
        }
    }
}
