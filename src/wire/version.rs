//! Versions of the protocol.

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
    /// Short frames.
    V4,
}
