//! `/v1/sessions` and `/v1/stats`: what the replica does and holds.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::http::app::App;
use crate::runtime::damage::ScrubStatus;
use crate::sync::report::{Outcome, Report};

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

/// Totals over all namespaces, and over the listed sessions.
#[derive(Debug, Default, Serialize)]
pub struct StatsBody {
    replica: String,
    version: &'static str,
    namespaces: usize,
    count: u64,
    total_size: u64,
    peers: usize,
    sessions_running: usize,
    sessions_failed: usize,
    states_pulled: u64,
    states_pushed: u64,
    bytes_sent: u64,
    bytes_received: u64,
    faults_found: u64,
    faults_healed: u64,
    faults_open: usize,
    scrub: BTreeMap<String, ScrubStatus>,
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
        stats.faults_found += scrub.faults_found;
        stats.faults_healed += scrub.healed;
        stats.faults_open += scrub.open;
        stats.scrub.insert(namespace.name().to_string(), scrub);
    }
    for report in app.replica.sessions().list() {
        stats.sessions_running += usize::from(report.outcome == Outcome::Running);
        stats.sessions_failed += usize::from(report.outcome == Outcome::Failed);
        stats.states_pulled += report.states_pulled;
        stats.states_pushed += report.states_pushed;
        stats.bytes_sent += report.bytes_sent;
        stats.bytes_received += report.bytes_received;
    }
    Json(stats)
}
