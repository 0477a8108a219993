//! The only bridge between async and blocking code: a writer thread for each namespace, readers on
//! the blocking pool, and the open replica that holds them.

pub mod jobs;
pub mod lock;
pub mod maintenance;
pub mod namespace;
pub mod peering;
pub mod pins;
pub mod replica;
pub mod session_log;
pub mod sync_service;
pub mod writer;
