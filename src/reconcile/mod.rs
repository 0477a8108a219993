//! Finding which states two replicas hold differently: strategies that take bytes and give bytes,
//! and do no I/O.
//!
//! The initiator of a session drives a [`strategy::Strategy`]; the responder keeps no state and
//! answers each question from a [`view::SetView`] within a [`budget::Budget`]. What a strategy
//! finds is a hint that the session verifies against the peer's root, so a strategy can be fooled
//! by a hash collision or a lying peer without harm.
//!
//! A new strategy is one file here, one name in [`strategy::StrategyName`] and its arms in
//! [`registry`]; the conformance suite then runs it. The bytes of every message are described in
//! docs/reference/reconciliation.md.

pub mod amended;
pub mod bloom;
pub mod budget;
pub mod costs;
pub mod cursor;
pub mod descent;
pub mod encoding;
pub mod error;
pub mod fingerprint;
pub mod list;
pub mod memory;
pub mod merkle;
pub mod planner;
pub mod registry;
pub mod sizing;
pub mod sketch;
pub mod sketch_answer;
pub mod sketch_messages;
pub mod strategy;
pub mod subtrees;
pub mod view;

#[cfg(test)]
mod conformance;
