//! An open replica: the data directory and its namespaces.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use thiserror::Error;
use tokio::sync::Semaphore;
use tracing::{error, info, warn};

use crate::clock::{SystemClock, WallClock};
use crate::replica::engine::Engine;
use crate::replica::view::View;
use crate::roots::head::{LogHead, SignedHead};
use crate::runtime::jobs::Jobs;
use crate::runtime::lock::lock;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::orders::Order;
use crate::runtime::session_log::SessionLog;
use crate::runtime::traffic::Traffic;
use crate::sketch::key::Secret;
use crate::store::directory::DataDirectory;
use crate::store::disk::MachineDisk;
use crate::store::error::StoreError;
use crate::store::log::place::LogPlace;
use crate::store::options::StoreOptions;
use crate::types::cursor::Epoch;
use crate::types::id::{Namespace, ReplicaId};
use crate::types::limits::Limits;

/// Reads that run at once; more wait.
const READERS: usize = 64;

/// How a replica runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// How namespaces keep their data.
    pub store: StoreOptions,
    /// What is accepted from outside.
    pub limits: Limits,
    /// Sync sessions of other replicas that may run at once in a namespace.
    pub sessions_max: usize,
    /// Namespaces that may exist.
    pub namespaces_max: usize,
    /// What keys the sketches of all replicas that keep in step.
    pub secret: Secret,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            store: StoreOptions::default(),
            limits: Limits::default(),
            sessions_max: 16,
            namespaces_max: 64,
            secret: Secret::default(),
        }
    }
}

/// Why a namespace could not be created or dropped.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// All places are taken.
    #[error("there are {0} namespaces already, the most that this replica is set to hold")]
    TooMany(usize),
    /// The default namespace always exists.
    #[error("the namespace \"default\" always exists and cannot be dropped")]
    Default,
    /// There is no such namespace.
    #[error("there is no namespace {0}")]
    Unknown(Namespace),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An open replica.
pub struct Replica {
    directory: DataDirectory,
    options: ReplicaOptions,
    wall: Arc<dyn WallClock>,
    namespaces: RwLock<BTreeMap<Namespace, Arc<OpenNamespace>>>,
    /// Held while a namespace is created or dropped, so that nobody opens a file that another one
    /// is about to remove.
    membership: Mutex<()>,
    readers: Arc<Semaphore>,
    sessions: SessionLog,
    traffic: Traffic,
    jobs: Jobs,
    /// True once the replica has taken another id because there is a copy of it.
    is_renamed: AtomicBool,
}

impl Replica {
    /// Opens a data directory with all its namespaces.
    ///
    /// # Errors
    /// [`StoreError`] when the directory is in use, not writable, newer than this build or damaged.
    pub fn open(root: &Path, options: ReplicaOptions) -> Result<Self, StoreError> {
        Self::open_at(root, options, Arc::new(SystemClock))
    }

    /// As [`Replica::open`], by another clock.
    ///
    /// # Errors
    /// As for [`Replica::open`].
    pub fn open_at(
        root: &Path,
        options: ReplicaOptions,
        wall: Arc<dyn WallClock>,
    ) -> Result<Self, StoreError> {
        let replica = Self {
            directory: DataDirectory::open(root)?,
            options,
            jobs: Jobs::new(Arc::clone(&wall)),
            wall,
            namespaces: RwLock::default(),
            membership: Mutex::default(),
            readers: Arc::new(Semaphore::new(READERS)),
            sessions: SessionLog::default(),
            traffic: Traffic::default(),
            is_renamed: AtomicBool::new(false),
        };
        if replica.directory.is_copy() {
            warn!(
                replica = %replica.id(),
                "{} is not the directory that this replica used last: a copy, or an older one put \
                 back; it goes on as a replica of its own, with another id and other cursors",
                root.display()
            );
        }
        let mut names = replica.directory.namespaces()?;
        let default = Namespace::default_namespace();
        if !names.contains(&default) {
            names.push(default);
        }
        let started = names
            .iter()
            .try_for_each(|name| replica.start(name).map(drop));
        let settled = match started {
            Ok(()) => replica.settle(),
            Err(error) => {
                let remembered = replica.directory.remember(replica.openings());
                remembered.and(Err(error))
            }
        };
        // Whoever opens the directory next must not meet threads that still write to its files.
        settled.inspect_err(|_| replica.stop())?;
        Ok(replica)
    }

    /// Notes which openings the namespaces have, to know them again at the next start.
    fn settle(&self) -> Result<(), StoreError> {
        self.directory.settle(self.openings())
    }

    fn openings(&self) -> Vec<(Namespace, u64)> {
        let namespaces = self.namespaces();
        let openings = namespaces.iter().filter_map(|open| {
            let opening = open.view().provenance().lineage.newest()?.id;
            Some((open.name().clone(), opening))
        });
        openings.collect()
    }

    fn start(&self, name: &Namespace) -> Result<Arc<OpenNamespace>, StoreError> {
        let path = self.directory.file(name);
        let opened = Engine::open_as(
            Arc::new(MachineDisk),
            &path,
            &self.directory.claim(name)?,
            self.options.store,
            Arc::clone(&self.wall),
        )?;
        if opened.is_copy && !self.directory.is_copy() {
            warn!(
                namespace = %name,
                "{} is an older copy than the one used last: its writes count under another name \
                 now, and cursors begin anew",
                path.display()
            );
        }
        let head = *opened.engine.view().head();
        info!(namespace = %name, states = head.live, seq = head.seq, root = %head.root.hash, "open");
        let readers = Arc::clone(&self.readers);
        let open = OpenNamespace::start(
            name.clone(),
            opened,
            readers,
            self.options.sessions_max,
            &self.options.store,
            &self.options.secret,
        )
        .map_err(|source| StoreError::Unusable { path, source })?;
        let open = Arc::new(open);
        self.write_map().insert(name.clone(), Arc::clone(&open));
        Ok(open)
    }

