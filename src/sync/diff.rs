//! What differs between this replica and a peer, without changing either.

use std::collections::BTreeMap;

use crate::reconcile::strategy::StrategyName;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::sync::compare::{CompareOptions, Findings, compare, usable_mark};
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::opening::{close, open};
use crate::sync::report::Report;
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
    let peer = open(&mut exchange, home, &view, false)?;
    let Some(session) = peer.session else {
        "none".clone_into(&mut exchange.report.strategy);
        exchange.report.equal = true;
        return Ok(Vec::new());
    };
    let mark = usable_mark(home.agreement(peer.replica)?, &peer);
    // Copying would be comparing with more bytes: whoever only looks compares.
    let options = CompareOptions {
        forced: match options.forced {
            Some(StrategyName::Full) => Some(StrategyName::Merkle),
            forced => forced,
        },
        ..*options
    };
    let found = compare(&mut exchange, &view, &peer, session, mark, &options);
    let found = match found {
        Ok(Findings::CopyAll) => list(&mut exchange, home, &view, &peer, session, &options),
        other => other,
    };
    let closed = close(&mut exchange, session, None);
    let Findings::Records(records, absent) = found? else {
        return Err(SessionError::Impossible(
            "more states differ than can be listed; sync first",
        ));
    };
    closed?;
    Ok(merge_sides(&view, records, absent)?)
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
    compare(exchange, view, peer, session, mark, &forced)
}

fn merge_sides(
    view: &View,
    records: Vec<StateRecord>,
    absent: Vec<StateKey>,
) -> Result<Vec<Differing>, StoreError> {
    let mut differing: BTreeMap<GameId, Differing> = BTreeMap::new();
    for record in records {
        let key = record.key();
        let ours = view.snapshot().record(&key)?.map(|row| row.record);
        if ours.as_ref() == Some(&record) {
            continue;
        }
        let entry = Differing {
            id: record.id.clone(),
            key,
            left: ours.as_ref().and_then(shown_content),
            right: shown_content(&record),
        };
        differing.insert(entry.id.clone(), entry);
    }
    for key in absent {
        if let Some(row) = view.snapshot().record(&key)? {
            let entry = Differing {
                id: row.record.id.clone(),
                key,
                left: shown_content(&row.record),
                right: None,
            };
            differing.insert(entry.id.clone(), entry);
        }
    }
    Ok(differing.into_values().collect())
}

fn shown_content(record: &StateRecord) -> Option<ContentHash> {
    let shown = record.shown();
    (!shown.tombstone).then_some(shown.content)
}
