//! Running and recent sync sessions, for people and scripts to look at.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::runtime::lock::lock;
use crate::runtime::peering::PeeringError;
use crate::sync::report::{Outcome, Report};

/// Finished sessions that are remembered.
const RECENT: usize = 100;

/// The log. Sessions are numbered from 1 for each run of the process.
#[derive(Default)]
pub struct SessionLog {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    reports: VecDeque<Report>,
}

impl SessionLog {
    /// Numbers a new session and lists it as running.
    pub fn begin(&self, peer: String, namespace: String, root: String) -> Report {
        let mut inner = lock(&self.inner);
        inner.last += 1;
        let report = Report::begin(inner.last, peer, namespace, root);
        inner.reports.push_back(report.clone());
        while inner.reports.len() > RECENT {
            let finished = inner
                .reports
                .iter()
                .position(|report| report.outcome != Outcome::Running);
            inner.reports.remove(finished.unwrap_or(0));
        }
        report
    }

    /// Shows how far a session has come.
    pub fn update(&self, report: &Report) {
        let mut inner = lock(&self.inner);
        let mut listed = inner.reports.iter_mut();
        if let Some(listed) = listed.find(|listed| listed.session == report.session) {
            listed.clone_from(report);
        }
    }

    /// Closes the entry of a session that has ended. One that is still listed as running then has
    /// panicked: it would have said otherwise.
    pub fn end(&self, session: u64) {
        let mut inner = lock(&self.inner);
        let mut listed = inner.reports.iter_mut();
        if let Some(listed) = listed.find(|listed| listed.session == session)
            && listed.outcome == Outcome::Running
        {
            listed.outcome = Outcome::Failed;
            listed.reason = Some(PeeringError::Unexpected.to_string());
        }
    }

    /// All listed sessions, newest first.
    pub fn list(&self) -> Vec<Report> {
        lock(&self.inner).reports.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_ended_is_not_listed_as_running() {
        let log = SessionLog::default();
        let begin = || log.begin("peer".to_owned(), "default".to_owned(), String::new());
        let (panicked, mut complete) = (begin(), begin());
        complete.outcome = Outcome::Complete;
        log.update(&complete);
        log.end(panicked.session);
        log.end(complete.session);
        let listed = log.list();
        assert_eq!(listed[0], complete);
        assert_eq!(listed[1].outcome, Outcome::Failed);
        assert!(listed[1].reason.is_some());
    }
}
