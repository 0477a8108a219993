//! One namespace of a replica, as blocking code without sockets: decide and apply writes, answer
//! reads, check itself.

pub mod apply;
pub mod check;
pub mod check_roots;
pub mod check_stages;
pub mod collect;
pub mod command;
pub mod conditions;
pub mod decide;
mod decide_collecting;
mod decide_meeting;
pub mod draft;
pub mod engine;
pub mod facts;
pub mod findings;
pub mod inspect;
pub mod journal;
pub mod read_ahead;
pub mod rebuild;
pub mod recover;
pub mod renew;
pub mod repair;
pub mod repair_large;
pub mod repair_log;
pub mod repair_roots;
pub mod scrub;
pub mod sketch_history;
pub mod sketching;
pub mod solo;
pub mod source;
pub mod stage_writer;
pub mod staging;
pub mod view;
