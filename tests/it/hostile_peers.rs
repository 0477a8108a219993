//! Peers that lie: every session with one ends with a named reason, and nothing that it sent is
//! stored.

mod flipped_bits;
mod over_http;

use samestate::delta::codec::CodecId;
use samestate::merkle::node::Summary;
use samestate::reconcile::strategy::StrategyName;
use samestate::replica::exchange::SessionError;
use samestate::replica::report::Outcome;
use samestate::replica::transport::{Transport, TransportError};
use samestate::types::hash::{ContentHash, NodeHash};
use samestate::types::id::{GameId, ReplicaId, WriterId};
use samestate::types::version::{Version, VersionVector};
use samestate::wire::frame::{open, seal};
use samestate::wire::messages::{
    BodyHead, BodyHeads, CloseReply, Endpoint, OfferReply, OpenReply, RecordsReply, StoreReply,
    SubtreesReply, Want,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::harness::Rng;
use crate::harness::replica::{Direct, Node, Plan, put};

const LIMIT: usize = 1 << 30;
const PUSH: Plan = Plan {
    pull: false,
    ..Plan::BOTH
};

/// Turns an honest answer into another one.
type Lie = Box<dyn FnMut(Endpoint, Vec<u8>) -> Vec<u8>>;

/// An honest peer, and somebody on the way who is not.
pub struct Liar {
    honest: Direct,
    lie: Lie,
}

impl Liar {
    pub fn between(peer: &Node, lie: Lie) -> Self {
        let honest = Direct::to(peer);
        Self { honest, lie }
    }
}

impl Transport for Liar {
    fn call(
        &mut self,
        endpoint: Endpoint,
        request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let reply = self.honest.call(endpoint, request, LIMIT)?;
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

/// Changes the message in every answer of one endpoint, and frames it properly again.
fn message<H>(at: Endpoint, mut change: impl FnMut(&mut H, &mut Vec<u8>) + 'static) -> Lie
where
    H: Serialize + DeserializeOwned,
{
    bytes(at, move |reply| {
        let (mut head, mut blob): (H, _) = open(at.kind(), reply, LIMIT).unwrap();
        change(&mut head, &mut blob);
        *reply = seal(at.kind(), &head, &blob);
    })
}

/// As [`message`], for a change that looks at the head only.
fn head<H>(at: Endpoint, mut change: impl FnMut(&mut H) + 'static) -> Lie
where
    H: Serialize + DeserializeOwned,
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
    let root = victim.root();
    for (number, case) in cases.into_iter().enumerate() {
        let Case { plan, reason, .. } = case;
        let mut liar = Liar::between(peer, case.lie);
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

#[test]
fn frames_that_are_none() {
    let (victim, peer) = apart(&mut Rng::seeded(1));
    let mut cases = Vec::new();
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
        cases.push(case(
            plan,
            bytes(at, |reply| reply.truncate(reply.len() - 1)),
            "",
        ));
        let page = |reply: &mut Vec<u8>| *reply = b"<html><body>It works!</body></html>".to_vec();
        cases.push(case(plan, bytes(at, page), "not a samestate frame"));
        cases.push(case(
            plan,
            bytes(at, |reply| reply[4] = 9),
            "protocol version 9",
        ));
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
    run(&victim, &peer, cases);
}

#[test]
fn openings_that_lie() {
    let (victim, peer) = apart(&mut Rng::seeded(2));
    let opened = |change: fn(&mut OpenReply)| head(Endpoint::Open, change);
    let full = Plan::PULL.with(StrategyName::Full);
    let list = Plan::PULL.with(StrategyName::List);
    let mut cases = vec![
        case(
            merkle(),
            opened(|reply| reply.session = None),
            "roots called equal that are not",
        ),
        case(
            merkle(),
            opened(|reply| reply.replica = ReplicaId(1)),
            "this replica itself",
        ),
        Case {
            misbehaviour: false,
            ..case(
                merkle(),
                opened(|reply| reply.session = reply.session.map(|id| id ^ 1)),
                "no such sync session",
            )
        },
    ];
    // Whatever is forged about the root, no set of honest records adds up to it.
    let forgeries: [fn(&mut OpenReply); 5] = [
        |reply| reply.root.hash.0[31] ^= 1,
        |reply| reply.root.size += 1,
        |reply| reply.root.updated_at -= 1,
        |reply| reply.root.leaves += 1,
        |reply| reply.root.leaves = u64::MAX,
    ];
    for forgery in forgeries {
        for plan in [merkle(), list, full, Plan::PULL] {
            cases.push(case(plan, opened(forgery), ""));
        }
    }
    run(&victim, &peer, cases);
}

/// A record as bytes have it, so that it can be made into one that no replica makes.
#[derive(Serialize, serde::Deserialize)]
struct LooseRecords {
    records: Vec<(GameId, Vec<Version>)>,
}

#[test]
fn records_that_do_not_add_up_to_the_root() {
    let (victim, peer) = apart(&mut Rng::seeded(3));
    let loose = |change: fn(&mut LooseRecords)| head(Endpoint::Records, change);
    let alterations: [fn(&mut Version); 7] = [
        |version| version.content = ContentHash::of(b"something else"),
        |version| version.size += 1,
        |version| version.stamp.millis += 1,
        |version| version.lease_epoch = 9,
        |version| version.expires_at = Some(1),
        |version| version.content_type = Some("text/html".into()),
        |version| version.vector.set(WriterId(2), u64::MAX),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for alter in alterations {
        let lie = head(Endpoint::Records, move |reply: &mut LooseRecords| {
            alter(&mut reply.records[2].1[0]);
        });
        cases.push(case(merkle(), lie, "do not add up to the root"));
    }
    let drop_one = loose(|reply| drop(reply.records.pop()));
    let drop_all = loose(|reply| reply.records.clear());
    let twice = loose(|reply| reply.records.push(reply.records[0].clone()));
    let other = loose(|reply| reply.records[0].0 = GameId::new("not/asked/for").unwrap());
    let many = loose(|reply| {
        let once = reply.records.clone();
        reply.records.extend([once.clone(), once].concat());
    });
    let empty = loose(|reply| reply.records[0].1.clear());
    let nobody = loose(|reply| reply.records[0].1[0].vector = VersionVector::default());
    let zero = loose(|reply| reply.records[0].1[0].vector.set(WriterId(7), 0));
    let seen = loose(|reply| {
        let mut older = reply.records[0].1[0].clone();
        older.stamp.millis -= 1;
        let mut newer = older.clone();
        newer.vector.set(WriterId(7), 1);
        reply.records[0].1 = vec![newer, older];
    });
    let grave = loose(|reply| reply.records[0].1[0].tombstone = true);
    cases.extend([
        case(merkle(), drop_one, "do not add up to the root"),
        case(merkle(), drop_all, "do not add up to the root"),
        case(merkle(), twice, "a record came twice"),
        case(merkle(), other, "a record that was not asked for"),
        case(merkle(), many, "more records than were asked for"),
        case(merkle(), empty, "needs at least one version"),
        case(merkle(), nobody, "needs at least one entry"),
        case(merkle(), zero, "zero counter"),
        case(merkle(), seen, "must be sorted"),
        case(merkle(), grave, "a tombstone has neither bytes"),
    ]);
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
        Case {
            misbehaviour: false,
            ..case(merkle(), stale, "no such sync session")
        },
        case(merkle(), replay(Endpoint::Records), ""),
        case(merkle(), wrong_kind, "message kind 3 where kind 6 was due"),
        case(PUSH, replay(Endpoint::Offer), ""),
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
    let mut cases = vec![
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
            bodies(|_, blob| drop(blob.pop())),
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
        case(merkle(), other_bytes, ""),
        Case {
            misbehaviour: false,
            ..case(merkle(), missing, "cannot read its copy")
        },
    ];
    // Raw bytes of the right length and of nothing else: only the hash can tell.
    let mut once = true;
    let right_length = bodies_of_small_states(move |payload| {
        if std::mem::take(&mut once) {
            payload[0] ^= 1;
        }
    });
    cases.push(case(merkle(), right_length, "do not have the content hash"));
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
            "another number of states",
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
fn a_false_goodbye_does_not_count_as_agreement() {
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

#[test]
fn subtrees_and_ranges_of_a_copy_are_proven_before_anything_is_stored() {
    let mut rng = Rng::seeded(8);
    let (victim, peer) = (Node::new(1), Node::new(2));
    let names: Vec<String> = (0..9_000).map(|n| format!("region/{n}")).collect();
    for part in names.chunks(3_000) {
        let writes = part.iter().map(|name| put(name, &rng.bytes(16)));
        peer.write(writes.collect()).unwrap();
    }
    let full = Plan::PULL.with(StrategyName::Full);
    let subtrees = |change: fn(&mut SubtreesReply)| head(Endpoint::Subtrees, change);
    let range = |change: fn(&mut RecordsReply)| head(Endpoint::Range, change);
    let sum = "do not add up to the root";
    let cases = vec![
        case(
            full,
            subtrees(|reply| drop(reply.subtrees.pop())),
            "another number of subtrees",
        ),
        case(
            full,
            subtrees(|reply| reply.subtrees.clear()),
            "another number of subtrees",
        ),
        case(
            full,
            subtrees(|reply| reply.subtrees[3].hash.0[0] ^= 1),
            sum,
        ),
        case(full, subtrees(|reply| reply.subtrees[3].leaves -= 1), sum),
        case(full, subtrees(|reply| reply.subtrees.swap(0, 1)), sum),
        case(
            full,
            subtrees(|reply| reply.subtrees[0] = Summary::EMPTY),
            sum,
        ),
        case(full, range(|reply| drop(reply.records.pop())), sum),
        case(full, range(|reply| reply.records.clear()), sum),
        case(
            full,
            range(|reply| reply.records.swap(0, 1)),
            "records out of place",
        ),
        case(
            full,
            range(|reply| reply.records.push(reply.records[0].clone())),
            "out of place",
        ),
    ];
    run(&victim, &peer, cases);
    let (_, result): (_, Result<(), SessionError>) = victim.try_sync(&peer, full);
    assert!(result.is_ok());
}
