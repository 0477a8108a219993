//! The HTTP face without sockets: requests go straight into the router, over a replica in a
//! temporary directory and peers that answer as told.

mod admin;
mod bodies;
mod codings;
mod connections;
mod errors;
mod expiry;
mod feed;
mod many;
mod mistakes;
mod peers;
mod proofs;
mod states;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, Method, Request};
use samestate::clock::{SystemClock, WallClock};
use samestate::http::app::{App, HttpOptions};
use samestate::http::front::Front;
use samestate::runtime::namespace::OpenNamespace;
use samestate::runtime::peering::{
    Answer, DiffEntry, DiffReport, DiffRequest, PeerStatus, Peering, PeeringError, SyncRequest,
};
use samestate::runtime::replica::{Replica, ReplicaOptions};
use samestate::sync::report::{Outcome, Report};
use samestate::types::id::Namespace;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Largest state of the replicas under test.
pub const STATE_BYTES: u64 = 64 << 10;

pub struct Face {
    pub app: App,
    pub peering: Arc<Told>,
    front: Front,
    _folder: TempDir,
}

impl Face {
    pub fn new() -> Self {
        Self::with(HttpOptions::default())
    }

    pub fn with(options: HttpOptions) -> Self {
        Self::with_backup_dirs(options, Vec::new())
    }

    pub fn with_backup_dirs(options: HttpOptions, folders: Vec<PathBuf>) -> Self {
        Self::opened(options, folders, Arc::new(SystemClock))
    }

    /// A face whose replica goes by this clock.
    pub fn at(wall: Arc<dyn WallClock>) -> Self {
        Self::opened(HttpOptions::default(), Vec::new(), wall)
    }

    /// A face that takes states which are stored while they arrive.
    pub fn of_large_states() -> Self {
        let (options, wall) = (HttpOptions::default(), Arc::new(SystemClock));
        Self::taking(64 << 20, options, Vec::new(), wall)
    }

    fn opened(options: HttpOptions, folders: Vec<PathBuf>, wall: Arc<dyn WallClock>) -> Self {
        Self::taking(STATE_BYTES, options, folders, wall)
    }

    fn taking(
        state_bytes: u64,
        options: HttpOptions,
        folders: Vec<PathBuf>,
        wall: Arc<dyn WallClock>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut replica = ReplicaOptions::default();
        replica.limits.state_bytes = state_bytes;
        replica.namespaces_max = 3;
        let replica = Arc::new(Replica::open_at(folder.path(), replica, wall).unwrap());
        let peering = Arc::new(Told::default());
        let shutdown = CancellationToken::new();
        let app = App::new(
            replica,
            Arc::<Told>::clone(&peering),
            options,
            folders,
            shutdown,
        );
        Self {
            front: Front::new(app.clone()),
            app,
            peering,
            _folder: folder,
        }
    }

    pub fn namespace(&self) -> Arc<OpenNamespace> {
        let name = Namespace::default_namespace();
        self.app.replica.namespace(&name).unwrap()
    }

    pub async fn answer(&self, request: Request<Body>) -> axum::response::Response {
        self.front.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request; `headers` are lines such as `If-Match: *`.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[&str],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for line in headers {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let (parts, body) = self
            .answer(request.body(body.into()).unwrap())
            .await
            .into_parts();
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Reply {
        self.send(Method::POST, path, &[], body).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], Body::empty()).await
    }

    /// Stores a state in the default namespace.
    pub async fn put(&self, id: &str, body: &str) -> Reply {
        let path = format!("/v1/ns/default/states/{id}");
        self.send(Method::PUT, &path, &[], body.to_owned()).await
    }
}

pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The JSON of an answer with this status.
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// The JSON of a problem, once it has all that problems have.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.header(CONTENT_TYPE.as_str()),
            "application/problem+json"
        );
        let problem = self.json();
        assert_eq!(problem["code"], code);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
        let waits = self.headers.contains_key(RETRY_AFTER);
        assert_eq!(waits, matches!(status, 429 | 503), "{problem}");
        problem
    }
}

/// Peers that answer by their name, and remember what they were asked.
#[derive(Default)]
pub struct Told {
    pub peers: Mutex<Vec<PeerStatus>>,
    pub asked: Mutex<Vec<SyncRequest>>,
}

impl Told {
    fn verdict(peer: &str) -> Result<(), PeeringError> {
        match peer {
            "busy" => Err(PeeringError::Busy),
            "banned" => Err(PeeringError::Banned(7)),
            "panicked" => Err(PeeringError::Unexpected),
            "failed" => Err(PeeringError::Failed("the peer said nothing".into())),
            "stopping" => Err(PeeringError::ShuttingDown),
            "elsewhere" => Err(PeeringError::UnknownNamespace(
                Namespace::default_namespace(),
            )),
            "unknown" => Err(PeeringError::UnknownPeer(peer.into())),
            _ => Ok(()),
        }
    }
}

impl Peering for Told {
    fn list(&self) -> Vec<PeerStatus> {
        self.peers.lock().unwrap().clone()
    }

    fn put(&self, name: &str, url: &str) -> Result<bool, PeeringError> {
        match (name, url) {
            ("bad_name", _) => return Err(PeeringError::BadName),
            (_, "bad_url") => return Err(PeeringError::BadUrl(url.into())),
            ("surplus", _) => return Err(PeeringError::TooManyPeers),
            _ => {}
        }
        let mut peers = self.peers.lock().unwrap();
        let before = peers.len();
        peers.retain(|peer| peer.name != name);
        let is_new = peers.len() == before;
        peers.push(PeerStatus {
            accused: Vec::new(),
            name: name.into(),
            url: url.into(),
            replica: None,
            health: "connecting",
            lag: 0,
            penalties: 0.0,
            last_error: None,
            last_synced: None,
            bytes_sent: 0,
            bytes_received: 0,
        });
        Ok(is_new)
    }

    fn remove(&self, name: &str) -> Result<(), PeeringError> {
        let mut peers = self.peers.lock().unwrap();
        let at = peers.iter().position(|peer| peer.name == name);
        let at = at.ok_or_else(|| PeeringError::UnknownPeer(name.into()))?;
        peers.remove(at);
        Ok(())
    }

    fn sync(&self, request: SyncRequest) -> Answer<'_, Report> {
        Box::pin(async {
            let (peer, namespace) = (request.peer.clone(), request.namespace.to_string());
            self.asked.lock().unwrap().push(request);
            Self::verdict(&peer)?;
            let mut report = Report::begin(1, peer, namespace, "00".into());
            report.outcome = Outcome::Complete;
            Ok(report)
        })
    }

    fn diff(&self, request: DiffRequest) -> Answer<'_, DiffReport> {
        Box::pin(async move {
            Self::verdict(&request.peer)?;
            let entry = DiffEntry {
                id: "a".into(),
                key: "00".into(),
                left: Some("11".into()),
                right: None,
            };
            Ok(DiffReport {
                equal: false,
                strategy: "merkle".into(),
                bytes_sent: 1,
                bytes_received: 2,
                differences: vec![entry],
            })
        })
    }
}
