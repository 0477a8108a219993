//! Chooses the strategy of a session from what both sides know before the first question, and the
//! next one when a strategy gives up.

use crate::merkle::node::Summary;
use crate::reconcile::costs::{Cost, cost, rest};
use crate::reconcile::strategy::{AgreementMark, Link, Rest, StrategyName};

/// Up to this share of the peer's states, a copy in key order sends less than a comparison would
/// save: one in so many.
const NEARLY_EMPTY: u64 = 100;

/// One state in so many is thought to differ where nothing is known and a list was chosen.
const LIKELY_SHARE: u64 = 16;

/// What is known when the roots differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Our root.
    pub ours: Summary,
    /// The peer's root.
    pub theirs: Summary,
    /// Our feed position.
    pub our_seq: u64,
    /// The peer's feed position.
    pub their_seq: u64,
    /// The last proven agreement, if both feeds still are in the epoch of that moment.
    pub mark: Option<AgreementMark>,
    /// True when there is a sketch of our states.
    pub has_sketch: bool,
    /// What the way to the peer is like.
    pub link: Link,
}

/// A choice and its reason, for the session's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub strategy: StrategyName,
    /// Why, in a sentence.
    pub why: String,
}

/// Chooses. Roots are known to differ.
///
/// A cursor names every state once however often it changed, so it is never dearer than a list and
/// needs no estimate. Without it all that is known of the difference is that it is at least the
/// difference of the counts; a sketch tells how much more it is for a few hundred bytes, and what
/// is known then chooses again. `bloom` is never cheapest and is chosen by users only.
pub fn plan(facts: &Facts) -> Plan {
    let (ours, theirs) = (facts.ours.leaves, facts.theirs.leaves);
    let choose = |strategy, why| Plan { strategy, why };
    if ours.saturating_mul(NEARLY_EMPTY) <= theirs {
        let why = format!("{ours} states here, {theirs} at the peer: nearly everything is missing");
        return choose(StrategyName::Full, why);
    }
    if let Some(mark) = facts.mark
        && let Some(there) = facts.their_seq.checked_sub(mark.their_seq)
        && let Some(here) = facts.our_seq.checked_sub(mark.our_seq)
    {
        let why = format!(
            "both were equal at the peer's position {}; since then at most {there} states changed there and {here} here",
            mark.their_seq
        );
        return choose(StrategyName::Cursor, why);
    }
    let least = ours.abs_diff(theirs).max(1);
    let mut names = vec![StrategyName::Merkle, StrategyName::List];
    if facts.has_sketch {
        names.push(StrategyName::Sketch);
    }
    match cheapest(facts, &names, least) {
        Some((strategy, cost)) => {
            let why = format!(
                "no agreement to start from; for the {least} states that differ at least it takes {}",
                expected(&cost)
            );
            choose(strategy, why)
        }
        None => choose(StrategyName::Merkle, "nothing else is left".to_owned()),
    }
}

/// What to try after strategies that failed or could not decide, about so many states being known to
/// differ: what is cheapest of those that have not been tried and are good for as many. `merkle`,
/// which needs nothing but honest answers, is always among them; after it nothing is left but to copy
/// in key order or to give the session up. A list that did not know how much differs hides far too much when
/// nearly all does; once a sketch has told, it may run again.
pub fn after_failure(
    facts: &Facts,
    tried: &[StrategyName],
    estimate: Option<u64>,
) -> Option<StrategyName> {
    let last = StrategyName::Merkle;
    if tried.contains(&last) {
        return None;
    }
    let mut names = vec![last];
    // Without knowing how much differs a list is a shot in the dark, and a sketch finds it out.
    if estimate.is_some() {
        names.push(StrategyName::List);
    }
    if facts.has_sketch {
        names.push(StrategyName::Sketch);
    }
    let lists = tried.iter().filter(|name| **name == StrategyName::List);
    let was_blind = lists.count() == 1 && tried.ends_with(&[StrategyName::Sketch]);
    names.retain(|name| !tried.contains(name) || *name == StrategyName::List && was_blind);
    let least = facts.ours.leaves.abs_diff(facts.theirs.leaves).max(1);
    let chosen = cheapest(facts, &names, estimate.unwrap_or(least));
    Some(chosen.map_or(last, |(name, _)| name))
}

/// What a list may count on: so much differs, if that is known, and what finds the rest.
pub fn expected_rest(facts: &Facts, estimate: Option<u64>) -> Rest {
    let (ours, theirs) = (facts.ours.leaves, facts.theirs.leaves);
    // Lists are chosen where much differs.
    let guess = ours.abs_diff(theirs).max(ours.max(theirs) / LIKELY_SHARE);
    rest(estimate.unwrap_or(guess), facts.has_sketch)
}

