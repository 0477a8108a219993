//! Typed requests over a transport, with every byte and round trip accounted for.

use std::time::Instant;

use thiserror::Error;

use crate::reconcile::error::ReconcileError;
use crate::replica::staging::StagingError;
use crate::store::error::StoreError;
use crate::sync::dictionaries::DictionaryError;
use crate::sync::report::{Passed, Report};
use crate::sync::transfer::TransferError;
use crate::sync::transport::{MergeError, Transport, TransportError};
use crate::types::limits::{Limits, WHOLE_STATE_MAX};
use crate::types::record::BadRecord;
use crate::wire::error::BadFrame;
use crate::wire::frame::{HEADER_BYTES, open, read_by_sender, seal_for};
use crate::wire::head::Head;
use crate::wire::messages::Endpoint;
use crate::wire::version::Protocol;

/// Why a session failed. What it had verified and stored before stays.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The peer could not be reached, or refused.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The peer's answer is not a frame of the protocol.
    #[error(transparent)]
    Frame(#[from] BadFrame),
    /// The comparison went wrong.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// A record that no honest replica makes.
    #[error("the peer sent a malformed record: {0}")]
    Record(#[from] BadRecord),
    /// The peer's answer does not fit the question.
    #[error("the peer's answer does not fit the question: {0}")]
    Misfit(&'static str),
    /// The session cannot be held, through nobody's misbehaviour.
    #[error("{0}")]
    Impossible(&'static str),
    /// There is a copy of this replica.
    #[error(
        "the peer has seen writes under this replica's name that are not known here: a copy of its \
         data directory was used, or this is an older copy; it has taken another name, and the \
         next session can succeed"
    )]
    Renewed,
    /// The records do not add up to the root.
    #[error(
        "the records the peer sent do not add up to the root it announced; nothing of it was stored"
    )]
    RootMismatch,
    /// Bytes of a state were not as announced.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A dictionary that is not what it is said to be.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
    /// Some states could not be read or were refused. All others are stored.
    #[error("{count} of the states were left out: {first}")]
    LeftOut {
        /// How many.
        count: usize,
        /// Why the first of them was not.
        first: String,
    },
    /// A large state could not be kept.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// Our own writer failed.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// Our own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SessionError {
    /// True when an honest, healthy peer would not have caused this.
    pub fn is_misbehaviour(&self) -> bool {
        match self {
            Self::Frame(BadFrame::Version(_)) => false,
            Self::Frame(_)
            | Self::Record(_)
            | Self::Misfit(_)
            | Self::Dictionary(_)
            | Self::RootMismatch => true,
            Self::Reconcile(error) => !matches!(error, ReconcileError::View(_)),
            Self::Transfer(error) => matches!(
                error,
                TransferError::WrongHash(_)
                    | TransferError::Undecodable { .. }
                    | TransferError::Malformed(_)
            ),
            Self::Transport(error) => matches!(error, TransportError::TooLong(_)),
            Self::Merge(_)
            | Self::Staging(_)
            | Self::LeftOut { .. }
            | Self::Store(_)
            | Self::Impossible(_)
            | Self::Renewed => false,
        }
    }
}

/// A conversation with one peer.
pub struct Exchange<'a> {
    transport: &'a mut dyn Transport,
    limits: &'a Limits,
    /// What the peer is known to read.
    pub protocol: Protocol,
    /// Bytes of the last request and its answer.
    pub last: Passed,
    /// What the session's report says so far.
    pub report: &'a mut Report,
}

impl<'a> Exchange<'a> {
    /// A conversation over `transport` that is accounted for in `report`.
    pub fn new(
        transport: &'a mut dyn Transport,
        limits: &'a Limits,
        report: &'a mut Report,
    ) -> Self {
        Self {
            transport,
            limits,
            protocol: Protocol::default(),
            last: Passed::default(),
            report,
        }
    }

    /// What is accepted from outside.
    pub fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Asks, and waits for the answer's head and blob.
    ///
    /// # Errors
    /// [`SessionError`] when there is no answer or it is not a frame of the endpoint's kind.
    pub fn ask<H: Head>(
        &mut self,
        phase: &'static str,
        endpoint: Endpoint,
        head: &impl Head,
        blob: &[u8],
    ) -> Result<(H, Vec<u8>), SessionError> {
        let begin = Instant::now();
        let request = seal_for(self.protocol, endpoint.kind(), head, blob);
        let sent = request.len() as u64;
        let limit = reply_limit(self.limits, endpoint);
        let before = self.transport.passed();
        let reply = self.transport.call(endpoint, request, limit + HEADER_BYTES);
        // What was in vain has passed all the same.
        let received = reply.as_ref().map_or(0, Vec::len) as u64;
        self.last = Passed { sent, received };
        let passed = self
            .transport
            .passed()
            .map_or(Passed { sent, received }, |passed| {
                passed.since(before.unwrap_or_default())
            });
        let seconds = begin.elapsed().as_secs_f64();
        self.report.count(phase, passed, seconds);
        // Whoever refuses may be an older build in place of the one that was known.
        let newest = reply.as_ref().map(|reply| read_by_sender(reply));
        self.protocol = newest.unwrap_or_default();
        Ok(open(endpoint.kind(), &reply?, limit)?)
    }
}

/// Most bytes that a message to or from an endpoint may have.
pub fn reply_limit(limits: &Limits, endpoint: Endpoint) -> usize {
    let message = limits.message_bytes;
    let bytes = match endpoint {
        Endpoint::Bodies | Endpoint::Store | Endpoint::Contents => {
            message + limits.transfer_bytes + limits.state_bytes.min(WHOLE_STATE_MAX)
        }
        _ => message,
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
