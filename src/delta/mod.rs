//! Deltas, compression and content-defined chunks: bytes in, bytes out, no I/O.
//!
//! This is the only layer that names `zstd` and `fastcdc`. What it promises:
//!
//! - [`registry`]: [`registry::encode_smallest`] picks the smallest way in which a state can travel,
//!   [`registry::decode`] undoes it. The receiver says beforehand how long the result is, and gets
//!   exactly that many bytes or an error.
//! - [`codec`]: the trait behind which the ways stand, with their stable wire ids. A new one is a
//!   file like [`raw`], [`whole`], [`copy`], [`aligned`] and [`masked`], and a line in [`registry::all`].
//! - [`compress`]: zstd with bounded output, for values at rest and for network frames.
//! - [`dcz`]: deltas as HTTP clients know them.
//! - [`dictionary`]: what small states have in common, trained from a sample of them.
//! - [`chunker`]: where large states are cut for storage.
//! - [`archive`]: reads packs of recorded game states, for demonstrations and tests.
//! - [`matcher`], [`ops`], [`index`]: finding what two versions share, and writing it down, for `copy`.
//! - [`align`], [`places`], [`changes`], [`windows`], [`literals`], [`range_coder`]: the
//!   same for `aligned`.
//!
//! The byte formats are specified in docs/reference/deltas.md. Decoders take input from strangers:
//! they answer with [`error::DeltaError`], never panic, and take no more memory than the declared
//! and allowed length calls for.

pub mod align;
pub mod aligned;
pub mod archive;
pub mod changes;
pub mod chunker;
pub mod codec;
pub mod compress;
pub mod copy;
pub mod dcz;
pub mod dictionary;
pub mod error;
pub mod index;
pub mod inflate;
pub mod literals;
pub mod masked;
pub mod matcher;
pub mod ops;
pub mod places;
pub mod range_coder;
pub mod raw;
pub mod registry;
#[cfg(test)]
pub mod sample;
pub mod whole;
pub mod windows;
