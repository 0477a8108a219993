//! One peer and one namespace, kept in sync for as long as the link lives.
//!
//! The link pulls whenever the peer's change feed moves, pushes whenever our own contents change
//! in a way the peer has not fetched by itself, and now and then runs a session anyway, which
//! proves equality by the roots.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::clock::rfc3339;
use crate::peer::address::PeerAddress;
use crate::peer::runner::{Job, Ran, Runner};
use crate::replica::view::View;
use crate::runtime::lock::lock;
use crate::runtime::namespace::OpenNamespace;
use crate::sync::exchange::SessionError;
use crate::sync::transport::TransportError;
use crate::types::cursor::Cursor;
use crate::types::hash::NodeHash;
use crate::types::id::ReplicaId;

/// First pause after a failure, and before a peer that told us nothing of use is listened to again;
/// it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A poll for changes that ends sooner than this without any was not held open, as it should be.
const POLL_MIN: Duration = Duration::from_secs(1);
/// A session at least this often, whatever the feeds say.
const ANTI_ENTROPY: Duration = Duration::from_secs(60);
/// A peer that follows our feed and opened a session here this recently fetches our changes by
/// itself, and is given time to do so before they are pushed.
const FETCHES_ITSELF: Duration = Duration::from_secs(90);
const FETCH_GRACE: Duration = Duration::from_secs(1);

/// How a link fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// No session has ended yet.
    #[default]
    Connecting,
    /// The last session succeeded.
    Healthy,
    /// The peer answered, but the last session failed.
    Failing,
    /// The peer could not be reached.
    Unreachable,
}

/// What is known of a link, for people to look at.
#[derive(Debug, Clone, Default)]
pub struct LinkState {
    /// The peer's replica id, once it has answered.
    pub replica: Option<ReplicaId>,
    /// How the last session went.
    pub health: Health,
    /// Changes of the peer that the last session saw and did not take over.
    pub lag: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When a session last succeeded, RFC 3339.
    pub last_synced: Option<String>,
    /// What is held against it about its log of roots.
    pub accused: Vec<&'static str>,
}

/// Keeps one namespace in sync with one peer.
#[derive(Clone)]
pub struct Link {
    /// Runs its sessions.
    pub runner: Arc<Runner>,
    /// Where the peer answers.
    pub address: PeerAddress,
    /// What is kept in sync.
    pub namespace: Arc<OpenNamespace>,
    /// What is told of it.
    pub state: Arc<Mutex<LinkState>>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// Why a link runs its next session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    TheyChanged,
    WeChanged,
    Time,
    Failure,
    Stop,
}

impl Link {
    /// Keeps the two in sync until the link is stopped.
    pub async fn run(self) {
        let mut pause = Pause(PAUSE_MIN);
        let mut before = None;
        let mut wake = Wake::Time;
        let mut views = self.namespace.subscribe();
        let mut push = true;
        // What is known of the peer is remembered from one session to the next.
        let _meeting = self.runner.meeting(&self.address, self.namespace.name());
        loop {
            views.mark_unchanged();
            let job = Job {
                pull: true,
                push,
                strategy: None,
                follows: true,
            };
            let name = self.namespace.name();
            let ran = tokio::select! {
                () = self.stop.cancelled() => return,
                ran = self.runner.sync(&self.address, name, job, &self.stop) => ran,
            };
            let settled = match ran {
                Ok(ran) => self.note(&ran),
                Err(error) => {
                    self.note_error(Health::Failing, error.to_string());
                    None
                }
            };
            wake = match settled {
                Some(settled) => {
                    let moved = settled.pulled || before != Some(settled.cursor);
                    let in_vain = wake == Wake::TheyChanged && !moved;
                    if !in_vain {
                        pause.reset();
                    }
                    before = Some(settled.cursor);
                    self.wait(&mut views, &settled, in_vain, &mut pause).await
                }
                None => self.pause(&mut pause).await,
            };
            debug!(peer = %self.address, ?wake, "link wakes");
            if wake == Wake::Stop {
                return;
            }
            push = wake != Wake::TheyChanged;
        }
    }

