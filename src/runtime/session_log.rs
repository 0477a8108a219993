//! Running and recent sync sessions, and what all of them came to, for people and scripts to look at.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::runtime::lock::lock;
use crate::runtime::peering::PeeringError;
use crate::runtime::tallies::Tallies;
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
    listed: VecDeque<Listed>,
    tallies: Tallies,
}

struct Listed {
    /// The peer's URL; the report names it by its id, once that is known.
    url: String,
    report: Report,
}

impl SessionLog {
    /// Numbers a new session and lists it as running.
    pub fn begin(&self, url: String, namespace: String, root: String) -> Report {
        let mut inner = lock(&self.inner);
        inner.last += 1;
        let report = Report::begin(inner.last, url.clone(), namespace, root);
        inner.listed.push_back(Listed {
            url,
            report: report.clone(),
        });
        while inner.listed.len() > RECENT {
            let finished = inner
                .listed
                .iter()
                .position(|listed| listed.report.outcome != Outcome::Running);
            inner.listed.remove(finished.unwrap_or(0));
        }
        report
    }

    /// Shows how far a session has come. Once it has ended, what it came to is added to the sums.
    pub fn update(&self, report: &Report) {
        lock(&self.inner).update(report.session, |listed| listed.clone_from(report));
    }

    /// Closes the entry of a session that has ended. One that is still listed as running then has
    /// panicked: it would have said otherwise.
    pub fn end(&self, session: u64) {
        lock(&self.inner).update(session, |listed| {
            if listed.outcome == Outcome::Running {
                listed.outcome = Outcome::Failed;
                listed.reason = Some(PeeringError::Unexpected.to_string());
            }
        });
    }

    /// All listed sessions, newest first.
    pub fn list(&self) -> Vec<Report> {
        let inner = lock(&self.inner);
        let newest_first = inner.listed.iter().rev();
        newest_first.map(|listed| listed.report.clone()).collect()
    }

    /// What the sessions that have ended came to.
    pub fn tallies(&self) -> Tallies {
        lock(&self.inner).tallies.clone()
    }
}

impl Inner {
    fn update(&mut self, session: u64, change: impl FnOnce(&mut Report)) {
        let mut all = self.listed.iter_mut();
        let Some(listed) = all.find(|listed| listed.report.session == session) else {
            return;
        };
        let was_running = listed.report.outcome == Outcome::Running;
        change(&mut listed.report);
        if was_running && listed.report.outcome != Outcome::Running {
            self.tallies.add(&listed.url, &listed.report);
        }
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
        "0123456789abcdef".clone_into(&mut complete.peer);
        log.update(&complete);
        log.end(panicked.session);
        log.end(complete.session);
        let listed = log.list();
        assert_eq!(listed[0], complete);
        assert_eq!(listed[1].outcome, Outcome::Failed);
        assert!(listed[1].reason.is_some());
    }

    #[test]
    fn a_session_counts_once_when_it_has_ended_and_under_the_url() {
        let log = SessionLog::default();
        let mut report = log.begin("http://a".to_owned(), "default".to_owned(), String::new());
        report.bytes_sent = 7;
        log.update(&report);
        assert_eq!(log.tallies(), Tallies::default());
        report.outcome = Outcome::Complete;
        "0123456789abcdef".clone_into(&mut report.peer);
        log.update(&report);
        log.update(&report);
        log.end(report.session);
        let tallies = log.tallies();
        assert_eq!((tallies.total.sessions, tallies.total.bytes_sent), (1, 7));
        assert_eq!(tallies.peers["http://a"], tallies.total);
    }
}
