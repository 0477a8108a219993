//! Runs sessions: one at a time for each peer and namespace, on a thread that may block, with
//! penalties for peers that misbehave.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::peer::address::PeerAddress;
use crate::peer::client::{BlockingClient, PeerClient};
use crate::peer::connections::Connections;
use crate::peer::heard::Heard;
use crate::peer::home::LocalHome;
use crate::peer::penalty::Penalty;
use crate::peer::places::{Noted, Place, Places};
use crate::peer::remembered::Remembered;
use crate::reconcile::strategy::{StrategyName, Tuning};
use crate::runtime::lock::lock;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::peering::PeeringError;
use crate::runtime::replica::Replica;
use crate::store::body::Body;
use crate::sync::compare::CompareOptions;
use crate::sync::contents::Lacking;
use crate::sync::diff::{Differing, diff};
use crate::sync::exchange::SessionError;
use crate::sync::fetch_chunks::fetch_lacking;
use crate::sync::report::{Passed, Report};
use crate::sync::session::{Last, PeerSeen, SessionOptions, run};
use crate::sync::transport::Transport;
use crate::types::id::Namespace;

/// How long a user's session waits for a running one with the same peer.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);
/// Addresses that are remembered for what is held against them; with more, those are forgotten that
/// little is held against.
const REMEMBERED: usize = 1024;

/// What one session is to do.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Take over what the peer has.
    pub pull: bool,
    /// Give the peer what we have.
    pub push: bool,
    /// How to find differences; `None` lets the planner choose.
    pub strategy: Option<StrategyName>,
    /// True for sessions of a link, which follows the peer's change feed.
    pub follows: bool,
}

/// What a session came to.
#[derive(Debug)]
pub struct Ran {
    /// Its report.
    pub report: Report,
    /// Who answered, or why it failed.
    pub result: Result<PeerSeen, SessionError>,
}

/// Held by the session that runs.
type Turn = tokio::sync::Mutex<Met>;

/// Keeps in mind what is known of a peer from sessions in a namespace.
#[must_use]
pub struct Meeting(Arc<Turn>);

/// What is known of a peer from sessions in this process.
#[derive(Debug, Clone, Copy, Default)]
struct Met {
    /// True when one has come to its end.
    before: bool,
    /// What the peer said in the newest one, if both were equal from its beginning.
    last: Option<Last>,
}

#[derive(Default)]
struct Known {
    turns: Remembered<(PeerAddress, Namespace), Arc<Turn>>,
    penalties: HashMap<PeerAddress, Penalty>,
}

/// Runs sessions for a replica.
pub struct Runner {
    replica: Arc<Replica>,
    connections: Connections,
    tuning: Tuning,
    shutdown: CancellationToken,
    known: Arc<Mutex<Known>>,
    places: Places,
    heard: Heard,
}

impl Runner {
    /// A runner whose sessions break off at `shutdown`.
    pub fn new(replica: Arc<Replica>, tuning: Tuning, shutdown: CancellationToken) -> Self {
        let all = Arc::clone(&replica.traffic().asked);
        Self {
            connections: Connections::new(all),
            replica,
            tuning,
            shutdown,
            known: Arc::default(),
            places: Places::default(),
            heard: Heard::default(),
        }
    }

    /// What peers have seen of each other's logs of roots.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// What has passed between this replica and a peer, through connections that were opened here:
    /// sessions, and whatever else there was to ask.
    pub fn passed(&self, address: &PeerAddress) -> Passed {
        self.connections.passed(&address.to_string())
    }

    /// Counts a misbehaviour of a peer.
    pub fn penalize(&self, address: &PeerAddress) {
        lock(&self.known).penalize(address.clone());
    }

    /// The replica that the sessions work for.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// The token that breaks everything off.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// A client for a namespace of a peer, which breaks off at `stop` and when the namespace closes.
    pub fn client(
        &self,
        address: &PeerAddress,
        open: &OpenNamespace,
        stop: &CancellationToken,
    ) -> PeerClient {
        let stops = [stop.clone(), open.closed()];
        PeerClient::new(
            self.connections.clone(),
            address.clone(),
            open.name().clone(),
            stops,
        )
    }

