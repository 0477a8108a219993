//! A sync session from the initiator's side: open, compare, take over, hand over, verify, close.

use std::sync::Arc;
use std::time::Instant;

use crate::merkle::node::Summary;
use crate::merkle::overlay::root_with;
use crate::merkle::prefix::Prefix;
use crate::reconcile::strategy::AgreementMark;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::Agreement;
use crate::sync::compare::{Begun, CompareOptions, Findings, begin, compare, usable_mark};
use crate::sync::copy::copy_region;
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::opening::{close, open, probe};
use crate::sync::pull::Puller;
use crate::sync::push::{forget, push};
use crate::sync::report::{Outcome, Report};
use crate::sync::sides::Sides;
use crate::sync::transport::{Home, Transport};
use crate::types::hash::NodeHash;
use crate::types::id::ReplicaId;
use crate::types::limits::Limits;
use crate::wire::messages::{CloseReply, OpenReply};
use crate::wire::version::Protocol;

/// What a session is to do.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// Take over what the peer has.
    pub pull: bool,
    /// Give the peer what we have.
    pub push: bool,
    /// True when this session is one of a link that follows the peer's change feed.
    pub follows: bool,
    /// What the peer said last, when both were equal: asked first is only whether that still holds.
    pub last: Option<Last>,
    /// How to find differences.
    pub compare: CompareOptions,
    /// What is accepted from outside.
    pub limits: Limits,
}

/// What a peer said to an opening, when both were equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// Who.
    pub replica: ReplicaId,
    /// Its newest change.
    pub seq: u64,
    /// Stands for all that it said.
    pub digest: u64,
    /// What it reads.
    pub protocol: Protocol,
}

/// Who answered, as far as the session got to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSeen {
    /// What it said, when both were equal from the beginning.
    pub last: Option<Last>,
    /// Its replica id.
    pub replica: ReplicaId,
    /// Newest change it told of.
    pub seq: u64,
    /// The root that both were proven to hold, if they were. Ours may have moved on since.
    pub equal_root: Option<NodeHash>,
}

/// Runs a session to its end and completes `report`.
///
/// # Errors
/// [`SessionError`], which the report tells too; whatever was verified and stored before stays.
pub fn run(
    transport: &mut dyn Transport,
    home: &dyn Home,
    options: &SessionOptions,
    report: &mut Report,
) -> Result<PeerSeen, SessionError> {
    let begin = Instant::now();
    let mut session = Session {
        exchange: Exchange::new(transport, &options.limits, report),
        home,
        options,
    };
    let result = session.run();
    report.outcome = match &result {
        Ok(_) => Outcome::Complete,
        Err(error) => {
            report.reason = Some(error.to_string());
            Outcome::Failed
        }
    };
    // What was written here since is no part of what both were proven to hold.
    if !report.equal {
        report.root_after = home.view().head().root.hash.to_hex();
    }
    report.finish(begin.elapsed().as_secs_f64());
    home.progress(report);
    result
}

struct Session<'s> {
    exchange: Exchange<'s>,
    home: &'s dyn Home,
    options: &'s SessionOptions,
}

impl<'s> Session<'s> {
    fn run(&mut self) -> Result<PeerSeen, SessionError> {
        let view = self.home.view();
        let follows = self.options.follows;
        self.exchange.protocol = self
            .options
            .last
            .map(|last| last.protocol)
            .unwrap_or_default();
        if let Some(last) = self.options.last
            && probe(&mut self.exchange, self.home, &view, (follows, last.digest))?
        {
            return Ok(self.unchanged(&view, last));
        }
        let mut begun = begin(&view, &self.options.compare, &self.options.limits)?;
        let peer = open(&mut self.exchange, self.home, &view, follows, &mut begun)?;
        let mut seen = PeerSeen {
            replica: peer.replica,
            seq: peer.seq,
            equal_root: None,
            last: None,
        };
        let agreement = self.home.agreement(peer.replica)?;
        let (newest, now) = (self.home.view(), self.home.now());
        let sides = Sides::of_session(&view, &newest, &peer, agreement.as_ref(), now);
        let Some(session) = peer.session else {
            self.equal_at_once(&view, &peer, &sides?);
            seen.equal_root = Some(view.head().root.hash);
            // What it has seen of us it is to be told again.
            seen.last = peer.seen.is_none().then(|| Last {
                replica: peer.replica,
                seq: peer.seq,
                digest: peer.digest(),
                protocol: self.exchange.protocol,
            });
            return Ok(seen);
        };
        let mark = usable_mark(agreement, &peer);
        let known = (mark, begun);
        let result = sides.and_then(|sides| self.reconcile(&view, &peer, session, known, sides));
        // The peer's place is given back even when we fail; it would time out otherwise.
        let root = result.is_ok().then(|| self.home.view().head().root.hash);
        let complete = matches!(&result, Ok((_, true)));
        let closed = close(&mut self.exchange, session, root, complete);
        let (mut ahead, _) = result?;
        seen.equal_root = self.verify(&view, &peer, &closed?, &mut ahead)?;
        Ok(seen)
    }

    fn report_equal(&mut self, view: &View, why: &str) {
        let report = &mut *self.exchange.report;
        "none".clone_into(&mut report.strategy);
        why.clone_into(&mut report.why);
        report.equal = true;
        report.root_after = view.head().root.hash.to_hex();
    }

