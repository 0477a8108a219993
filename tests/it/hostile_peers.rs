//! Peers that lie: every session with one ends with a named reason, and nothing that it sent is
//! stored.

mod cells_over_http;
mod chunks;
mod flipped_bits;
mod memory;
mod openings;
mod over_http;
mod records;
mod transfers;

use samestate::reconcile::strategy::StrategyName;
use samestate::sync::report::Outcome;
use samestate::sync::transport::{Transport, TransportError};
use samestate::wire::frame::{open, seal};
use samestate::wire::head::Head;
use samestate::wire::messages::Endpoint;
use samestate::wire::version::Protocol;

use crate::harness::Rng;
use crate::harness::replica::{Direct, Node, Plan, put};

const LIMIT: usize = 1 << 30;
const PUSH: Plan = Plan {
    pull: false,
    ..Plan::BOTH
};

/// Turns an honest answer into another one.
pub type Lie = Box<dyn FnMut(Endpoint, Vec<u8>) -> Vec<u8>>;

/// An honest peer, and somebody on the way who is not.
pub struct Liar {
    honest: Direct,
    lie: Lie,
    /// What the honest peer reads.
    version: Protocol,
}

impl Liar {
    pub fn between(peer: &Node, lie: Lie) -> Self {
        Self {
            honest: Direct::to(peer),
            lie,
            version: Protocol::V4,
        }
    }

    /// The peer reads this version at most.
    pub fn with(self, version: Protocol) -> Self {
        Self { version, ..self }
    }
}

impl Transport for Liar {
    fn call(
        &mut self,
        endpoint: Endpoint,
        mut request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        if self.version == Protocol::V3 {
            // Long frames, and a peer that does not know what this byte says.
            request[7] = 0;
        }
        let mut reply = self.honest.call(endpoint, request, LIMIT)?;
        if self.version == Protocol::V3 {
            reply[7] = 0;
        }
        let reply = (self.lie)(endpoint, reply);
        if reply.len() > limit {
            return Err(TransportError::TooLong(limit));
        }
        Ok(reply)
    }
}

/// Changes the bytes of every answer of one endpoint.
fn bytes(at: Endpoint, mut change: impl FnMut(&mut Vec<u8>) + 'static) -> Lie {
    Box::new(move |endpoint, mut reply| {
        if endpoint == at {
            change(&mut reply);
        }
        reply
    })
}

/// Changes the message in every answer of one endpoint, and frames it properly again: in version 3, in which
/// everything can be said that makes no sense.
fn message<H>(at: Endpoint, mut change: impl FnMut(&mut H, &mut Vec<u8>) + 'static) -> Lie
where
    H: Head,
{
    bytes(at, move |reply| {
        let (mut head, mut blob): (H, _) = open(at.kind(), reply, LIMIT).unwrap();
        change(&mut head, &mut blob);
        *reply = seal(at.kind(), &head, &blob);
    })
}

/// As [`message`], for a change that looks at the head only.
pub fn head<H>(at: Endpoint, mut change: impl FnMut(&mut H) + 'static) -> Lie
where
    H: Head,
{
    message(at, move |head: &mut H, _| change(head))
}

/// A lie, how the session is to be run for it to be told, and what must come of it.
struct Case {
    plan: Plan,
    lie: Lie,
    reason: &'static str,
    misbehaviour: bool,
}

fn case(plan: Plan, lie: Lie, reason: &'static str) -> Case {
    Case {
        plan,
        lie,
        reason,
        misbehaviour: true,
    }
}

/// As [`case`], for what an honest peer can cause as well.
fn forgiven(plan: Plan, lie: Lie, reason: &'static str) -> Case {
    Case {
        misbehaviour: false,
        ..case(plan, lie, reason)
    }
}

/// A victim and a peer that agreed once and went on apart.
pub fn apart(rng: &mut Rng) -> (Node, Node) {
    let (victim, peer) = (Node::new(1), Node::new(2));
    let base: Vec<(String, Vec<u8>)> = (0..120)
        .map(|n| (format!("match/{n}"), rng.bytes([40, 900, 20_000][n % 3])))
        .collect();
    let writes = base.iter().map(|(name, bytes)| put(name, bytes));
    peer.write(writes.collect()).unwrap();
    victim.sync(&peer, Plan::PULL);
    let changed = base.iter().take(9).map(|(name, bytes)| {
        let mut bytes = bytes.clone();
        bytes[7] ^= 0x55;
        put(name, &bytes)
    });
    peer.write(changed.collect()).unwrap();
    let created = (0..4).map(|n| put(&format!("new/{n}"), &rng.bytes(600)));
    peer.write(created.collect()).unwrap();
    let ours = (0..3).map(|n| put(&format!("ours/{n}"), &rng.bytes(600)));
    victim.write(ours.collect()).unwrap();
    (victim, peer)
}

/// Runs every case against the same two replicas, which is how one sees that no lie left a trace.
fn run(victim: &Node, peer: &Node, cases: Vec<Case>) {
    run_in(Protocol::V4, victim, peer, cases);
}

/// The same with a peer that reads this version at most.
fn run_in(version: Protocol, victim: &Node, peer: &Node, cases: Vec<Case>) {
    let root = victim.root();
    for (number, case) in cases.into_iter().enumerate() {
        let Case { plan, reason, .. } = case;
        let mut liar = Liar::between(peer, case.lie).with(version);
        let (report, result) = victim.sync_over(&mut liar, &victim.home(), plan);
        let what = format!("case {number} ({reason:?}, {plan:?})");
        let error = result.expect_err(&what);
        assert_eq!(report.outcome, Outcome::Failed, "{what}");
        let told = report.reason.unwrap_or_default();
        assert!(told.contains(reason), "{what}: {told}");
        assert_eq!(told, error.to_string());
        assert_eq!(error.is_misbehaviour(), case.misbehaviour, "{what}: {told}");
        assert_eq!(report.root_before, root, "{what}");
        assert_eq!(report.root_after, root, "{what}: something was stored");
        assert_eq!(victim.root(), root, "{what}: something was stored");
        assert!(!report.equal, "{what}");
    }
    victim.check();
    let honest = victim.sync(peer, Plan::BOTH);
    assert!(honest.equal, "the honest peer is still welcome");
    victim.check();
    peer.check();
}

fn merkle() -> Plan {
    Plan::PULL.with(StrategyName::Merkle)
}
