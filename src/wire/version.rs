//! Versions of the protocol, and when messages are compressed in all of them.

/// Newest version of the protocol that this build speaks.
pub const PROTOCOL: u8 = 4;
/// The version of long frames.
pub const LONG: u8 = 3;

/// Shorter messages gain nothing from compression.
pub const COMPRESS_FROM: usize = 32;
/// Keeps up with a gigabit link on one core.
pub const LEVEL: i32 = 3;

/// A version of the protocol that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// The one that every peer reads.
    #[default]
    V3,
    /// Short frames.
    V4,
}
