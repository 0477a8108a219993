//! Chooses the strategy of a session from what both sides know before the first question.

use crate::merkle::node::Summary;
use crate::reconcile::strategy::{AgreementMark, StrategyName};

/// Up to this share of the peer's states, a copy in key order sends less than a comparison would
/// save: one in so many.
const NEARLY_EMPTY: u64 = 100;
/// Measured by the conformance suite: bytes both ways for each state that differs.
const MERKLE_BYTES_EACH: u64 = 110;
/// Bytes for each state that the side which asks holds.
const LIST_BYTES_HELD: u64 = 4;
/// Bytes for each state that a list finds different.
const LIST_BYTES_EACH: u64 = 8;

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
/// difference of the counts; `merkle` adapts to whatever it finds above that. `bloom` is never
/// cheapest and is chosen by users only.
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
    let least = ours.abs_diff(theirs);
    let merkle = least.saturating_mul(MERKLE_BYTES_EACH);
    let list = ours
        .saturating_mul(LIST_BYTES_HELD)
        .saturating_add(least.saturating_mul(LIST_BYTES_EACH));
    if list < merkle {
        let why = format!(
            "at least {least} states differ, too many to search for: a list takes about {list} bytes, a descent {merkle}"
        );
        return choose(StrategyName::List, why);
    }
    let why = format!("no agreement to start from, and the counts differ by {least} only");
    choose(StrategyName::Merkle, why)
}

/// What to try after strategies that failed or could not decide: `merkle`, which needs nothing but
/// honest answers; after it nothing is left but to copy in key order or to give the session up.
pub fn after_failure(tried: &[StrategyName]) -> Option<StrategyName> {
    let last = StrategyName::Merkle;
    (!tried.contains(&last)).then_some(last)
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
            (1000, 1000, StrategyName::Merkle),
            (1000, 990, StrategyName::Merkle),
            (1000, 2000, StrategyName::List),
            (u64::MAX, 1, StrategyName::Merkle),
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
    fn every_failure_ends_with_merkle() {
        for name in StrategyName::ALL {
            let expected = (name != StrategyName::Merkle).then_some(StrategyName::Merkle);
            assert_eq!(after_failure(&[name]), expected);
        }
        assert_eq!(
            after_failure(&[StrategyName::Cursor, StrategyName::Merkle]),
            None
        );
    }
}
