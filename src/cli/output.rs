//! Standard output for data, standard error for notes; neither may panic when its reader has gone.

use std::io::{self, Write};

use crate::cli::error::CliError;

/// Writes a text to standard output, ending it with a line break if it has none.
///
/// # Errors
/// [`CliError::Output`].
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(end.as_bytes()))
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

/// Writes raw bytes to standard output.
///
/// # Errors
/// [`CliError::Output`].
pub fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    io::stdout().write_all(bytes).map_err(CliError::Output)
}

/// Makes sure that everything written to standard output has left the process.
///
/// # Errors
/// [`CliError::Output`].
pub fn flush() -> Result<(), CliError> {
    io::stdout().flush().map_err(CliError::Output)
}

/// Writes a line to standard error. Nobody can be told when that fails.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
