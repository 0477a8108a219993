//! What differs between this replica and a peer, without changing either.

use std::collections::BTreeMap;

use crate::reconcile::strategy::StrategyName;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::sync::compare::{CompareOptions, Findings, begin, compare, usable_mark};
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::opening::{close, open};
use crate::sync::report::Report;
use crate::sync::sides::{OnlyOurs, Sides};
use crate::sync::transport::{Home, Transport};
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::GameId;
use crate::types::limits::Limits;
use crate::types::record::StateRecord;
use crate::wire::messages::OpenReply;

/// One state that is held differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// The state.
    pub id: GameId,
    /// Its key.
    pub key: StateKey,
    /// Content shown here; `None` when there is none.
    pub left: Option<ContentHash>,
    /// Content shown there; `None` when there is none.
    pub right: Option<ContentHash>,
}

/// Finds and proves what differs. `report` accounts for the bytes and names the strategy.
///
/// # Errors
/// [`SessionError`] when there is no proven result.
pub fn diff(
    transport: &mut dyn Transport,
    home: &dyn Home,
    options: &CompareOptions,
    limits: &Limits,
    report: &mut Report,
) -> Result<Vec<Differing>, SessionError> {
    let view = home.view();
    let mut exchange = Exchange::new(transport, limits, report);
    let mut begun = begin(&view, options, limits)?;
    let peer = open(&mut exchange, home, &view, false, &mut begun)?;
    let Some(session) = peer.session else {
        "none".clone_into(&mut exchange.report.strategy);
        exchange.report.equal = true;
        return Ok(Vec::new());
    };
    let agreement = home.agreement(peer.replica)?;
    let (newest, now) = (home.view(), home.now());
    let sides = Sides::of_session(&view, &newest, &peer, agreement.as_ref(), now);
    let mark = usable_mark(agreement, &peer);
    // Copying would be comparing with more bytes: whoever only looks compares.
    let options = CompareOptions {
        forced: match options.forced {
            Some(StrategyName::Full) => Some(StrategyName::Merkle),
            forced => forced,
        },
        ..*options
    };
    let known = (mark, begun);
    let found = compare(&mut exchange, &view, &peer, session, known, &options);
    let found = match found {
        Ok(Findings::CopyAll) => list(&mut exchange, home, &view, &peer, session, &options),
        other => other,
    };
    let closed = close(&mut exchange, session, None, false);
    let Findings::Records(records, absent) = found? else {
        return Err(SessionError::Impossible(
            "more states differ than can be listed; sync first",
        ));
    };
    closed?;
    Ok(merge_sides(&view, &sides?, records, absent)?)
}

/// When the planner would copy everything, a list still tells what differs.
fn list(
    exchange: &mut Exchange<'_>,
    home: &dyn Home,
    view: &View,
    peer: &OpenReply,
    session: u64,
    options: &CompareOptions,
) -> Result<Findings, SessionError> {
    let forced = CompareOptions {
        forced: Some(StrategyName::List),
        ..*options
    };
    let mark = usable_mark(home.agreement(peer.replica)?, peer);
    compare(exchange, view, peer, session, (mark, None), &forced)
}

/// What is over on both sides is no difference, whichever of them has collected it.
fn merge_sides(
    view: &View,
    sides: &Sides,
    records: Vec<StateRecord>,
    absent: Vec<StateKey>,
) -> Result<Vec<Differing>, StoreError> {
    let mut differing: BTreeMap<GameId, Differing> = BTreeMap::new();
    for record in records {
        let key = record.key();
        let ours = view.snapshot().record(&key)?.map(|row| row.record);
        let is_over = ours.is_none() && {
            let merged = sides.merged(None, &record);
            merged.is_none() && record.is_dead(sides.now)
        };
        if is_over || ours.as_ref() == Some(&record) {
            continue;
        }
        let entry = Differing {
            id: record.id.clone(),
            key,
            left: ours
                .as_ref()
                .and_then(|ours| shown_content(ours, sides.now)),
            right: shown_content(&record, sides.now),
        };
        differing.insert(entry.id.clone(), entry);
    }
    for key in absent {
        if let Some(row) = view.snapshot().record(&key)? {
            let is_over = match sides.only_ours(&row.record) {
                OnlyOurs::Departed => true,
                OnlyOurs::Collected => row.record.is_dead(sides.now),
                OnlyOurs::Ahead | OnlyOurs::PartlyCollected => false,
            };
            if is_over {
                continue;
            }
            let entry = Differing {
                id: row.record.id.clone(),
                key,
                left: shown_content(&row.record, sides.now),
                right: None,
            };
            differing.insert(entry.id.clone(), entry);
        }
    }
    Ok(differing.into_values().collect())
}

fn shown_content(record: &StateRecord, now: u64) -> Option<ContentHash> {
    let shown = record.shown();
    (!shown.is_dead(now)).then_some(shown.content)
}
