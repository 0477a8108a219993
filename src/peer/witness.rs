//! Watching the log of roots of one peer in one namespace: each head that it signs has to follow
//! from those that it signed before, also from those that it has shown to others only.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::sleep;
use tracing::{debug, error, warn};

use crate::peer::client::PeerClient;
use crate::peer::link::Link;
use crate::replica::command::Command;
use crate::roots::head::SignedHead;
use crate::roots::witness::{Accusation, Fault, Relation, Witnessed, relation};
use crate::runtime::lock::lock;
use crate::runtime::queue::SubmitError;
use crate::store::error::StoreError;
use crate::sync::transport::TransportError;
use crate::wire::roots::{
    BadRoots, CONSISTENCY_BYTES_MAX, ConsistencyBody, HEADS_BYTES_MAX, HeadsBody,
};

/// How often a peer's head is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same for a peer that has no log, being of an older version, or cannot be asked.
const LOOK_SELDOM: Duration = Duration::from_secs(60);

/// Why a look at a peer's log came to nothing.
#[derive(Debug, Error)]
enum LookError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Bad(#[from] BadRoots),
    #[error("its head is not signed by the key that it names, or names another replica")]
    NotSigned,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Watches the log of one peer in one namespace. What is found is told in the link's state.
pub struct Watching {
    /// The link whose peer is watched.
    pub link: Link,
}

impl Watching {
    /// Looks now and then, until the link is stopped.
    pub async fn run(self) {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::select! {
                () = self.link.stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            let (_, banned) = self.link.runner.penalty(&self.link.address);
            // Until a session has told who answers there, nothing can be held against it.
            if banned.is_some() || lock(&self.link.state).replica.is_none() {
                continue;
            }
            pause = match self.look().await {
                Ok(()) => LOOK_EVERY,
                Err(LookError::Transport(error)) => {
                    debug!(peer = %self.link.address, %error, "its log of roots cannot be looked at");
                    LOOK_SELDOM.min(pause * 2)
                }
                Err(error @ (LookError::Bad(_) | LookError::NotSigned)) => {
                    warn!(peer = %self.link.address, %error, "refused what a peer says of its log of roots");
                    self.link.runner.penalize(&self.link.address);
                    LOOK_SELDOM
                }
                Err(error) => {
                    error!(peer = %self.link.address, %error, "what was seen of its log of roots is lost");
                    LOOK_SELDOM
                }
            };
        }
    }

    /// Asks the peer for its head and for those that it has seen, and for the proof that its own
    /// one goes with all that are known of it.
    async fn look(&self) -> Result<(), LookError> {
        let client =
            self.link
                .runner
                .client(&self.link.address, &self.link.namespace, &self.link.stop);
        let body = client.get("roots/heads", HEADS_BYTES_MAX).await?;
        let body: HeadsBody = serde_json::from_slice(&body).map_err(|_| BadRoots)?;
        let (own, seen) = body.read()?;
        self.listen(seen).await?;
        if let Some(own) = own {
            let replica = lock(&self.link.state).replica;
            if !own.is_signed(self.link.namespace.name()) || replica != Some(own.head.replica) {
                return Err(LookError::NotSigned);
            }
            self.judge(&client, own).await?;
        }
        self.tell().await
    }

    /// Compares what the peer has seen of others with what was seen here.
    async fn listen(&self, seen: Vec<SignedHead>) -> Result<(), LookError> {
        let name = self.link.namespace.name();
        for head in seen {
            let key = head.key;
            let known: Result<_, StoreError> = self
                .link
                .namespace
                .read(move |view| view.snapshot().witnessed_of(&key))
                .await;
            // Keys that were never met are not of interest, and anybody can make many.
            let Some(known) = known?.filter(|_| head.is_signed(name)) else {
                continue;
            };
            match relation(&known.head, &head) {
                Relation::Contradiction => {
                    self.accuse(Fault::TwoHeads, known.head, head).await?;
                }
                Relation::Ask { .. } => self.link.runner.heard().add(name, head),
                Relation::Same | Relation::OtherLog => {}
            }
        }
        Ok(())
    }

    async fn judge(&self, client: &PeerClient, own: SignedHead) -> Result<(), LookError> {
        let name = self.link.namespace.name();
        let key = own.key;
        let pinned: Result<_, StoreError> = self
            .link
            .namespace
            .read(move |view| view.snapshot().witnessed_of(&key))
            .await;
        let pinned = pinned?.map(|witnessed| witnessed.head);
        if pinned.is_none() {
            self.note_new_key(&own).await?;
        }
        let heard = self.link.runner.heard().of(name, &key);
        let (mut is_honest, mut is_new) = (true, pinned.is_none());
        for old in pinned.iter().chain(&heard) {
            match relation(old, &own) {
                Relation::Same => {}
                Relation::Contradiction => {
                    is_honest = false;
                    let (old, own) = (old.clone(), own.clone());
                    self.accuse(Fault::TwoHeads, old, own).await?;
                }
                Relation::OtherLog => {
                    is_new = true;
                    let (old, own) = (old.clone(), own.clone());
                    self.accuse(Fault::BegunAnew, old, own).await?;
                }
                Relation::Ask { from, to } => {
                    let (first, last) = if old.head.size < own.head.size {
                        (old, &own)
                    } else {
                        (&own, old)
                    };
                    if !shows(client, from, to, first, last).await? {
                        is_honest = false;
                        let (old, own) = (old.clone(), own.clone());
                        self.accuse(Fault::Rewritten, old, own).await?;
                    } else if pinned.as_ref() == Some(old) {
                        is_new = old.head.size < own.head.size;
                    }
                }
            }
        }
        self.link.runner.heard().settle(name, &heard);
        if is_honest && is_new {
            let head = Witnessed {
                head: own,
                heard_at: self.link.namespace.now(),
            };
            let remember = Command::Witness(Arc::new(head));
            self.link.namespace.submit(remember).await?;
        }
        Ok(())
    }

    /// Takes note when a replica that was met signs with another key than before.
    async fn note_new_key(&self, own: &SignedHead) -> Result<(), LookError> {
        let known: Result<Vec<Witnessed>, StoreError> = self
            .link
            .namespace
            .read(|view| view.snapshot().witnessed())
            .await;
        let of_replica = known?
            .into_iter()
            .filter(|known| known.head.head.replica == own.head.replica);
        match of_replica.max_by_key(|known| known.heard_at) {
            Some(before) => self.accuse(Fault::NewKey, before.head, own.clone()).await,
            None => Ok(()),
        }
    }

    /// Keeps evidence that is not kept yet, and says so.
    async fn accuse(
        &self,
        fault: Fault,
        first: SignedHead,
        second: SignedHead,
    ) -> Result<(), LookError> {
        let key = first.key;
        let known: Result<_, StoreError> = self
            .link
            .namespace
            .read(move |view| view.snapshot().accusations())
            .await;
        let of_kind = |known: &&Accusation| (known.first.key, known.fault) == (key, fault);
        let is_known = known?.iter().filter(of_kind).any(|known| {
            fault.is_proof()
                || (known.second.key, known.second.head.log) == (second.key, second.head.log)
        });
        if is_known {
            return Ok(());
        }
        let (namespace, replica) = (self.link.namespace.name(), second.head.replica);
        let (size, log) = (second.head.size, second.head.log);
        if fault.is_proof() {
            error!(
                %namespace, %replica, %log, size, fault = fault.name(),
                "a replica contradicts what it signed: its log of roots was changed, or two copies of \
                 it run; the evidence is kept, see GET /v1/ns/{namespace}/agreement"
            );
            if lock(&self.link.state).replica == Some(replica) {
                self.link.runner.penalize(&self.link.address);
            }
        } else {
            warn!(
                %namespace, %replica, %log, size, fault = fault.name(),
                "a replica has begun its log of roots anew, or taken another key: what it signed before \
                 does not bind it any more, see GET /v1/ns/{namespace}/agreement"
            );
        }
        let accusation = Accusation {
            fault,
            first,
            second,
            found_at: self.link.namespace.now(),
        };
        let keep = Command::Accuse(Arc::new(accusation));
        self.link.namespace.submit(keep).await?;
        Ok(())
    }

    /// Shows what is held against the peer in its state.
    async fn tell(&self) -> Result<(), LookError> {
        let held: Result<Vec<Accusation>, StoreError> = self
            .link
            .namespace
            .read(|view| view.snapshot().accusations())
            .await;
        let held = held?;
        let mut state = lock(&self.link.state);
        let of_peer = held
            .iter()
            .filter(|held| Some(held.second.head.replica) == state.replica);
        let mut faults: Vec<&'static str> = of_peer.map(|held| held.fault.name()).collect();
        faults.sort_unstable();
        faults.dedup();
        state.accused = faults;
        Ok(())
    }
}

/// True when the peer shows that the first head's log is the beginning of the last one's.
async fn shows(
    client: &PeerClient,
    from: u64,
    to: u64,
    first: &SignedHead,
    last: &SignedHead,
) -> Result<bool, LookError> {
    let path = format!("roots/consistency?from={from}&to={to}");
    let proof = match client.get(&path, CONSISTENCY_BYTES_MAX).await {
        Ok(body) => {
            let body: ConsistencyBody = serde_json::from_slice(&body).map_err(|_| BadRoots)?;
            body.hashes()?
        }
        // It has signed that it was that long.
        Err(TransportError::Refused { code, .. }) if code == "root_not_found" => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    Ok(first.leads_to(last, &proof))
}
