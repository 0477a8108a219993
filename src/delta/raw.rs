//! The codec for bytes that nothing helps: the state as it is.

use crate::delta::codec::{Codec, CodecId, Effort};
use crate::delta::error::{DeltaError, check_length};

/// Sends the bytes unchanged.
pub struct Raw;

impl Codec for Raw {
    fn id(&self) -> CodecId {
        CodecId::RAW
    }

    fn name(&self) -> &'static str {
        "raw"
    }

    fn encode(
        &self,
        _base: Option<&[u8]>,
        new: &[u8],
        _effort: Effort,
    ) -> Result<Option<Vec<u8>>, DeltaError> {
        Ok(Some(new.to_vec()))
    }

    fn decode(
        &self,
        _base: Option<&[u8]>,
        payload: &[u8],
        expected_len: usize,
    ) -> Result<Vec<u8>, DeltaError> {
        check_length(payload.to_vec(), expected_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_unchanged() {
        let payload = Raw.encode(None, b"state", Effort::Fast).unwrap().unwrap();
        assert_eq!(payload, b"state");
        assert_eq!(Raw.decode(None, &payload, 5).unwrap(), b"state");
        assert!(Raw.decode(None, &payload, 4).is_err());
        assert!(Raw.decode(None, b"", 1).is_err());
    }
}
