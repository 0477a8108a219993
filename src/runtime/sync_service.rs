//! The responder's side of the replication protocol for whoever has a message's bytes: finds the
//! session, answers on the blocking pool, hands pushed states to the writer.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::replica::command::Command;
use crate::replica::renew::Evidence;
use crate::replica::view::View;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::orders::Order;
use crate::runtime::pins::PinError;
use crate::runtime::queue::SubmitError;
use crate::runtime::replica::Replica;
use crate::store::error::StoreError;
use crate::sync::contents::contents;
use crate::sync::exchange::reply_limit;
use crate::sync::responder::{self, ResponderError};
use crate::sync::transfer::TransferError;
use crate::types::limits::Limits;
use crate::types::lineage::Sighting;
use crate::wire::frame::{open, plain_length, seal};
use crate::wire::messages::{
    BodiesRequest, CloseReply, CloseRequest, CompareRequest, ContentsRequest, Endpoint, InSession,
    OfferRequest, OpenReply, OpenRequest, RangeRequest, RecordsRequest, StoreReply, StoreRequest,
    SubtreesRequest,
};

/// Messages up to this many bytes are decoded without leaving the async thread: a few dozen
/// microseconds.
const DECODE_INLINE: usize = 64 << 10;

/// Why a message was not answered.
#[derive(Debug, Error)]
pub enum SyncError {
    /// The session cannot be opened or found.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The message is malformed.
    #[error("{0}")]
    BadMessage(String),
    /// The bytes of a state do not have its hash.
    #[error("{0}")]
    HashMismatch(String),
    /// The writer did not take the states.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// There is a copy of this replica, which is to write under another name.
    #[error("this replica is taking another name for its writes; try again in a moment")]
    Renewing,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ResponderError> for SyncError {
    fn from(error: ResponderError) -> Self {
        match error {
            ResponderError::Store(error)
            | ResponderError::Transfer(TransferError::Store(error)) => Self::Store(error),
            ResponderError::Transfer(TransferError::WrongHash(id)) => {
                Self::HashMismatch(TransferError::WrongHash(id).to_string())
            }
            other => Self::BadMessage(other.to_string()),
        }
    }
}

/// Answers one message.
///
/// # Errors
/// [`SyncError`]; nothing was stored.
pub async fn answer(
    replica: &Replica,
    namespace: &OpenNamespace,
    endpoint: Endpoint,
    body: Bytes,
) -> Result<Vec<u8>, SyncError> {
    let asked = Asked {
        namespace,
        endpoint,
        body,
        limits: *replica.limits(),
    };
    match endpoint {
        Endpoint::Open => asked.open(replica).await,
        Endpoint::Compare => {
            let answer = |view: &View, head: CompareRequest, question: &[u8], limits: &Limits| {
                Ok(((), responder::compare(view, &head, question, limits)?))
            };
            asked.pinned(answer).await
        }
        Endpoint::Records => {
            let answer = |view: &View, head: RecordsRequest, _: &[u8], limits: &Limits| {
                Ok((responder::records(view, &head, limits)?, Vec::new()))
            };
            asked.pinned(answer).await
        }
        Endpoint::Subtrees => {
            let answer = |view: &View, head: SubtreesRequest, _: &[u8], _: &Limits| {
                Ok((responder::subtrees(view, &head)?, Vec::new()))
            };
            asked.pinned(answer).await
        }
        Endpoint::Range => {
            let answer = |view: &View, head: RangeRequest, _: &[u8], limits: &Limits| {
                Ok((responder::range(view, &head, limits)?, Vec::new()))
            };
            asked.pinned(answer).await
        }
        Endpoint::Bodies => {
            let answer = |view: &View, head: BodiesRequest, _: &[u8], limits: &Limits| {
                responder::bodies(view, &head, limits)
            };
            asked.pinned(answer).await
        }
        Endpoint::Offer => asked.offer().await,
        Endpoint::Store => asked.store().await,
        Endpoint::Close => asked.close().await,
        Endpoint::Contents => asked.contents().await,
    }
}

struct Asked<'a> {
    namespace: &'a OpenNamespace,
    endpoint: Endpoint,
    body: Bytes,
    limits: Limits,
}

/// Makes head and blob of a reply out of those of a request.
type Work<H, R> = fn(&View, H, &[u8], &Limits) -> Result<(R, Vec<u8>), ResponderError>;

