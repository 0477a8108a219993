//! The jobs that look after a replica while it serves: backups and full checks.

use std::path::PathBuf;

use crate::backup::save::{SaveOptions, Source, save};
use crate::backup::watch::Watch;
use crate::replica::check::{Verified, check_while};
use crate::runtime::jobs::{Job, JobError, JobProgress, Steps};
use crate::runtime::replica::Replica;

/// Backs up all namespaces, as they are now, into a folder.
///
/// # Errors
/// [`JobError`] when the job could not be started.
pub fn start_backup(replica: &Replica, to: PathBuf, full: bool) -> Result<Job, JobError> {
    let options = SaveOptions {
        replica: replica.id(),
        now: replica.wall().now_millis(),
        full,
    };
    let open = replica.namespaces();
    let sources: Vec<Source> = open
        .iter()
        .map(|namespace| Source {
            namespace: namespace.name().clone(),
            view: namespace.view(),
        })
        .collect();
    let records = sources.iter().map(|source| source.view.head().root.leaves);
    let steps = Steps::of(records.sum(), "states");
    replica.jobs().start("backup", steps, move |progress| {
        let saved = save(&to, sources, options, progress);
        let saved = saved.map_err(|error| error.to_string())?;
        serde_json::to_value(saved).map_err(|error| error.to_string())
    })
}

/// Reads and compares everything in all namespaces, as they are now.
///
/// # Errors
/// [`JobError`] when the job could not be started.
pub fn start_verify(replica: &Replica) -> Result<Job, JobError> {
    let open = replica.namespaces();
    let views: Vec<_> = open
        .iter()
        .map(|namespace| (namespace.name().clone(), namespace.view()))
        .collect();
    let sizes = views.iter().map(|(_, view)| view.head().root.size);
    let steps = Steps::of(sizes.sum(), "bytes");
    replica.jobs().start("verify", steps, move |progress| {
        let mut verified = Verified::nothing();
        for (name, view) in views {
            let mut read = 0;
            let mut advance = |bytes: u64| {
                progress.advance(bytes.saturating_sub(read));
                read = bytes;
            };
            let go_on = || !progress.is_cancelled();
            let report = check_while(view.snapshot(), &mut advance, &go_on);
            let report = report.map_err(|error| error.to_string())?;
            verified.add(name, report.ok_or("stopped before everything was read")?);
        }
        serde_json::to_value(verified).map_err(|error| error.to_string())
    })
}

impl Watch for JobProgress {
    fn begin(&self, _doing: &'static str, total: u64, unit: &'static str) {
        self.begin(Steps::of(total, unit));
    }

    fn advance(&self, by: u64) {
        self.advance(by);
    }

    fn stopped(&self) -> bool {
        self.is_cancelled()
    }
}
