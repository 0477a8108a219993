//! What a replica does, as blocking code without sockets: decide and apply writes, answer reads,
//! run sync sessions, check itself.

pub mod apply;
pub mod check;
pub mod command;
pub mod compare;
pub mod copy;
pub mod decide;
pub mod diff;
pub mod engine;
pub mod exchange;
pub mod pull;
pub mod push;
pub mod report;
pub mod responder;
pub mod session;
pub mod transfer;
pub mod transport;
pub mod view;
