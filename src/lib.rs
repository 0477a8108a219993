//! samestate: a replicated state store for game servers.
//!
//! Layers import downwards only; see docs/architecture.md.

pub mod backup;
pub mod bloom;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delta;
pub mod http;
pub mod merkle;
pub mod peer;
pub mod reconcile;
pub mod replica;
pub mod roots;
pub mod runtime;
pub mod server;
pub mod sketch;
pub mod store;
pub mod sync;
pub mod types;
pub mod wire;
