//! The responder's side of the replication protocol for whoever has a message's bytes: finds the
//! session, answers on the blocking pool, hands pushed states to the writer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task;
use tracing::warn;

use crate::reconcile::strategy::StrategyName;
use crate::replica::collect::let_go;
use crate::replica::command::{Command, Meeting};
use crate::replica::renew::Evidence;
use crate::replica::view::View;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::orders::Order;
use crate::runtime::pins::Said;
use crate::runtime::queue::SubmitError;
use crate::runtime::replica::Replica;
use crate::runtime::sync_error::SyncError;
use crate::store::error::StoreError;
use crate::sync::answer_chunks;
use crate::sync::contents::contents;
use crate::sync::exchange::reply_limit;
use crate::sync::responder::{self, ResponderError};
use crate::sync::sides::Sides;
use crate::types::limits::Limits;
use crate::types::lineage::Sighting;
use crate::types::seen::Seen;
use crate::wire::chunk_messages::{ChunksRequest, StageRequest};
use crate::wire::frame::{open, plain_length, read_by_sender, seal_for};
use crate::wire::head::Head;
use crate::wire::healing_messages::{ContentsRequest, PiecesRequest};
use crate::wire::messages::{
    BodiesRequest, CloseReply, CloseRequest, CompareRequest, DictionaryRequest, Endpoint,
    ForgetRequest, InSession, LIST_MAX, OfferRequest, OpenReply, OpenRequest, ProbeReply,
    ProbeRequest, RangeRequest, RecordsRequest, StoreReply, StoreRequest, SubtreesRequest,
    Testimony,
};
use crate::wire::version::Protocol;

/// Messages up to this many bytes are decoded without leaving the async thread: a few dozen
/// microseconds.
const DECODE_INLINE: usize = 64 << 10;

/// Answers one message.
///
/// # Errors
/// [`SyncError`]; nothing was stored.
pub async fn answer(
    replica: &Replica,
    namespace: &Arc<OpenNamespace>,
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
            let answer = |view: &View, head: RecordsRequest, slots: &[u8], limits: &Limits| {
                Ok((responder::records(view, &head, slots, limits)?, Vec::new()))
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
        Endpoint::Bodies => asked.bodies().await,
        Endpoint::Offer => asked.offer().await,
        Endpoint::Store => asked.store().await,
        Endpoint::Forget => asked.forget().await,
        Endpoint::Close => asked.close().await,
        Endpoint::Contents => asked.contents().await,
        Endpoint::Probe => asked.probe(replica).await,
        Endpoint::Dictionary => asked.dictionary().await,
        Endpoint::Chunks => {
            let answer = |view: &View, head: ChunksRequest, _: &[u8], _: &Limits| {
                answer_chunks::chunks(view, &head)
            };
            asked.pinned(answer).await
        }
        Endpoint::Stage => asked.stage().await,
        Endpoint::Pieces => asked.pieces().await,
    }
}

/// Head and blob of a message.
///
/// # Errors
/// [`SyncError::BadMessage`] when it is malformed.
pub async fn opened<H: Head + Send + 'static>(
    namespace: &OpenNamespace,
    endpoint: Endpoint,
    body: &Bytes,
    limits: &Limits,
) -> Result<(H, Vec<u8>), SyncError> {
    let (kind, limit, frame) = (endpoint.kind(), reply_limit(limits, endpoint), body.clone());
    let decode = move || {
        let opened = open(kind, &frame, limit);
        opened.map_err(|error| SyncError::BadMessage(error.to_string()))
    };
    if plain_length(body) <= DECODE_INLINE {
        return decode();
    }
    namespace.read(move |_| decode()).await
}

struct Asked<'a> {
    namespace: &'a Arc<OpenNamespace>,
    endpoint: Endpoint,
    body: Bytes,
    limits: Limits,
}

/// What the replica says of a view, whoever asks.
fn statement(replica: &Replica, view: &View) -> Result<OpenReply, StoreError> {
    let (identity, stands) = (view.identity(), view.head());
    Ok(OpenReply {
        replica: replica.id(),
        epoch: identity.epoch,
        incarnation: identity.incarnation,
        seq: stands.seq,
        root: stands.root,
        testimony: Testimony::new(&stands.root.hash, view.seen()?),
        session: None,
        lineage: view.provenance().lineage.told(),
        seen: None,
    })
}

/// Makes head and blob of a reply out of those of a request.
type Work<H, R> = fn(&View, H, &[u8], &Limits) -> Result<(R, Vec<u8>), ResponderError>;

