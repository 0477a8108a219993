//! The other side of a session: answers each message from the view that was pinned when the
//! session was opened. It keeps nothing else between messages, and every answer is bounded.

use std::collections::HashMap;

use bytes::Bytes;
use thiserror::Error;

use crate::merkle::prefix::{Prefix, leading_bits};
use crate::reconcile::budget::Budget;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::registry;
use crate::replica::command::Incoming;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::sync::transfer::{Decoder, TransferError, Wanted, decode_bodies, encode_bodies, news};
use crate::types::hash::StateKey;
use crate::types::limits::Limits;
use crate::types::record::{BadRecord, StateRecord};
use crate::wire::frame::BadFrame;
use crate::wire::messages::{
    BASES_MAX, BodiesRequest, BodyHeads, CompareRequest, LIST_MAX, OfferReply, OfferRequest,
    RangeRequest, RecordsReply, RecordsRequest, StoreRequest, SubtreesReply, SubtreesRequest, Want,
};

/// Records that may share 64 bits of their keys: two hardly ever do.
const RECORDS_AT_PREFIX: usize = 4;

/// Why a message was not answered.
#[derive(Debug, Error)]
pub enum ResponderError {
    /// Not a frame of the protocol.
    #[error(transparent)]
    Frame(#[from] BadFrame),
    /// A well-formed request for something that is not to be had.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The comparison's question is malformed or too large.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// A record that no honest replica makes.
    #[error("malformed record: {0}")]
    Record(#[from] BadRecord),
    /// Bytes of a state were not as announced.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Our own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Answers a strategy's question.
///
/// # Errors
/// [`ResponderError`].
pub fn compare(
    view: &View,
    head: &CompareRequest,
    question: &[u8],
    limits: &Limits,
) -> Result<Vec<u8>, ResponderError> {
    let budget = Budget {
        message_bytes: usize::try_from(limits.message_bytes).unwrap_or(usize::MAX),
        ..Budget::default()
    };
    Ok(registry::answer(head.strategy, view, question, &budget)?)
}

/// Answers with the records below prefixes.
///
/// # Errors
/// [`ResponderError`].
pub fn records(view: &View, head: &RecordsRequest) -> Result<RecordsReply, ResponderError> {
    if head.prefixes.len() > LIST_MAX {
        return Err(ResponderError::BadRequest("too many prefixes"));
    }
    let mut records = Vec::with_capacity(head.prefixes.len());
    for bits in &head.prefixes {
        let at = Prefix::new(*bits, Prefix::DEPTH_MAX)
            .ok_or(ResponderError::BadRequest("a prefix is too deep"))?;
        let rows = view.snapshot().records_below(at, RECORDS_AT_PREFIX)?;
        records.extend(rows.into_iter().map(|row| row.record));
    }
    Ok(RecordsReply { records })
}

/// Answers with the subtrees below a place.
///
/// # Errors
/// [`ResponderError`].
pub fn subtrees(view: &View, head: &SubtreesRequest) -> Result<SubtreesReply, ResponderError> {
    let deepest = head.at.depth().saturating_add(head.levels);
    if !(1..=8).contains(&head.levels) || deepest > Prefix::DEPTH_MAX {
        return Err(ResponderError::BadRequest("levels out of range"));
    }
    let subtrees = view.tree().children(head.at, head.levels);
    Ok(SubtreesReply {
        subtrees: subtrees.map_err(StoreError::from)?,
    })
}

/// Answers with all records below a place.
///
/// # Errors
/// [`ResponderError`].
pub fn range(view: &View, head: &RangeRequest) -> Result<RecordsReply, ResponderError> {
    let rows = view.snapshot().records_below(head.at, LIST_MAX + 1)?;
    if rows.len() > LIST_MAX {
        return Err(ResponderError::BadRequest(
            "more records than one answer takes",
        ));
    }
    let records = rows.into_iter().map(|row| row.record).collect();
    Ok(RecordsReply { records })
}

/// Answers with the bytes of versions.
///
/// # Errors
/// [`ResponderError`].
pub fn bodies(
    view: &View,
    head: &BodiesRequest,
    limits: &Limits,
) -> Result<(BodyHeads, Vec<u8>), ResponderError> {
    check_wants(&head.wants)?;
    let (heads, blob) = encode_bodies(view, &head.wants, limits.transfer_bytes)?;
    Ok((BodyHeads { heads }, blob))
}

/// Says which offered records are news, and which bytes are lacking for them.
///
/// # Errors
/// [`ResponderError`].
pub fn offer(
    view: &View,
    head: OfferRequest,
    limits: &Limits,
) -> Result<OfferReply, ResponderError> {
    if head.records.len() > LIST_MAX {
        return Err(ResponderError::BadRequest("too many records"));
    }
    let mut reply = OfferReply {
        wanted: Vec::new(),
        wants: Vec::new(),
    };
    let mut last: Option<Wanted> = None;
    for (index, record) in (0u32..).zip(head.records) {
        record.check()?;
        let Some(found) = news(view, &record, last.as_ref(), limits.state_bytes)? else {
            continue;
        };
        reply.wanted.push(index);
        if let Some(wanted) = found.wanted.last() {
            last = Some(wanted.clone());
        }
        reply
            .wants
            .extend(found.wanted.into_iter().map(|wanted| wanted.want));
    }
    Ok(reply)
}

/// Decodes and checks what was handed over. Nothing of it is stored unless all of it is right.
///
/// # Errors
/// [`ResponderError`].
pub fn store(
    view: &View,
    head: StoreRequest,
    blob: &[u8],
    limits: &Limits,
) -> Result<Vec<Incoming>, ResponderError> {
    check_wants(&head.wants)?;
    if head.records.len() > LIST_MAX || head.heads.len() != head.wants.len() {
        return Err(ResponderError::BadRequest("lists that do not fit together"));
    }
    let mut places: HashMap<u64, usize> = HashMap::new();
    for (place, record) in head.records.iter().enumerate() {
        record.check()?;
        if places.insert(leading_bits(&record.key()), place).is_some() {
            return Err(ResponderError::BadRequest("two records in one place"));
        }
    }
    let mut wanted = Vec::with_capacity(head.wants.len());
    for want in head.wants {
        let record = places.get(&want.state).map(|place| &head.records[*place]);
        wanted.push(known(record, want, limits)?);
    }
    let mut bodies: Vec<Vec<(_, Bytes)>> = vec![Vec::new(); head.records.len()];
    if !wanted.is_empty() {
        let decoded = decode_bodies(view, &wanted, &head.heads, blob, &mut Decoder::default())?;
        for (wanted, bytes) in wanted.iter().zip(decoded) {
            if let Some(place) = places.get(&wanted.want.state) {
                bodies[*place].push((wanted.version.content, bytes));
            }
        }
    }
    let together = head.records.into_iter().zip(bodies);
    let mut incoming: Vec<Incoming> = together
        .map(|(record, bodies)| Incoming { record, bodies })
        .collect();
    for item in &mut incoming {
        add_bytes_held_here(view, item, limits)?;
    }
    Ok(incoming)
}

/// Bytes that were not wanted because another version here has them.
fn add_bytes_held_here(
    view: &View,
    item: &mut Incoming,
    limits: &Limits,
) -> Result<(), ResponderError> {
    let found = news(view, &item.record, None, limits.state_bytes)?;
    let here = found.map_or_else(Vec::new, |news| news.incoming.bodies);
    item.bodies.extend(here);
    Ok(())
}

fn known(
    record: Option<&StateRecord>,
    want: Want,
    limits: &Limits,
) -> Result<Wanted, ResponderError> {
    let record = record.ok_or(ResponderError::BadRequest("bytes of an unknown record"))?;
    let version = record.versions().get(usize::from(want.version));
    let version = version.ok_or(ResponderError::BadRequest("bytes of an unknown version"))?;
    if version.size > limits.state_bytes {
        return Err(ResponderError::Transfer(TransferError::TooLarge {
            id: record.id.clone(),
            size: version.size,
            limit: limits.state_bytes,
        }));
    }
    Ok(Wanted {
        id: record.id.clone(),
        key: StateKey::of(&record.id),
        version: version.clone(),
        want,
    })
}

fn check_wants(wants: &[Want]) -> Result<(), ResponderError> {
    if wants.len() > LIST_MAX || wants.iter().any(|want| want.bases.len() > BASES_MAX) {
        return Err(ResponderError::BadRequest("too many wants or bases"));
    }
    Ok(())
}
