//! Versions of the protocol.

use crate::delta::codec::CodecId;

/// Newest version of the protocol that this build speaks.
pub const PROTOCOL: u8 = 4;
/// The version of long frames.
pub const LONG: u8 = 3;

/// A version of the protocol that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// The one that every peer reads.
    #[default]
    V3,
    /// Short frames, and states by the codec `masked`.
    V4,
}

impl Protocol {
    /// The newest codec of a build that reads this version and none after it.
    pub fn newest_codec(self) -> CodecId {
        match self {
            Self::V3 => CodecId::TOGETHER,
            Self::V4 => CodecId::MASKED,
        }
    }
}
