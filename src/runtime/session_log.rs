//! Running and recent sync sessions, for people and scripts to look at.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::runtime::lock::lock;
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

    /// All listed sessions, newest first.
    pub fn list(&self) -> Vec<Report> {
        lock(&self.inner).reports.iter().rev().cloned().collect()
    }
}
