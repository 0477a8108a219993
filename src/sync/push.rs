//! Handing states to the peer: offer records, hear what is lacking, send just that.

use std::collections::VecDeque;

use crate::replica::view::View;
use crate::sync::dictionaries::Dictionaries;
use crate::sync::encode::Encoder;
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::send_chunks;
use crate::sync::together::{alone_bytes, ask_when_missed, hints, put_together};
use crate::sync::transfer::is_streamed;
use crate::sync::transport::Home;
use crate::types::hash::StateKey;
use crate::types::limits::WHOLE_STATE_MAX;
use crate::types::record::{CURRENT_VERSIONS_MAX, StateRecord};
use crate::wire::messages::{
    BASES_MAX, BaseHint, BodyHead, Endpoint, ForgetReply, ForgetRequest, OfferReply, OfferRequest,
    StoreReply, StoreRequest, Want,
};

/// States in one offer.
const OFFER_STATES: usize = 1024;
/// States that the peer is asked to collect with one message.
const FORGET_STATES: usize = 128;

/// Pushes our records of `keys`. True when the peer then has all of them, but for what it says itself
/// to have left out.
///
/// # Errors
/// [`SessionError`]; offers before the one that failed stay at the peer.
pub fn push(
    exchange: &mut Exchange<'_>,
    home: &dyn Home,
    session: u64,
    keys: &[StateKey],
) -> Result<bool, SessionError> {
    let (mut refused, mut withheld) = (0, 0);
    for part in keys.chunks(OFFER_STATES) {
        let view = home.view();
        let mut records = Vec::with_capacity(part.len());
        for key in part {
            records.extend(view.snapshot().record(key)?.map(|row| row.record));
        }
        records.sort_by(|a, b| a.id.cmp(&b.id));
        let outcome = offer(exchange, home, &view, session, records)?;
        refused += outcome.refused;
        withheld += outcome.withheld;
        home.progress(exchange.report);
    }
    if refused == 0 {
        return Ok(withheld == 0);
    }
    Err(SessionError::LeftOut {
        count: refused,
        first: "the peer refused them; its own sessions say why".to_owned(),
    })
}

/// Asks the peer to collect states that we have collected. Returns those that it keeps.
///
/// # Errors
/// [`SessionError`] when there is no usable answer.
pub fn forget(
    exchange: &mut Exchange<'_>,
    session: u64,
    keys: &[StateKey],
) -> Result<Vec<StateKey>, SessionError> {
    let mut kept = Vec::new();
    for part in keys.chunks(FORGET_STATES) {
        let head = ForgetRequest {
            session,
            keys: part.to_vec(),
        };
        let asked = exchange.ask("state_request", Endpoint::Forget, &head, &[]);
        let (reply, _): (ForgetReply, _) = asked?;
        for index in reply.kept {
            let key = part.get(index as usize).copied();
            kept.push(key.ok_or(SessionError::Misfit("the peer keeps what was not named"))?);
        }
    }
    Ok(kept)
}

/// What was not taken over of what was offered.
#[derive(Debug, Clone, Copy, Default)]
struct Offered {
    /// Records that the peer refused.
    refused: usize,
    /// Records that we did not send although the peer wanted them.
    withheld: usize,
}

fn offer(
    exchange: &mut Exchange<'_>,
    home: &dyn Home,
    view: &View,
    session: u64,
    records: Vec<StateRecord>,
) -> Result<Offered, SessionError> {
    let head = OfferRequest { session, records };
    let asked = exchange.ask("state_request", Endpoint::Offer, &head, &[]);
    let (reply, _): (OfferReply, _) = asked?;
    let records = head.records;
    if reply.wanted.len() > records.len()
        || reply.wants.len() > records.len() * CURRENT_VERSIONS_MAX
    {
        return Err(SessionError::Misfit("the peer wants more than was offered"));
    }
    let mut wanted = Vec::with_capacity(reply.wanted.len());
    for index in reply.wanted {
        let record = records.get(index as usize).cloned();
        wanted.push(record.ok_or(SessionError::Misfit("the peer wants what was not offered"))?);
    }
    let dictionaries = home.dictionaries();
    let common = dictionaries.common(&reply.wants);
    let pushing = Pushing {
        view,
        session,
        named: common.and_then(|(place, _)| hints(&reply.wants).get(usize::from(place)).cloned()),
        dictionaries: &dictionaries,
    };
    let parcels = parcels(wanted, reply.wants, home.now())?;
    pushing.hand_over(exchange, parcels)
}

/// A record with what the peer lacks of it.
struct Parcel {
    record: StateRecord,
    wants: Vec<Want>,
    /// State bytes that taking it over brings into the peer's memory, at most.
    bytes: u64,
}

/// Nobody asks for bytes of what is over. What travels chunk by chunk is in nobody's memory.
fn brought(record: &StateRecord, wants: &[Want], now: u64) -> u64 {
    let streamed = |index: u8, size: u64| {
        let mut wants = wants.iter().filter(|want| want.version == index);
        size > WHOLE_STATE_MAX || wants.any(|want| is_streamed(want, size))
    };
    let there = (0u8..).zip(record.versions());
    let there = there.filter(|(index, v)| !v.is_dead(now) && !streamed(*index, v.size));
    there.fold(0, |bytes, (_, version)| bytes.saturating_add(version.size))
}

