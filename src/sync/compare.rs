//! Finding what differs, and proving it: whatever strategy found the differences, the peer's
//! records for them must turn our tree into the one whose root the peer announced.

use std::collections::BTreeMap;

use crate::merkle::overlay::root_with;
use crate::merkle::update::LeafChange;
use crate::reconcile::amended::{Amended, changes, join};
use crate::reconcile::encoding::Writer;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::planner::{Facts, Plan, after_failure, expected_rest, plan};
use crate::reconcile::registry::strategy;
use crate::reconcile::strategy::{
    AgreementMark, Context, Difference, SessionLimits, Step, Strategy, StrategyName, Tuning,
};
use crate::reconcile::view::SetView;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::Agreement;
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::intake::{HELD_MAX, Intake};
use crate::types::hash::StateKey;
use crate::types::limits::Limits;
use crate::types::record::StateRecord;
use crate::wire::messages::{
    CompareRequest, Endpoint, LIST_MAX, OpenReply, RecordsReply, RecordsRequest,
};

/// What was found and proven.
#[derive(Debug)]
pub enum Findings {
    /// The peer's records that we do not hold in this form, sorted by key, and the keys of ours
    /// that the peer does not have at all.
    Records(Vec<StateRecord>, Vec<StateKey>),
    /// Everything is to be copied in key order.
    CopyAll,
}

/// How a comparison is to be made.
#[derive(Debug, Clone, Copy)]
pub struct CompareOptions {
    /// The strategy; `None` lets the planner choose.
    pub forced: Option<StrategyName>,
    /// How differences are looked for.
    pub tuning: Tuning,
    /// True when the first question of `sketch` is to go with the opening: a few hundred bytes for
    /// nothing when the roots are equal, and a round trip less when they are not.
    pub eager: bool,
}

/// A comparison whose first question goes with the opening.
pub struct Begun {
    machine: Box<dyn Strategy + Send>,
    /// The question, and then the answer; empty when there is none.
    pub bytes: Vec<u8>,
}

/// Begins a comparison before anything is known of the peer, if that is wanted and possible.
///
/// # Errors
/// [`SessionError`] when our storage fails.
pub fn begin(
    view: &View,
    options: &CompareOptions,
    limits: &Limits,
) -> Result<Option<Begun>, SessionError> {
    let is_open = options
        .forced
        .is_none_or(|name| name == StrategyName::Sketch);
    if !options.eager || !is_open {
        return Ok(None);
    }
    let context = Context {
        key: [0; 16],
        theirs: None,
        their_seq: 0,
        mark: None,
        limits: session_limits(limits),
        bloom: options.tuning.bloom,
        rest: None,
    };
    let Some(mut machine) = strategy(StrategyName::Sketch, &context) else {
        return Ok(None);
    };
    Ok(match machine.advance(view, None)? {
        Step::Ask(bytes) => Some(Begun { machine, bytes }),
        Step::Found(_) | Step::CannotDecide(_) => None,
    })
}

/// The agreement as a mark for the strategies, if the peer's feed still is the one it speaks of.
pub fn usable_mark(agreement: Option<Agreement>, peer: &OpenReply) -> Option<AgreementMark> {
    let agreement = agreement?;
    let same_feed = agreement.their_epoch == peer.epoch
        && agreement.their_incarnation <= peer.incarnation
        && agreement.their_seq <= peer.seq;
    same_feed.then_some(AgreementMark {
        their_seq: agreement.their_seq,
        our_seq: agreement.our_seq,
    })
}

