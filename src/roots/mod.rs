//! The log of roots: which root a replica held when, in a Merkle mountain range whose heads it
//! signs. Pure: storage and keys come from above. The format is prose in
//! docs/reference/root-log.md.

pub mod entry;
pub mod head;
pub mod mountains;
pub mod peaks;
pub mod verify;
pub mod witness;
