//! `/v1/sessions` and `/v1/stats`: what the replica does and holds.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::http::app::App;
use crate::replica::staging::staged;
use crate::runtime::damage::ScrubStatus;
use crate::runtime::tallies::Tally;
use crate::sync::dictionaries::DictionaryStatus;
use crate::sync::report::{Outcome, Passed, Report};

/// The answer.
#[derive(Debug, Serialize)]
pub struct SessionsBody {
    sessions: Vec<Report>,
}

/// Lists running and recent sync sessions, newest first.
pub async fn list(State(app): State<App>) -> Json<SessionsBody> {
    let sessions = app.replica.sessions().list();
    Json(SessionsBody { sessions })
}

/// Bytes through sockets since the process began.
#[derive(Debug, Default, Serialize)]
struct SocketsBody {
    /// Connections that others opened: clients, and peers that ask.
    http: Passed,
    /// Connections that were opened to peers.
    peers: Passed,
}

/// Totals over all namespaces, and over all sessions that ended since the process began.
#[derive(Debug, Default, Serialize)]
pub struct StatsBody {
    replica: String,
    version: &'static str,
    namespaces: usize,
    count: u64,
    total_size: u64,
    peers: usize,
    sessions_running: usize,
    #[serde(flatten)]
    transferred: Tally,
    transferred_by_peer: BTreeMap<String, Tally>,
    sockets: SocketsBody,
    faults_found: u64,
    faults_healed: u64,
    faults_open: usize,
    staged: usize,
    staged_bytes: u64,
    scrub: BTreeMap<String, ScrubStatus>,
    dictionaries: BTreeMap<String, DictionaryStatus>,
}

/// Tells the totals.
pub async fn stats(State(app): State<App>) -> Json<StatsBody> {
    let namespaces = app.replica.namespaces();
    let mut stats = StatsBody {
        replica: app.replica.id().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        namespaces: namespaces.len(),
        peers: app.peering.list().len(),
        ..StatsBody::default()
    };
    for namespace in namespaces {
        let view = namespace.view();
        stats.count += view.head().live;
        stats.total_size += view.head().root.size;
        let scrub = namespace.damage().status();
        let (stages, bytes) = staged(&view);
        stats.staged += stages;
        stats.staged_bytes += bytes;
        stats.faults_found += scrub.faults_found;
        stats.faults_healed += scrub.healed;
        stats.faults_open += scrub.open;
        let dictionaries = namespace.dictionaries().status();
        let name = namespace.name().to_string();
        stats.dictionaries.insert(name, dictionaries);
        stats.scrub.insert(namespace.name().to_string(), scrub);
    }
    let sessions = app.replica.sessions();
    let running = |report: &Report| report.outcome == Outcome::Running;
    stats.sessions_running = sessions.list().into_iter().filter(running).count();
    let tallies = sessions.tallies();
    (stats.transferred, stats.transferred_by_peer) = (tallies.total, tallies.peers);
    let traffic = app.replica.traffic();
    stats.sockets = SocketsBody {
        http: traffic.served.passed(),
        peers: traffic.asked.passed(),
    };
    Json(stats)
}