/// Finds and proves what differs between `view` and the snapshot the peer pinned as `session`.
///
/// # Errors
/// [`SessionError`]; nothing was stored.
pub fn compare(
    exchange: &mut Exchange<'_>,
    view: &View,
    peer: &OpenReply,
    session: u64,
    (mark, begun): (Option<AgreementMark>, Option<Begun>),
    options: &CompareOptions,
) -> Result<Findings, SessionError> {
    let facts = Facts {
        ours: view.head().root,
        theirs: peer.root,
        our_seq: view.head().seq,
        their_seq: peer.seq,
        mark,
        has_sketch: view.sketch().is_some(),
        link: options.tuning.link,
    };
    let chosen = choose(&facts, options, begun.is_some());
    exchange.report.strategy = chosen.strategy.to_string();
    exchange.report.why = chosen.why;
    let mut context = context(exchange, peer, mark, options)?;
    let (mut facts, mut begun) = (facts, begun);
    let (mut name, mut tried, mut known) = (chosen.strategy, Vec::new(), None);
    let mut taken = Taken::default();
    loop {
        tried.push(name);
        context.rest = Some(expected_rest(&facts, known));
        let machine = match begun.take().filter(|_| name == StrategyName::Sketch) {
            Some(begun) => Some((begun.machine, Some(begun.bytes))),
            None => strategy(name, &context).map(|machine| (machine, None)),
        };
        let Some(machine) = machine else {
            return Ok(Findings::CopyAll);
        };
        let why = match attempt(exchange, view, &taken, session, name, machine)? {
            Attempt::Found(records, changes) => {
                taken.add(records, changes);
                let root = root_with(view.top(), view.snapshot(), &taken.changes);
                let root = root.map_err(StoreError::from)?;
                if root.matches(&peer.root) {
                    return taken.proven(view);
                }
                // What was found counts, and the next strategy looks for the rest: a sketch, too, that
                // found too much before.
                facts.ours = root;
                known = None;
                tried.retain(|tried| *tried != StrategyName::Sketch || name == *tried);
                let next = after_failure(&facts, &tried, None);
                name = next.ok_or(SessionError::RootMismatch)?;
                "the differences found do not explain the difference of the roots"
            }
            Attempt::CannotDecide(why, estimate) => {
                known = estimate.or(known);
                name = after_failure(&facts, &tried, known).unwrap_or(StrategyName::Full);
                why
            }
            Attempt::TooMuch => {
                name = StrategyName::Full;
                "the records that differ are too many bytes for one session"
            }
        };
        exchange.report.why = format!("{}; then {name}: {why}", exchange.report.why);
        exchange.report.strategy = name.to_string();
    }
}

/// What was found, over all strategies.
#[derive(Default)]
struct Taken {
    records: BTreeMap<StateKey, StateRecord>,
    /// Sorted by key, no key twice.
    changes: Vec<LeafChange>,
}

impl Taken {
    fn add(&mut self, records: Vec<StateRecord>, changes: Vec<LeafChange>) {
        for change in &changes {
            self.records.remove(&change.key);
        }
        let keyed = records.into_iter().map(|record| (record.key(), record));
        self.records.extend(keyed);
        self.changes = join(std::mem::take(&mut self.changes), changes);
    }

    /// Bytes of records that are held.
    fn weight(&self) -> u64 {
        let weights = self.records.values().map(|record| record.weight() as u64);
        weights.sum()
    }

    /// It turns our tree into the peer's.
    fn proven(self, view: &View) -> Result<Findings, SessionError> {
        let mut absent = Vec::new();
        for change in self.changes.iter().filter(|change| change.leaf.is_none()) {
            // One strategy may have brought what the next one has taken away.
            if view.snapshot().leaf(&change.key)?.is_some() {
                absent.push(change.key);
            }
        }
        let records = self.records.into_values().collect();
        Ok(Findings::Records(records, absent))
    }
}

fn choose(facts: &Facts, options: &CompareOptions, has_begun: bool) -> Plan {
    if let Some(strategy) = options.forced {
        let why = "asked for by the user".to_owned();
        return Plan { strategy, why };
    }
    let chosen = plan(facts);
    if !has_begun || chosen.strategy == StrategyName::Full {
        return chosen;
    }
    Plan {
        strategy: StrategyName::Sketch,
        why: "asked with the opening, since it may be the first session".to_owned(),
    }
}

