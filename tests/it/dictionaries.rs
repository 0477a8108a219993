//! Short states that have no base: dictionaries are trained, passed on and used, in both directions, and
//! peers without them are none the worse.

use samestate::delta::codec::CodecId;
use samestate::sync::dictionaries::DictionaryStatus;
use samestate::sync::report::Report;
use samestate::sync::transport::{Transport, TransportError};
use samestate::wire::frame::{open, seal};
use samestate::wire::messages::{
    BodiesRequest, BodyHead, BodyHeads, DictionaryReply, Endpoint, OfferReply, StoreRequest,
};

use crate::harness::Rng;
use crate::harness::replica::{Direct, Node, Plan, put};

const PUSH: Plan = Plan {
    pull: false,
    ..Plan::BOTH
};
const LIMIT: usize = 1 << 30;

/// A unit of a game, as saves have it.
fn unit(rng: &mut Rng) -> Vec<u8> {
    let kinds = ["Settlers", "Workers", "Explorer", "Phalanx", "Caravan"];
    let (kind, number) = (kinds[rng.below(kinds.len())], rng.below(5000));
    let text = format!(
        "id={number};type_by_name=\"{kind}\";activity=\"Idle\";done_moving=FALSE;moves={};hp={};\
         fuel=1;veteran=0;x={};y={};homecity={};born={};orders_length=0;transported_by=-1;\
         charge={:08x}",
        rng.below(9),
        rng.below(20),
        rng.below(80),
        rng.below(50),
        rng.below(300),
        rng.below(200),
        rng.next() as u32
    );
    text.into_bytes()
}

/// Puts so many new units.
fn born(node: &Node, rng: &mut Rng, prefix: &str, units: usize) {
    let number = |n: usize| format!("{prefix}/{}/{n}", rng_name(node));
    let writes: Vec<_> = (0..units).map(|n| put(&number(n), &unit(rng))).collect();
    node.write(writes).unwrap();
}

/// Different for each batch: nothing is ever born twice.
fn rng_name(node: &Node) -> u64 {
    node.view().head().seq
}

fn status(node: &Node) -> DictionaryStatus {
    node.namespace().dictionaries().status()
}

/// Bytes of states that a session moved.
fn transferred(report: &Report) -> u64 {
    let phase = report.phases.iter().find(|p| p.phase == "state_transfer");
    phase.map_or(0, |phase| phase.bytes_sent + phase.bytes_received)
}

/// A replica with units and a dictionary of them, and one that has the units only.
fn sites(rng: &mut Rng) -> (Node, Node) {
    let (ours, theirs) = (Node::new(1), Node::new(2));
    born(&ours, rng, "unit", 400);
    theirs.sync(&ours, Plan::PULL);
    ours.namespace().keep_dictionary().unwrap();
    assert!(status(&ours).current.is_some());
    assert_eq!(status(&theirs), DictionaryStatus::default());
    (ours, theirs)
}

/// The same, after the other one has got the dictionary.
fn sites_in_common(rng: &mut Rng) -> (Node, Node) {
    let (ours, theirs) = sites(rng);
    let (reply, bytes) = ours.namespace().dictionaries().give(&[]);
    theirs
        .namespace()
        .dictionaries()
        .take(&reply, bytes)
        .unwrap();
    (ours, theirs)
}

