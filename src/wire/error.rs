//! How a message can be malformed.

use thiserror::Error;

use crate::types::binary::BadEncoding;
use crate::wire::version::{LONG, PROTOCOL};

/// Why bytes are not a usable frame.
#[derive(Debug, Error)]
pub enum BadFrame {
    /// Fewer bytes than a header has, or than the header says.
    #[error("short frame: {got} bytes where {expected} were announced")]
    Short {
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// A message that ends within its head.
    #[error("cut off: a message ends within its head")]
    CutOff,
    /// More than a list may have.
    #[error("a list of {got} where at most {limit} are accepted")]
    TooMany {
        /// Announced entries.
        got: usize,
        /// Allowed entries.
        limit: usize,
    },
    /// A number that is too large, or has more bytes than it needs.
    #[error("a number over 32 bits, or not in its shortest form")]
    Number,
    /// A head that no build writes.
    #[error("malformed head: {0}")]
    Malformed(&'static str),
    /// More bytes than the header says.
    #[error("{0} bytes too many behind the frame")]
    Trailing(usize),
    /// Not a frame of ours at all.
    #[error("not a samestate frame; is the address that of a samestate server?")]
    Magic,
    /// Another protocol version.
    #[error(
        "the peer speaks protocol version {0}, this build {LONG} and {PROTOCOL}; upgrade the older one"
    )]
    Version(u8),
    /// Another message than was due.
    #[error("message kind {got} where kind {expected} was due")]
    Kind {
        /// The kind that came.
        got: u8,
        /// The kind that was due.
        expected: u8,
    },
    /// Larger than allowed. Nothing was allocated for it.
    #[error("a message of {got} bytes, at most {limit} are accepted")]
    TooLarge {
        /// Announced length.
        got: usize,
        /// Allowed length.
        limit: usize,
    },
    /// The compressed part does not decompress to what the header says.
    #[error("damaged compressed message: {0}")]
    Compression(String),
    /// The structured part is malformed.
    #[error(transparent)]
    Head(#[from] BadEncoding),
}
