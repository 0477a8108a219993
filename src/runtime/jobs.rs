//! Long work that a user asked for and does not wait for: backups, checks and the like. Each runs on
//! a thread of its own, shows how far it is, and is told to stop when the replica stops.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tracing::{error, info};

use crate::clock::{WallClock, rfc3339};
use crate::runtime::lock::lock;

/// Jobs that are remembered.
const RECENT: usize = 100;

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Steps {
    /// What is done.
    pub done: u64,
    /// What there is to do, as far as that is known.
    pub total: u64,
    /// Of what: `states`, `bytes`.
    pub unit: &'static str,
}

impl Steps {
    /// Nothing of `total` is done.
    pub fn of(total: u64, unit: &'static str) -> Self {
        Self {
            done: 0,
            total,
            unit,
        }
    }
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It is not done yet.
    Running,
    /// It has a result.
    Done,
    /// It has an error.
    Failed,
}

/// A job as users see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Counted from 1 for each run of the process.
    pub id: u64,
    /// What it does: `backup`, `verify`.
    pub kind: &'static str,
    /// How it stands.
    pub state: JobState,
    /// How far it is.
    pub progress: Steps,
    /// When it was started, RFC 3339.
    pub started: String,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// What it came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a job was not started.
#[derive(Debug, Error)]
pub enum JobError {
    /// One at a time of each kind.
    #[error("a job of this kind is running already; follow it at /v1/admin/jobs/{0}")]
    Running(u64),
    /// The replica is stopping.
    #[error("the replica is shutting down")]
    ShuttingDown,
    /// No thread for it.
    #[error("the system gives no thread for the job: {0}")]
    NoThread(std::io::Error),
}

#[derive(Default)]
struct Inner {
    last: u64,
    jobs: VecDeque<Job>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Wakes who waits for jobs to end.
    ended: Condvar,
    stopping: AtomicBool,
    wall: Arc<dyn WallClock>,
}

/// Running and recent jobs of a replica.
pub struct Jobs(Arc<Shared>);

/// What a job's work has in hand.
pub struct JobProgress {
    shared: Arc<Shared>,
    id: u64,
}

