//! The wish to end, from the user or from whoever started the program.

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::error::CliError;

/// Listens from now on; what is returned ends with the first SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// [`CliError::Start`] when the system does not let us listen.
pub fn interrupted() -> Result<impl Future<Output = ()>, CliError> {
    let listen = |kind| signal(kind).map_err(|error| CliError::Start(error.to_string()));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}
