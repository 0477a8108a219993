//! Frames that are none, openings that lie, and answers that were given before.

use samestate::reconcile::strategy::StrategyName;
use samestate::sync::transport::{Transport, TransportError};
use samestate::types::hash::NodeHash;
use samestate::types::id::ReplicaId;
use samestate::types::lineage::Sighting;
use samestate::types::seen::Seen;
use samestate::wire::messages::{Endpoint, OpenReply, Testimony};
use samestate::wire::version::Protocol;

use crate::harness::Rng;
use crate::harness::replica::{Direct, Plan, put};
use crate::hostile_peers::{Lie, PUSH, apart, bytes, case, forgiven, head, merkle, run, run_in};

#[test]
fn frames_that_are_none() {
    let (victim, peer) = apart(&mut Rng::seeded(1));
    let last_byte = |at| bytes(at, |reply| reply.truncate(reply.len() - 1));
    let plain_and_cut = bytes(Endpoint::Open, |reply| {
        reply[6] = 0;
        reply.truncate(reply.len() - 1);
    });
    let mut cases = vec![
        case(merkle(), plain_and_cut, "short frame"),
        case(
            merkle(),
            last_byte(Endpoint::Records),
            "damaged compressed message",
        ),
    ];
    for at in [
        Endpoint::Open,
        Endpoint::Compare,
        Endpoint::Records,
        Endpoint::Bodies,
    ] {
        let cut = |length: usize| bytes(at, move |reply| reply.truncate(length));
        let plan = merkle();
        cases.push(case(plan, cut(0), "short frame"));
        cases.push(case(plan, cut(15), "short frame"));
        let page = |reply: &mut Vec<u8>| *reply = b"<html><body>It works!</body></html>".to_vec();
        cases.push(case(plan, bytes(at, page), "not a samestate frame"));
        let newer = bytes(at, |reply| reply[4] = 9);
        cases.push(forgiven(plan, newer, "protocol version 9"));
        cases.push(case(
            plan,
            bytes(at, |reply| reply[5] = 77),
            "message kind 77",
        ));
        let claim = |reply: &mut Vec<u8>| reply[12..16].fill(0xff);
        cases.push(case(plan, bytes(at, claim), "at most"));
        let bomb = |reply: &mut Vec<u8>| {
            let packed = samestate::delta::compress::compress(&vec![0; 40 << 20], 3).unwrap();
            reply.truncate(16);
            reply[6] = 1;
            reply[8..12].copy_from_slice(&100u32.to_le_bytes());
            reply[12..16].fill(0);
            reply.extend(packed);
        };
        cases.push(case(plan, bytes(at, bomb), "damaged compressed message"));
        cases.push(case(
            plan,
            bytes(at, |reply| reply.resize(200 << 20, 0)),
            "longer than",
        ));
    }
    run_in(Protocol::V3, &victim, &peer, cases);
}

#[test]
fn short_frames_that_are_none() {
    let (victim, peer) = apart(&mut Rng::seeded(1));
    let mut cases = Vec::new();
    for at in [
        Endpoint::Open,
        Endpoint::Compare,
        Endpoint::Records,
        Endpoint::Bodies,
    ] {
        let plan = merkle();
        let mut lie = |change: fn(&mut Vec<u8>), reason| {
            cases.push(case(plan, bytes(at, change), reason));
        };
        lie(|reply| reply.truncate(0), "short frame");
        lie(|reply| reply.truncate(1), "cut off");
        lie(
            |reply| *reply = b"<html><body>It works!</body></html>".to_vec(),
            "not a samestate frame",
        );
        lie(|reply| reply[0] = 0x80 | 60, "message kind 60");
        // Over 32 bits, over the bound, and more than there is.
        lie(
            |reply| {
                reply.splice(1..1, [0xff, 0xff, 0xff, 0xff, 0x7f]);
            },
            "over 32 bits",
        );
        lie(
            |reply| {
                reply.splice(1..1, [0xff, 0xff, 0xff, 0xff, 0x0f]);
            },
            "at most",
        );
        lie(
            |reply| {
                let packed = samestate::delta::compress::compress(&vec![0; 40 << 20], 3).unwrap();
                reply.truncate(1);
                reply[0] |= 0x40;
                reply.push(100);
                reply.extend_from_slice(&packed[4..]);
            },
            "damaged compressed message",
        );
        lie(|reply| reply.resize(200 << 20, 0), "longer than");
    }
    run(&victim, &peer, cases);
}