#[test]
fn a_dictionary_is_passed_on_when_it_pays_and_halves_what_comes_after() {
    let mut rng = Rng::seeded(41);
    let (ours, theirs) = sites(&mut rng);
    born(&theirs, &mut rng, "theirs", 4);
    let pushed_without = transferred(&theirs.sync(&ours, PUSH));
    let (mut without, mut with, mut passed_on) = (Vec::new(), Vec::new(), None);
    for round in 0..30 {
        born(&ours, &mut rng, "unit", 4);
        let before = status(&theirs).others;
        let report = theirs.sync(&ours, Plan::PULL);
        assert!(report.equal && report.states_pulled == 4, "{report:?}");
        match (before, status(&theirs).others) {
            (0, 0) => without.push(transferred(&report)),
            (0, 1) => passed_on = Some(round),
            (1, 1) => with.push(transferred(&report)),
            other => panic!("{other:?}"),
        }
    }
    // 8 KiB of states of about 200 bytes.
    assert!(
        passed_on.is_some_and(|round| (6..14).contains(&round)),
        "{passed_on:?}"
    );
    let mean = |costs: &[u64]| costs.iter().sum::<u64>() / costs.len() as u64;
    println!("{} without, {} with", mean(&without), mean(&with));
    // What is asked for is in these bytes, too.
    assert!(mean(&with) * 100 <= mean(&without) * 65);
    assert_eq!(status(&theirs).current, status(&ours).current);
    assert_eq!(ours.contents(), theirs.contents());
    theirs.check();
    // The other way round, whoever begins.
    for plan in [PUSH, Plan::BOTH] {
        born(&theirs, &mut rng, "theirs", 4);
        let report = theirs.sync(&ours, plan);
        assert_eq!(report.states_pushed, 4);
        // Records go along with the bytes here.
        let pushed = transferred(&report);
        assert!(
            pushed * 100 <= pushed_without * 75,
            "{pushed_without} {report:?}"
        );
    }
    born(&theirs, &mut rng, "theirs", 4);
    let report = ours.sync(&theirs, Plan::PULL);
    assert!(
        transferred(&report) * 100 <= mean(&without) * 65,
        "{report:?}"
    );
    assert_eq!(ours.contents(), theirs.contents());
    ours.check();
}

/// Answers as a build that knows nothing of dictionaries.
struct Older(Direct);

impl Transport for Older {
    fn call(
        &mut self,
        endpoint: Endpoint,
        request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        if endpoint == Endpoint::Dictionary {
            return Err(TransportError::Refused {
                code: "unknown_message".to_owned(),
                detail: "there is no sync message \"dictionary\"".to_owned(),
            });
        }
        self.0.call(endpoint, request, limit)
    }
}

#[test]
fn peers_that_know_nothing_of_dictionaries_are_served_as_before() {
    let mut rng = Rng::seeded(42);
    let (ours, theirs) = sites(&mut rng);
    for _ in 0..20 {
        born(&ours, &mut rng, "unit", 4);
        let mut older = Older(Direct::to(&ours));
        let (report, result) = theirs.sync_over(&mut older, &theirs.home(), Plan::PULL);
        result.unwrap();
        assert!(report.equal, "{report:?}");
    }
    assert_eq!(status(&theirs), DictionaryStatus::default());
    assert_eq!(ours.contents(), theirs.contents());
}

#[test]
fn a_dictionary_is_trained_again_only_when_it_is_worth_it() {
    let mut rng = Rng::seeded(43);
    let ours = Node::new(1);
    born(&ours, &mut rng, "unit", 20);
    ours.namespace().keep_dictionary().unwrap();
    assert_eq!(status(&ours).current, None, "too few states");
    born(&ours, &mut rng, "unit", 300);
    ours.namespace().keep_dictionary().unwrap();
    let first = status(&ours);
    assert!(first.current.is_some());
    // More of the same is no reason, and neither is a short while.
    born(&ours, &mut rng, "unit", 300);
    ours.namespace().keep_dictionary().unwrap();
    assert_eq!(status(&ours), first);
    // Random states have nothing in common.
    let other = Node::new(2);
    let writes = (0..300).map(|n| put(&format!("noise/{n}"), &rng.bytes(150)));
    other.write(writes.collect()).unwrap();
    other.namespace().keep_dictionary().unwrap();
    assert_eq!(status(&other).current, None);
    // The same states give the same dictionary, whoever has them and whenever.
    let (a, b) = (Node::new(3), Node::new(4));
    born(&a, &mut rng, "unit", 300);
    b.sync(&a, Plan::PULL);
    for node in [&a, &b] {
        node.namespace().keep_dictionary().unwrap();
    }
    assert!(status(&a).current.is_some());
    assert_eq!(status(&a), status(&b));
}

