//! What replicas say to each other, as bytes: frames, the messages in them, and heads of logs.
//!
//! The protocol is prose in docs/protocol.md.

pub mod chunk_messages;
pub mod compact;
pub mod error;
pub mod fields;
pub mod frame;
pub mod head;
pub mod healing_messages;
pub mod messages;
pub mod packing;
pub mod roots;
pub mod roots_check;
pub mod short_frame;
pub mod version;
