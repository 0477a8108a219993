//! The HTTP face: one file a resource, errors as problem documents (RFC 9457).
//!
//! Handlers translate between HTTP and the runtime and decide nothing themselves. An endpoint is a
//! handler in its resource's file and one line in [`routes`].

pub mod admin;
pub mod agreement;
pub mod app;
pub mod batch;
pub mod body;
pub mod browsers;
pub mod budget;
pub mod changes;
pub mod coding;
pub mod conditions;
pub mod conflicts;
pub mod extract;
pub mod front;
pub mod health;
pub mod history;
pub mod hosts;
pub mod listener;
pub mod listing;
pub mod members;
pub mod metrics;
pub mod namespaces;
pub mod outgoing;
pub mod patch;
pub mod peers;
pub mod problem;
pub mod proofs;
pub mod range;
pub mod representation;
pub mod requests;
pub mod root;
pub mod roots;
pub mod routes;
pub mod sessions;
pub mod states;
pub mod streamed;
pub mod sync;
pub mod tree;
pub mod upload;
