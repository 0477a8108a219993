//! What replicas say to each other, as bytes: frames and the messages in them.
//!
//! The protocol is prose in docs/protocol.md.

pub mod frame;
pub mod messages;