    /// Points held against a peer, and how long it is banned for.
    pub fn penalty(&self, address: &PeerAddress) -> (f64, Option<Duration>) {
        let now = Instant::now();
        let known = lock(&self.known);
        let penalty = known.penalties.get(address);
        penalty.map_or((0.0, None), |penalty| {
            (penalty.points(now), penalty.banned_for(now))
        })
    }

    /// Runs a session to its end, which `stop` hastens. A session that fails is an `Ok` report that
    /// says so.
    ///
    /// # Errors
    /// [`PeeringError`] when it could not even begin.
    pub async fn sync(
        &self,
        address: &PeerAddress,
        namespace: &Namespace,
        job: Job,
        stop: &CancellationToken,
    ) -> Result<Ran, PeeringError> {
        let turn = self.turn(address, namespace).await?;
        let place = self.place(address, job.follows).await?;
        let (open, root) = self.open(namespace)?;
        let sessions = self.replica.sessions();
        let mut report = sessions.begin(address.to_string(), namespace.to_string(), root);
        let options = SessionOptions {
            pull: job.pull,
            push: job.push,
            follows: job.follows,
            last: turn.last,
            compare: self.compare_options(job.strategy, *turn),
            limits: *self.replica.limits(),
        };
        let client = self.client(address, &open, stop);
        let home = LocalHome::new(Arc::clone(&self.replica), open);
        let listed = Listed {
            replica: Arc::clone(&self.replica),
            session: report.session,
        };
        let peer = address.clone();
        let session = self.session(client, address, (turn, place), move |transport, met| {
            let _listed = listed;
            let result = run(transport, &home, &options, &mut report);
            met.last = result.as_ref().ok().and_then(|seen| seen.last);
            log(&peer, &report, result.as_ref().err());
            (report, result)
        });
        let (report, result) = session.await?;
        Ok(Ran { report, result })
    }

    /// Finds what differs from a peer.
    ///
    /// # Errors
    /// [`PeeringError`] when there is no result.
    pub async fn diff(
        &self,
        address: &PeerAddress,
        namespace: &Namespace,
        strategy: Option<StrategyName>,
    ) -> Result<(Report, Vec<Differing>), PeeringError> {
        let turn = self.turn(address, namespace).await?;
        let place = self.place(address, false).await?;
        let (open, root) = self.open(namespace)?;
        let mut report = Report::begin(0, address.to_string(), namespace.to_string(), root);
        let (options, limits) = (
            self.compare_options(strategy, *turn),
            *self.replica.limits(),
        );
        let client = self.client(address, &open, &self.shutdown);
        let home = LocalHome::new(Arc::clone(&self.replica), open);
        let session = self.session(client, address, (turn, place), move |transport, _| {
            let result = diff(transport, &home, &options, &limits, &mut report);
            (report, result)
        });
        let (report, result) = session.await?;
        let differing = result.map_err(|error| PeeringError::Failed(error.to_string()))?;
        Ok((report, differing))
    }

    /// Asks a peer for bytes by their hash.
    ///
    /// # Errors
    /// [`PeeringError`] when it cannot be asked, or answers with other bytes; that counts against it.
    pub async fn contents(
        &self,
        address: &PeerAddress,
        open: &Arc<OpenNamespace>,
        lacking: Vec<Lacking>,
    ) -> Result<Vec<Option<Body>>, PeeringError> {
        if let (_, Some(banned)) = self.penalty(address) {
            return Err(PeeringError::Banned(banned.as_secs() + 1));
        }
        let mut place = self.place(address, false).await?;
        let client = self.client(address, open, &self.shutdown);
        let mut transport = BlockingClient::new(client, Handle::current());
        let (known, address) = (Arc::clone(&self.known), address.clone());
        let (limits, open) = (*self.replica.limits(), Arc::clone(open));
        let asked = task::spawn_blocking(move || {
            let (source, mut transport) =
                (address.to_string(), Noted::new(&mut transport, &mut place));
            let fetched = fetch_lacking(&mut transport, &*open, &source, &lacking, &limits);
            fetched.map_err(|error| {
                if error.is_misbehaviour() {
                    warn!(peer = %address, %error, "refused what a peer sent for lost bytes");
                    lock(&known).penalize(address);
                }
                PeeringError::Failed(error.to_string())
            })
        });
        asked.await.map_err(|_| PeeringError::Unexpected)?
    }

