//! What a sync session did, as users and scripts read it.

use serde::Serialize;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Still at work.
    Running,
    /// Everything asked for was done and verified.
    Complete,
    /// Given up; `reason` says why. What was verified before stays.
    Failed,
}

/// Bytes that went through a socket, each way: heads and framing of HTTP included, what TCP and IP
/// put around them not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Passed {
    /// Bytes to the other side.
    pub sent: u64,
    /// Bytes from there.
    pub received: u64,
}

impl Passed {
    /// What has passed since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
        }
    }
}

/// One phase of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PhaseReport {
    /// Name of the phase.
    pub phase: &'static str,
    /// Bytes to the peer, as they went through the socket.
    pub bytes_sent: u64,
    /// Bytes from the peer, as they came through the socket.
    pub bytes_received: u64,
    /// Requests that waited for their answer.
    pub round_trips: u32,
    /// Time spent, in seconds.
    pub seconds: f64,
}

/// A session's report; the JSON of `samestate sync --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Number of the session at this replica.
    pub session: u64,
    /// Replica id of the peer, or its URL before it is known.
    pub peer: String,
    /// The namespace.
    pub namespace: String,
    /// How differences were found.
    pub strategy: String,
    /// Why that way was chosen.
    pub why: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What each phase cost, in the order of first use.
    pub phases: Vec<PhaseReport>,
    /// States whose versions were taken over.
    pub states_pulled: u64,
    /// States whose versions the peer took over.
    pub states_pushed: u64,
    /// States among them that have conflicting versions now.
    pub conflicts: u64,
    /// Bytes to the peer, as they went through the socket.
    pub bytes_sent: u64,
    /// Bytes from the peer, as they came through the socket.
    pub bytes_received: u64,
    /// Bytes of the transferred versions if each were sent whole and uncompressed.
    pub bytes_if_sent_whole: u64,
    /// All bytes of the session divided by `bytes_if_sent_whole`; absent when nothing was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Time from start to end, in seconds.
    pub seconds: f64,
    /// Our root before.
    pub root_before: String,
    /// Our root afterwards.
    pub root_after: String,
    /// True when both replicas were proven to hold the same.
    pub equal: bool,
}

impl Report {
    /// A report of a session that has just begun.
    pub fn begin(session: u64, peer: String, namespace: String, root: String) -> Self {
        Self {
            session,
            peer,
            namespace,
            strategy: String::new(),
            why: String::new(),
            outcome: Outcome::Running,
            reason: None,
            phases: Vec::new(),
            states_pulled: 0,
            states_pushed: 0,
            conflicts: 0,
            bytes_sent: 0,
            bytes_received: 0,
            bytes_if_sent_whole: 0,
            ratio: None,
            seconds: 0.0,
            root_before: root.clone(),
            root_after: root,
            equal: false,
        }
    }

    /// Accounts for one request and its answer.
    pub fn count(&mut self, phase: &'static str, passed: Passed, seconds: f64) {
        let Passed { sent, received } = passed;
        self.bytes_sent += sent;
        self.bytes_received += received;
        let known = self.phases.iter_mut().find(|known| known.phase == phase);
        if let Some(known) = known {
            known.bytes_sent += sent;
            known.bytes_received += received;
            known.round_trips += 1;
            known.seconds += seconds;
        } else {
            self.phases.push(PhaseReport {
                phase,
                bytes_sent: sent,
                bytes_received: received,
                round_trips: 1,
                seconds,
            });
        }
    }

    /// Puts in what follows from the rest.
    pub fn finish(&mut self, seconds: f64) {
        self.seconds = seconds;
        let whole = self.bytes_if_sent_whole;
        let all = (self.bytes_sent + self.bytes_received) as f64;
        self.ratio = (whole > 0).then(|| all / whole as f64);
    }
}
