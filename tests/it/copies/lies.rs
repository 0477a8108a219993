//! A peer that lies about what it has seen.

use samestate::types::lineage::{Lineage, Sighting};
use samestate::wire::messages::{Endpoint, OpenReply};

use crate::harness::replica::{Node, Plan};
use crate::hostile_peers::{Liar, head};

/// Lets the peer say that it has seen the victim far ahead, in the opening that it told of.
fn seen_far_ahead(told: Lineage) -> impl FnMut(&mut OpenReply) {
    move |reply: &mut OpenReply| {
        let seen = told.sighting(u64::MAX);
        reply.seen = seen.map(|seen| Sighting {
            seq: 1 << 60,
            ..seen
        });
    }
}

#[test]
fn lies_about_what_was_seen_cost_one_name_and_no_data() {
    let (victim, peer) = (Node::new(1), Node::new(2));
    for n in 0..20 {
        victim.put(&format!("match/{n}"), format!("state {n}").as_bytes());
    }
    peer.sync(&victim, Plan::PULL);
    let contents = |node: &Node| {
        let mut contents = node.contents();
        // A state that is written again under another name stands beside itself for a while.
        contents.values_mut().for_each(Vec::dedup);
        contents
    };
    let before = contents(&victim);
    let first = victim.view().cursor().epoch;
    let mut epochs = vec![first];
    for _ in 0..20 {
        let told = victim.view().provenance().lineage.told();
        let mut liar = Liar::between(&peer, head(Endpoint::Open, seen_far_ahead(told)));
        let (_, result) = victim.sync_over(&mut liar, &victim.home(), Plan::BOTH);
        if let Err(error) = result {
            assert!(!error.is_misbehaviour(), "{error}");
        }
        epochs.push(victim.view().cursor().epoch);
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 2, "one new name, however often it is said");
    assert_eq!(contents(&victim), before);
    victim.check();
    let honest = victim.sync(&peer, Plan::BOTH);
    assert!(honest.equal);
    let row = victim.view().row(&crate::harness::replica::id("match/1"));
    let record = row.unwrap().unwrap().record;
    assert_eq!(record.conflicts(), 0);
    assert!(record.versions().len() <= 2, "{record:?}");
    peer.check();
    victim.put("match/1", b"one version again");
    victim.sync(&peer, Plan::BOTH);
    let row = peer.view().row(&crate::harness::replica::id("match/1"));
    assert_eq!(row.unwrap().unwrap().record.versions().len(), 1);
}

#[test]
fn nonsense_about_what_was_seen_is_passed_over() {
    let (victim, peer) = (Node::new(1), Node::new(2));
    victim.put("match/1", b"state");
    let before = victim.view().cursor();
    let lies: [fn(&mut Sighting); 4] = [
        |seen| seen.epoch.0 ^= 1,
        |seen| seen.seq = 0,
        |seen| seen.openings.clear(),
        |seen| seen.openings.reverse(),
    ];
    for lie in lies {
        let told = victim.view().provenance().lineage.told();
        let mut liar = Liar::between(
            &peer,
            head(Endpoint::Open, move |reply: &mut OpenReply| {
                let mut seen = told.sighting(1).unwrap();
                seen.seq = 1;
                lie(&mut seen);
                if seen.openings.is_empty() {
                    seen.seq = 0;
                }
                reply.seen = Some(seen);
            }),
        );
        let (_, result) = victim.sync_over(&mut liar, &victim.home(), Plan::PULL);
        result.unwrap();
    }
    assert_eq!(victim.view().cursor(), before);
}