    /// Runs a session on a thread, and counts what the peer does wrong there. Whoever asked may
    /// hang up: the session goes on to its end, keeps its turn, and has its consequences.
    async fn session<T: Send + 'static>(
        &self,
        client: PeerClient,
        address: &PeerAddress,
        (turn, place): (OwnedMutexGuard<Met>, Place),
        work: impl FnOnce(&mut dyn Transport, &mut Met) -> (Report, Result<T, SessionError>)
        + Send
        + 'static,
    ) -> Result<(Report, Result<T, SessionError>), PeeringError> {
        let mut transport = BlockingClient::new(client, Handle::current());
        let (known, address) = (Arc::clone(&self.known), address.clone());
        let session = task::spawn_blocking(move || {
            let (mut turn, mut place) = (turn, place);
            let mut noted = Noted::new(&mut transport, &mut place);
            let (report, result) = work(&mut noted, &mut turn);
            turn.before |= result.is_ok();
            if result.as_ref().is_err_and(SessionError::is_misbehaviour) {
                lock(&known).penalize(address);
            }
            (report, result)
        });
        session.await.map_err(|_| PeeringError::Unexpected)
    }

    fn compare_options(&self, forced: Option<StrategyName>, met: Met) -> CompareOptions {
        CompareOptions {
            forced,
            tuning: self.tuning,
            // After the first time there is a position to go on from, or the roots are equal.
            eager: !met.before || forced == Some(StrategyName::Sketch),
        }
    }

    fn open(&self, namespace: &Namespace) -> Result<(Arc<OpenNamespace>, String), PeeringError> {
        let open = self.replica.namespace(namespace);
        let open = open.ok_or_else(|| PeeringError::UnknownNamespace(namespace.clone()))?;
        let root = open.view().head().root.hash.to_hex();
        Ok((open, root))
    }

    /// What is known of a peer from sessions in a namespace, which is not forgotten as long as this is
    /// held.
    pub fn meeting(&self, address: &PeerAddress, namespace: &Namespace) -> Meeting {
        let place = (address.clone(), namespace.clone());
        let is_idle = |turn: &Arc<Turn>| Arc::strong_count(turn) == 1;
        Meeting(Arc::clone(lock(&self.known).turns.of(&place, is_idle)))
    }

    /// Waits for a place among the sessions that run at once; a link does so for as long as it takes.
    async fn place(&self, address: &PeerAddress, follows: bool) -> Result<Place, PeeringError> {
        let place = async {
            let place = self.places.take(address);
            if follows {
                return Ok(place.await);
            }
            let place = tokio::time::timeout(TURN_TIMEOUT, place).await;
            place.map_err(|_| PeeringError::Busy)
        };
        tokio::select! {
            () = self.shutdown.cancelled() => Err(PeeringError::ShuttingDown),
            place = place => place,
        }
    }

    /// Waits until no other session with this peer runs in this namespace.
    async fn turn(
        &self,
        address: &PeerAddress,
        namespace: &Namespace,
    ) -> Result<OwnedMutexGuard<Met>, PeeringError> {
        if let (_, Some(banned)) = self.penalty(address) {
            return Err(PeeringError::Banned(banned.as_secs() + 1));
        }
        let turn = {
            lock(&self.known).forget_penalties();
            self.meeting(address, namespace).0
        };
        tokio::select! {
            () = self.shutdown.cancelled() => Err(PeeringError::ShuttingDown),
            turn = tokio::time::timeout(TURN_TIMEOUT, turn.lock_owned()) => {
                turn.map_err(|_| PeeringError::Busy)
            }
        }
    }
}

/// A session in the log. Dropped when the session has ended, however it did.
struct Listed {
    replica: Arc<Replica>,
    session: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.replica.sessions().end(self.session);
    }
}

fn log(address: &PeerAddress, report: &Report, error: Option<&SessionError>) {
    let (sent, received) = (report.bytes_sent, report.bytes_received);
    let (pulled, pushed) = (report.states_pulled, report.states_pushed);
    let strategy = &report.strategy;
    if let Some(error) = error {
        warn!(peer = %address, %error, strategy, sent, received, "sync failed");
    } else if pulled + pushed > 0 {
        info!(peer = %address, strategy, pulled, pushed, sent, received, "synced");
    }
}

impl Known {
    fn penalize(&mut self, address: PeerAddress) {
        let now = Instant::now();
        let penalty = self.penalties.entry(address);
        penalty.or_insert_with(|| Penalty::new(now)).add(now);
    }

