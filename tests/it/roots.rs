//! Logs of roots: the format against vectors made by another implementation, heads that no crash
//! takes back, and what the HTTP face proves.

mod checks;
mod commands;
mod crashes;
mod edits;
mod face;
mod peers;
mod vectors;