impl Jobs {
    /// None yet.
    pub fn new(wall: Arc<dyn WallClock>) -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::default(),
            ended: Condvar::new(),
            stopping: AtomicBool::new(false),
            wall,
        }))
    }

    /// Starts work on a thread of its own. What it returns becomes the job's result or error; work
    /// that takes long looks at [`JobProgress::is_cancelled`] now and then.
    ///
    /// # Errors
    /// [`JobError`] when one of this kind is running, or the replica stops.
    pub fn start(
        &self,
        kind: &'static str,
        steps: Steps,
        work: impl FnOnce(&JobProgress) -> Result<Value, String> + Send + 'static,
    ) -> Result<Job, JobError> {
        let shared = &self.0;
        let mut inner = lock(&shared.inner);
        if shared.stopping.load(Ordering::Relaxed) {
            return Err(JobError::ShuttingDown);
        }
        let mut running = inner.jobs.iter();
        if let Some(job) = running.find(|job| job.kind == kind && job.state == JobState::Running) {
            return Err(JobError::Running(job.id));
        }
        let job = Job {
            id: inner.last + 1,
            kind,
            state: JobState::Running,
            progress: steps,
            started: rfc3339(shared.wall.now_millis()),
            finished: None,
            result: None,
            error: None,
        };
        let progress = JobProgress {
            shared: Arc::clone(shared),
            id: job.id,
        };
        std::thread::Builder::new()
            .name(format!("job-{kind}"))
            .spawn(move || progress.run(work))
            .map_err(JobError::NoThread)?;
        info!(id = job.id, kind, "job started");
        inner.last = job.id;
        inner.jobs.push_back(job.clone());
        while inner.jobs.len() > RECENT {
            let is_over = |job: &Job| job.state != JobState::Running;
            let Some(oldest) = inner.jobs.iter().position(is_over) else {
                break;
            };
            inner.jobs.remove(oldest);
        }
        Ok(job)
    }

    /// A job that is running or remembered.
    pub fn get(&self, id: u64) -> Option<Job> {
        let inner = lock(&self.0.inner);
        inner.jobs.iter().find(|job| job.id == id).cloned()
    }

    /// All of them, newest first.
    pub fn list(&self) -> Vec<Job> {
        lock(&self.0.inner).jobs.iter().rev().cloned().collect()
    }

    /// Starts no more jobs, tells the running ones to stop, and waits until they have.
    pub fn stop(&self) {
        let shared = &self.0;
        let inner = lock(&shared.inner);
        shared.stopping.store(true, Ordering::Relaxed);
        let any_runs = |inner: &mut Inner| {
            let mut jobs = inner.jobs.iter();
            jobs.any(|job| job.state == JobState::Running)
        };
        let waited = shared.ended.wait_while(inner, any_runs);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl JobProgress {
    /// A new step begins.
    pub fn begin(&self, steps: Steps) {
        self.update(|job| job.progress = steps);
    }

    /// So much more of the step is done.
    pub fn advance(&self, by: u64) {
        self.update(|job| job.progress.done = job.progress.done.saturating_add(by));
    }

    /// True when the replica stops and the job is to end without a result.
    pub fn is_cancelled(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    fn run(&self, work: impl FnOnce(&Self) -> Result<Value, String>) {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(self)));
        let outcome = outcome.unwrap_or_else(|_| {
            Err("the job failed unexpectedly; the replica's log says more".into())
        });
        let finished = rfc3339(self.shared.wall.now_millis());
        match &outcome {
            Ok(_) => info!(id = self.id, "job done"),
            Err(what) => error!(id = self.id, what, "job failed"),
        }
        self.update(|job| {
            job.finished = Some(finished);
            match outcome {
                Ok(result) => {
                    job.state = JobState::Done;
                    // What turned out not to be needed is done too.
                    job.progress.done = job.progress.total;
                    job.result = Some(result);
                }
                Err(what) => {
                    job.state = JobState::Failed;
                    job.error = Some(what);
                }
            }
        });
        self.shared.ended.notify_all();
    }

    fn update(&self, change: impl FnOnce(&mut Job)) {
        let mut inner = lock(&self.shared.inner);
        if let Some(job) = inner.jobs.iter_mut().rev().find(|job| job.id == self.id) {
            change(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::clock::SystemClock;

    fn jobs() -> Jobs {
        Jobs::new(Arc::new(SystemClock))
    }

    /// Waits until a job is over.
    fn over(jobs: &Jobs, id: u64) -> Job {
        loop {
            let job = jobs.get(id).unwrap();
            if job.state != JobState::Running {
                return job;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_job_shows_how_far_it_is_and_what_it_came_to() {
        let jobs = jobs();
        let (go_on, told) = channel::<()>();
        let (at_half, half) = channel();
        let work = move |progress: &JobProgress| {
            progress.advance(5);
            at_half.send(()).unwrap();
            told.recv().unwrap();
            progress.begin(Steps::of(3, "bytes"));
            Ok(Value::from("done"))
        };
        let started = jobs.start("backup", Steps::of(10, "states"), work).unwrap();
        half.recv().unwrap();
        let job = jobs.get(started.id).unwrap();
        assert_eq!((job.state, job.progress.done), (JobState::Running, 5));
        let again = jobs.start("backup", Steps::of(1, "states"), |_| Ok(Value::Null));
        assert!(matches!(again, Err(JobError::Running(id)) if id == started.id));
        let other = jobs.start("verify", Steps::of(1, "states"), |_| Err("no".into()));
        let other = over(&jobs, other.unwrap().id);
        assert_eq!(
            (other.state, other.error.as_deref()),
            (JobState::Failed, Some("no"))
        );
        go_on.send(()).unwrap();
        let job = over(&jobs, started.id);
        assert_eq!(
            (job.state, job.result),
            (JobState::Done, Some("done".into()))
        );
        let all = Steps {
            done: 3,
            ..Steps::of(3, "bytes")
        };
        assert_eq!(job.progress, all);
        assert!(job.finished.is_some());
        assert!(
            jobs.start("backup", Steps::of(1, "states"), |_| Ok(Value::Null))
                .is_ok()
        );
    }

    #[test]
    fn a_job_that_panics_has_failed() {
        let jobs = jobs();
        let job = jobs.start("backup", Steps::of(1, "states"), |_| panic!("on purpose"));
        let job = over(&jobs, job.unwrap().id);
        assert_eq!(job.state, JobState::Failed);
        assert!(job.error.unwrap().contains("log"));
    }

    #[test]
    fn stopping_cancels_and_waits() {
        let jobs = jobs();
        let work = |progress: &JobProgress| {
            while !progress.is_cancelled() {
                std::thread::yield_now();
            }
            Err("stopped".into())
        };
        let job = jobs.start("backup", Steps::of(1, "states"), work).unwrap();
        jobs.stop();
        assert_eq!(jobs.get(job.id).unwrap().state, JobState::Failed);
        let late = jobs.start("verify", Steps::of(1, "states"), |_| Ok(Value::Null));
        assert!(matches!(late, Err(JobError::ShuttingDown)));
    }

    #[test]
    fn the_list_is_bounded_and_newest_first() {
        let jobs = jobs();
        for _ in 0..RECENT + 5 {
            let job = jobs.start("backup", Steps::of(1, "states"), |_| Ok(Value::Null));
            over(&jobs, job.unwrap().id);
        }
        let ids: Vec<u64> = jobs.list().iter().map(|job| job.id).collect();
        let newest = RECENT as u64 + 5;
        assert_eq!(ids, (6..=newest).rev().collect::<Vec<_>>());
        assert!(jobs.get(1).is_none());
    }
}
