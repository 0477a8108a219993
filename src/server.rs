//! The composition root: an open replica, its links to peers and the HTTP face on one listener.

use std::collections::HashMap;
use std::fmt;
use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::{self, JoinHandle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::settings::Settings;
use crate::http::app::App;
use crate::http::front::Front;
use crate::http::hosts::Hosts;
use crate::http::listener::{BoundedListener, Patience, PerConnection, places};
use crate::peer::links::Links;
use crate::runtime::collector::CollectError;
use crate::runtime::peering::PeeringError;
use crate::runtime::queue::SubmitError;
use crate::runtime::replica::Replica;
use crate::runtime::scrub::{ContentSource, scrub_all};
use crate::store::error::StoreError;
use crate::types::id::{Namespace, ReplicaId};

const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether a sketch has to be built.
const SKETCH_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether there is enough new to train a dictionary from.
const DICTIONARIES_EVERY: Duration = Duration::from_secs(2);
/// How often each namespace is looked through for what is over.
const COLLECT_EVERY: Duration = Duration::from_secs(60);

/// Why a server did not start, or ended before it was told to.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Nobody said where the data is.
    #[error("no data directory: give --data DIR, SAMESTATE_DATA, or data in the settings file")]
    NoData,
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another --listen address")]
    Listen {
        /// As set.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The data directory cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configured peers cannot be used.
    #[error("cannot use the configured peers: {0}")]
    Peers(#[from] PeeringError),
    /// The listener failed.
    #[error("the listener failed: {0}")]
    Listener(#[source] io::Error),
    /// A thread that opens or closes the store failed; the log says more.
    #[error("the store could not be opened or closed: a thread of it failed")]
    Thread,
}

/// A server that takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// Which replica it is.
    pub replica: ReplicaId,
    /// How many namespaces it holds.
    pub namespaces: usize,
    /// How many states they hold.
    pub states: u64,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "listening on http://{} replica={} namespaces={} states={}",
            self.address, self.replica, self.namespaces, self.states
        )
    }
}

/// Takes the configured address.
///
/// # Errors
/// [`ServeError::Listen`], for example when another process has it.
pub async fn bind(settings: &Settings) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(&settings.listen).await;
    bound.map_err(|source| ServeError::Listen {
        address: settings.listen.clone(),
        source,
    })
}

/// Serves a replica until `shutdown`, then finishes the requests in flight, commits what is
/// queued and closes the store. Calls `ready` once, when requests are about to be taken.
///
/// # Errors
/// [`ServeError`] when it cannot start, or the listener fails.
pub async fn run(
    listener: TcpListener,
    settings: Settings,
    shutdown: CancellationToken,
    ready: impl FnOnce(&Ready),
) -> Result<(), ServeError> {
    let root = settings.data.clone().ok_or(ServeError::NoData)?;
    let options = settings.replica;
    let open = task::spawn_blocking(move || Replica::open(&root, options)).await;
    let replica = Arc::new(open.map_err(|_| ServeError::Thread)??);
    // Cancelled by `shutdown`, and also when serving fails.
    let stop = shutdown.child_token();
    let served = serve(listener, Arc::clone(&replica), &settings, &stop, ready).await;
    stop.cancel();
    let closed = task::spawn_blocking(move || replica.stop()).await;
    info!("stopped");
    served.and(closed.map_err(|_| ServeError::Thread))
}

