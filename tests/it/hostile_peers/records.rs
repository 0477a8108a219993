//! Records, ranges and subtrees that do not add up to the root their sender announced.

use std::cell::Cell;
use std::rc::Rc;

use samestate::merkle::node::Summary;
use samestate::reconcile::strategy::StrategyName;
use samestate::types::hash::ContentHash;
use samestate::types::id::{GameId, WriterId};
use samestate::types::version::{Version, VersionVector};
use samestate::wire::head::Head;
use samestate::wire::messages::{Endpoint, RecordsReply, SubtreesReply};
use serde::Serialize;

use crate::harness::Rng;
use crate::harness::replica::{Node, Plan, put};
use crate::hostile_peers::{Case, Liar, apart, case, head, merkle, run};

/// A record as bytes have it, so that it can be made into one that no replica makes.
#[derive(Serialize, serde::Deserialize)]
struct LooseRecords {
    answered: u32,
    records: Vec<(GameId, Vec<Version>)>,
}

impl Head for LooseRecords {}

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
    let drop_one = loose(|reply| reply.records.truncate(reply.records.len() - 1));
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
        case(merkle(), twice, "records out of place, or one twice"),
        case(merkle(), other, "a record that was not asked for"),
        case(merkle(), many, "records out of place, or one twice"),
        case(merkle(), empty, "needs at least one version"),
        case(merkle(), nobody, "needs at least one entry"),
        case(merkle(), zero, "zero counter"),
        case(merkle(), seen, "must be sorted"),
        case(merkle(), grave, "a tombstone has neither bytes"),
    ]);
    run(&victim, &peer, cases);
}

#[test]
fn a_record_over_and_over_ends_the_session_with_its_first_answer() {
    let (victim, peer) = apart(&mut Rng::seeded(5));
    let (asked, root) = (Rc::new(Cell::new(0)), victim.root());
    let count = Rc::clone(&asked);
    let lie = head(Endpoint::Records, move |reply: &mut RecordsReply| {
        count.set(count.get() + 1);
        // One prefix at a time, so that there are as many answers as differences.
        reply.answered = 1;
        let once = reply.records.remove(0);
        reply.records = vec![once; 10_000];
    });
    let mut liar = Liar::between(&peer, lie);
    let (report, result) = victim.sync_over(&mut liar, &victim.home(), merkle());
    assert!(result.unwrap_err().is_misbehaviour());
    let told = report.reason.unwrap_or_default();
    assert!(told.contains("more records at a prefix"), "{told}");
    assert_eq!(asked.get(), 1, "the answers went on and on");
    assert_eq!(victim.root(), root);
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
            subtrees(|reply| reply.subtrees.truncate(reply.subtrees.len() - 1)),
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
        case(
            full,
            range(|reply| reply.records.truncate(reply.records.len() - 1)),
            sum,
        ),
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
}
