//! All settings of a server, validated and in the form that the layers take.

use std::path::PathBuf;
use std::time::Duration;

use crate::http::app::HttpOptions;
use crate::peer::links::LinkOptions;
use crate::runtime::replica::ReplicaOptions;
use crate::runtime::scrub::ScrubOptions;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// A level, or directives as `tracing-subscriber` takes them.
    pub level: String,
}

/// All settings of a server.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The data directory, which has no default.
    pub data: Option<PathBuf>,
    /// Host and port.
    pub listen: String,
    /// Names and URLs.
    pub peers: Vec<(String, String)>,
    /// How the replica runs.
    pub replica: ReplicaOptions,
    /// Names that clients may call the replica by.
    pub allowed_hosts: Vec<String>,
    /// How the HTTP face protects itself.
    pub http: HttpOptions,
    /// How links to peers work.
    pub links: LinkOptions,
    /// How stored bytes are checked in the background.
    pub scrub: ScrubOptions,
    /// Folders that clients may have backups made in.
    pub backup_dirs: Vec<PathBuf>,
    /// How long requests in flight may take once the server is told to stop.
    pub shutdown_grace: Duration,
    /// What is logged.
    pub log: LogSettings,
}