async fn serve(
    listener: TcpListener,
    replica: Arc<Replica>,
    settings: &Settings,
    stop: &CancellationToken,
    ready: impl FnOnce(&Ready),
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    let links = Links::start(
        Arc::clone(&replica),
        &settings.peers,
        settings.links,
        stop.clone(),
    )?;
    tokio::spawn(sweep(Arc::clone(&replica), stop.clone()));
    tokio::spawn(scrub_all(
        Arc::clone(&replica),
        Arc::clone(&links) as Arc<dyn ContentSource>,
        settings.scrub,
        stop.clone(),
    ));
    tokio::spawn(collect(Arc::clone(&replica), stop.clone()));
    tokio::spawn(keep_sketches(Arc::clone(&replica), stop.clone()));
    tokio::spawn(keep_dictionaries(Arc::clone(&replica), stop.clone()));
    let backup_dirs = settings.backup_dirs.clone();
    let app = App::new(
        Arc::clone(&replica),
        links,
        settings.http,
        backup_dirs,
        stop.clone(),
    );
    let hosts = Hosts::of(address, &settings.allowed_hosts);
    let traffic = Arc::clone(&replica.traffic().served);
    let listener = BoundedListener::new(listener, places(), Patience::default(), traffic);
    let server = axum::serve(listener, PerConnection(Front::new(app).known_as(hosts)));
    let server = server.with_graceful_shutdown(stop.clone().cancelled_owned());
    ready(&ready_line(address, &replica));
    let out_of_patience = async {
        stop.cancelled().await;
        info!("stopping; requests in flight are finished");
        sleep(settings.shutdown_grace).await;
    };
    tokio::select! {
        served = server.into_future() => served.map_err(ServeError::Listener),
        () = out_of_patience => {
            warn!("requests still in flight are given up");
            Ok(())
        }
    }
}

/// Sessions whose initiator is gone hold old pages until they are given up.
async fn sweep(replica: Arc<Replica>, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(SWEEP_EVERY)).await.is_some() {
        let replica = Arc::clone(&replica);
        // Whatever became of it, the next one comes.
        let _ = task::spawn_blocking(move || replica.sweep()).await;
    }
}

/// Builds sketches where there are none: at the start, in the background, for new namespaces, and
/// where there are more states than before.
async fn keep_sketches(replica: Arc<Replica>, stop: CancellationToken) {
    loop {
        for namespace in replica.namespaces() {
            let build = move || {
                if let Err(error) = namespace.keep_sketch() {
                    warn!(namespace = %namespace.name(), %error, "the sketch could not be built");
                }
            };
            // Whatever became of it, the next round comes.
            let _ = task::spawn_blocking(build).await;
        }
        if stop
            .run_until_cancelled(sleep(SKETCH_EVERY))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Trains dictionaries for short states, as namespaces come to hold enough of them.
async fn keep_dictionaries(replica: Arc<Replica>, stop: CancellationToken) {
    while stop
        .run_until_cancelled(sleep(DICTIONARIES_EVERY))
        .await
        .is_some()
    {
        for namespace in replica.namespaces() {
            let train = move || {
                if let Err(error) = namespace.keep_dictionary() {
                    warn!(namespace = %namespace.name(), %error, "no dictionary could be trained");
                }
            };
            // Whatever became of it, the next round comes.
            let _ = task::spawn_blocking(train).await;
        }
    }
}

/// Collects what is over: at the start, and then again and again, each namespace by itself, so that
/// one with much to collect does not hold up the others.
async fn collect(replica: Arc<Replica>, stop: CancellationToken) {
    let mut running: HashMap<Namespace, JoinHandle<()>> = HashMap::new();
    loop {
        running.retain(|_, round| !round.is_finished());
        for namespace in replica.namespaces() {
            let name = namespace.name().clone();
            running.entry(name).or_insert_with(|| {
                task::spawn_blocking(move || match namespace.collect() {
                    Ok(_) | Err(CollectError::Submit(SubmitError::ShuttingDown)) => {}
                    Err(error) => {
                        warn!(namespace = %namespace.name(), %error, "collecting broke off");
                    }
                })
            });
        }
        if stop
            .run_until_cancelled(sleep(COLLECT_EVERY))
            .await
            .is_none()
        {
            return;
        }
    }
}

fn ready_line(address: SocketAddr, replica: &Replica) -> Ready {
    let namespaces = replica.namespaces();
    let states = namespaces
        .iter()
        .map(|namespace| namespace.view().head().live);
    Ready {
        address,
        replica: replica.id(),
        states: states.sum(),
        namespaces: namespaces.len(),
    }
}
