//! Options that every command takes.

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::cli::client::{Client, ServerUrl, Token};
use crate::cli::error::CliError;
use crate::reconcile::strategy::StrategyName;
use crate::types::id::Namespace;

/// What `--strategy` takes: the name of a strategy, or `auto` to let the replica choose.
pub fn strategy_names() -> PossibleValuesParser {
    let names = StrategyName::ALL.into_iter().map(StrategyName::as_str);
    PossibleValuesParser::new(std::iter::once("auto").chain(names))
}

/// Which replica and namespace to talk to, and how to print.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The replica to talk to
    #[arg(
        long,
        global = true,
        env = "SAMESTATE_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:7400",
        help_heading = "Connection"
    )]
    pub server: ServerUrl,

    /// The namespace to work in
    #[arg(
        long = "ns",
        global = true,
        env = "SAMESTATE_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "default",
        help_heading = "Connection"
    )]
    pub namespace: Namespace,

    /// The token to show to the replica, when it asks for one
    #[arg(
        long,
        global = true,
        env = "SAMESTATE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Connection"
    )]
    pub token: Option<Token>,

    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
}

impl Options {
    /// A client for the replica at `--server`.
    ///
    /// # Errors
    /// [`CliError::Start`].
    pub fn client(&self) -> Result<Client, CliError> {
        self.client_of(&self.server)
    }

    /// A client for another replica, with the same namespace and token.
    ///
    /// # Errors
    /// [`CliError::Start`].
    pub fn client_of(&self, server: &ServerUrl) -> Result<Client, CliError> {
        Client::new(server.clone(), self.namespace.clone(), self.token.clone())
    }
}