/// What stands in an honest answer with short states, and a session that gets something else.
struct Lying<F>(Direct, Endpoint, F);

impl<F: FnMut(&[u8], Vec<u8>) -> Vec<u8>> Transport for Lying<F> {
    fn call(
        &mut self,
        endpoint: Endpoint,
        request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let reply = self.0.call(endpoint, request.clone(), limit)?;
        if endpoint == self.1 {
            return Ok((self.2)(&request, reply));
        }
        Ok(reply)
    }
}

/// Runs a pull in which the answers of one endpoint are changed; it has to fail and to leave nothing.
fn refused(
    victim: &Node,
    peer: &Node,
    endpoint: Endpoint,
    reason: &str,
    change: impl FnMut(&[u8], Vec<u8>) -> Vec<u8>,
) {
    let root = victim.root();
    let mut lying = Lying(Direct::to(peer), endpoint, change);
    let (report, result) = victim.sync_over(&mut lying, &victim.home(), Plan::PULL);
    let error = result.expect_err(reason);
    assert!(
        error.to_string().contains(reason),
        "{error} for {reason}: {report:?}"
    );
    assert!(error.is_misbehaviour(), "{error}");
    assert_eq!(victim.root(), root, "{reason}");
}

/// A change of an honest answer.
type Change = fn(&mut BodyHeads, &mut Vec<u8>);