/// Puts records and wants together; wants stand in the order of their records.
fn parcels(
    records: Vec<StateRecord>,
    wants: Vec<Want>,
    now: u64,
) -> Result<VecDeque<Parcel>, SessionError> {
    let mut wants = wants.into_iter().peekable();
    let mut parcels = VecDeque::with_capacity(records.len());
    for record in records {
        let bits = record.key().prefix64();
        let mut mine = Vec::new();
        while let Some(want) = wants.next_if(|want| want.state == bits) {
            if usize::from(want.version) >= record.versions().len() {
                return Err(SessionError::Misfit("an unknown version is wanted"));
            }
            mine.push(want);
        }
        parcels.push_back(Parcel {
            bytes: brought(&record, &mine, now),
            wants: mine,
            record,
        });
    }
    match wants.next() {
        None => Ok(parcels),
        Some(_) => Err(SessionError::Misfit("wants out of order")),
    }
}

/// What one offer is followed by.
struct Pushing<'a> {
    view: &'a View,
    session: u64,
    dictionaries: &'a Dictionaries,
    /// The dictionary that both sides have.
    named: Option<BaseHint>,
}

impl Pushing<'_> {
    /// Sends parcels in as many messages as their bytes take. One that is too large for any message,
    /// with several large versions in conflict, is left for the peer to fetch, version by version.
    fn hand_over(
        &self,
        exchange: &mut Exchange<'_>,
        mut parcels: VecDeque<Parcel>,
    ) -> Result<Offered, SessionError> {
        let (limits, all) = (exchange.limits(), parcels.len());
        let most = limits.state_bytes.min(WHOLE_STATE_MAX) + limits.transfer_bytes;
        parcels.retain(|parcel| parcel.bytes <= most);
        let mut outcome = Offered {
            refused: 0,
            withheld: all - parcels.len(),
        };
        while let Some(first) = parcels.pop_front() {
            let mut bytes = first.bytes;
            let mut together = vec![first];
            while let Some(next) = parcels.pop_front() {
                if bytes + next.bytes > limits.transfer_bytes * 4 {
                    parcels.push_front(next);
                    break;
                }
                bytes += next.bytes;
                together.push(next);
            }
            let sent = self.send(exchange, together)?;
            outcome.refused += sent.refused;
            outcome.withheld += sent.withheld;
        }
        Ok(outcome)
    }

    /// How the versions of a parcel travel, with their bytes; those that travel chunk by chunk are
    /// sent right here.
    fn encode(
        &self,
        exchange: &mut Exchange<'_>,
        encoder: &mut Encoder<'_>,
        parcel: &Parcel,
    ) -> Result<(Vec<BodyHead>, Vec<u8>), SessionError> {
        let (mut heads, mut bytes) = (Vec::with_capacity(parcel.wants.len()), Vec::new());
        for want in &parcel.wants {
            let index = usize::from(want.version);
            let version = parcel.record.versions().get(index);
            if version.is_none_or(|version| !is_streamed(want, version.size)) {
                let (head, payload) = encoder.encode(std::slice::from_ref(want), u64::MAX)?;
                heads.extend(head);
                bytes.extend(payload);
                continue;
            }
            let row = self.view.snapshot().record(&parcel.record.key())?;
            let is_sent = match row {
                Some(row) => send_chunks::send(exchange, self.view, self.session, &row, index)?,
                None => false,
            };
            heads.push(if is_sent {
                BodyHead::staged()
            } else {
                BodyHead::missing()
            });
        }
        Ok((heads, bytes))
    }

    /// Sends one message.
    fn send(
        &self,
        exchange: &mut Exchange<'_>,
        parcels: Vec<Parcel>,
    ) -> Result<Offered, SessionError> {
        let all = parcels.len();
        let mut message = StoreRequest {
            session: self.session,
            records: Vec::with_capacity(parcels.len()),
            wants: Vec::new(),
            heads: Vec::new(),
        };
        let (mut encoder, mut blob) = (
            Encoder::new(self.view, exchange.protocol, usize::MAX),
            Vec::new(),
        );
        for parcel in parcels {
            let (heads, bytes) = self.encode(exchange, &mut encoder, &parcel)?;
            // What cannot be read here is not offered as if it could; `samestate verify` names it.
            if heads.iter().any(|head| head.codec == BodyHead::MISSING) {
                continue;
            }
            let sent = parcel.wants.iter().map(|want| usize::from(want.version));
            let sizes = sent.filter_map(|index| parcel.record.versions().get(index));
            let whole = sizes.fold(0, |bytes: u64, version| bytes.saturating_add(version.size));
            exchange.report.bytes_if_sent_whole += whole;
            blob.extend_from_slice(&bytes);
            message.heads.extend(heads);
            message.wants.extend(parcel.wants);
            message.records.push(parcel.record);
        }
        let is_of_use = alone_bytes(&message.wants, &message.heads, u64::MAX) > 0;
        if let (Some(first), Some(named)) = (message.wants.first_mut(), &self.named)
            && is_of_use
            && !first.bases.contains(named)
            && first.bases.len() < BASES_MAX
        {
            first.bases.push(named.clone());
        }
        let blob = put_together(self.dictionaries, &message.wants, &mut message.heads, blob);
        let asked = exchange.ask("state_transfer", Endpoint::Store, &message, &blob);
        let (reply, _): (StoreReply, _) = asked?;
        let missed = alone_bytes(&message.wants, &message.heads, exchange.last.sent);
        let refused = message.records.len().checked_sub(reply.stored as usize);
        let refused = refused.ok_or(SessionError::Misfit("more states stored than were sent"))?;
        exchange.report.states_pushed += u64::from(reply.stored);
        ask_when_missed(exchange, self.dictionaries, missed)?;
        Ok(Offered {
            refused,
            withheld: all - message.records.len(),
        })
    }
}
