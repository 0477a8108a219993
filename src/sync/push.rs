//! Handing states to the peer: offer records, hear what is lacking, send just that.

use crate::merkle::prefix::leading_bits;
use crate::replica::view::View;
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::transfer::encode_bodies;
use crate::sync::transport::Home;
use crate::types::hash::StateKey;
use crate::types::record::StateRecord;
use crate::wire::messages::{Endpoint, OfferReply, OfferRequest, StoreReply, StoreRequest, Want};

/// States in one offer.
const OFFER_STATES: usize = 1024;

/// Pushes our records of `keys`.
///
/// # Errors
/// [`SessionError`]; offers before the one that failed stay at the peer.
pub fn push(
    exchange: &mut Exchange<'_>,
    home: &dyn Home,
    session: u64,
    keys: &[StateKey],
) -> Result<(), SessionError> {
    for part in keys.chunks(OFFER_STATES) {
        let view = home.view();
        let mut records = Vec::with_capacity(part.len());
        for key in part {
            records.extend(view.snapshot().record(key)?.map(|row| row.record));
        }
        records.sort_by(|a, b| a.id.cmp(&b.id));
        offer(exchange, &view, session, records)?;
        home.progress(exchange.report);
    }
    Ok(())
}

fn offer(
    exchange: &mut Exchange<'_>,
    view: &View,
    session: u64,
    records: Vec<StateRecord>,
) -> Result<(), SessionError> {
    let head = OfferRequest { session, records };
    let asked = exchange.ask("state_request", Endpoint::Offer, &head, &[]);
    let (reply, _): (OfferReply, _) = asked?;
    let records = head.records;
    if reply.wanted.len() > records.len() || reply.wants.len() > records.len() * 256 {
        return Err(SessionError::Misfit("the peer wants more than was offered"));
    }
    let mut wanted = Vec::with_capacity(reply.wanted.len());
    for index in reply.wanted {
        let record = records.get(index as usize).cloned();
        wanted.push(record.ok_or(SessionError::Misfit("the peer wants what was not offered"))?);
    }
    hand_over(exchange, view, session, wanted, reply.wants)
}

/// Sends the wanted records in as many messages as their bytes take. A record goes with the
/// message that carries the last of its bytes.
fn hand_over(
    exchange: &mut Exchange<'_>,
    view: &View,
    session: u64,
    mut records: Vec<StateRecord>,
    mut wants: Vec<Want>,
) -> Result<(), SessionError> {
    while !records.is_empty() {
        let limit = exchange.limits().transfer_bytes;
        let whole = whole_records(&records, &wants, limit)?;
        let later_records = records.split_off(whole.records);
        let later_wants = wants.split_off(whole.wants);
        let (heads, blob) = encode_bodies(view, &wants, u64::MAX)?;
        exchange.report.bytes_if_sent_whole += whole.bytes;
        let count = records.len();
        let head = StoreRequest {
            session,
            records,
            wants,
            heads,
        };
        let asked = exchange.ask("state_transfer", Endpoint::Store, &head, &blob);
        let (reply, _): (StoreReply, _) = asked?;
        if reply.stored as usize != count {
            return Err(SessionError::Misfit(
                "the peer stored another number of states",
            ));
        }
        exchange.report.states_pushed += count as u64;
        (records, wants) = (later_records, later_wants);
    }
    Ok(())
}

struct Whole {
    records: usize,
    wants: usize,
    bytes: u64,
}

/// How many records, with all their wants, fit into one message; at least one. Wants stand in the
/// order of their records.
fn whole_records(
    records: &[StateRecord],
    wants: &[Want],
    limit: u64,
) -> Result<Whole, SessionError> {
    let mut whole = Whole {
        records: 0,
        wants: 0,
        bytes: 0,
    };
    for record in records {
        let bits = leading_bits(&record.key());
        let mut bytes = 0;
        let mine = wants[whole.wants..]
            .iter()
            .take_while(|want| want.state == bits);
        let mut count = 0;
        for want in mine {
            let version = record.versions().get(usize::from(want.version));
            let version = version.ok_or(SessionError::Misfit("an unknown version is wanted"))?;
            bytes += version.size;
            count += 1;
        }
        if whole.records > 0 && whole.bytes + bytes > limit * 4 {
            break;
        }
        whole.records += 1;
        whole.wants += count;
        whole.bytes += bytes;
    }
    let last = whole.records == records.len();
    if last && whole.wants != wants.len() {
        return Err(SessionError::Misfit("wants out of order"));
    }
    Ok(whole)
}
