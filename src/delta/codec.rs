//! What a codec is: one way in which a state travels, and its number on the wire.

use crate::delta::error::DeltaError;

/// Number of a codec on the wire. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodecId(pub u8);

impl CodecId {
    /// The bytes as they are.
    pub const RAW: Self = Self(0);
    /// One zstd frame.
    pub const WHOLE: Self = Self(1);
    /// Copies from a base, and what is left as literals.
    pub const COPY: Self = Self(2);
    /// Stretches that go along with a base, with their changes, and literals.
    pub const ALIGNED: Self = Self(3);
    /// Several short states in one frame, made with a dictionary: no codec of one state, see
    /// [`crate::delta::dictionary`].
    pub const TOGETHER: Self = Self(4);
    /// A mask of the bytes that changed in place, and what they became.
    pub const MASKED: Self = Self(5);

    /// The newest one.
    pub const NEWEST: Self = Self::MASKED;
}

/// How much time a smaller result is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// For live replication: about as fast as zstd level 3.
    Fast,
    /// For slow links and for results that are kept: several times slower.
    Small,
}

impl Effort {
    /// The zstd level.
    pub fn level(self) -> i32 {
        match self {
            Self::Fast => 3,
            Self::Small => 9,
        }
    }
}

/// One way to turn a state into a payload and back.
pub trait Codec: Sync {
    /// Its number on the wire.
    fn id(&self) -> CodecId;

    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Makes a payload, or `None` when it would not be smaller than `new`.
    ///
    /// # Errors
    /// [`DeltaError`] when the base is missing or zstd cannot get its memory.
    fn encode(
        &self,
        base: Option<&[u8]>,
        new: &[u8],
        effort: Effort,
    ) -> Result<Option<Vec<u8>>, DeltaError>;

    /// Gets the state back from a payload that may come from anybody. Takes memory in proportion
    /// to `expected_len` and the base only.
    ///
    /// # Errors
    /// [`DeltaError`] when the payload does not give exactly `expected_len` bytes.
    fn decode(
        &self,
        base: Option<&[u8]>,
        payload: &[u8],
        expected_len: usize,
    ) -> Result<Vec<u8>, DeltaError>;
}

/// A codec that needs a base.
pub trait DeltaCodec: Sync {
    /// Its number on the wire.
    const ID: CodecId;
    /// Its name in reports.
    const NAME: &'static str;

    /// Makes a payload, or `None` when it would be of no use. Both inputs are shorter than 4 GiB.
    ///
    /// # Errors
    /// [`DeltaError`] when zstd cannot get its memory.
    fn make(base: &[u8], new: &[u8], effort: Effort) -> Result<Option<Vec<u8>>, DeltaError>;

    /// As [`Codec::decode`].
    ///
    /// # Errors
    /// [`DeltaError`] when the payload does not give exactly `expected_len` bytes.
    fn undo(base: &[u8], payload: &[u8], expected_len: usize) -> Result<Vec<u8>, DeltaError>;
}

impl<D: DeltaCodec> Codec for D {
    fn id(&self) -> CodecId {
        D::ID
    }

    fn name(&self) -> &'static str {
        D::NAME
    }

    fn encode(
        &self,
        base: Option<&[u8]>,
        new: &[u8],
        effort: Effort,
    ) -> Result<Option<Vec<u8>>, DeltaError> {
        let base = base.ok_or(DeltaError::MissingBase(D::NAME))?;
        if u32::try_from(base.len().max(new.len())).is_err() {
            return Ok(None);
        }
        let payload = D::make(base, new, effort)?;
        Ok(payload.filter(|payload| payload.len() < new.len()))
    }

    fn decode(
        &self,
        base: Option<&[u8]>,
        payload: &[u8],
        expected_len: usize,
    ) -> Result<Vec<u8>, DeltaError> {
        let base = base.ok_or(DeltaError::MissingBase(D::NAME))?;
        D::undo(base, payload, expected_len)
    }
}

/// A state ready to travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// How it was encoded.
    pub codec: CodecId,
    /// Which of the candidates is the base, if the codec needs one.
    pub base: Option<usize>,
    /// What travels.
    pub payload: Vec<u8>,
}
