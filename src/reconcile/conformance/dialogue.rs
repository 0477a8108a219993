//! Runs a strategy against a responder and judges what it found.

use std::collections::BTreeMap;

use crate::reconcile::budget::Budget;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::memory::{Pair, Random, Set};
use crate::reconcile::registry::{answer, strategy};
use crate::reconcile::strategy::{
    AgreementMark, BloomSettings, Context, Difference, SessionLimits, Step, StrategyName,
};
use crate::reconcile::view::SetView;
use crate::types::hash::{LeafDigest, StateKey};

/// Differences of which a Bloom filter may hide one, at the rate used here.
pub const BLOOM_FPR: f64 = 0.001;

pub fn exchanging() -> impl Iterator<Item = StrategyName> {
    StrategyName::ALL
        .into_iter()
        .filter(|name| *name != StrategyName::Full)
}

pub fn context(pair: &Pair, random: &mut Random) -> Context {
    Context {
        key: random.bytes(),
        theirs: Some(pair.theirs.root().unwrap()),
        their_seq: pair.theirs.seq(),
        mark: Some(AgreementMark {
            their_seq: pair.their_mark,
            our_seq: pair.our_mark,
        }),
        limits: SessionLimits::default(),
        bloom: BloomSettings {
            fpr: BLOOM_FPR,
            ..BloomSettings::default()
        },
        rest: None,
    }
}

/// What a whole dialogue came to.
pub struct Outcome {
    pub result: Result<Step, ReconcileError>,
    pub rounds: u32,
    pub up: usize,
    pub down: usize,
    /// How much differs, as far as a strategy that gave up has said.
    pub estimate: Option<u64>,
}

/// Runs a strategy; `meddle` may change every answer before it arrives.
pub fn dialogue(
    name: StrategyName,
    (ours, theirs): (&impl SetView, &Set),
    context: &Context,
    budget: &Budget,
    mut meddle: impl FnMut(u32, Vec<u8>) -> Vec<u8>,
) -> Outcome {
    let mut initiator = strategy(name, context).unwrap();
    let (mut rounds, mut up, mut down) = (0, 0, 0);
    let mut reply = None;
    let result = loop {
        match initiator.advance(ours, reply.as_deref()) {
            Ok(Step::Ask(question)) => {
                rounds += 1;
                assert!(rounds <= context.limits.rounds, "{name}: too many rounds");
                assert!(
                    question.len() <= context.limits.message_bytes,
                    "{name}: a question of {} bytes",
                    question.len()
                );
                up += question.len();
                match answer(name, theirs, &question, budget) {
                    Ok(honest) => {
                        assert!(honest.len() <= budget.message_bytes, "{name}");
                        let arrived = meddle(rounds, honest);
                        down += arrived.len();
                        reply = Some(arrived);
                    }
                    Err(error) => break Err(error),
                }
            }
            ended => break ended,
        }
    };
    Outcome {
        result,
        rounds,
        up,
        down,
        estimate: initiator.estimate(),
    }
}

pub fn honest(name: StrategyName, pair: &Pair, context: &Context) -> (Difference, Outcome) {
    let budget = Budget::default();
    let outcome = dialogue(name, (&pair.ours, &pair.theirs), context, &budget, |_, a| a);
    match &outcome.result {
        Ok(Step::Found(difference)) => (difference.clone(), outcome),
        other => panic!("{name}: {other:?}"),
    }
}

/// The differences by comparing everything: what the peer holds in another form, and what we do.
pub fn oracle(ours: &Set, theirs: &Set) -> (Vec<u64>, Vec<StateKey>) {
    type Digests = BTreeMap<StateKey, LeafDigest>;
    let digests = |set: &Set| -> Digests {
        set.all()
            .iter()
            .map(|leaf| (leaf.key, leaf.digest))
            .collect()
    };
    let (here, there) = (digests(ours), digests(theirs));
    let lacked = |of: &Digests, by: &Digests| -> Vec<StateKey> {
        of.iter()
            .filter(|(key, digest)| by.get(key) != Some(digest))
            .map(|(key, _)| *key)
            .collect()
    };
    let differing = lacked(&there, &here)
        .iter()
        .map(StateKey::prefix64)
        .collect();
    let absent = lacked(&here, &there)
        .into_iter()
        .filter(|key| !there.contains_key(key))
        .collect();
    (differing, absent)
}

pub fn assert_well_formed(difference: &Difference) {
    assert!(difference.differing.is_sorted_by(|a, b| a < b));
    assert!(difference.absent.is_sorted_by(|a, b| a < b));
    assert!(!difference.absent.iter().any(|key| difference.names(key)));
    assert!(difference.depth <= 64);
    let is_prefix = |bits: &u64| difference.depth == 64 || bits << difference.depth == 0;
    assert!(difference.differing.iter().all(is_prefix));
}

pub fn assert_exact(name: StrategyName, pair: &Pair, found: &Difference, case: &str) {
    assert_well_formed(found);
    let (differing, absent) = oracle(&pair.ours, &pair.theirs);
    match name {
        // These two ask the peer about every state that changed here.
        StrategyName::Cursor | StrategyName::Bloom => {
            let mut all = differing;
            all.extend(absent.iter().map(StateKey::prefix64));
            all.sort_unstable();
            assert!(found.absent.is_empty(), "{name} {case}");
            if name == StrategyName::Cursor {
                assert_eq!(found.differing, all, "{name} {case}");
                return;
            }
            // Nothing equal is named, and no more is hidden than the rate allows.
            assert!(
                found
                    .differing
                    .iter()
                    .all(|bits| all.binary_search(bits).is_ok()),
                "{name} {case}"
            );
            let hidden = all.len() - found.differing.len();
            let expected = all.len() as f64 * BLOOM_FPR;
            assert!(
                hidden as f64 <= expected + 5.0 * expected.sqrt() + 1.0,
                "{name} {case}: {hidden} of {} hidden",
                all.len()
            );
        }
        // Names places, where equal leaves may be, too.
        _ => assert_covers(pair, found, case),
    }
}

/// Every difference is named, and nothing is named where there is none.
fn assert_covers(pair: &Pair, found: &Difference, case: &str) {
    // Lists and descents name as many bits as tell the leaves from each other.
    assert!(found.depth >= 24, "{case}");
    let (differing, absent) = oracle(&pair.ours, &pair.theirs);
    let cut = |bits: u64| bits & !u64::MAX.checked_shr(u32::from(found.depth)).unwrap_or(0);
    let mut places: Vec<u64> = differing.iter().map(|bits| cut(*bits)).collect();
    let unnamed: Vec<StateKey> = absent
        .iter()
        .copied()
        .filter(|key| !found.names(key))
        .collect();
    assert_eq!(found.absent, unnamed, "{case}");
    places.extend(
        absent
            .iter()
            .filter(|key| found.names(key))
            .map(|key| cut(key.prefix64())),
    );
    places.sort_unstable();
    places.dedup();
    assert_eq!(found.differing, places, "{case}");
}