    fn forget_penalties(&mut self) {
        if self.penalties.len() > REMEMBERED {
            let now = Instant::now();
            self.penalties
                .retain(|_, penalty| penalty.points(now) > 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::runtime::replica::ReplicaOptions;

    fn runner(folder: &Path) -> Arc<Runner> {
        let replica = Replica::open(folder, ReplicaOptions::default()).unwrap();
        let (tuning, stop) = (Tuning::default(), CancellationToken::new());
        Arc::new(Runner::new(Arc::new(replica), tuning, stop))
    }

    #[tokio::test]
    async fn a_peer_that_never_answers_has_one_session_and_holds_up_no_other() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap();
        let [url, other] = [&silent, &refusing].map(|listener| {
            let url = format!("http://{}", listener.local_addr().unwrap());
            PeerAddress::parse(&url).unwrap()
        });
        let (accepted, (came, mut has_come)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel(100));
        let count = Arc::clone(&accepted);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in silent.incoming() {
                held.push(stream);
                count.fetch_add(1, Ordering::SeqCst);
                if came.blocking_send(()).is_err() {
                    return;
                }
            }
        });
        std::thread::spawn(move || {
            let (mut stream, _) = refusing.accept().unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let runner = runner(folder.path());
        let names: Vec<Namespace> = (0..8)
            .map(|n| Namespace::new(&format!("shard{n}")).unwrap())
            .collect();
        for name in &names {
            runner.replica().create_namespace(name).unwrap();
        }
        let sync = |peer: &PeerAddress, name: &Namespace| {
            let (runner, peer, name) = (Arc::clone(&runner), peer.clone(), name.clone());
            let job = Job {
                pull: true,
                push: false,
                strategy: None,
                follows: true,
            };
            task::spawn(async move { runner.sync(&peer, &name, job, runner.shutdown()).await })
        };
        let waiting: Vec<_> = names.iter().map(|name| sync(&url, name)).collect();
        has_come.recv().await.unwrap();
        let ran = sync(&other, &names[0]).await.unwrap().unwrap();
        assert!(ran.result.unwrap_err().to_string().contains("http_404"));
        assert_eq!(accepted.load(Ordering::SeqCst), 1);
        runner.shutdown().cancel();
        for session in waiting {
            let ended = session.await.unwrap();
            assert!(ended.is_err() || ended.unwrap().result.is_err());
        }
    }

    #[tokio::test]
    async fn what_links_know_of_their_peers_is_not_forgotten_over_others() {
        let folder = tempfile::tempdir().unwrap();
        let runner = runner(folder.path());
        let peer = |n: u32| PeerAddress::parse(&format!("http://10.0.0.1:{n}")).unwrap();
        let name = Namespace::default_namespace();
        let linked: Vec<Meeting> = (1..3000).map(|n| runner.meeting(&peer(n), &name)).collect();
        for meeting in &linked {
            meeting.0.try_lock().unwrap().before = true;
        }
        for other in 3000..30_000 {
            runner.turn(&peer(other), &name).await.unwrap();
        }
        for n in 1..3000 {
            assert!(runner.turn(&peer(n), &name).await.unwrap().before, "{n}");
        }
    }

    #[tokio::test]
    async fn a_caller_who_hangs_up_does_not_spare_the_peer_its_points() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, is_asked) = oneshot::channel();
        let (go, wait) = std::sync::mpsc::channel();
        let hostile = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            asked.send(()).unwrap();
            wait.recv().unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            stream.write_all(b"nonsense of 20 bytes").unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let runner = runner(folder.path());
        let address = PeerAddress::parse(&url).unwrap();
        let name = Namespace::default_namespace();
        let job = Job {
            pull: true,
            push: false,
            strategy: None,
            follows: false,
        };
        tokio::select! {
            _ = runner.sync(&address, &name, job, runner.shutdown()) => panic!("nothing was answered yet"),
            asked = is_asked => asked.unwrap(),
        }
        assert_eq!(runner.penalty(&address).0, 0.0);
        go.send(()).unwrap();
        // Our turn comes once the session has ended.
        runner.turn(&address, &name).await.unwrap();
        assert!(runner.penalty(&address).0 > 0.0);
        hostile.join().unwrap();
    }
}
