//! Replicas within this process, with the real writer thread and responder but without sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use samestate::clock::{SystemClock, WallClock};
use samestate::peer::home::LocalHome;
use samestate::reconcile::strategy::{StrategyName, Tuning};
use samestate::replica::check::check;
use samestate::replica::command::{Change, Command, Content, Precondition, Receipt, Write};
use samestate::replica::view::View;
use samestate::runtime::collector::Collected;
use samestate::runtime::namespace::OpenNamespace;
use samestate::runtime::queue::SubmitError;
use samestate::runtime::replica::{Replica, ReplicaOptions};
use samestate::runtime::sync_service::answer;
use samestate::sync::compare::CompareOptions;
use samestate::sync::exchange::SessionError;
use samestate::sync::report::Report;
use samestate::sync::session::{SessionOptions, run};
use samestate::sync::transport::{Home, Transport, TransportError};
use samestate::types::cursor::Epoch;
use samestate::types::id::{GameId, Namespace, ReplicaId};
use samestate::types::limits::Limits;
use samestate::types::lineage::{Lineage, Opening, Provenance};
use samestate::wire::messages::Endpoint;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Where async code of tests runs.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    })
}

pub fn id(text: &str) -> GameId {
    GameId::new(text).unwrap()
}

/// A command part that puts `bytes`.
pub fn put(name: &str, bytes: &[u8]) -> Write {
    Write {
        id: id(name),
        precondition: Precondition::None,
        change: Change::Put(Content::new(bytes, None)),
    }
}

/// A command part that puts `bytes` for so many milliseconds.
pub fn put_for(name: &str, bytes: &[u8], millis: u64) -> Write {
    let content = Content {
        ttl: Some(format!("{millis}ms").parse().unwrap()),
        ..Content::new(bytes, None)
    };
    Write {
        change: Change::Put(content),
        ..put(name, &[])
    }
}

/// A clock that only the test moves.
#[derive(Debug)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_700_000_000_000)))
    }

    pub fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }

    pub fn turn_back(&self, millis: u64) {
        self.0.fetch_sub(millis, Ordering::Relaxed);
    }
}

impl WallClock for TestClock {
    fn now_millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A command part that deletes.
pub fn delete(name: &str) -> Write {
    Write {
        id: id(name),
        precondition: Precondition::None,
        change: Change::Delete,
    }
}

/// What a session between two replicas of a test is to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub pull: bool,
    pub push: bool,
    pub strategy: Option<StrategyName>,
    /// Whether the first question of `sketch` goes with the opening.
    pub eager: bool,
}

impl Plan {
    pub const PULL: Self = Self {
        pull: true,
        push: false,
        strategy: None,
        eager: false,
    };

    pub const BOTH: Self = Self {
        pull: true,
        push: true,
        strategy: None,
        eager: false,
    };

    pub fn with(self, strategy: StrategyName) -> Self {
        Self {
            strategy: Some(strategy),
            ..self
        }
    }

    pub fn options(self) -> SessionOptions {
        SessionOptions {
            pull: self.pull,
            push: self.push,
            follows: false,
            last: None,
            compare: CompareOptions {
                forced: self.strategy,
                tuning: Tuning::default(),
                eager: self.eager,
            },
            limits: Limits::default(),
        }
    }
}

/// A server builds them in the background.
fn with_sketches(replica: Replica) -> Replica {
    for namespace in replica.namespaces() {
        namespace.keep_sketch().unwrap();
    }
    replica
}

/// A replica in a directory of its own.
pub struct Node {
    pub replica: Arc<Replica>,
    // Behind the replica, which closes its files when it is dropped.
    dir: Arc<TempDir>,
}

impl Node {
    /// A new replica with this id.
    pub fn new(replica: u64) -> Self {
        Self::with_options(replica, ReplicaOptions::default())
    }

    pub fn with_options(replica: u64, options: ReplicaOptions) -> Self {
        Self::with_clock(replica, options, Arc::new(SystemClock))
    }

    /// A new replica that goes by this clock.
    pub fn with_clock(replica: u64, options: ReplicaOptions, wall: Arc<dyn WallClock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        name_replica(dir.path(), ReplicaId(replica));
        let replica = with_sketches(Replica::open_at(dir.path(), options, wall).unwrap());
        Self {
            replica: Arc::new(replica),
            dir: Arc::new(dir),
        }
    }

    /// A replica on a directory that is there.
    pub fn open(dir: Arc<TempDir>, options: ReplicaOptions) -> Self {
        let replica = with_sketches(Replica::open(dir.path(), options).unwrap());
        Self {
            replica: Arc::new(replica),
            dir,
        }
    }

    /// The replica of a data directory in `dir` or below, which goes by this clock.
    pub fn open_at(
        dir: Arc<TempDir>,
        path: &Path,
        options: ReplicaOptions,
        wall: Arc<dyn WallClock>,
    ) -> Self {
        let replica = with_sketches(Replica::open_at(path, options, wall).unwrap());
        Self {
            replica: Arc::new(replica),
            dir,
        }
    }

