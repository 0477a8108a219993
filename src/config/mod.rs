//! Settings: flags over `SAMESTATE_*` variables over a TOML file over defaults, validated, each with
//! where it came from. What a setting is stands in one table, [`table`].

pub mod error;
pub mod file;
pub mod layers;
pub mod origin;
pub mod process;
pub mod settings;
pub mod table;
pub mod values;
