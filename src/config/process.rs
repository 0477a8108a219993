//! What the environment says about this process and hands down to others.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use crate::config::layers::environment;

/// The file of the running program, to start it once more.
///
/// # Errors
/// The operating system's, when it does not tell.
pub fn executable() -> io::Result<PathBuf> {
    env::current_exe()
}

/// Where temporary files go.
pub fn temporary_folder() -> PathBuf {
    env::temp_dir()
}

/// True when the user wants no colours: `NO_COLOR` (<https://no-color.org>) or a dumb terminal.
pub fn wants_plain_text() -> bool {
    environment("NO_COLOR").is_some() || environment("TERM").is_some_and(|term| term == "dumb")
}

/// The environment for a replica that must be like any other: neither settings of ours nor a
/// proxy between it and its peers.
pub fn neutral_environment() -> impl Iterator<Item = (OsString, OsString)> {
    env::vars_os().filter(|(name, _)| is_neutral(name))
}

fn is_neutral(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    !name.starts_with("SAMESTATE_") && !name.ends_with("_PROXY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_proxies_are_not_handed_down() {
        for (name, neutral) in [
            ("PATH", true),
            ("RUST_BACKTRACE", true),
            ("SAMESTATE_LISTEN", false),
            ("http_proxy", false),
            ("ALL_PROXY", false),
        ] {
            assert_eq!(is_neutral(OsStr::new(name)), neutral, "{name}");
        }
    }
}