fn cheapest(facts: &Facts, names: &[StrategyName], differing: u64) -> Option<(StrategyName, Cost)> {
    let roots = (&facts.ours, &facts.theirs);
    let costs = names.iter();
    let costs =
        costs.filter_map(|name| Some((*name, cost(*name, roots, differing, facts.has_sketch)?)));
    costs.min_by(|(_, a), (_, b)| a.seconds(&facts.link).total_cmp(&b.seconds(&facts.link)))
}

fn expected(cost: &Cost) -> String {
    format!(
        "about {:.0} bytes in {:.0} round trips",
        cost.bytes,
        cost.trips.ceil()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(ours: u64, theirs: u64) -> Facts {
        let root = |leaves| Summary {
            leaves,
            ..Summary::EMPTY
        };
        Facts {
            ours: root(ours),
            theirs: root(theirs),
            our_seq: 50,
            their_seq: 70,
            mark: None,
            has_sketch: true,
            link: Link::default(),
        }
    }

    #[test]
    fn counts_decide_without_a_mark() {
        for (ours, theirs, expected) in [
            (0, 0, StrategyName::Full),
            (0, 1, StrategyName::Full),
            (1, 0, StrategyName::List),
            (10, 1000, StrategyName::Full),
            (11, 1000, StrategyName::List),
            (1000, 1000, StrategyName::Sketch),
            (1000, 990, StrategyName::Sketch),
            (1000, 2000, StrategyName::List),
            (1_000_000, 900_000, StrategyName::Sketch),
            (100_000, 1_000_000, StrategyName::List),
            (u64::MAX, 1, StrategyName::List),
        ] {
            let plan = plan(&facts(ours, theirs));
            assert_eq!(plan.strategy, expected, "{ours} {theirs}: {}", plan.why);
        }
    }

    #[test]
    fn an_agreement_is_used_unless_a_feed_went_back() {
        let mut facts = facts(1000, 2000);
        let mut mark = AgreementMark {
            their_seq: 60,
            our_seq: 50,
        };
        facts.mark = Some(mark);
        let cursor = plan(&facts);
        assert_eq!(cursor.strategy, StrategyName::Cursor);
        assert!(
            cursor
                .why
                .contains("at most 10 states changed there and 0 here"),
            "{}",
            cursor.why
        );
        mark.their_seq = 71;
        facts.mark = Some(mark);
        assert_ne!(plan(&facts).strategy, StrategyName::Cursor);
    }

    #[test]
    fn without_a_sketch_trees_are_descended() {
        let without = Facts {
            has_sketch: false,
            ..facts(1_000_000, 999_990)
        };
        let plan = plan(&without);
        assert_eq!(plan.strategy, StrategyName::Merkle, "{}", plan.why);
    }

    #[test]
    fn every_failure_ends_with_merkle() {
        let without = Facts {
            has_sketch: false,
            ..facts(1_000_000, 1_000_000)
        };
        for facts in [facts(1_000_000, 1_000_000), without] {
            for name in StrategyName::ALL {
                for estimate in [None, Some(500_000)] {
                    let mut tried = vec![name];
                    while let Some(next) = after_failure(&facts, &tried, estimate) {
                        assert!(!tried.contains(&next), "{tried:?}");
                        tried.push(next);
                    }
                    assert!(tried.contains(&StrategyName::Merkle), "{tried:?}");
                    assert!(facts.has_sketch || !tried[1..].contains(&StrategyName::Sketch));
                }
            }
        }
    }

    #[test]
    fn what_a_filter_or_a_feed_has_missed_a_sketch_finds() {
        let facts = facts(1_000_000, 1_000_000);
        for name in [
            StrategyName::Bloom,
            StrategyName::Cursor,
            StrategyName::List,
        ] {
            let next = after_failure(&facts, &[name], None);
            assert_eq!(next, Some(StrategyName::Sketch));
        }
    }

    #[test]
    fn what_a_sketch_has_estimated_chooses_the_next() {
        let facts = facts(1_000_000, 1_000_000);
        let tried = [StrategyName::Sketch];
        let next = |estimate| after_failure(&facts, &tried, Some(estimate));
        assert_eq!(next(100), Some(StrategyName::Merkle));
        assert_eq!(next(500_000), Some(StrategyName::List));
        // A list that hid too much, since it did not know.
        let tried = [StrategyName::List, StrategyName::Sketch];
        assert_eq!(
            after_failure(&facts, &tried, Some(250_000)),
            Some(StrategyName::List)
        );
        assert_eq!(
            after_failure(&facts, &tried, None),
            Some(StrategyName::Merkle)
        );
        let twice = [tried, tried].concat();
        assert_eq!(
            after_failure(&facts, &twice, Some(250_000)),
            Some(StrategyName::Merkle)
        );
        let tried = [StrategyName::Sketch, StrategyName::List];
        assert_eq!(
            after_failure(&facts, &tried, Some(500_000)),
            Some(StrategyName::Merkle)
        );
    }
}