/// What is wrong with an answer, and what makes it so.
fn bad_bodies() -> [(&'static str, Change); 7] {
    [
        ("without dictionary", |heads, _| {
            first(heads).base = Some(3);
        }),
        ("no frame, or a second one", |heads, _| {
            first(heads).base = None;
        }),
        ("no frame, or a second one", |heads, _| {
            let frame = first(heads).clone();
            let last = heads.heads.last_mut().unwrap();
            (last.codec, last.base) = (frame.codec, frame.base);
        }),
        ("do not decode", |heads, _| {
            // One of them is said to be alone: the frame has another length then.
            let last = heads.heads.iter_mut().rfind(|head| head.length == 0);
            *last.unwrap() = BodyHead {
                codec: CodecId::RAW.0,
                base: None,
                length: 0,
            };
        }),
        ("do not decode", |heads, blob| {
            let at = frame_at(heads);
            blob[at + 6] ^= 0xff;
        }),
        ("a long state among short ones", |heads, _| {
            let (codec, large) = (CodecId::TOGETHER.0, |head: &&mut BodyHead| {
                head.length > 4096
            });
            heads.heads.iter_mut().find(large).unwrap().codec = codec;
        }),
        ("ends too early", |_, blob| {
            blob.truncate(blob.len() - 1);
        }),
    ]
}

#[test]
fn states_that_come_together_are_checked_like_all_others() {
    let mut rng = Rng::seeded(44);
    let (peer, victim) = sites_in_common(&mut rng);
    born(&peer, &mut rng, "unit", 3);
    peer.put("large", &rng.bytes(9000));
    let is_together = |head: &BodyHead| CodecId(head.codec) == CodecId::TOGETHER;
    for (reason, change) in bad_bodies() {
        refused(
            &victim,
            &peer,
            Endpoint::Bodies,
            reason,
            |request, reply| {
                let (asked, _): (BodiesRequest, _) =
                    open(Endpoint::Bodies.kind(), request, LIMIT).unwrap();
                assert!(asked.wants[0].bases[0].is_dictionary());
                let (mut heads, mut blob): (BodyHeads, _) =
                    open(Endpoint::Bodies.kind(), &reply, LIMIT).unwrap();
                assert_eq!(
                    heads.heads.iter().filter(|head| is_together(head)).count(),
                    3
                );
                change(&mut heads, &mut blob);
                seal(Endpoint::Bodies.kind(), &heads, &blob)
            },
        );
    }
    let honest = victim.sync(&peer, Plan::PULL);
    assert!(honest.equal && honest.states_pulled == 4, "{honest:?}");
    victim.check();
}

/// The head that the frame belongs to.
fn first(heads: &mut BodyHeads) -> &mut BodyHead {
    let mut heads = heads.heads.iter_mut();
    let together = |head: &&mut BodyHead| CodecId(head.codec) == CodecId::TOGETHER;
    heads.find(together).unwrap()
}

/// Where the frame begins.
fn frame_at(heads: &BodyHeads) -> usize {
    let before = heads
        .heads
        .iter()
        .take_while(|head| CodecId(head.codec) != CodecId::TOGETHER);
    before.map(|head| head.length as usize).sum()
}

#[test]
fn dictionaries_that_are_not_what_they_are_said_to_be_are_refused() {
    let mut rng = Rng::seeded(45);
    type Lie = fn(&mut DictionaryReply, &mut Vec<u8>);
    let cases: [(&str, Lie); 3] = [
        ("does not have the hash", |reply, _| {
            reply.hash = reply.hash.map(|mut hash| {
                hash.0[31] ^= 1;
                hash
            });
        }),
        ("would exceed the allowed 32768 bytes", |_, bytes| {
            bytes.resize(40_000, 7);
        }),
        ("no dictionary of zstd", |_, bytes| bytes.truncate(30)),
    ];
    for (reason, change) in cases {
        let (peer, victim) = sites(&mut rng);
        // As much as it takes for the victim to ask.
        victim.namespace().dictionaries().missed(1 << 20);
        born(&peer, &mut rng, "unit", 3);
        refused(&victim, &peer, Endpoint::Dictionary, reason, |_, reply| {
            let kind = Endpoint::Dictionary.kind();
            let (mut head, mut bytes): (DictionaryReply, _) = open(kind, &reply, LIMIT).unwrap();
            change(&mut head, &mut bytes);
            seal(kind, &head, &bytes)
        });
        assert_eq!(status(&victim), DictionaryStatus::default());
        assert!(victim.sync(&peer, Plan::PULL).equal);
    }
}

#[test]
fn pushes_with_a_dictionary_that_the_responder_did_not_name_are_refused() {
    let mut rng = Rng::seeded(46);
    let (responder, pusher) = sites_in_common(&mut rng);
    born(&pusher, &mut rng, "pushed", 3);
    let mut stores = 0;
    let mut direct = Direct::to(&responder);
    let root = responder.root();
    let kind = Endpoint::Store.kind();
    let mut tampering = Tampering(&mut direct, |request: Vec<u8>| {
        stores += 1;
        let (mut head, blob): (StoreRequest, _) = open(kind, &request, LIMIT).unwrap();
        let named = head.wants[0]
            .bases
            .iter_mut()
            .find(|hint| hint.is_dictionary());
        named.unwrap().content ^= 1;
        seal(kind, &head, &blob)
    });
    let (report, result) = pusher.sync_over(&mut tampering, &pusher.home(), PUSH);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("dictionary"), "{error} {report:?}");
    assert_eq!((stores, responder.root()), (1, root));
    assert!(pusher.sync(&responder, PUSH).equal);
    responder.check();
}

/// Changes what is stored on the way.
struct Tampering<'a, F>(&'a mut Direct, F);

impl<F: FnMut(Vec<u8>) -> Vec<u8>> Transport for Tampering<'_, F> {
    fn call(
        &mut self,
        endpoint: Endpoint,
        request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let request = match endpoint {
            Endpoint::Store => (self.1)(request),
            _ => request,
        };
        let reply = self.0.call(endpoint, request, limit)?;
        if endpoint == Endpoint::Offer {
            let (offer, _): (OfferReply, _) = open(endpoint.kind(), &reply, LIMIT).unwrap();
            assert!(offer.wants[0].bases[0].is_dictionary());
        }
        Ok(reply)
    }
}
