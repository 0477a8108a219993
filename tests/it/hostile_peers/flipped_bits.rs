//! Every message of every strategy with single bits flipped: whatever the session makes of it, it
//! never panics and never hands anything to the writer that the peer does not hold.

use std::cell::RefCell;
use std::sync::Arc;

use samestate::delta::compress::decompress_exact;
use samestate::peer::home::LocalHome;
use samestate::reconcile::strategy::StrategyName;
use samestate::replica::command::{Command, Incoming, Meeting};
use samestate::replica::staging::{Stager, StagingError};
use samestate::replica::view::View;
use samestate::store::error::StoreError;
use samestate::store::rows::Agreement;
use samestate::sync::dictionaries::Dictionaries;
use samestate::sync::report::Report;
use samestate::sync::transport::{Home, MergeError, Merging};
use samestate::types::id::ReplicaId;
use samestate::types::lineage::{Lineage, Sighting};
use samestate::types::seen::Seen;
use samestate::wire::fields::Fields;
use samestate::wire::short_frame::is_short;
use samestate::wire::version::Protocol;

use crate::harness::Rng;
use crate::harness::replica::{Node, Plan};
use crate::hostile_peers::{Liar, Lie, apart};

/// Flips in each message of each strategy, half of them inside what is compressed.
const FLIPS: usize = 32;

/// Takes note of what a session would store, and stores nothing.
struct Noting {
    home: LocalHome,
    merged: RefCell<Vec<Incoming>>,
    learned: RefCell<Vec<Seen>>,
}

impl Stager for Noting {
    fn newest(&self) -> Arc<View> {
        self.home.newest()
    }

    fn millis(&self) -> u64 {
        self.home.millis()
    }

    fn carry_out(&self, _: Command) -> Result<(), StagingError> {
        panic!("there is no large state here");
    }
}

impl Home for Noting {
    fn replica(&self) -> ReplicaId {
        self.home.replica()
    }

    fn view(&self) -> Arc<View> {
        self.home.view()
    }

    fn now(&self) -> u64 {
        self.home.now()
    }

    fn merge(&self, meeting: Meeting) -> Merging {
        self.merged.borrow_mut().extend(meeting.incoming);
        assert_eq!(meeting.absent, [], "nothing was collected");
        Box::new(|| Ok(Vec::new()))
    }

    fn note_seen(&self, seen: &Seen, _: bool) {
        self.learned.borrow_mut().push(seen.clone());
    }

    fn agreement(&self, peer: ReplicaId) -> Result<Option<Agreement>, StoreError> {
        self.home.agreement(peer)
    }

    fn agree(&self, _: ReplicaId, _: Agreement) {}

    fn meet(&self, _: &Lineage, _: u64) -> Option<Sighting> {
        None
    }

    fn trust(&self, _: &Lineage, _: u64) {}

    fn learn(&self, _: Sighting) -> Result<bool, MergeError> {
        Ok(false)
    }

    fn dictionaries(&self) -> Arc<Dictionaries> {
        self.home.dictionaries()
    }

    fn progress(&self, _: &Report) {}
}

/// The frame with its head and blob uncompressed.
fn unpacked(frame: &[u8]) -> Vec<u8> {
    if is_short(frame) {
        return short_unpacked(frame);
    }
    let number = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap()) as usize;
    if frame[6] & 1 == 0 {
        return frame.to_vec();
    }
    let plain = decompress_exact(&frame[16..], number(8) + number(12)).unwrap();
    let mut unpacked = frame[..16].to_vec();
    unpacked[6] = 0;
    unpacked.extend(plain);
    unpacked
}

fn short_unpacked(frame: &[u8]) -> Vec<u8> {
    if frame[0] & 0x40 == 0 {
        return frame.to_vec();
    }
    let mut fields = Fields::new(&frame[1..]);
    let length = fields.u32().unwrap() as usize;
    let packed = [&0xfd2f_b528_u32.to_le_bytes(), fields.rest()].concat();
    let mut unpacked = frame[..frame.len() - fields.left()].to_vec();
    unpacked[0] &= !0x40;
    unpacked.extend(decompress_exact(&packed, length).unwrap());
    unpacked
}

/// Flips a bit of the `nth` answer.
fn flip(nth: usize, mut rng: Rng, inside: bool) -> Lie {
    let mut count = 0;
    Box::new(move |_, reply| {
        count += 1;
        if count - 1 != nth {
            return reply;
        }
        let mut reply = if inside { unpacked(&reply) } else { reply };
        let at = rng.below(reply.len());
        reply[at] ^= 1 << rng.below(8);
        reply
    })
}

fn session(
    victim: &Node,
    peer: &Node,
    (version, lie): (Protocol, Lie),
    plan: Plan,
) -> (Report, Vec<Incoming>) {
    let home = Noting {
        home: victim.home(),
        merged: RefCell::default(),
        learned: RefCell::default(),
    };
    let (report, _) = victim.sync_over(&mut Liar::between(peer, lie).with(version), &home, plan);
    let mut known = peer.view().seen().unwrap();
    for learned in home.learned.into_inner() {
        assert!(
            !known.join(&learned),
            "more than the peer has seen: {report:?}"
        );
    }
    (report, home.merged.into_inner())
}

#[test]
fn nothing_false_survives_a_flipped_bit() {
    let mut rng = Rng::seeded(20);
    let (victim, peer) = apart(&mut rng);
    let root = victim.root();
    let mut failed = 0;
    for strategy in StrategyName::ALL {
        let plan = Plan::PULL.with(strategy);
        let (honest, merged) = session(
            &victim,
            &peer,
            (Protocol::V4, Box::new(|_, reply| reply)),
            plan,
        );
        assert_eq!(merged.len(), 13, "{strategy}: {honest:?}");
        let answers: u32 = honest.phases.iter().map(|phase| phase.round_trips).sum();
        for nth in 0..answers as usize {
            for round in 0..FLIPS {
                let lie = flip(nth, Rng::quiet(rng.next()), round % 2 == 0);
                let version = [Protocol::V3, Protocol::V4][round / 2 % 2];
                let (report, merged) = session(&victim, &peer, (version, lie), plan);
                failed += usize::from(report.reason.is_some());
                for incoming in merged {
                    is_of(&peer, &incoming, &report);
                }
                assert_eq!(victim.root(), root);
            }
        }
    }
    assert!(failed > 200, "flips are noticed: {failed}");
}

/// Fails unless the peer holds exactly this.
fn is_of(peer: &Node, incoming: &Incoming, report: &Report) {
    let id = &incoming.record.id;
    let row = peer.view().row(id).unwrap();
    assert_eq!(
        row.map(|row| row.record).as_ref(),
        Some(&incoming.record),
        "{report:?}"
    );
    for body in &incoming.bodies {
        assert!(body.unpacked().is_some(), "{id}: {report:?}");
    }
    for version in incoming.record.versions() {
        let mut bodies = incoming.bodies.iter();
        assert!(
            bodies.any(|body| body.hash == version.content),
            "{id}: {report:?}"
        );
    }
}
