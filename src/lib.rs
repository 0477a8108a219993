//! samestate: a replicated state store for game servers.
//!
//! Layers import downwards only; see docs/architecture.md.

pub mod merkle;
pub mod types;
