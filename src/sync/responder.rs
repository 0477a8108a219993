//! The other side of a session: answers each message from the view that was pinned when the
//! session was opened. It keeps nothing else between messages, and every answer is bounded.

use std::collections::{HashMap, HashSet};

use thiserror::Error;

use crate::merkle::prefix::Prefix;
use crate::merkle::view::CHILD_LEVELS_MAX;
use crate::reconcile::budget::Budget;
use crate::reconcile::encoding::Reader;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::registry;
use crate::reconcile::subtrees::slot_prefix;
use crate::replica::command::Incoming;
use crate::replica::staging::{Stager, StagingError, completed};
use crate::replica::view::View;
use crate::store::body::Body;
use crate::store::error::StoreError;
use crate::store::rows::RecordRow;
use crate::store::stage::StageKey;
use crate::sync::decode::{Decoder, each_body};
use crate::sync::dictionaries::Dictionaries;
use crate::sync::encode::Encoder;
use crate::sync::news::{Beside, Wanted};
use crate::sync::sides::Sides;
use crate::sync::together::{Shared, Together, put_together};
use crate::sync::transfer::{TransferError, record_at};
use crate::types::hash::StateKey;
use crate::types::id::ReplicaId;
use crate::types::limits::{Limits, WHOLE_STATE_MAX};
use crate::types::record::{BadRecord, StateRecord};
use crate::wire::messages::{
    BASES_MAX, BodiesRequest, BodyHead, BodyHeads, CompareRequest, DICTIONARIES_MAX,
    DictionaryReply, DictionaryRequest, ForgetReply, LIST_MAX, OfferReply, OfferRequest,
    RangeReply, RangeRequest, RecordsReply, RecordsRequest, StoreRequest, SubtreesReply,
    SubtreesRequest, Want,
};
use crate::wire::version::Protocol;

/// Records that may share a prefix that a comparison found: two hardly ever do.
pub const RECORDS_AT_PREFIX: usize = 16;
/// Shortest prefix that a comparison finds.
const DEPTH_MIN: u8 = 24;
/// State bytes, bases included, that are read for one answer: repeated content costs little to
/// send, but not to encode.
const WORK_BYTES: usize = 128 << 20;
/// Longest state that is read for an answer unless it is the answer's first: what an answer takes in
/// memory is known before anything is read.
pub const LONGEST: u64 = 4 << 20;
/// Rows that are read at once for a range.
const RANGE_PAGE: usize = 256;

/// Why a message was not answered.
#[derive(Debug, Error)]
pub enum ResponderError {
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

/// Answers with the records below prefixes, as many as fit into one message.
///
/// # Errors
/// [`ResponderError`].
pub fn records(
    view: &View,
    head: &RecordsRequest,
    slots: &[u8],
    limits: &Limits,
) -> Result<RecordsReply, ResponderError> {
    let mut reader = Reader::new(slots);
    let slots = reader.sorted(LIST_MAX)?;
    reader.end()?;
    if !slots.is_sorted_by(|a, b| a < b) || !(DEPTH_MIN..=64).contains(&head.depth) {
        return Err(ResponderError::BadRequest(
            "prefixes too short or named twice",
        ));
    }
    let mut reply = RecordsReply {
        answered: 0,
        records: Vec::with_capacity(slots.len()),
    };
    let mut room = Room::of(limits);
    for slot in slots {
        let at = slot_prefix(head.depth, slot);
        let at = at.ok_or(ResponderError::BadRequest("a prefix outside the tree"))?;
        let rows = view.snapshot().records_below(at, None, RECORDS_AT_PREFIX)?;
        if !room.takes(&rows) {
            break;
        }
        reply.answered += 1;
        reply.records.extend(rows.into_iter().map(|row| row.record));
    }
    Ok(reply)
}

/// Room for records in one message: half of it, since their size is an estimate.
struct Room {
    left: u64,
    used: bool,
}

impl Room {
    fn of(limits: &Limits) -> Self {
        Self {
            left: limits.message_bytes / 2,
            used: false,
        }
    }

