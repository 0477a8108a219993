//! The jobs that look after a replica while it serves: backups and full checks.

use std::path::PathBuf;

use serde::Serialize;

use crate::backup::save::{SaveOptions, Source, save};
use crate::backup::watch::Watch;
use crate::replica::check::check_while;
use crate::replica::findings::Verified;
use crate::runtime::jobs::{Job, JobError, JobProgress, Steps};
use crate::runtime::replica::Replica;
use crate::store::compaction::CompactionProgress;

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
        .into_iter()
        .map(|namespace| (namespace.view(), namespace))
        .collect();
    let sizes = views.iter().map(|(view, _)| view.head().root.size);
    let steps = Steps::of(sizes.sum(), "bytes");
    replica.jobs().start("verify", steps, move |progress| {
        let mut verified = Verified::nothing();
        for (view, namespace) in views {
            let mut read = 0;
            let mut advance = |bytes: u64| {
                progress.advance(bytes.saturating_sub(read));
                read = bytes;
            };
            let go_on = || !progress.is_cancelled();
            let report = check_while(view.snapshot(), namespace.name(), &mut advance, &go_on);
            let report = report.map_err(|error| error.to_string())?;
            let mut report = report.ok_or("stopped before everything was read")?;
            let is_right = namespace.is_sketch_right(&go_on);
            if is_right.map_err(|error| error.to_string())? == Some(false) {
                let detail = "it is not the sum of the states; start the replica again";
                report.fault("sketch", namespace.name(), &detail);
            }
            verified.add(namespace.name().clone(), report);
        }
        serde_json::to_value(verified).map_err(|error| error.to_string())
    })
}

/// Compacts the files of all namespaces, one after the other, while they serve.
///
/// # Errors
/// [`JobError`] when the job could not be started.
pub fn start_compact(replica: &Replica) -> Result<Job, JobError> {
    let open = replica.namespaces();
    replica
        .jobs()
        .start("compact", Steps::of(0, "rows"), move |progress| {
            let mut compacted = Vec::with_capacity(open.len());
            for namespace in open {
                if progress.is_cancelled() {
                    return Err("stopped before everything was compacted".to_owned());
                }
                let mut before = CompactionProgress::default();
                let ending = namespace.compact(&mut |now| {
                    if before.rows_total != now.rows_total {
                        progress.begin(Steps::of(now.rows_total, "rows"));
                    }
                    progress.advance(now.rows.saturating_sub(before.rows));
                    before = now;
                })?;
                compacted.push(Compacted {
                    namespace: namespace.name().to_string(),
                    rows: ending.rows,
                    bytes_before: ending.bytes_before,
                    bytes_after: ending.bytes_after,
                });
            }
            serde_json::to_value(compacted).map_err(|error| error.to_string())
        })
}

/// What a compaction came to; bytes are those that the disk has given to the file.
#[derive(Debug, Serialize)]
struct Compacted {
    namespace: String,
    rows: u64,
    bytes_before: u64,
    bytes_after: u64,
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
