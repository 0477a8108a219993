//! A summary of a set of leaves that two replicas subtract to see what differs, in bytes and work
//! that follow the difference alone.
//!
//! The set is seen as a map from *places*, the first [`key::PLACE_BITS`] bits of keys, to *values*,
//! the sum of keyed hashes of the leaves there. A [`cell::Cell`] holds three sums over the places
//! mapped to it; when only one place differs in it, the difference of two cells tells which and by
//! how much (1-sparse recovery, Ganguly 2007). Cells are chosen by place alone in the manner of
//! rateless IBLTs (Yang, Gilad and Alizadeh, "Practical rateless set reconciliation", SIGCOMM
//! 2024), so an updated state costs as much as a missing one, and any prefix of the cells of a
//! partition is a sketch of its own.

pub mod cell;
pub mod decoder;
pub mod estimator;
pub mod field;
pub mod key;
pub mod mapping;
pub mod table;

#[cfg(test)]
mod trials;
