//! Adds up what sync sessions sent, from the reports of the replicas that ran them.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// A session's report, as far as it matters here; docs/reference/http.md has all of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Session {
    /// Its number at the replica that ran it.
    pub session: u64,
    /// How differences were found.
    pub strategy: String,
    /// `running`, `complete` or `failed`.
    pub outcome: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// States taken over from the peer.
    pub states_pulled: u64,
    /// States that the peer took over.
    pub states_pushed: u64,
    /// Message bytes to the peer.
    pub bytes_sent: u64,
    /// Message bytes from the peer.
    pub bytes_received: u64,
    /// Bytes if each transferred version were sent whole.
    pub bytes_if_sent_whole: u64,
    /// From start to end, in seconds.
    pub seconds: f64,
    /// Whether both sides were proven to hold the same.
    pub equal: bool,
}

/// What sessions came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Sessions that moved at least one state.
    pub sessions: u64,
    /// States transferred.
    pub states: u64,
    /// Bytes at the socket both ways, HTTP headers included.
    pub bytes_on_the_wire: u64,
    /// Bytes of the transferred versions if each were sent whole.
    pub bytes_if_sent_whole: u64,
}

/// Which session is meant: the replica, how often it was started, the number it gave.
type SessionId = (&'static str, u32, u64);

/// Follows sessions from report to report.
#[derive(Debug, Default)]
pub struct Meter(BTreeMap<SessionId, Traffic>);

impl Session {
    /// What it came to so far.
    pub fn traffic(&self) -> Traffic {
        let states = self.states_pulled + self.states_pushed;
        Traffic {
            sessions: u64::from(states > 0),
            states,
            bytes_on_the_wire: self.bytes_sent + self.bytes_received,
            bytes_if_sent_whole: self.bytes_if_sent_whole,
        }
    }

    /// True until it has ended.
    pub fn is_running(&self) -> bool {
        self.outcome == "running"
    }
}

impl Traffic {
    /// Bytes on the wire divided by bytes if sent whole; `None` when nothing was transferred.
    pub fn ratio(&self) -> Option<f64> {
        let (wire, whole) = (self.bytes_on_the_wire, self.bytes_if_sent_whole);
        (whole > 0).then(|| wire as f64 / whole as f64)
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.sessions += more.sessions;
        self.states += more.states;
        self.bytes_on_the_wire += more.bytes_on_the_wire;
        self.bytes_if_sent_whole += more.bytes_if_sent_whole;
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        Self {
            sessions: self.sessions - less.sessions,
            states: self.states - less.states,
            bytes_on_the_wire: self.bytes_on_the_wire - less.bytes_on_the_wire,
            bytes_if_sent_whole: self.bytes_if_sent_whole - less.bytes_if_sent_whole,
        }
    }
}

impl Meter {
    /// Takes note of the sessions that a replica lists, in its `life`-th process.
    pub fn note(&mut self, replica: &'static str, life: u32, sessions: &[Session]) {
        for session in sessions {
            let id = (replica, life, session.session);
            self.0.insert(id, session.traffic());
        }
    }

    /// All sessions so far.
    pub fn total(&self) -> Traffic {
        let mut total = Traffic::default();
        for traffic in self.0.values() {
            total += *traffic;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u64, states: u64, bytes: u64) -> Session {
        Session {
            session: number,
            strategy: "merkle".into(),
            outcome: "running".into(),
            reason: None,
            states_pulled: states,
            states_pushed: 0,
            bytes_sent: bytes,
            bytes_received: 1,
            bytes_if_sent_whole: 100 * states,
            seconds: 0.1,
            equal: false,
        }
    }

    #[test]
    fn each_session_counts_once_with_its_newest_report() {
        let mut meter = Meter::default();
        meter.note("a", 1, &[session(1, 0, 10)]);
        meter.note("a", 1, &[session(2, 1, 20), session(1, 2, 30)]);
        meter.note("b", 1, &[session(1, 0, 5)]);
        let before = meter.total();
        let expected = Traffic {
            sessions: 2,
            states: 3,
            bytes_on_the_wire: 58,
            bytes_if_sent_whole: 300,
        };
        assert_eq!(before, expected);
        // A replica that was started again counts its sessions from 1 once more.
        meter.note("b", 2, &[session(1, 1, 7)]);
        let since = meter.total() - before;
        assert_eq!((since.states, since.bytes_on_the_wire), (1, 8));
        assert_eq!(since.ratio(), Some(0.08));
        assert_eq!(Traffic::default().ratio(), None);
    }
}
