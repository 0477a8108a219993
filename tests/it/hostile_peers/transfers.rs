//! Bytes that are not those of their record, and receivers that lie about what they lack.

use samestate::delta::codec::CodecId;
use samestate::merkle::node::Summary;
use samestate::types::hash::NodeHash;
use samestate::wire::messages::{
    BodyHead, BodyHeads, CloseReply, Endpoint, OfferReply, StoreReply, Want,
};

use crate::harness::Rng;
use crate::harness::replica::Plan;
use crate::hostile_peers::{
    Liar, Lie, PUSH, apart, bytes, case, forgiven, head, merkle, message, run,
};

#[test]
fn bytes_that_are_not_those_of_the_record() {
    let (victim, peer) = apart(&mut Rng::seeded(5));
    let bodies = |change: fn(&mut BodyHeads, &mut Vec<u8>)| message(Endpoint::Bodies, change);
    let other_bytes = bodies(|heads, blob| {
        blob.clear();
        for head in &mut heads.heads {
            *head = BodyHead {
                codec: CodecId::RAW.0,
                base: None,
                length: 600,
            };
            blob.extend([0; 600]);
        }
    });
    let missing = bodies(|heads, blob| {
        heads.heads.truncate(1);
        heads.heads[0].codec = BodyHead::MISSING;
        heads.heads[0].length = 0;
        blob.clear();
    });
    let cases = vec![
        case(
            merkle(),
            bodies(|heads, _| heads.heads.clear()),
            "number of bodies is wrong",
        ),
        case(
            merkle(),
            bodies(|heads, _| heads.heads.push(heads.heads[0].clone())),
            "number of bodies is wrong",
        ),
        case(
            merkle(),
            bodies(|_, blob| blob.push(0)),
            "left behind the bodies",
        ),
        case(
            merkle(),
            bodies(|_, blob| blob.truncate(blob.len() - 1)),
            "ends too early",
        ),
        case(
            merkle(),
            bodies(|heads, _| heads.heads[0].length = u32::MAX),
            "ends too early",
        ),
        case(
            merkle(),
            bodies(|heads, _| heads.heads[0].codec = 200),
            "do not decode",
        ),
        case(
            merkle(),
            bodies(|heads, _| heads.heads[0].base = Some(200)),
            "unknown base",
        ),
        case(merkle(), other_bytes, "do not decode"),
        forgiven(merkle(), missing, "cannot read its copy"),
    ];
    run(&victim, &peer, cases);
}

#[test]
fn bytes_of_the_right_length_whose_hash_is_wrong() {
    let (victim, peer) = apart(&mut Rng::seeded(9));
    let mut once = true;
    let lie = bodies_of_small_states(move |payload| {
        if std::mem::take(&mut once) {
            payload[0] ^= 1;
        }
    });
    let cases = vec![case(merkle(), lie, "do not have the content hash")];
    run(&victim, &peer, cases);
}

/// Changes the payload of each body that travels as it is.
fn bodies_of_small_states(mut change: impl FnMut(&mut [u8]) + 'static) -> Lie {
    message(Endpoint::Bodies, move |heads: &mut BodyHeads, blob| {
        let mut at = 0;
        for head in &heads.heads {
            let end = at + head.length as usize;
            if head.codec == CodecId::RAW.0 {
                change(&mut blob[at..end]);
            }
            at = end;
        }
    })
}

#[test]
fn receivers_that_lie_about_what_they_lack() {
    let (victim, peer) = apart(&mut Rng::seeded(6));
    let offer = |change: fn(&mut OfferReply)| head(Endpoint::Offer, change);
    let cases = vec![
        case(
            PUSH,
            offer(|reply| reply.wanted.push(0)),
            "more than was offered",
        ),
        case(
            PUSH,
            offer(|reply| reply.wanted[0] = 4_000_000),
            "what was not offered",
        ),
        case(
            PUSH,
            offer(|reply| reply.wants[0].version = 200),
            "unknown version",
        ),
        case(
            PUSH,
            offer(|reply| reply.wants.reverse()),
            "wants out of order",
        ),
        case(
            PUSH,
            offer(|reply| {
                let want: Want = reply.wants[0].clone();
                reply.wants.extend(std::iter::repeat_n(want, 5_000));
            }),
            "more than was offered",
        ),
        case(
            PUSH,
            head(Endpoint::Store, |reply: &mut StoreReply| reply.stored += 1),
            "more states stored than were sent",
        ),
        case(
            PUSH,
            bytes(Endpoint::Close, |reply| reply.truncate(3)),
            "short frame",
        ),
    ];
    run(&victim, &peer, cases);
}

#[test]
fn a_false_goodbye_loses_no_state() {
    let (victim, peer) = apart(&mut Rng::seeded(7));
    let theirs = victim.root();
    let lie = head(Endpoint::Close, move |reply: &mut CloseReply| {
        reply.root = Summary {
            hash: theirs.parse::<NodeHash>().unwrap(),
            ..reply.root
        };
    });
    let mut liar = Liar::between(&peer, lie);
    let (report, result) = victim.sync_over(&mut liar, &victim.home(), PUSH);
    result.unwrap();
    assert!(report.equal, "it said so");
    let next = victim.sync(&peer, Plan::BOTH);
    assert!(next.equal, "{next:?}");
    assert_eq!(victim.contents(), peer.contents());
}
