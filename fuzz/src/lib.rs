//! What the programs in `fuzz_targets` run. `cargo test` of the crate above runs the same functions over
//! the seeds and changes of them (`tests/it/fuzz.rs`).

pub mod targets;