#[test]
fn openings_that_lie() {
    let (victim, peer) = apart(&mut Rng::seeded(2));
    let opened = |change: fn(&mut OpenReply)| head(Endpoint::Open, change);
    let full = Plan::PULL.with(StrategyName::Full);
    let list = Plan::PULL.with(StrategyName::List);
    let (lineage, epoch) = (
        victim.view().provenance().lineage.told(),
        victim.view().cursor().epoch,
    );
    let itself = move |reply: &mut OpenReply| {
        reply.replica = ReplicaId(1);
        (reply.lineage, reply.epoch) = (lineage.clone(), epoch);
    };
    let mut cases = vec![
        case(
            merkle(),
            opened(|reply| reply.session = None),
            "roots called equal that are not",
        ),
        forgiven(
            merkle(),
            head(Endpoint::Open, itself),
            "this replica itself",
        ),
        case(
            merkle(),
            opened(|reply| reply.epoch.0 ^= 1),
            "an impossible lineage",
        ),
        forgiven(
            merkle(),
            opened(|reply| reply.session = reply.session.map(|id| id ^ 1)),
            "no such sync session",
        ),
    ];
    // What somebody has taken in belongs to the root that it holds.
    for forgery in [
        |reply: &mut OpenReply| reply.root.hash.0[31] ^= 1,
        |reply: &mut OpenReply| {
            reply.testimony = Testimony::new(&NodeHash([0; 32]), Seen::default());
        },
    ] {
        let changed = "a testimony that was changed";
        cases.push(case(merkle(), opened(forgery), changed));
    }
    // Whatever is forged about the root, no set of honest records adds up to it.
    let forgeries: [fn(&mut OpenReply); 5] = [
        |reply| {
            reply.root.hash.0[31] ^= 1;
            reply.testimony = Testimony::new(&reply.root.hash, Seen::default());
        },
        |reply| reply.root.size += 1,
        |reply| reply.root.updated_at -= 1,
        |reply| reply.root.leaves += 1,
        |reply| reply.root.leaves = u64::MAX,
    ];
    for forgery in forgeries {
        for plan in [merkle(), list, full, Plan::PULL] {
            cases.push(case(plan, opened(forgery), "do not add up to the root"));
        }
    }
    run(&victim, &peer, cases);
}

#[test]
fn a_sighting_without_end() {
    let (victim, peer) = apart(&mut Rng::seeded(6));
    let endless = head(Endpoint::Open, |reply: &mut OpenReply| {
        reply.seen = Some(Sighting {
            epoch: reply.epoch,
            openings: (0..100_000).map(|id| (id, id)).collect(),
            seq: 1,
        });
    });
    let cases = vec![case(merkle(), endless, "an impossible sighting")];
    run(&victim, &peer, cases);
}

#[test]
fn answers_that_were_given_before() {
    let (victim, peer) = apart(&mut Rng::seeded(4));
    // What the peer said a moment ago, when it held other versions of some states.
    let mut before: Vec<(Endpoint, Vec<u8>)> = Vec::new();
    let recorded = Direct::to(&peer);
    let mut recorder = Recorder(recorded, &mut before);
    let (_, result) = victim.sync_over(&mut recorder, &victim.home(), PUSH);
    result.unwrap();
    let changed = (0..9).map(|n| put(&format!("match/{n}"), b"changed again"));
    peer.write(changed.collect()).unwrap();
    victim.put("ours/0", b"changed again");
    let replay = |at: Endpoint| {
        let said = before.iter().find(|(endpoint, _)| *endpoint == at);
        let said = said.unwrap().1.clone();
        bytes(at, move |reply| reply.clone_from(&said))
    };
    let stale = replay(Endpoint::Open);
    let wrong_kind = replay(Endpoint::Records);
    let mut wrong_kind = wrong_kind;
    let wrong_kind: Lie = Box::new(move |endpoint, reply| match endpoint {
        Endpoint::Bodies => wrong_kind(Endpoint::Records, reply),
        _ => reply,
    });
    let cases = vec![
        forgiven(merkle(), stale, "no such sync session"),
        case(
            merkle(),
            replay(Endpoint::Records),
            "another number of answers",
        ),
        case(merkle(), wrong_kind, "message kind 3 where kind 6 was due"),
        case(PUSH, replay(Endpoint::Offer), "more than was offered"),
    ];
    run(&victim, &peer, cases);
}

struct Recorder<'a>(Direct, &'a mut Vec<(Endpoint, Vec<u8>)>);

impl Transport for Recorder<'_> {
    fn call(
        &mut self,
        endpoint: Endpoint,
        request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let reply = self.0.call(endpoint, request, limit)?;
        self.1.push((endpoint, reply.clone()));
        Ok(reply)
    }
}