    /// An open replica as it is.
    pub fn of(replica: Arc<Replica>, dir: Arc<TempDir>) -> Self {
        Self { replica, dir }
    }

    /// Collects what is over.
    pub fn collect(&self) -> Collected {
        self.namespace().collect().unwrap()
    }

    /// The replica of a data directory below `dir`, which is removed at the end.
    pub fn at(dir: TempDir, path: &Path) -> Self {
        let replica = with_sketches(Replica::open(path, ReplicaOptions::default()).unwrap());
        Self {
            replica: Arc::new(replica),
            dir: Arc::new(dir),
        }
    }

    /// Its directory, which stays when it is dropped.
    pub fn dir(&self) -> Arc<TempDir> {
        Arc::clone(&self.dir)
    }

    pub fn namespace(&self) -> Arc<OpenNamespace> {
        let name = Namespace::default_namespace();
        self.replica.namespace(&name).unwrap()
    }

    pub fn home(&self) -> LocalHome {
        LocalHome::new(Arc::clone(&self.replica), self.namespace())
    }

    pub fn view(&self) -> Arc<View> {
        self.namespace().view()
    }

    pub fn root(&self) -> String {
        self.view().head().root.hash.to_hex()
    }

    /// Carries writes out as one command.
    pub fn write(&self, writes: Vec<Write>) -> Result<Vec<Receipt>, SubmitError> {
        let namespace = self.namespace();
        let queued = namespace.queue_blocking(Command::Write(writes))?;
        queued.wait().map(|committed| committed.accepted.receipts)
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.write(vec![put(name, bytes)]).unwrap();
    }

    /// A session that this replica starts.
    pub fn try_sync(&self, peer: &Self, plan: Plan) -> (Report, Result<(), SessionError>) {
        self.sync_over(&mut Direct::to(peer), &self.home(), plan)
    }

    /// A session that must succeed.
    pub fn sync(&self, peer: &Self, plan: Plan) -> Report {
        let (report, result) = self.try_sync(peer, plan);
        result.unwrap_or_else(|error| panic!("{plan:?}: {error}: {report:?}"));
        report
    }

    /// A session over a transport and for a home of the test's making.
    pub fn sync_over(
        &self,
        transport: &mut dyn Transport,
        home: &dyn Home,
        plan: Plan,
    ) -> (Report, Result<(), SessionError>) {
        let mut report = Report::begin(1, "peer".into(), "default".into(), self.root());
        let result = run(transport, home, &plan.options(), &mut report);
        (report, result.map(|_| ()))
    }

    /// The bytes of all current versions of every state, sorted; `None` for a deletion.
    pub fn contents(&self) -> BTreeMap<String, Vec<Option<Vec<u8>>>> {
        let view = self.view();
        let mut contents = BTreeMap::new();
        let visited = view.snapshot().visit_records(&mut |_, row| {
            let row = row.unwrap();
            let versions = row.placed();
            let mut bytes: Vec<_> = versions
                .map(|(version, place)| view.snapshot().content(version, place).unwrap())
                .collect();
            bytes.sort();
            contents.insert(row.record.id.to_string(), bytes);
        });
        visited.unwrap();
        contents
    }

    /// Reads everything and fails on any fault.
    pub fn check(&self) {
        assert_faultless(&self.view());
        let is_right = self.namespace().is_sketch_right(&|| true).unwrap();
        assert_eq!(is_right, Some(true), "replica {}", self.replica.id());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.replica.stop();
    }
}

/// Reads everything there is and fails on any fault.
pub fn assert_faultless(view: &View) {
    let name = Namespace::default_namespace();
    let report = check(view.snapshot(), &name, &mut |_| {}).unwrap();
    assert_eq!(report.faults, [], "replica {}", view.identity().replica);
    assert_eq!(report.root, view.head().root.hash.to_hex());
}

/// Openings of a replica that nobody has met before.
pub fn stranger() -> Lineage {
    let epoch = Epoch(4711);
    let mut lineage = Provenance::new(epoch).lineage;
    lineage.begin(Opening {
        id: 4711,
        epoch,
        first: 0,
    });
    lineage
}

/// Gives a data directory its replica id before it is opened for the first time.
pub fn name_replica(dir: &Path, replica: ReplicaId) {
    std::fs::write(dir.join("replica"), format!("{replica}\n")).unwrap();
}

/// Hands messages straight to the responder of another replica.
pub struct Direct {
    replica: Arc<Replica>,
    namespace: Arc<OpenNamespace>,
}

impl Direct {
    pub fn to(peer: &Node) -> Self {
        Self {
            replica: Arc::clone(&peer.replica),
            namespace: peer.namespace(),
        }
    }
}

impl Transport for Direct {
    fn call(
        &mut self,
        endpoint: Endpoint,
        request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let body = Bytes::from(request);
        let answered = answer(&self.replica, &self.namespace, endpoint, body);
        let reply = runtime().block_on(answered);
        let reply = reply.map_err(|error| TransportError::Refused {
            code: format!("{error:?}").chars().take(200).collect(),
            detail: error.to_string(),
        })?;
        if reply.len() > limit {
            return Err(TransportError::TooLong(limit));
        }
        Ok(reply)
    }
}
