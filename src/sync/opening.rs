//! The first and the last message of a session, and whether the two sides are who they were.

use crate::replica::view::View;
use crate::sync::compare::Begun;
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::transport::{Home, TransportError};
use crate::types::hash::NodeHash;
use crate::types::lineage::Sighting;
use crate::wire::messages::{
    CloseReply, CloseRequest, Endpoint, OpenReply, OpenRequest, ProbeReply, ProbeRequest, Testimony,
};

/// Opens a session on `view`. A peer that calls the roots equal is not taken at its word.
///
/// The first question of a comparison that has `begun` goes along, and is exchanged for its answer
/// there; a peer that does not answer it leaves nothing of it.
///
/// When what either side has seen of the other does not go together with what that one says of
/// itself, that one is told, and takes another name before there is a session: nothing may be
/// compared by versions whose names mean two things.
///
/// # Errors
/// [`SessionError`] when there is no usable answer, the peer is this replica itself, or either has
/// to take another name first.
pub fn open(
    exchange: &mut Exchange<'_>,
    home: &dyn Home,
    view: &View,
    follows: bool,
    begun: &mut Option<Begun>,
) -> Result<OpenReply, SessionError> {
    if view.provenance().pending.is_some() {
        let renewing = "this replica is taking another name; try again in a moment";
        return Err(SessionError::Impossible(renewing));
    }
    let reply = ask(exchange, home, view, (follows, None), begun)?;
    let Some(seen) = home.meet(&reply.lineage, reply.seq) else {
        return Ok(reply);
    };
    // The peer alone knows all of its openings, and how far it has come by now: if it goes on when
    // it has been told, there was no harm.
    give_up(exchange, &reply)?;
    // What was answered is about another snapshot.
    *begun = None;
    let reply = ask(exchange, home, view, (follows, Some(seen)), begun)?;
    home.trust(&reply.lineage, reply.seq);
    Ok(reply)
}

fn ask(
    exchange: &mut Exchange<'_>,
    home: &dyn Home,
    view: &View,
    (follows, seen): (bool, Option<Sighting>),
    begun: &mut Option<Begun>,
) -> Result<OpenReply, SessionError> {
    let ours = view.head().root.hash;
    let head = OpenRequest {
        seen,
        ..statement(home, view, follows)?
    };
    let question = begun.as_ref().map_or(&[][..], |begun| &begun.bytes);
    let asked = exchange.ask("open", Endpoint::Open, &head, question);
    let (reply, answered): (OpenReply, Vec<u8>) = asked?;
    *begun = begun.take().filter(|_| !answered.is_empty());
    if let Some(begun) = begun {
        begun.bytes = answered;
    }
    exchange.report.peer = reply.replica.to_string();
    let opening = reply.lineage.newest();
    if reply.lineage.check().is_err() || opening.is_none_or(|o| o.epoch != reply.epoch) {
        return Err(SessionError::Misfit("an impossible lineage"));
    }
    if reply
        .seen
        .as_ref()
        .is_some_and(|seen| seen.check().is_err())
    {
        return Err(SessionError::Misfit("an impossible sighting"));
    }
    if reply.replica == home.replica() && opening == head.lineage.newest() {
        return Err(SessionError::Impossible("the peer is this replica itself"));
    }
    if reply.session.is_none() && !reply.root.hash.matches(&ours) {
        return Err(SessionError::Misfit("roots called equal that are not"));
    }
    for seen in [twin(view, &reply), reply.seen.clone()]
        .into_iter()
        .flatten()
    {
        if home.learn(seen)? {
            give_up(exchange, &reply)?;
            return Err(SessionError::Renewed);
        }
    }
    Ok(reply)
}

/// What we say of a view.
fn statement(home: &dyn Home, view: &View, follows: bool) -> Result<OpenRequest, SessionError> {
    let root = view.head().root.hash;
    Ok(OpenRequest {
        replica: home.replica(),
        root,
        follows,
        lineage: view.provenance().lineage.told(),
        seq: view.head().seq,
        seen: None,
        testimony: Testimony::new(&root, view.seen()?),
    })
}

/// True when nothing has changed since the peer gave the `last` answer to an opening, and the roots
/// are equal still. A peer that does not know of probes says no.
///
/// # Errors
/// [`SessionError`] when there is no usable answer.
pub fn probe(
    exchange: &mut Exchange<'_>,
    home: &dyn Home,
    view: &View,
    (follows, last): (bool, u64),
) -> Result<bool, SessionError> {
    if view.provenance().pending.is_some() {
        return Ok(false);
    }
    let head = ProbeRequest {
        root: view.head().root.hash,
        said: statement(home, view, follows)?.digest(),
    };
    match exchange.ask("open", Endpoint::Probe, &head, &[]) {
        Ok((ProbeReply { said }, _)) => Ok(said == Some(last)),
        Err(SessionError::Transport(TransportError::Refused { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A peer that is at work in the same life of the feed: whatever it has written so far, either will
/// use positions that the other one uses.
fn twin(view: &View, reply: &OpenReply) -> Option<Sighting> {
    let opening = reply.lineage.newest();
    let same_life = view.identity().epoch == reply.epoch;
    let is_twin = same_life && opening != view.provenance().lineage.newest();
    let seen = reply.lineage.sighting(u64::MAX);
    seen.filter(|_| is_twin)
}

/// Leaves a session that was opened for nothing.
fn give_up(exchange: &mut Exchange<'_>, reply: &OpenReply) -> Result<(), SessionError> {
    if let Some(session) = reply.session {
        close(exchange, session, None, false)?;
    }
    Ok(())
}

/// Ends a session; `root` is where we stand, unless it failed. `complete` says that the peer now
/// holds everything that we did when we opened it.
///
/// # Errors
/// [`SessionError`] when there is no usable answer.
pub fn close(
    exchange: &mut Exchange<'_>,
    session: u64,
    root: Option<NodeHash>,
    complete: bool,
) -> Result<CloseReply, SessionError> {
    let head = CloseRequest {
        session,
        root,
        complete,
    };
    let (reply, _): (CloseReply, _) = exchange.ask("verification", Endpoint::Close, &head, &[])?;
    Ok(reply)
}