impl Asked<'_> {
    async fn head<H: Head + Send + 'static>(&self) -> Result<(H, Vec<u8>), SyncError> {
        opened(self.namespace, self.endpoint, &self.body, &self.limits).await
    }

    /// What the initiator reads.
    fn protocol(&self) -> Protocol {
        read_by_sender(&self.body)
    }

    fn seal(&self, head: &impl Head, blob: &[u8]) -> Vec<u8> {
        seal_for(self.protocol(), self.endpoint.kind(), head, blob)
    }

    async fn open(&self, replica: &Replica) -> Result<Vec<u8>, SyncError> {
        let (head, question): (OpenRequest, Vec<u8>) = self.head().await?;
        let seen = self.meet(&head).await?;
        let view = self.namespace.view();
        if view.provenance().pending.is_some() {
            return Err(SyncError::Renewing);
        }
        let stands = *view.head();
        let theirs = self.believe(&head)?;
        let equal = stands.root.hash.matches(&head.root);
        let holds = equal.then_some(stands.root.hash);
        if head.follows {
            self.namespace.pins().hear(head.replica, holds);
        }
        let mut reply = statement(replica, &view)?;
        let mut answered = Vec::new();
        reply.session = if equal {
            self.namespace.learn(&theirs);
            let said = Said {
                replica: head.replica,
                follows: head.follows,
                lineage: head.lineage.clone(),
                seq: head.seq,
            };
            self.namespace.pins().remember(head.digest(), said);
            None
        } else {
            let pinned = Arc::clone(&view);
            let session = self.namespace.pins().open(head.replica, pinned, theirs)?;
            if !question.is_empty() {
                answered = self.begin(view, session, question).await?;
            }
            Some(session)
        };
        reply.seen = seen;
        Ok(self.seal(&reply, &answered))
    }

    /// Nothing is pinned, and nothing is learned that was not learned before.
    async fn probe(&self, replica: &Replica) -> Result<Vec<u8>, SyncError> {
        let (head, _): (ProbeRequest, _) = self.head().await?;
        let view = self.namespace.view();
        let is_same =
            view.provenance().pending.is_none() && view.head().root.hash.matches(&head.root);
        let known = self.namespace.pins().recall(head.said);
        let known =
            known.filter(|said| is_same && self.namespace.meet(&said.lineage, said.seq).is_none());
        let reply = match known {
            Some(said) => {
                if said.follows {
                    self.namespace.pins().hear(said.replica, Some(head.root));
                }
                ProbeReply {
                    said: Some(statement(replica, &view)?.digest()),
                }
            }
            None => ProbeReply { said: None },
        };
        Ok(self.seal(&reply, &[]))
    }

    /// Answers the first question of `sketch`, which came with the opening.
    async fn begin(
        &self,
        view: Arc<View>,
        session: u64,
        question: Vec<u8>,
    ) -> Result<Vec<u8>, SyncError> {
        let head = CompareRequest {
            session,
            strategy: StrategyName::Sketch,
        };
        let limits = self.limits;
        let answer = move |view: &View| responder::compare(view, &head, &question, &limits);
        let answered = self.namespace.read_view(view, answer).await;
        // Nobody has been told of the session.
        Ok(answered.inspect_err(|_| {
            self.namespace.pins().close(session);
        })?)
    }

    /// What the peer has to be told, because it does not go together with what it says of itself.
    async fn meet(&self, head: &OpenRequest) -> Result<Option<Sighting>, SyncError> {
        let seen = head.seen.as_ref().map_or(Ok(()), Sighting::check);
        if let Err(error) = head.lineage.check().and(seen) {
            return Err(SyncError::BadMessage(error.to_string()));
        }
        if let Some(seen) = head
            .seen
            .as_ref()
            .filter(|seen| self.namespace.is_copied(seen))
        {
            warn!(replica = %head.replica, epoch = %seen.epoch, "is said to have a copy of this replica");
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

    /// What the initiator says to have taken in; nothing when it speaks of writes of ours that we
    /// never made, because then one of us was put back to an earlier state or is a copy.
    fn believe(&self, head: &OpenRequest) -> Result<Arc<Seen>, SyncError> {
        let theirs = head.testimony.read(&head.root);
        let theirs =
            theirs.ok_or_else(|| SyncError::BadMessage("a testimony that was changed".into()))?;
        let view = self.namespace.view();
        if theirs.get(view.identity().writer()) > view.head().seq {
            return Ok(Arc::default());
        }
        Ok(Arc::new(theirs.clone()))
    }

    /// Answers from the pinned view of the session that the head names.
    async fn pinned<H, R>(self, work: Work<H, R>) -> Result<Vec<u8>, SyncError>
    where
        H: InSession + Head + Send + 'static,
        R: Head + 'static,
    {
        let (head, blob): (H, _) = self.head().await?;
        let (view, _) = self.namespace.pins().get(head.session())?;
        let limits = self.limits;
        self.read(view, move |view| work(view, head, &blob, &limits))
            .await
    }

    async fn read<R: Head>(
        &self,
        view: Arc<View>,
        work: impl FnOnce(&View) -> Result<(R, Vec<u8>), ResponderError> + Send + 'static,
    ) -> Result<Vec<u8>, SyncError> {
        let (peer, kind) = (self.protocol(), self.endpoint.kind());
        let sealed = self.namespace.read_view(view, move |view| {
            work(view).map(|(head, blob)| seal_for(peer, kind, &head, &blob))
        });
        Ok(sealed.await?)
    }

    async fn bodies(self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (BodiesRequest, _) = self.head().await?;
        let (view, _) = self.namespace.pins().get(head.session)?;
        let (dictionaries, limits) = (Arc::clone(self.namespace.dictionaries()), self.limits);
        let peer = self.protocol();
        self.read(view, move |view| {
            responder::bodies(view, (peer, &dictionaries), &head, &limits)
        })
        .await
    }

    /// Belongs to no session.
    async fn dictionary(self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (DictionaryRequest, _) = self.head().await?;
        let dictionaries = Arc::clone(self.namespace.dictionaries());
        let view = self.namespace.view();
        self.read(view, move |_| responder::dictionary(&dictionaries, &head))
            .await
    }

    /// What is news is judged by the newest view, not by the pinned one.
    async fn offer(self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (OfferRequest, _) = self.head().await?;
        self.namespace.pins().get(head.session)?;
        let (session, limits) = (head.session, self.limits);
        let (theirs, now) = (self.namespace.pins().seen(session)?, self.namespace.now());
        let dictionaries = Arc::clone(self.namespace.dictionaries());
        let offered = self.namespace.read(move |view| {
            let sides = Sides::of_responder(view, theirs, now)?;
            responder::offer(view, &sides, &dictionaries, head, &limits)
        });
        let (reply, all) = offered.await?;
        if !all {
            self.namespace.pins().leave_out(session);
        }
        Ok(self.seal(&reply, &[]))
    }

    /// Collects what the initiator has collected, as far as this replica knows as much.
    async fn forget(self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (ForgetRequest, _) = self.head().await?;
        self.namespace.pins().get(head.session)?;
        if head.keys.len() > LIST_MAX {
            return Err(SyncError::BadMessage("too many keys".into()));
        }
        let meeting = Meeting {
            incoming: Vec::new(),
            absent: head.keys.clone(),
            seen: self.namespace.pins().seen(head.session)?,
        };
        self.namespace.keep_learned_now().await?;
        let planned = self
            .namespace
            .read(move |view| let_go(view, &view.seen()?, meeting));
        let commands: Result<Vec<Command>, StoreError> = planned.await;
        for command in commands? {
            self.namespace.submit(command).await?;
        }
        self.read(self.namespace.view(), move |view| {
            Ok((responder::kept(view, &head.keys)?, Vec::new()))
        })
        .await
    }

    /// Keeps chunks of a large state.
    async fn stage(self) -> Result<Vec<u8>, SyncError> {
        let (head, blob): (StageRequest, _) = self.head().await?;
        let (_, peer) = self.namespace.pins().get(head.session)?;
        let (namespace, limits) = (Arc::clone(self.namespace), self.limits);
        let kept = task::spawn_blocking(move || {
            answer_chunks::stage(&*namespace, peer, &head, &blob, &limits)
        });
        let kept = kept
            .await
            .map_err(|_| StoreError::Unexpected("a message"))?;
        Ok(self.seal(&kept?, &[]))
    }

    async fn store(self) -> Result<Vec<u8>, SyncError> {
        let (head, blob): (StoreRequest, _) = self.head().await?;
        let (_, peer) = self.namespace.pins().get(head.session)?;
        let limits = self.limits;
        let (session, sent) = (head.session, head.records.len());
        let (seen, now) = (self.namespace.pins().seen(session)?, self.namespace.now());
        let theirs = Arc::clone(&seen);
        let (namespace, dictionaries) = (
            Arc::clone(self.namespace),
            Arc::clone(self.namespace.dictionaries()),
        );
        let checked = self.namespace.read(move |view| {
            let sides = Sides::of_responder(view, theirs, now)?;
            let from = (peer, &sides, &*dictionaries);
            responder::store(&*namespace, view, from, head, &blob, &limits)
        });
        let meeting = Meeting {
            incoming: checked.await?,
            absent: Vec::new(),
            seen,
        };
        let committed = self.namespace.submit(Command::Meet(meeting)).await?;
        let refused = committed.accepted.refused.len();
        if refused > 0 {
            self.namespace.pins().leave_out(session);
        }
        let stored = (sent - refused) as u32;
        Ok(self.seal(&StoreReply { stored }, &[]))
    }

    /// Belongs to no session: replicas with equal roots have none.
    async fn contents(self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (ContentsRequest, _) = self.head().await?;
        let limits = self.limits;
        let view = self.namespace.view();
        self.read(view, move |view| contents(view, &head, &limits))
            .await
    }

    /// Belongs to no session either.
    async fn pieces(self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (PiecesRequest, _) = self.head().await?;
        let view = self.namespace.view();
        self.read(view, move |view| answer_chunks::pieces(view, &head))
            .await
    }

    async fn close(&self) -> Result<Vec<u8>, SyncError> {
        let (head, _): (CloseRequest, _) = self.head().await?;
        let ended = self.namespace.pins().close(head.session);
        let stands = *self.namespace.view().head();
        if let (Some(ended), Some(root)) = (ended, head.root) {
            let same = root.matches(&stands.root.hash);
            self.namespace.pins().left(ended.peer, same.then_some(root));
            if same || (head.complete && !ended.left_out) {
                self.namespace.learn(&ended.seen);
            }
        }
        let reply = CloseReply {
            root: stands.root,
            seq: stands.seq,
        };
        Ok(self.seal(&reply, &[]))
    }
}
