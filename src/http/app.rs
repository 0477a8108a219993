//! What all handlers share.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::http::budget::Budget;
use crate::http::problem::Problem;
use crate::http::requests::Requests;
use crate::replica::command::Command;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::peering::Peering;
use crate::runtime::queue::{Committed, SubmitError};
use crate::runtime::replica::Replica;

/// Answers to other replicas that are made at once; more wait.
const ANSWERS: usize = 8;

/// How the HTTP face protects itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpOptions {
    /// Bytes of request bodies, and separately of response bodies, held in memory at once.
    pub in_flight_bytes: u64,
    /// How long a request waits for its share of those bytes before it is turned away.
    pub admission: Duration,
    /// How long a client may pause while it sends or takes a body.
    pub idle: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            in_flight_bytes: 256 << 20,
            admission: Duration::from_secs(10),
            idle: Duration::from_secs(30),
        }
    }
}

/// The state of the router. A clone, of which each request takes several, costs a counter.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// What all requests share.
pub struct Shared {
    /// The open replica.
    pub replica: Arc<Replica>,
    /// Its links to peers.
    pub peering: Arc<dyn Peering>,
    /// Ends requests that wait for something when the server stops.
    pub shutdown: CancellationToken,
    /// How many requests were answered.
    pub requests: Requests,
    /// Bytes of request bodies.
    pub uploads: Budget,
    /// Bytes of response bodies.
    pub downloads: Budget,
    /// Places for answers to other replicas that are made at once.
    answers: Arc<Semaphore>,
    /// How long a request waits for one.
    admission: Duration,
    /// How long a client may pause while it sends or takes a body.
    pub idle: Duration,
    /// Folders that backups may go to, and those below them; without any, none may.
    pub backup_dirs: Vec<PathBuf>,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// The state for an open replica.
    pub fn new(
        replica: Arc<Replica>,
        peering: Arc<dyn Peering>,
        options: HttpOptions,
        backup_dirs: Vec<PathBuf>,
        shutdown: CancellationToken,
    ) -> Self {
        let budget = || Budget::new(options.in_flight_bytes, options.admission);
        Self(Arc::new(Shared {
            replica,
            peering,
            shutdown,
            requests: Requests::default(),
            uploads: budget(),
            downloads: budget(),
            answers: Arc::new(Semaphore::new(ANSWERS)),
            admission: options.admission,
            idle: options.idle,
            backup_dirs,
        }))
    }

    /// Waits for a place among the answers to other replicas that are made at once.
    ///
    /// # Errors
    /// [`Problem`] `overloaded` when there was none in time.
    pub async fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.answers).acquire_owned();
        match timeout(self.admission, place).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Problem::overloaded()),
        }
    }
}

/// Runs a command. What is `held` for it, such as the share of memory of its bytes, is dropped when it is
/// done, even when the client hangs up.
///
/// # Errors
/// [`SubmitError`] when the command was not carried out.
pub async fn commit(
    namespace: Arc<OpenNamespace>,
    command: Command,
    held: impl Send + 'static,
) -> Result<Committed, SubmitError> {
    let held = Some(Box::new(held) as Box<dyn Send>);
    namespace.submit_holding(command, held).await
}

/// Runs work that takes the processor for long, or blocks, where it holds up no other request.
///
/// # Errors
/// What `work` returns; [`Problem::unexpected`] when it panicked.
pub async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Problem> + Send + 'static,
) -> Result<R, Problem> {
    let done = task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Problem::unexpected()))
}

/// As [`blocking`]. What is `held` goes with the work and comes back with it: a client that hangs up
/// does not make room for the next request while the work goes on.
///
/// # Errors
/// As [`blocking`].
pub async fn blocking_holding<R: Send + 'static, H: Send + 'static>(
    held: H,
    work: impl FnOnce() -> Result<R, Problem> + Send + 'static,
) -> Result<(R, H), Problem> {
    blocking(move || {
        let done = work();
        done.map(|done| (done, held))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_keeps_its_share_when_nobody_waits_for_it_any_more() {
        let budget = Budget::new(1 << 20, Duration::ZERO);
        let share = budget.reserve(256 << 10).await.unwrap();
        assert!(budget.try_reserve(256 << 10).is_none(), "all of it");
        let (begun, mut has_begun) = tokio::sync::mpsc::channel(1);
        let (go, wait) = mpsc::channel::<()>();
        let work = blocking_holding(share, move || {
            begun.blocking_send(()).unwrap();
            wait.recv().unwrap();
            Ok(())
        });
        tokio::select! {
            _ = work => panic!("the work goes on"),
            begun = has_begun.recv() => begun.unwrap(),
        }
        assert!(
            budget.try_reserve(256 << 10).is_none(),
            "given back too early"
        );
        go.send(()).unwrap();
        while budget.try_reserve(256 << 10).is_none() {
            task::yield_now().await;
        }
    }
}