impl Asked<'_> {
    async fn head<H: DeserializeOwned + Send + 'static>(&self) -> Result<(H, Vec<u8>), SyncError> {
        let (kind, limit) = (
            self.endpoint.kind(),
            reply_limit(&self.limits, self.endpoint),
        );
        let body = self.body.clone();
        let decode = move || {
            let opened = open(kind, &body, limit);
            opened.map_err(|error| SyncError::BadMessage(error.to_string()))
        };
        if plain_length(&self.body) <= DECODE_INLINE {
            return decode();
        }
        self.namespace.read(move |_| decode()).await
    }

    async fn open(&self, replica: &Replica) -> Result<Vec<u8>, SyncError> {
        let (head, _): (OpenRequest, _) = self.head().await?;
        let seen = self.meet(&head).await?;
        let view = self.namespace.view();
        if view.provenance().pending.is_some() {
            return Err(SyncError::Renewing);
        }
        let (identity, stands) = (*view.identity(), *view.head());
        let lineage = view.provenance().lineage.told();
        let equal = stands.root.hash.matches(&head.root);
        let holds = equal.then_some(stands.root.hash);
        if head.follows {
            self.namespace.pins().hear(head.replica, holds);
        }
        let session = if equal {
            None
        } else {
            Some(self.namespace.pins().open(head.replica, view)?)
        };
        let reply = OpenReply {
            replica: replica.id(),
            epoch: identity.epoch,
            incarnation: identity.incarnation,
            seq: stands.seq,
            root: stands.root,
            session,
            lineage,
            seen,
        };
        Ok(seal(self.endpoint.kind(), &reply, &[]))
    }

    /// What the peer has to be told, because it does not go together with what it says of itself.
    async fn meet(&self, head: &OpenRequest) -> Result<Option<Sighting>, SyncError> {
        if let Err(error) = head.lineage.check() {
            return Err(SyncError::BadMessage(error.to_string()));
        }
        if let Some(seen) = head
            .seen
            .as_ref()
            .filter(|seen| self.namespace.is_copied(seen))
        {
            let order = Order::Renew(Evidence::Seen(seen.clone()));
            match self.namespace.order(order).await {
                // What was said cannot be proven; a second time within a short while it counts less.
                Err(SubmitError::RenewedLately) => {}
                renewed => {
                    return renewed
                        .map_err(SyncError::from)
                        .and(Err(SyncError::Renewing));
                }
            }
        }
        if head.lineage.newest() == self.namespace.view().provenance().lineage.newest() {
            return Ok(None);
        }
        Ok(self.namespace.meet(&head.lineage, head.seq))
    }

    /// Answers from the pinned view of the session that the head names.
    async fn pinned<H, R>(self, work: Work<H, R>) -> Result<Vec<u8>, SyncError>
    where
        H: InSession + DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
    {
        let (head, blob): (H, _) = self.head().await?;
        let (view, _) = self.namespace.pins().get(head.session())?;
        let limits = self.limits;
        self.read(view, move |view| work(view, head, &blob, &limits))
            .await
    }

    async fn read<R: Serialize>(
        &self,
        view: Arc<View>,
        work: impl FnOnce(&View) -> Result<(R, Vec<u8>), ResponderError> + Send + 'static,
    ) -> Result<Vec<u8>, SyncError> {
        let kind = self.endpoint.kind();
        let sealed = self.namespace.read_view(view, move |view| {
            work(view).map(|(head, blob)| seal(kind, &head, &blob))
        });
        Ok(sealed.await?)
    }

    /// What is news is judged by the newest view, not by the pinned one.
    async fn offer(self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (OfferRequest, _) = self.head().await?;
        self.namespace.pins().get(head.session)?;
        let limits = self.limits;
        let view = self.namespace.view();
        self.read(view, move |view| {
            Ok((responder::offer(view, head, &limits)?, Vec::new()))
        })
        .await
    }

    async fn store(self) -> Result<Vec<u8>, SyncError> {
        let (head, blob): (StoreRequest, _) = self.head().await?;
        self.namespace.pins().get(head.session)?;
        let limits = self.limits;
        let sent = head.records.len();
        let checked = self
            .namespace
            .read(move |view| responder::store(view, head, &blob, &limits));
        let incoming = checked.await?;
        let committed = self.namespace.submit(Command::Merge(incoming)).await?;
        let stored = (sent - committed.accepted.refused.len()) as u32;
        Ok(seal(self.endpoint.kind(), &StoreReply { stored }, &[]))
    }

    /// Belongs to no session: replicas with equal roots have none.
    async fn contents(self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (ContentsRequest, _) = self.head().await?;
        let limits = self.limits;
        let view = self.namespace.view();
        self.read(view, move |view| contents(view, &head, &limits))
            .await
    }

    async fn close(&self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (CloseRequest, _) = self.head().await?;
        let peer = self.namespace.pins().close(head.session);
        let stands = *self.namespace.view().head();
        if let (Some(peer), Some(root)) = (peer, head.root) {
            let same = root.matches(&stands.root.hash);
            self.namespace.pins().left(peer, same.then_some(root));
        }
        let reply = CloseReply {
            root: stands.root,
            seq: stands.seq,
        };
        Ok(seal(self.endpoint.kind(), &reply, &[]))
    }
}
