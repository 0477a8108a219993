//! What finished sync sessions came to in all, and for each peer, since the process began.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::sync::report::{Outcome, Report};

/// Peers that are kept apart; sessions with further ones count in the total alone.
const PEERS_MAX: usize = 256;

/// What sessions came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Sessions that ended, however they did.
    pub sessions: u64,
    /// Those of them that failed.
    pub sessions_failed: u64,
    /// States whose versions were taken over.
    pub states_pulled: u64,
    /// States whose versions peers took over.
    pub states_pushed: u64,
    /// Bytes of the versions that travelled, each whole and uncompressed.
    pub bytes_if_sent_whole: u64,
    /// Bytes that the sessions put into sockets.
    pub bytes_sent: u64,
    /// Bytes that they took out of sockets.
    pub bytes_received: u64,
    /// All bytes of the sessions divided by `bytes_if_sent_whole`; absent when nothing travelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

impl Tally {
    fn add(&mut self, report: &Report) {
        self.sessions += 1;
        self.sessions_failed += u64::from(report.outcome == Outcome::Failed);
        self.states_pulled += report.states_pulled;
        self.states_pushed += report.states_pushed;
        self.bytes_if_sent_whole += report.bytes_if_sent_whole;
        self.bytes_sent += report.bytes_sent;
        self.bytes_received += report.bytes_received;
        let all = (self.bytes_sent + self.bytes_received) as f64;
        let whole = self.bytes_if_sent_whole;
        self.ratio = (whole > 0).then(|| all / whole as f64);
    }
}

/// The sums.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tallies {
    /// Of all sessions.
    pub total: Tally,
    /// Of those with each peer, by its URL.
    pub peers: BTreeMap<String, Tally>,
}

impl Tallies {
    /// Adds a session that has ended.
    pub fn add(&mut self, url: &str, report: &Report) {
        self.total.add(report);
        if let Some(peer) = self.peers.get_mut(url) {
            peer.add(report);
        } else if self.peers.len() < PEERS_MAX {
            self.peers.entry(url.to_owned()).or_default().add(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sent: u64, whole: u64, outcome: Outcome) -> Report {
        let mut report = Report::begin(1, "a".to_owned(), "default".to_owned(), String::new());
        (report.bytes_sent, report.bytes_received) = (sent, sent / 2);
        (report.bytes_if_sent_whole, report.outcome) = (whole, outcome);
        report
    }

    #[test]
    fn sums_are_of_all_and_of_each_peer() {
        let mut tallies = Tallies::default();
        tallies.add("http://a", &report(100, 0, Outcome::Failed));
        assert_eq!(tallies.total.ratio, None);
        tallies.add("http://b", &report(200, 900, Outcome::Complete));
        tallies.add("http://a", &report(300, 0, Outcome::Complete));
        let total = tallies.total;
        assert_eq!((total.sessions, total.sessions_failed), (3, 1));
        assert_eq!((total.bytes_sent, total.bytes_received), (600, 300));
        assert_eq!(total.ratio, Some(1.0));
        assert_eq!(tallies.peers["http://a"].bytes_sent, 400);
        assert_eq!(tallies.peers["http://b"].ratio, Some(300.0 / 900.0));
        for peer in 0..2 * PEERS_MAX {
            tallies.add(&format!("http://{peer}"), &report(2, 0, Outcome::Complete));
        }
        assert_eq!(tallies.peers.len(), PEERS_MAX);
        assert_eq!(tallies.total.sessions, 3 + 2 * PEERS_MAX as u64);
    }
}
