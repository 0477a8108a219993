//! Sync sessions between two replicas, as blocking code without sockets: the initiator's side over
//! a [`transport::Transport`], and the responder's side, which answers each message by itself.

pub mod answer_chunks;
pub mod chunks;
pub mod compare;
pub mod contents;
pub mod copy;
pub mod decode;
pub mod dictionaries;
pub mod diff;
pub mod encode;
pub mod exchange;
pub mod fetch_chunks;
pub mod intake;
pub mod news;
pub mod opening;
pub mod pull;
pub mod push;
pub mod report;
pub mod responder;
pub mod send_chunks;
pub mod session;
pub mod sides;
pub mod together;
pub mod transfer;
pub mod transport;
