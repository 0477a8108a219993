//! The write-ahead log of a namespace: what the engine's file does not hold yet.
//!
//! The log is a row of segment files, `NAME.log.NUMBER`. Groups of entries are appended to the
//! newest one and synced before anything in them is acknowledged. Once the engine's file holds
//! everything up to an entry, the segments up to it are used again or removed.

pub mod appender;
pub mod group;
pub mod place;
pub mod replay;
pub mod salvage;
pub mod segment;
pub mod shelf;
