//! All peers of a replica: configured at start or at run time, one link for each peer and
//! namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::peer::address::{PeerAddress, check_name};
use crate::peer::link::{Health, Link, LinkState};
use crate::peer::runner::{Job, Runner};
use crate::peer::witness::Watching;
use crate::reconcile::strategy::Tuning;
use crate::runtime::lock::lock;
use crate::runtime::peering::{
    Answer, DiffEntry, DiffReport, DiffRequest, PeerStatus, Peering, PeeringError, SyncRequest,
};
use crate::runtime::replica::Replica;
use crate::sync::report::Report;
use crate::types::id::Namespace;

/// How often a peer looks for namespaces that it has no link for yet.
const NEW_NAMESPACES: Duration = Duration::from_secs(1);

/// How links work.
#[derive(Debug, Clone, Copy)]
pub struct LinkOptions {
    /// How differences are looked for.
    pub tuning: Tuning,
    /// Peers that may be configured.
    pub peers_max: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            peers_max: 64,
        }
    }
}

/// One link, as long as its namespace is open.
struct Linked {
    state: Arc<Mutex<LinkState>>,
    closed: CancellationToken,
}

type LinkMap = Mutex<BTreeMap<Namespace, Linked>>;

struct Peer {
    address: PeerAddress,
    stop: CancellationToken,
    links: Arc<LinkMap>,
}

/// The peers of a replica.
pub struct Links {
    runner: Arc<Runner>,
    options: LinkOptions,
    peers: Mutex<BTreeMap<String, Peer>>,
}

impl Links {
    /// Starts links to `peers`, given as name and URL. They stop at `shutdown`.
    ///
    /// # Errors
    /// [`PeeringError`] when a name or URL is unusable or there are too many.
    pub fn start(
        replica: Arc<Replica>,
        peers: &[(String, String)],
        options: LinkOptions,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, PeeringError> {
        let links = Self {
            runner: Arc::new(Runner::new(replica, options.tuning, shutdown)),
            options,
            peers: Mutex::default(),
        };
        for (name, url) in peers {
            links.put(name, url)?;
        }
        Ok(Arc::new(links))
    }

    /// Where all configured peers are.
    pub fn addresses(&self) -> Vec<PeerAddress> {
        let peers = lock(&self.peers);
        peers.values().map(|peer| peer.address.clone()).collect()
    }

    /// What runs sessions.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// A configured peer's address, or that of a URL.
    fn resolve(&self, peer: &str) -> Result<PeerAddress, PeeringError> {
        if let Some(peer) = lock(&self.peers).get(peer) {
            return Ok(peer.address.clone());
        }
        if peer.contains("://") {
            return PeerAddress::parse(peer);
        }
        Err(PeeringError::UnknownPeer(peer.chars().take(80).collect()))
    }

    fn connect(&self, address: PeerAddress) -> Peer {
        let peer = Peer {
            address,
            stop: self.runner.shutdown().child_token(),
            links: Arc::default(),
        };
        let (runner, links) = (Arc::clone(&self.runner), Arc::clone(&peer.links));
        let (address, stop) = (peer.address.clone(), peer.stop.clone());
        tokio::spawn(async move {
            loop {
                link_new_namespaces(&runner, &address, &links, &stop);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(NEW_NAMESPACES) => {}
                }
            }
        });
        peer
    }

    fn status(&self, name: &str, peer: &Peer) -> PeerStatus {
        let (penalties, banned) = self.runner.penalty(&peer.address);
        let passed = self.runner.passed(&peer.address);
        let states: Vec<LinkState> = lock(&peer.links)
            .values()
            .map(|linked| lock(&linked.state).clone())
            .collect();
        // The worst of its links tells most.
        let has = |health: &Health| states.iter().any(|state| state.health == *health);
        let order = [Health::Unreachable, Health::Failing, Health::Healthy];
        let worst = order.into_iter().find(has).unwrap_or_default();
        let health = match worst {
            _ if banned.is_some() => "banned",
            Health::Unreachable => "unreachable",
            Health::Failing => "failing",
            Health::Healthy => "healthy",
            Health::Connecting => "connecting",
        };
        let failed = states.iter().find(|state| state.last_error.is_some());
        let replica = states.iter().find_map(|state| state.replica);
        let accused: BTreeSet<&'static str> =
            states.iter().flat_map(|s| s.accused.clone()).collect();
        PeerStatus {
            name: name.to_owned(),
            url: peer.address.to_string(),
            replica: replica.map(|id| id.to_string()),
            health,
            lag: states.iter().map(|state| state.lag).sum(),
            penalties,
            last_error: failed.and_then(|state| state.last_error.clone()),
            last_synced: states.iter().filter_map(|s| s.last_synced.clone()).max(),
            bytes_sent: passed.sent,
            bytes_received: passed.received,
            accused: accused.into_iter().collect(),
        }
    }
}