    /// True while the rows fit. The first ones always do.
    fn takes(&mut self, rows: &[RecordRow]) -> bool {
        let bytes: u64 = rows.iter().map(|row| row.record.weight() as u64).sum();
        let fits = bytes <= self.left || !self.used;
        self.left = self.left.saturating_sub(bytes);
        self.used = true;
        fits
    }
}

/// Answers with the subtrees below a place.
///
/// # Errors
/// [`ResponderError`].
pub fn subtrees(view: &View, head: &SubtreesRequest) -> Result<SubtreesReply, ResponderError> {
    let deepest = head.at.depth().saturating_add(head.levels);
    if !(1..=CHILD_LEVELS_MAX).contains(&head.levels) || deepest > Prefix::DEPTH_MAX {
        return Err(ResponderError::BadRequest("levels out of range"));
    }
    let subtrees = view.tree().children(head.at, head.levels);
    Ok(SubtreesReply {
        subtrees: subtrees.map_err(StoreError::from)?,
    })
}

/// Answers with the records below a place, as many as fit into one message.
///
/// # Errors
/// [`ResponderError`].
pub fn range(
    view: &View,
    head: &RangeRequest,
    limits: &Limits,
) -> Result<RangeReply, ResponderError> {
    let mut room = Room::of(limits);
    let mut records = Vec::new();
    let mut after = head.after;
    loop {
        let rows = view.snapshot().records_below(head.at, after, RANGE_PAGE)?;
        let last = rows.len() < RANGE_PAGE;
        for row in rows {
            if records.len() >= LIST_MAX || !room.takes(std::slice::from_ref(&row)) {
                return Ok(RangeReply {
                    complete: false,
                    records,
                });
            }
            after = Some(row.leaf.key);
            records.push(row.record);
        }
        if last {
            return Ok(RangeReply {
                complete: true,
                records,
            });
        }
    }
}

/// Bytes of the first state that is asked for.
///
/// # Errors
/// [`StoreError`] when it cannot be looked up.
pub fn first_size(view: &View, head: &BodiesRequest) -> Result<u64, StoreError> {
    let row = match head.wants.first() {
        Some(want) => record_at(view, want.state)?.map(|row| (row, want.version)),
        None => None,
    };
    let placed = row
        .as_ref()
        .and_then(|(row, version)| row.placed().nth(usize::from(*version)));
    Ok(placed.map_or(0, |(version, _)| version.size.min(WHOLE_STATE_MAX)))
}

/// Answers with the bytes of versions, of which only the first one may exceed [`LONGEST`].
///
/// # Errors
/// [`ResponderError`].
pub fn bodies(
    view: &View,
    (peer, dictionaries): (Protocol, &Dictionaries),
    head: &BodiesRequest,
    limits: &Limits,
) -> Result<(BodyHeads, Vec<u8>), ResponderError> {
    check_wants(&head.wants)?;
    let mut encoder = Encoder::new(view, peer, WORK_BYTES).up_to(LONGEST);
    let (mut heads, blob) = encoder.encode(&head.wants, limits.transfer_bytes)?;
    let blob = put_together(dictionaries, &head.wants, &mut heads, blob);
    Ok((BodyHeads { heads }, blob))
}

/// Says which offered records are news, and which bytes are lacking for them. True beside it when
/// all of them can be taken over.
///
/// # Errors
/// [`ResponderError`].
pub fn offer(
    view: &View,
    sides: &Sides,
    dictionaries: &Dictionaries,
    head: OfferRequest,
    limits: &Limits,
) -> Result<(OfferReply, bool), ResponderError> {
    if head.records.len() > LIST_MAX {
        return Err(ResponderError::BadRequest("too many records"));
    }
    let mut reply = OfferReply {
        wanted: Vec::new(),
        wants: Vec::new(),
    };
    let (mut last, mut all): (Option<Wanted>, bool) = (None, true);
    let mut is_of_use = false;
    for (index, record) in (0u32..).zip(head.records) {
        record.check()?;
        let beside = Beside::look_up(view, sides, record)?;
        if !beside.is_news() {
            continue;
        }
        let news = match beside.lacking(view, last.as_ref(), limits.state_bytes) {
            // What is too large here is not wanted; the rest is.
            Err(TransferError::TooLarge { .. }) => {
                all = false;
                continue;
            }
            news => news?,
        };
        reply.wanted.push(index);
        is_of_use |= news.wanted.iter().any(Wanted::is_alone);
        last = news.wanted.last().cloned().or(last);
        reply
            .wants
            .extend(news.wanted.into_iter().map(|wanted| wanted.want));
    }
    dictionaries.announce(&mut reply.wants, is_of_use);
    Ok((reply, all))
}

/// Which of the states that the initiator has collected are still held here.
///
/// # Errors
/// [`ResponderError`].
pub fn kept(view: &View, keys: &[StateKey]) -> Result<ForgetReply, ResponderError> {
    let mut kept = Vec::new();
    for (index, key) in (0u32..).zip(keys) {
        if view.snapshot().leaf(key)?.is_some() {
            kept.push(index);
        }
    }
    Ok(ForgetReply { kept })
}

/// Gives the dictionary that is used here, unless the asker holds it.
///
/// # Errors
/// [`ResponderError`].
pub fn dictionary(
    dictionaries: &Dictionaries,
    head: &DictionaryRequest,
) -> Result<(DictionaryReply, Vec<u8>), ResponderError> {
    if head.held.len() > DICTIONARIES_MAX {
        return Err(ResponderError::BadRequest("too many dictionaries"));
    }
    Ok(dictionaries.give(&head.held))
}

/// Decodes and checks what was handed over. Nothing of it is stored unless all of it is right.
///
/// # Errors
/// [`ResponderError`].
pub fn store(
    stager: &dyn Stager,
    view: &View,
    (peer, sides, dictionaries): (ReplicaId, &Sides, &Dictionaries),
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
        if places.insert(record.key().prefix64(), place).is_some() {
            return Err(ResponderError::BadRequest("two records in one place"));
        }
    }
    let mut wanted = Vec::with_capacity(head.wants.len());
    let mut room = limits.transfer_bytes * 4 + limits.state_bytes.min(WHOLE_STATE_MAX);
    for (want, travels) in head.wants.into_iter().zip(&head.heads) {
        let record = places.get(&want.state).map(|place| &head.records[*place]);
        let found = known(record, want, limits)?;
        let brings = match travels.codec {
            BodyHead::STAGED => 0,
            _ => found.version.size,
        };
        room = room.checked_sub(brings).ok_or(ResponderError::BadRequest(
            "more state bytes than one message may bring",
        ))?;
        wanted.push(found);
    }
    let mut bodies: Vec<Vec<Body>> = vec![Vec::new(); head.records.len()];
    if !wanted.is_empty() {
        let mut decoder = Decoder::default();
        let first = wanted.first().map(|first| first.want.bases.clone());
        let shared = Shared {
            dictionaries,
            hints: &first.unwrap_or_default(),
        };
        let mut together = Together::of(shared, &wanted, &head.heads)?;
        let decoded = each_body(&wanted, &head.heads, blob, |wanted, head, payload| {
            if head.codec == BodyHead::STAGED && payload.is_empty() {
                return staged(stager, peer, wanted);
            }
            let bytes = decoder.decode(view, &mut together, wanted, head, payload)?;
            Ok(Body::of_hashed(wanted.version.content, &bytes))
        })?;
        for (wanted, body) in wanted.iter().zip(decoded) {
            let place = places.get(&wanted.want.state);
            if let (Some(place), Some(body)) = (place, body) {
                bodies[*place].push(body);
            }
        }
    }
    let together = head.records.into_iter().zip(bodies);
    let whole = together.map(|(record, mut bodies)| {
        let beside = Beside::look_up(view, sides, record.clone())?;
        let news = beside.lacking(view, None, limits.state_bytes)?;
        // Another version here has what was not wanted.
        bodies.extend(news.bytes_of_twins(view, stager, limits)?);
        Ok(Incoming { record, bodies })
    });
    whole.collect()
}

/// The bytes that the peer has sent chunk by chunk.
fn staged(stager: &dyn Stager, peer: ReplicaId, wanted: &Wanted) -> Result<Body, TransferError> {
    let version = &wanted.version;
    let (view, key) = (
        stager.newest(),
        StageKey::of_transfer(&version.content, peer),
    );
    let stage = view.snapshot().stage(key)?;
    if stage.is_none_or(|stage| stage.size != version.size || stage.bytes != version.size) {
        return Err(StagingError::Disturbed.into());
    }
    let body = completed(stager, key, &version.content)?;
    body.ok_or_else(|| TransferError::WrongHash(wanted.id.clone()))
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
    let mut seen = HashSet::with_capacity(wants.len());
    if wants
        .iter()
        .all(|want| seen.insert((want.state, want.version)))
    {
        return Ok(());
    }
    Err(ResponderError::BadRequest("a version is wanted twice"))
}
