//! `GET /metrics`: the replica's figures in the text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::http::app::App;

/// What <https://prometheus.io/docs/instrumenting/exposition_formats/> asks for.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Tells all figures.
pub async fn get(State(app): State<App>) -> Response {
    let mut page = Page::default();
    replica(&mut page, &app);
    namespaces(&mut page, &app);
    sockets(&mut page, &app);
    sessions(&mut page, &app);
    peers(&mut page, &app);
    ([(CONTENT_TYPE, MEDIA_TYPE)], page.text).into_response()
}

fn replica(page: &mut Page, app: &App) {
    page.family("samestate_info", Kind::Gauge, "Always 1; says who this is.");
    let (replica, version) = (app.replica.id().to_string(), env!("CARGO_PKG_VERSION"));
    page.sample(&[("replica", &replica), ("version", version)], 1);
    let help = "Requests answered, by what they were of.";
    page.family("samestate_http_requests_total", Kind::Counter, help);
    for count in app.requests.counts() {
        let labels = [
            ("target", count.target),
            ("method", count.method),
            ("code", count.code),
        ];
        page.sample(&labels, count.requests);
    }
}

fn namespaces(page: &mut Page, app: &App) {
    let all = app.replica.namespaces();
    let mut gauge = |name, help, value: &dyn Fn(usize) -> u64| {
        page.family(name, Kind::Gauge, help);
        for (place, namespace) in all.iter().enumerate() {
            page.sample(&[("namespace", namespace.name().as_str())], value(place));
        }
    };
    let heads: Vec<_> = all.iter().map(|open| *open.view().head()).collect();
    let waiting: Vec<_> = all.iter().map(|open| open.waiting()).collect();
    gauge("samestate_states", "States that are held.", &|at| {
        heads[at].live
    });
    let help = "Size of these states.";
    gauge("samestate_state_bytes", help, &|at| heads[at].root.size);
    let help = "Position of the newest change in the change feed.";
    gauge("samestate_feed_position", help, &|at| heads[at].seq);
    let help = "Writes that wait for the writer.";
    gauge("samestate_write_queue_length", help, &|at| {
        waiting[at].0 as u64
    });
    let help = "Writes that may wait; further ones are answered 503.";
    gauge("samestate_write_queue_capacity", help, &|at| {
        waiting[at].1 as u64
    });
    let help = "Damaged states, histories and files that are known and not healed.";
    gauge("samestate_faults_open", help, &|at| {
        all[at].damage().status().open as u64
    });
}

fn sockets(page: &mut Page, app: &App) {
    let traffic = app.replica.traffic();
    let (served, asked) = (traffic.served.passed(), traffic.asked.passed());
    let help = "Bytes put into sockets: of the HTTP face, and of connections opened to peers.";
    page.family("samestate_sent_bytes_total", Kind::Counter, help);
    page.sample(&[("socket", "http")], served.sent);
    page.sample(&[("socket", "peers")], asked.sent);
    let help = "Bytes taken out of sockets.";
    page.family("samestate_received_bytes_total", Kind::Counter, help);
    page.sample(&[("socket", "http")], served.received);
    page.sample(&[("socket", "peers")], asked.received);
}

fn sessions(page: &mut Page, app: &App) {
    let total = app.replica.sessions().tallies().total;
    let complete = total.sessions - total.sessions_failed;
    let help = "Sync sessions begun here that have ended.";
    page.family("samestate_sync_sessions_total", Kind::Counter, help);
    page.sample(&[("outcome", "complete")], complete);
    page.sample(&[("outcome", "failed")], total.sessions_failed);
    let mut counter = |name, help, value| {
        page.family(name, Kind::Counter, help);
        page.sample(&[], value);
    };
    let help = "States taken over in them.";
    counter(
        "samestate_sync_states_pulled_total",
        help,
        total.states_pulled,
    );
    let help = "States that peers took over in them.";
    counter(
        "samestate_sync_states_pushed_total",
        help,
        total.states_pushed,
    );
    let help = "Bytes of the versions that travelled, each whole and uncompressed.";
    counter(
        "samestate_sync_whole_bytes_total",
        help,
        total.bytes_if_sent_whole,
    );
    let help = "Bytes that they put into sockets.";
    counter("samestate_sync_sent_bytes_total", help, total.bytes_sent);
    let help = "Bytes that they took out of sockets.";
    counter(
        "samestate_sync_received_bytes_total",
        help,
        total.bytes_received,
    );
}

fn peers(page: &mut Page, app: &App) {
    let peers = app.peering.list();
    let help = "1 when the last session with the peer succeeded.";
    page.family("samestate_peer_healthy", Kind::Gauge, help);
    for peer in &peers {
        let healthy = u8::from(peer.health == "healthy");
        page.sample(&[("peer", &peer.name)], healthy);
    }
    let help = "Changes of the peer that were not taken over at the last look.";
    page.family("samestate_peer_lag_changes", Kind::Gauge, help);
    for peer in &peers {
        page.sample(&[("peer", &peer.name)], peer.lag);
    }
    let help = "Bytes sent through connections opened to the peer.";
    page.family("samestate_peer_sent_bytes_total", Kind::Counter, help);
    for peer in &peers {
        page.sample(&[("peer", &peer.name)], peer.bytes_sent);
    }
    let help = "Bytes received through them.";
    page.family("samestate_peer_received_bytes_total", Kind::Counter, help);
    for peer in &peers {
        page.sample(&[("peer", &peer.name)], peer.bytes_received);
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// A page in the making: one family of samples after the other.
#[derive(Debug, Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.name = name;
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// Adds a sample to the family begun last.
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let name = self.name;
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn escaped(value: &str) -> String {
    let backslashes = value.replace('\\', r"\\");
    backslashes.replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_the_format_has_them() {
        let mut page = Page::default();
        page.family("a_total", Kind::Counter, "How many.");
        page.sample(&[], 7);
        page.sample(&[("x", "1"), ("y", "a\"b\\c\nd")], 0);
        let expected = "# HELP a_total How many.\n# TYPE a_total counter\na_total 7\n\
                        a_total{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 0\n";
        assert_eq!(page.text, expected);
    }
}
