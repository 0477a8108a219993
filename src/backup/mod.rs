//! Backups of a replica into a folder, and restoring a replica from one. Blocking code; it reads
//! views and hands a new engine what to merge, and knows neither of servers nor of peers.
//!
//! The layout of a destination is prose in docs/reference/backup-format.md.

pub mod block;
pub mod chain;
pub mod changes;
pub mod check;
pub mod data;
pub mod destination;
pub mod entry;
pub mod error;
pub mod fill;
pub mod index;
pub mod manifest;
pub mod restore;
pub mod save;
pub mod states;
pub mod watch;
pub mod writer;