    async fn pause(&self, pause: &mut Pause) -> Wake {
        tokio::select! {
            () = self.stop.cancelled() => Wake::Stop,
            () = pause.sleep() => Wake::Failure,
        }
    }

    /// Waits for a reason to run the next session. A peer that called for the last one `in_vain`
    /// is not listened to for a while.
    async fn wait(
        &self,
        views: &mut watch::Receiver<Arc<View>>,
        settled: &Settled,
        in_vain: bool,
        pause: &mut Pause,
    ) -> Wake {
        let until = Instant::now() + ANTI_ENTROPY;
        let client = self
            .runner
            .client(&self.address, &self.namespace, &self.stop);
        let they_change = async {
            if in_vain {
                pause.sleep().await;
            }
            loop {
                let asked = Instant::now();
                match client.wait_for_change(&settled.cursor).await {
                    Ok(true) => return Wake::TheyChanged,
                    Ok(false) if asked.elapsed() < POLL_MIN => pause.sleep().await,
                    Ok(false) => {}
                    // The session that follows finds out what is wrong, and counts it.
                    Err(_) => {
                        sleep(PAUSE_MIN).await;
                        return Wake::TheyChanged;
                    }
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => Wake::Stop,
            () = sleep_until(until) => Wake::Time,
            wake = they_change => wake,
            () = self.we_change(views, settled) => Wake::WeChanged,
        }
    }

    /// Ends when we hold something that the peer has neither been seen with nor fetches itself.
    async fn we_change(&self, views: &mut watch::Receiver<Arc<View>>, settled: &Settled) {
        loop {
            let ours = views.borrow_and_update().head().root.hash;
            if settled.equal_root != Some(ours) {
                let fetches = self
                    .namespace
                    .pins()
                    .heard_within(settled.replica, FETCHES_ITSELF);
                if !fetches {
                    return;
                }
                sleep(FETCH_GRACE).await;
                let now = self.namespace.view().head().root.hash;
                if self.namespace.pins().fetched(settled.replica) != Some(now) {
                    return;
                }
            }
            if views.changed().await.is_err() {
                // The namespace is closing; the link is stopped with it.
                return std::future::pending().await;
            }
        }
    }

    /// Writes down how a session went. `None` when it failed.
    fn note(&self, ran: &Ran) -> Option<Settled> {
        let report = &ran.report;
        let seen = match &ran.result {
            Ok(seen) => seen,
            Err(error) => {
                self.note_error(health_after(error), error.to_string());
                return None;
            }
        };
        let agreement = self.namespace.agreement(seen.replica);
        let agreement = agreement
            .inspect_err(|error| self.note_error(Health::Failing, error.to_string()))
            .ok()??;
        let mut state = lock(&self.state);
        state.replica = Some(seen.replica);
        state.health = Health::Healthy;
        state.lag = seen.seq.saturating_sub(agreement.their_seq);
        state.last_error = None;
        state.last_synced = Some(rfc3339(self.runner.replica().wall().now_millis()));
        drop(state);
        Some(Settled {
            replica: seen.replica,
            cursor: Cursor {
                epoch: agreement.their_epoch,
                seq: agreement.their_seq,
            },
            pulled: report.states_pulled > 0,
            equal_root: seen.equal_root,
        })
    }

    fn note_error(&self, health: Health, error: String) {
        let mut state = lock(&self.state);
        state.health = health;
        state.last_error = Some(error);
    }
}

fn health_after(error: &SessionError) -> Health {
    match error {
        SessionError::Transport(TransportError::Unreachable(_)) => Health::Unreachable,
        _ => Health::Failing,
    }
}

/// Where a session left the two.
struct Settled {
    replica: ReplicaId,
    cursor: Cursor,
    /// True when it gave us something.
    pulled: bool,
    /// Our root, when the peer was proven to have the same.
    equal_root: Option<NodeHash>,
}

/// A pause that grows each time it is made.
struct Pause(Duration);

impl Pause {
    async fn sleep(&mut self) {
        let now = self.0;
        self.0 = (now * 2).min(PAUSE_MAX);
        sleep(now).await;
    }

    fn reset(&mut self) {
        self.0 = PAUSE_MIN;
    }
}
