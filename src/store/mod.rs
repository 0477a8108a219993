//! One namespace on disk: a redb file whose records, contents, history, change feed, Merkle rows
//! and head change in one transaction.
//!
//! The layout is prose in docs/reference/file-format.md.

pub mod backend;
pub mod baseline;
pub mod body;
pub mod checkpoint;
pub mod claim;
pub mod compaction;
pub mod content;
pub mod cut;
pub mod directory;
pub mod disk;
pub mod draft;
pub mod engine_file;
pub mod engine_files;
pub mod error;
pub mod forms;
pub mod guard;
pub mod key;
pub mod layer;
pub mod layered;
pub mod log;
pub mod memtable;
pub mod migrate;
pub mod names;
pub mod open;
pub mod open_file;
pub mod options;
pub mod overlay;
pub mod pages;
pub mod pending;
pub mod pieces;
pub mod place;
pub mod placement;
pub mod random;
pub mod read;
pub mod reshard;
pub mod root_log;
pub mod rows;
pub mod salvage;
pub mod set_aside;
pub mod shard_set;
pub mod shards;
pub mod stage;
pub mod stage_rows;
pub mod suspects;
pub mod tables;
pub mod tree;
mod tree_renewal;
pub mod write;
