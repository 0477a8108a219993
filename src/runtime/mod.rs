//! The only bridge between async and blocking code: a writer thread for each namespace, readers on
//! the blocking pool, and the open replica that holds them.

pub mod answer_memory;
pub mod checkpoints;
pub mod cold_rows;
pub mod collector;
pub mod compacting;
pub mod damage;
pub mod handle;
pub mod jobs;
pub mod lock;
pub mod log_thread;
pub mod maintenance;
pub mod namespace;
pub mod orders;
pub mod peering;
pub mod pins;
pub mod queue;
pub mod replica;
pub mod scrub;
pub mod session_log;
pub mod sightings;
pub mod sync_error;
pub mod sync_service;
pub mod tallies;
pub mod traffic;
pub mod training;
pub mod writer;