    /// The replica's id.
    pub fn id(&self) -> ReplicaId {
        self.directory.replica()
    }

    /// The head of a view's log of roots, signed; `None` before the first entry. The view must be
    /// one that a namespace has shown, so that nothing is signed that a crash takes back.
    ///
    /// # Errors
    /// [`StoreError`] when the log cannot be read.
    pub fn signed_head(
        &self,
        namespace: &Namespace,
        view: &View,
    ) -> Result<Option<SignedHead>, StoreError> {
        let Some((replica, key)) = self.directory.signer() else {
            return Ok(None);
        };
        let head = view.log_head()?;
        Ok(head.map(|head| key.sign(namespace, LogHead { replica, ..head })))
    }

    /// What is accepted from outside.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The clock on the wall.
    pub fn wall(&self) -> &dyn WallClock {
        &*self.wall
    }

    /// Running and recent sync sessions.
    pub fn sessions(&self) -> &SessionLog {
        &self.sessions
    }

    /// Bytes that have passed through sockets.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Running and recent jobs.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// A namespace, if it exists.
    pub fn namespace(&self, name: &Namespace) -> Option<Arc<OpenNamespace>> {
        let map = self.namespaces.read();
        let map = map.unwrap_or_else(PoisonError::into_inner);
        map.get(name).cloned()
    }

    /// All namespaces in order of name.
    pub fn namespaces(&self) -> Vec<Arc<OpenNamespace>> {
        let map = self.namespaces.read();
        let map = map.unwrap_or_else(PoisonError::into_inner);
        map.values().cloned().collect()
    }

    /// Creates a namespace; false when it existed. Blocks on the disk.
    ///
    /// # Errors
    /// [`NamespaceError`] when there are too many or the file cannot be made.
    pub fn create_namespace(&self, name: &Namespace) -> Result<bool, NamespaceError> {
        let _changing = lock(&self.membership);
        if self.namespace(name).is_some() {
            return Ok(false);
        }
        let count = self.namespaces().len();
        if count >= self.options.namespaces_max {
            return Err(NamespaceError::TooMany(count));
        }
        let existed = self.directory.file(name).exists();
        let started = self.start(name).and_then(|open| {
            self.settle().inspect_err(|_| {
                self.write_map().remove(name);
                open.stop();
            })
        });
        if let Err(error) = started {
            if !existed {
                // What failed is told; that a file is left, the next start shows.
                let _ = self.remove_files(name);
            }
            return Err(error.into());
        }
        Ok(true)
    }

    /// Drops a namespace with everything in it. Blocks until its writer has stopped.
    ///
    /// # Errors
    /// [`NamespaceError`] when it does not exist, is the default one, or cannot be removed.
    pub fn drop_namespace(&self, name: &Namespace) -> Result<(), NamespaceError> {
        if *name == Namespace::default_namespace() {
            return Err(NamespaceError::Default);
        }
        let _changing = lock(&self.membership);
        let removed = self.write_map().remove(name);
        let open = removed.ok_or_else(|| NamespaceError::Unknown(name.clone()))?;
        open.stop();
        self.remove_files(name)?;
        Ok(self.settle()?)
    }

    /// Removes a namespace's file first: a log without it is nothing, and is removed by whoever
    /// makes a namespace of that name.
    fn remove_files(&self, name: &Namespace) -> Result<(), StoreError> {
        self.directory.remove(name)?;
        let file = self.directory.file(name);
        LogPlace::beside(&file, Arc::new(MachineDisk), Epoch(0)).remove_all()
    }

    /// Gives up what other replicas have left behind, and the replica id when there is a copy of
    /// this replica that has the same; called now and then. Blocks.
    pub fn sweep(&self) {
        for namespace in self.namespaces() {
            namespace.pins().sweep();
        }
        if self.namespaces().iter().any(|open| open.has_renewed()) {
            self.rename_once();
        }
    }

    /// Takes another replica id, once. What fails is made up for by the next start.
    fn rename_once(&self) {
        let _changing = lock(&self.membership);
        if self.is_renamed.swap(true, Ordering::Relaxed) {
            return;
        }
        let before = self.id();
        let renamed = self.directory.rename().map_err(|error| error.to_string());
        let renamed = renamed.and_then(|replica| {
            for namespace in self.namespaces() {
                let named = namespace.order_blocking(Order::Name(replica));
                named.map_err(|error| error.to_string())?;
            }
            self.settle().map_err(|error| error.to_string())
        });
        match renamed {
            Ok(()) => warn!(%before, replica = %self.id(), "this replica has another id now"),
            Err(error) => error!(%error, "the replica id could not be changed"),
        }
    }

    /// Ends running jobs, commits what is queued and closes all files. Blocks.
    pub fn stop(&self) {
        self.jobs.stop();
        for namespace in self.namespaces() {
            namespace.stop();
        }
    }

    fn write_map(
        &self,
    ) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Namespace, Arc<OpenNamespace>>> {
        let map = self.namespaces.write();
        map.unwrap_or_else(PoisonError::into_inner)
    }
}