enum Attempt {
    /// The peer's records, and what they change.
    Found(Vec<StateRecord>, Vec<LeafChange>),
    /// Why not, and how much differs, if that is known.
    CannotDecide(&'static str, Option<u64>),
    /// The records are more than may be held at once.
    TooMuch,
}

fn context(
    exchange: &Exchange<'_>,
    peer: &OpenReply,
    mark: Option<AgreementMark>,
    options: &CompareOptions,
) -> Result<Context, SessionError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|_| SessionError::Impossible("the machine gives no random numbers"))?;
    let limits = exchange.limits();
    Ok(Context {
        key,
        theirs: Some(peer.root),
        their_seq: peer.seq,
        mark,
        limits: session_limits(limits),
        bloom: options.tuning.bloom,
        rest: None,
    })
}

fn session_limits(limits: &Limits) -> SessionLimits {
    SessionLimits {
        differing: limits.session_states,
        message_bytes: usize::try_from(limits.message_bytes).unwrap_or(usize::MAX),
        ..SessionLimits::default()
    }
}

fn attempt(
    exchange: &mut Exchange<'_>,
    view: &View,
    taken: &Taken,
    session: u64,
    name: StrategyName,
    (mut machine, mut reply): (Box<dyn Strategy + Send>, Option<Vec<u8>>),
) -> Result<Attempt, SessionError> {
    let amended;
    let compared: &dyn SetView = if taken.changes.is_empty() {
        view
    } else {
        amended = Amended::new(view, &taken.changes).map_err(ReconcileError::from)?;
        &amended
    };
    let difference = loop {
        match machine.advance(compared, reply.as_deref())? {
            Step::Found(difference) => break difference,
            Step::CannotDecide(why) => {
                return Ok(Attempt::CannotDecide(why, machine.estimate()));
            }
            Step::Ask(question) => {
                let head = CompareRequest {
                    session,
                    strategy: name,
                };
                let asked = exchange.ask(phase_of(name), Endpoint::Compare, &head, &question);
                let ((), answer) = asked?;
                reply = Some(answer);
            }
        }
    };
    let room = HELD_MAX.saturating_sub(taken.weight());
    let Some(records) = fetch_records(exchange, session, &difference, room)? else {
        return Ok(Attempt::TooMuch);
    };
    let leaves = records.iter().map(StateRecord::leaf);
    let changes = changes(compared, &difference, leaves)?;
    Ok(Attempt::Found(records, changes))
}

fn phase_of(name: StrategyName) -> &'static str {
    match name {
        StrategyName::Cursor => "change_feed",
        StrategyName::Bloom => "bloom_filter_exchange",
        StrategyName::Merkle => "merkle_comparison",
        StrategyName::List => "list_exchange",
        StrategyName::Sketch => "sketch_exchange",
        StrategyName::Full => "full_copy",
    }
}

/// The records of what differs; `None` when they are more than may be held at once.
fn fetch_records(
    exchange: &mut Exchange<'_>,
    session: u64,
    difference: &Difference,
    room: u64,
) -> Result<Option<Vec<StateRecord>>, SessionError> {
    let depth = difference.depth.max(1);
    let mut intake = Intake::new(depth, room);
    let slot = |bits: &u64| bits >> (64 - u32::from(depth));
    let mut asked = &difference.differing[..];
    while !asked.is_empty() {
        let part = &asked[..asked.len().min(LIST_MAX)];
        let head = RecordsRequest { session, depth };
        let mut slots = Writer::new();
        slots.sorted(&part.iter().map(slot).collect::<Vec<u64>>());
        let slots = slots.finish();
        let (reply, _): (RecordsReply, _) =
            exchange.ask("state_request", Endpoint::Records, &head, &slots)?;
        let answered = part
            .get(..reply.answered as usize)
            .filter(|p| !p.is_empty());
        let answered = answered.ok_or(SessionError::Misfit("another number of answers"))?;
        if !intake.take(reply.records, answered)? {
            return Ok(None);
        }
        asked = &asked[answered.len()..];
    }
    Ok(Some(intake.records))
}
