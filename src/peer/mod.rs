//! Links to other replicas: an HTTP client for the replication protocol, one task for each peer
//! and namespace that keeps the two in sync, and sessions on request.

pub mod address;
pub mod client;
pub mod connections;
pub mod healing;
pub mod heard;
pub mod home;
pub mod link;
pub mod links;
pub mod penalty;
pub mod places;
pub mod remembered;
pub mod runner;
pub mod witness;
