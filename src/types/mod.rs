//! The words every layer speaks: ids, hashes, versions, records, cursors and limits.
//!
//! Nothing here does I/O or knows about storage, HTTP or time.

pub mod as_text;
pub mod binary;
pub mod cursor;
pub mod hash;
pub mod id;
pub mod leaf;
pub mod limits;
pub mod lineage;
pub mod near;
pub mod record;
pub mod seen;
pub mod ttl;
pub mod version;