fn link_new_namespaces(
    runner: &Arc<Runner>,
    address: &PeerAddress,
    links: &LinkMap,
    stop: &CancellationToken,
) {
    let open = runner.replica().namespaces();
    let mut links = lock(links);
    // By the token, not by the name: one that was dropped and made anew needs a link of its own.
    links.retain(|_, linked| !linked.closed.is_cancelled());
    for namespace in open {
        if links.contains_key(namespace.name()) {
            continue;
        }
        let (state, closed) = (Arc::<Mutex<LinkState>>::default(), namespace.closed());
        let linked = Linked {
            state: Arc::clone(&state),
            closed: closed.clone(),
        };
        links.insert(namespace.name().clone(), linked);
        let link = Link {
            runner: Arc::clone(runner),
            address: address.clone(),
            namespace,
            state,
            stop: stop.clone(),
        };
        let watching = Watching { link: link.clone() };
        tokio::spawn(async move {
            tokio::select! {
                () = link.run() => {}
                () = watching.run() => {}
                () = closed.cancelled() => {}
            }
        });
    }
}

impl Peering for Links {
    fn list(&self) -> Vec<PeerStatus> {
        let peers = lock(&self.peers);
        peers
            .iter()
            .map(|(name, peer)| self.status(name, peer))
            .collect()
    }

    fn put(&self, name: &str, url: &str) -> Result<bool, PeeringError> {
        check_name(name)?;
        let address = PeerAddress::parse(url)?;
        let mut peers = lock(&self.peers);
        let known = peers.get(name);
        if known.is_some_and(|peer| peer.address == address) {
            return Ok(false);
        }
        if known.is_none() && peers.len() >= self.options.peers_max {
            return Err(PeeringError::TooManyPeers);
        }
        let before = peers.insert(name.to_owned(), self.connect(address));
        if let Some(before) = &before {
            before.stop.cancel();
        }
        Ok(before.is_none())
    }

    fn remove(&self, name: &str) -> Result<(), PeeringError> {
        let removed = lock(&self.peers).remove(name);
        let peer = removed.ok_or_else(|| PeeringError::UnknownPeer(name.to_owned()))?;
        peer.stop.cancel();
        Ok(())
    }

    fn sync(&self, request: SyncRequest) -> Answer<'_, Report> {
        Box::pin(async move {
            let address = self.resolve(&request.peer)?;
            let job = Job {
                pull: request.pull,
                push: request.push,
                strategy: request.strategy,
                follows: false,
            };
            let stop = self.runner.shutdown();
            let ran = self.runner.sync(&address, &request.namespace, job, stop);
            Ok(ran.await?.report)
        })
    }

    fn diff(&self, request: DiffRequest) -> Answer<'_, DiffReport> {
        Box::pin(async move {
            let address = self.resolve(&request.peer)?;
            let namespace = &request.namespace;
            let found = self.runner.diff(&address, namespace, request.strategy);
            let (report, differing) = found.await?;
            Ok(DiffReport {
                equal: differing.is_empty(),
                strategy: report.strategy,
                bytes_sent: report.bytes_sent,
                bytes_received: report.bytes_received,
                differences: differing
                    .into_iter()
                    .map(|entry| DiffEntry {
                        id: entry.id.to_string(),
                        key: entry.key.to_hex(),
                        left: entry.left.map(|hash| hash.to_hex()),
                        right: entry.right.map(|hash| hash.to_hex()),
                    })
                    .collect(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::replica::ReplicaOptions;

    #[tokio::test]
    async fn a_namespace_made_anew_is_linked_anew() {
        let folder = tempfile::tempdir().unwrap();
        let replica = Replica::open(folder.path(), ReplicaOptions::default()).unwrap();
        let (replica, stop) = (Arc::new(replica), CancellationToken::new());
        let tuning = Tuning::default();
        let runner = Runner::new(Arc::clone(&replica), tuning, stop.clone());
        let (runner, links) = (Arc::new(runner), LinkMap::default());
        // Nobody listens on port 1.
        let address = PeerAddress::parse("http://127.0.0.1:1").unwrap();
        let name = Namespace::new("eu").unwrap();
        let look = || {
            link_new_namespaces(&runner, &address, &links, &stop);
            lock(&links)
                .get(&name)
                .map(|linked| Arc::clone(&linked.state))
        };
        assert!(look().is_none());
        replica.create_namespace(&name).unwrap();
        let first = look().unwrap();
        assert!(Arc::ptr_eq(&first, &look().unwrap()));
        replica.drop_namespace(&name).unwrap();
        replica.create_namespace(&name).unwrap();
        let second = look().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        replica.drop_namespace(&name).unwrap();
        assert!(look().is_none());
        stop.cancel();
    }
}
