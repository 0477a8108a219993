//! The responder's side of the replication protocol for whoever has a message's bytes: finds the
//! session, answers on the blocking pool, hands pushed states to the writer.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use thiserror::Error;

use crate::replica::command::Command;
use crate::replica::view::View;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::pins::PinError;
use crate::runtime::replica::Replica;
use crate::runtime::writer::SubmitError;
use crate::store::error::StoreError;
use crate::sync::exchange::reply_limit;
use crate::sync::responder::{self, ResponderError};
use crate::sync::transfer::TransferError;
use crate::types::limits::Limits;
use crate::wire::frame::{open, seal};
use crate::wire::messages::{
    BodiesRequest, CloseReply, CloseRequest, CompareRequest, Endpoint, OfferRequest, OpenReply,
    OpenRequest, RangeRequest, RecordsRequest, StoreReply, StoreRequest, SubtreesRequest,
};

/// Why a message was not answered.
#[derive(Debug, Error)]
pub enum SyncError {
    /// All places for sessions are taken.
    #[error("too many sync sessions are running; try again in a moment")]
    TooManySessions,
    /// The session is not open (any more).
    #[error("there is no such sync session (any more); start a new one")]
    UnknownSession,
    /// No message of that name.
    #[error("there is no sync message {0:?}")]
    UnknownMessage(String),
    /// The message is malformed.
    #[error("{0}")]
    BadMessage(String),
    /// The bytes of a state do not have its hash.
    #[error("{0}")]
    HashMismatch(String),
    /// The writer did not take the states.
    #[error(transparent)]
    Submit(#[from] SubmitError),
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

impl From<PinError> for SyncError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::TooManySessions => Self::TooManySessions,
            PinError::UnknownSession => Self::UnknownSession,
            PinError::NoRandomNumbers => Self::BadMessage(error.to_string()),
        }
    }
}

/// Most bytes that a message of this name may have, if there is such a message.
pub fn message_limit(limits: &Limits, message: &str) -> Option<usize> {
    Endpoint::named(message).map(|endpoint| reply_limit(limits, endpoint))
}

/// Answers one message.
///
/// # Errors
/// [`SyncError`]; nothing was stored.
pub async fn answer(
    replica: &Replica,
    namespace: &OpenNamespace,
    message: &str,
    body: Bytes,
) -> Result<Vec<u8>, SyncError> {
    let endpoint = Endpoint::named(message)
        .ok_or_else(|| SyncError::UnknownMessage(message.chars().take(40).collect()))?;
    let asked = Asked {
        namespace,
        endpoint,
        body,
        limits: *replica.limits(),
    };
    match endpoint {
        Endpoint::Open => asked.open(replica),
        Endpoint::Compare => {
            let limits = asked.limits;
            asked
                .pinned(
                    |head: &CompareRequest| head.session,
                    move |view, head, blob| {
                        Ok(((), responder::compare(view, &head, &blob, &limits)?))
                    },
                )
                .await
        }
        Endpoint::Records => {
            asked
                .pinned(
                    |head: &RecordsRequest| head.session,
                    |view, head, _| Ok((responder::records(view, &head)?, Vec::new())),
                )
                .await
        }
        Endpoint::Subtrees => {
            asked
                .pinned(
                    |head: &SubtreesRequest| head.session,
                    |view, head, _| Ok((responder::subtrees(view, &head)?, Vec::new())),
                )
                .await
        }
        Endpoint::Range => {
            asked
                .pinned(
                    |head: &RangeRequest| head.session,
                    |view, head, _| Ok((responder::range(view, &head)?, Vec::new())),
                )
                .await
        }
        Endpoint::Bodies => {
            let limits = asked.limits;
            asked
                .pinned(
                    |head: &BodiesRequest| head.session,
                    move |view, head, _| responder::bodies(view, &head, &limits),
                )
                .await
        }
        Endpoint::Offer => asked.offer().await,
        Endpoint::Store => asked.store().await,
        Endpoint::Close => asked.close(),
    }
}

struct Asked<'a> {
    namespace: &'a OpenNamespace,
    endpoint: Endpoint,
    body: Bytes,
    limits: Limits,
}

impl Asked<'_> {
    fn head<H: serde::de::DeserializeOwned>(&self) -> Result<(H, Vec<u8>), SyncError> {
        let limit = reply_limit(&self.limits, self.endpoint);
        open(self.endpoint.kind(), &self.body, limit)
            .map_err(|error| SyncError::BadMessage(error.to_string()))
    }

    fn open(&self, replica: &Replica) -> Result<Vec<u8>, SyncError> {
        let (head, _): (OpenRequest, _) = self.head()?;
        let view = self.namespace.view();
        let (identity, stands) = (*view.identity(), *view.head());
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
        };
        Ok(seal(self.endpoint.kind(), &reply, &[]))
    }

    /// Answers from the pinned view of the session that the head names.
    async fn pinned<H, R>(
        self,
        session: fn(&H) -> u64,
        work: impl FnOnce(&View, H, Vec<u8>) -> Result<(R, Vec<u8>), ResponderError> + Send + 'static,
    ) -> Result<Vec<u8>, SyncError>
    where
        H: serde::de::DeserializeOwned + Send + 'static,
        R: Serialize,
    {
        let (head, blob): (H, _) = self.head()?;
        let (view, _) = self.namespace.pins().get(session(&head))?;
        self.read(view, move |view| work(view, head, blob)).await
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
        let (head, _): (OfferRequest, _) = self.head()?;
        self.namespace.pins().get(head.session)?;
        let limits = self.limits;
        let view = self.namespace.view();
        self.read(view, move |view| {
            Ok((responder::offer(view, head, &limits)?, Vec::new()))
        })
        .await
    }

    async fn store(self) -> Result<Vec<u8>, SyncError> {
        let (head, blob): (StoreRequest, _) = self.head()?;
        self.namespace.pins().get(head.session)?;
        let limits = self.limits;
        let stored = head.records.len() as u32;
        let checked = self
            .namespace
            .read(move |view| responder::store(view, head, &blob, &limits));
        let incoming = checked.await?;
        self.namespace.submit(Command::Merge(incoming)).await?;
        Ok(seal(self.endpoint.kind(), &StoreReply { stored }, &[]))
    }

    fn close(&self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (CloseRequest, _) = self.head()?;
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
