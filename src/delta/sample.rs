//! Bytes for the tests of this layer.

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
