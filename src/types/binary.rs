//! The one place that knows how structs become bytes, on disk and between replicas.
//!
//! Encoded: one format-version byte, then bincode's standard configuration (little endian,
//! variable-length integers). A decoder never takes more memory than [`DECODE_LIMIT`] and accepts
//! nothing behind the value.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// First byte of every encoded value.
pub const FORMAT: u8 = 1;
/// Most bytes that decoding one value may claim. State bytes do not travel this way.
pub const DECODE_LIMIT: usize = 32 << 20;

/// Room for an encoded value in bytes, which few of those that are written often exceed.
const ROOM: usize = 128;

/// Why bytes could not be decoded.
#[derive(Debug, Error)]
pub enum BadEncoding {
    /// No bytes at all.
    #[error("empty where a value was expected")]
    Empty,
    /// Written by a newer or an unrelated program.
    #[error("unknown format version {0}, this build reads version {FORMAT}")]
    Format(u8),
    /// Not what the type says, or over the limit.
    #[error("malformed value: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
    /// More bytes than the value needs.
    #[error("{0} bytes too many behind the value")]
    Trailing(usize),
}

/// Encodes a value of ours. Our own types always encode: they hold no maps of unknown length,
/// no borrowed state that could fail.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ROOM);
    encode_into(&mut bytes, value);
    bytes
}

/// [`encode`] behind what `bytes` holds already.
pub fn encode_into<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    bytes.push(FORMAT);
    encode_bare_into(bytes, value);
}

/// [`encode_into`] without the format byte, for whoever tells the format otherwise.
pub fn encode_bare_into<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    let written = bincode::serde::encode_into_std_write(value, bytes, configuration());
    debug_assert!(written.is_ok(), "{written:?}");
}

/// Decodes a value, which must fill `bytes` to the end.
///
/// # Errors
/// [`BadEncoding`] when the bytes are not exactly one value of this type and format.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadEncoding> {
    let (value, used) = decode_prefix(bytes)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(BadEncoding::Trailing(left)),
    }
}

/// Decodes a value from the start of `bytes` and says how many bytes it took.
///
/// # Errors
/// [`BadEncoding`] when the bytes do not begin with a value of this type and format.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), BadEncoding> {
    let (format, rest) = bytes.split_first().ok_or(BadEncoding::Empty)?;
    if *format != FORMAT {
        return Err(BadEncoding::Format(*format));
    }
    let (value, used) = decode_bare(rest)?;
    Ok((value, used + 1))
}

/// Decodes a value without a format byte from the start of `bytes`, and says how many bytes it took.
///
/// # Errors
/// [`BadEncoding`] when the bytes do not begin with a value of this type.
pub fn decode_bare<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), BadEncoding> {
    Ok(bincode::serde::decode_from_slice(bytes, configuration())?)
}

fn configuration() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_LIMIT>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_and_nothing_may_follow() {
        let value = (7u64, String::from("x"), vec![1u8, 2]);
        let bytes = encode(&value);
        assert_eq!(decode::<(u64, String, Vec<u8>)>(&bytes).unwrap(), value);
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decode::<(u64, String, Vec<u8>)>(&longer).is_err());
        assert!(decode::<(u64, String, Vec<u8>)>(&bytes[..bytes.len() - 1]).is_err());
        assert!(matches!(
            decode::<u64>(&[9, 1]),
            Err(BadEncoding::Format(9))
        ));
        assert!(matches!(decode::<u64>(&[]), Err(BadEncoding::Empty)));
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut bytes = vec![FORMAT, 253];
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
    }
}