    /// Whatever there was to agree on and to learn was so before.
    fn unchanged(&mut self, view: &View, last: Last) -> PeerSeen {
        self.exchange.report.peer = last.replica.to_string();
        self.report_equal(view, "nothing has changed since the roots were equal");
        PeerSeen {
            replica: last.replica,
            seq: last.seq,
            equal_root: Some(view.head().root.hash),
            last: Some(last),
        }
    }

    fn equal_at_once(&mut self, view: &View, peer: &OpenReply, sides: &Sides) {
        self.report_equal(view, "the roots are equal");
        self.home.note_seen(&sides.theirs, false);
        self.agree(peer, peer.seq, view.head().seq);
    }

    /// Compares, takes over and hands over. Returns what the pull found, and whether the peer now
    /// holds everything that we held at the beginning.
    fn reconcile(
        &mut self,
        view: &Arc<View>,
        peer: &OpenReply,
        session: u64,
        known: (Option<AgreementMark>, Option<Begun>),
        sides: Sides,
    ) -> Result<(Puller<'s>, bool), SessionError> {
        let options = self.options;
        let found = compare(
            &mut self.exchange,
            view,
            peer,
            session,
            known,
            &options.compare,
        )?;
        self.home.progress(self.exchange.report);
        let mut puller = Puller::new(
            self.home,
            (session, peer.replica),
            options.pull,
            sides,
            &options.limits,
        );
        match found {
            Findings::Records(records, absent) => {
                puller.note_absent(view, absent)?;
                puller.take(&mut self.exchange, records)?;
            }
            Findings::CopyAll => {
                let (at, theirs) = (Prefix::ROOT, peer.root);
                copy_region(&mut self.exchange, self.home, &mut puller, at, theirs)?;
            }
        }
        puller.settle()?;
        puller.let_go()?;
        self.count_conflicts(&puller)?;
        let mut complete = puller.ahead.is_empty();
        let mut kept = puller.collected();
        if options.push {
            complete = push(&mut self.exchange, self.home, session, &puller.ahead)?;
            kept = forget(&mut self.exchange, session, &kept)?;
        }
        puller.note_kept(&kept);
        puller.finish()?;
        Ok((puller, complete))
    }

    fn count_conflicts(&mut self, puller: &Puller<'_>) -> Result<(), SessionError> {
        let view = self.home.view();
        for key in &puller.ahead {
            let row = view.snapshot().record(key)?;
            let conflicts = row.is_some_and(|row| row.record.conflicts() > 0);
            self.exchange.report.conflicts += u64::from(conflicts);
        }
        Ok(())
    }

    /// Compares the roots at the end and notes how far the two agree. The root that both hold, if
    /// they are equal.
    fn verify(
        &mut self,
        before: &View,
        peer: &OpenReply,
        closed: &CloseReply,
        puller: &mut Puller<'_>,
    ) -> Result<Option<NodeHash>, SessionError> {
        let view = self.home.view();
        let (ours, as_theirs) = (view.head().root, as_theirs(&view, puller)?);
        let is = |root: &Summary| ours.hash.matches(&root.hash) || as_theirs.matches(root);
        let their_seq = if is(&closed.root) {
            Some(closed.seq)
        } else {
            is(&peer.root).then_some(peer.seq)
        };
        if let Some(their_seq) = their_seq {
            self.exchange.report.equal = true;
            self.exchange.report.root_after = ours.hash.to_hex();
            self.agree(peer, their_seq, view.head().seq);
            return Ok(Some(ours.hash));
        }
        if self.options.pull {
            let our_seq = agreed_until(before, &view, puller)?;
            self.agree(peer, peer.seq, our_seq);
        }
        Ok(None)
    }

    fn agree(&self, peer: &OpenReply, their_seq: u64, our_seq: u64) {
        let agreement = Agreement {
            their_epoch: peer.epoch,
            their_seq,
            their_incarnation: peer.incarnation,
            our_seq,
        };
        self.home.agree(peer.replica, agreement);
    }
}

/// Our root with the peer's leaves in place of ours for states that are over on both sides: when this
/// is the peer's root, nothing else differs.
fn as_theirs(view: &View, puller: &mut Puller<'_>) -> Result<Summary, SessionError> {
    match puller.over() {
        Some(over) if !over.is_empty() => {
            let root = root_with(view.top(), view.snapshot(), over);
            Ok(root.map_err(StoreError::from)?)
        }
        _ => Ok(view.head().root),
    }
}

/// The position of our feed up to which the peer has everything of ours. Behind it stand states
/// of which we hold more than the peer, and writes that came in during the session.
fn agreed_until(before: &View, now: &View, puller: &Puller<'_>) -> Result<u64, SessionError> {
    let mut until = now.head().seq;
    for key in &puller.ahead {
        if let Some((_, seq)) = now.snapshot().leaf(key)? {
            until = until.min(seq.saturating_sub(1));
        }
    }
    let mut seq = before.head().seq;
    while seq < until {
        let changes = now.snapshot().changes_after(seq, 1024)?;
        if changes.is_empty() {
            break;
        }
        for (changed_at, key) in changes {
            let leaf = now.snapshot().leaf(&key)?;
            if !leaf.is_some_and(|(leaf, _)| puller.agrees(&leaf)) {
                return Ok(until.min(changed_at.saturating_sub(1)));
            }
            seq = changed_at;
        }
    }
    Ok(until)
}
