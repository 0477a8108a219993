//! Damage to a data directory, of every kind and in every place: nothing panics, no wrong bytes are
//! ever returned, and what is hurt is named.

mod healing;
mod places;
mod program;
pub mod rows;
pub mod stores;
