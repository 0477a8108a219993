//! The one trait of all strategies, and the words they share with the session that drives them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::merkle::node::Summary;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::view::SetView;
use crate::types::hash::StateKey;

/// Why a strategy gives up when more states differ than a session may handle.
pub const TOO_MANY_DIFFER: &str = "more states differ than one session may handle";
/// Why a strategy gives up when it has no round trips left.
pub const TOO_MANY_ROUNDS: &str = "it would take more round trips than allowed";

/// A way to find differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StrategyName {
    /// What changed on either side since both were proven equal.
    Cursor,
    /// Two Bloom filters; may miss differences.
    Bloom,
    /// Descent through both trees.
    Merkle,
    /// Short ids of all leaves.
    List,
    /// The difference of two sketches.
    Sketch,
    /// No comparison: everything the peer holds is copied in key order. It has no
    /// [`Strategy`]; the session does it by itself.
    Full,
}

impl StrategyName {
    /// Every strategy.
    pub const ALL: [Self; 6] = [
        Self::Cursor,
        Self::Bloom,
        Self::Merkle,
        Self::List,
        Self::Sketch,
        Self::Full,
    ];

    /// The name in settings, reports and URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cursor => "cursor",
            Self::Bloom => "bloom",
            Self::Merkle => "merkle",
            Self::List => "list",
            Self::Sketch => "sketch",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for StrategyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no strategy.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("no such strategy; choose one of cursor, bloom, merkle, list, sketch, full")]
pub struct BadStrategy;

impl FromStr for StrategyName {
    type Err = BadStrategy;

    fn from_str(text: &str) -> Result<Self, BadStrategy> {
        let named = |name: &Self| name.as_str() == text;
        Self::ALL.into_iter().find(named).ok_or(BadStrategy)
    }
}

/// Finds differences as a state machine.
pub trait Strategy {
    /// The next step: first without a reply, then with the peer's answer to the last
    /// [`Step::Ask`]. `view` must show the same snapshot every time.
    ///
    /// # Errors
    /// [`ReconcileError`] when our storage fails, or when the reply is malformed, over a limit or
    /// contradicts an earlier one. The strategy is over then.
    fn advance(&mut self, view: &dyn SetView, reply: Option<&[u8]>)
    -> Result<Step, ReconcileError>;

    /// About how many states differ, when the strategy has got to know that before it gave up.
    fn estimate(&self) -> Option<u64> {
        None
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes to the peer's responder and come back with its answer.
    Ask(Vec<u8>),
    /// Done.
    Found(Difference),
    /// This strategy is the wrong one here, for the reason given. Try another.
    CannotDecide(&'static str),
}

/// Where two sets of leaves differ. Both lists are sorted and free of duplicates, and no key of
/// `absent` begins with a value of `differing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// How many first bits of keys `differing` tells: 64 or fewer.
    pub depth: u8,
    /// First bits (big endian, zeros behind them) of keys below which the peer may hold other leaves
    /// than we do. The peer is to be asked for all its records below each; ours that it does not name
    /// are absent there. Equal leaves in between are possible.
    pub differing: Vec<u64>,
    /// Keys that we hold and the peer does not.
    pub absent: Vec<StateKey>,
}

impl Default for Difference {
    fn default() -> Self {
        Self::of_sides(Vec::new(), Vec::new())
    }
}

impl Difference {
    /// Puts together what one side has that the other has not: `theirs` are 64-bit prefixes of
    /// the peer's leaves that we lack in that form, `mine` the keys of our leaves that the peer
    /// lacks in that form. A key on both sides is a state in two versions.
    pub fn of_sides(theirs: Vec<u64>, mine: Vec<StateKey>) -> Self {
        Self::at_depth(64, theirs, mine)
    }

    /// As [`Difference::of_sides`], with prefixes of `depth` bits.
    pub fn at_depth(depth: u8, mut theirs: Vec<u64>, mut mine: Vec<StateKey>) -> Self {
        theirs.sort_unstable();
        theirs.dedup();
        mine.retain(|key| theirs.binary_search(&first_bits(key, depth)).is_err());
        mine.sort_unstable();
        mine.dedup();
        Self {
            depth,
            differing: theirs,
            absent: mine,
        }
    }

    /// True when the peer is to be asked about a key.
    pub fn names(&self, key: &StateKey) -> bool {
        let bits = first_bits(key, self.depth);
        self.differing.binary_search(&bits).is_ok()
    }
}

/// The first bits of a key, zeros behind them.
pub fn first_bits(key: &StateKey, depth: u8) -> u64 {
    let behind = u64::MAX.checked_shr(u32::from(depth)).unwrap_or(0);
    key.prefix64() & !behind
}

/// Feed positions at the moment when both roots were last proven equal. Only of use while both
/// feeds still are in the epoch of that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgreementMark {
    /// The peer's position.
    pub their_seq: u64,
    /// Ours.
    pub our_seq: u64,
}

/// What the initiator of a session allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// States that may differ.
    pub differing: usize,
    /// Questions of one strategy.
    pub rounds: u32,
    /// Bytes of one question or answer.
    pub message_bytes: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            differing: 100_000,
            rounds: 64,
            message_bytes: 16 << 20,
        }
    }
}

/// What is thought to differ, and what it takes to find what a strategy misses: then short hashes may
/// hide some of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// States that differ, about.
    pub differing: u64,
    /// Bytes that finding one of them takes afterwards.
    pub bytes_each: u32,
}

/// How Bloom filters are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BloomSettings {
    /// Leaves that the initiator's filters are sized for at least, at most a page: with fewer a
    /// filter hides less than `fpr`.
    pub items: u64,
    /// Share of the differences that a filter may hide, above 0 and below 1.
    pub fpr: f64,
}

impl Default for BloomSettings {
    fn default() -> Self {
        Self {
            items: 10_000,
            fpr: 0.001,
        }
    }
}

/// What the way to a peer is like, as far as somebody has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Bytes that get through in a second.
    pub bytes_per_second: u64,
    /// From a question to its answer, in microseconds.
    pub round_trip_micros: u64,
}

impl Default for Link {
    /// 100 Mbit/s, and 20 ms away.
    fn default() -> Self {
        Self {
            bytes_per_second: 12_500_000,
            round_trip_micros: 20_000,
        }
    }
}

/// How differences are looked for, as far as it is set.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tuning {
    /// How Bloom filters are made.
    pub bloom: BloomSettings,
    /// What the way to peers is like.
    pub link: Link,
}

/// What a strategy knows of the session it works for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Context {
    /// Random, new for every session: it keys all short hashes, so that nobody can prepare states
    /// that look equal, and an unlucky collision does not return.
    pub key: [u8; 16],
    /// The root that the peer announced for its pinned snapshot, if it has.
    pub theirs: Option<Summary>,
    /// The peer's feed position in that snapshot.
    pub their_seq: u64,
    /// When both were last equal, if ever.
    pub mark: Option<AgreementMark>,
    /// What the session allows.
    pub limits: SessionLimits,
    /// How Bloom filters are made.
    pub bloom: BloomSettings,
    /// What is known when the rest is looked for afterwards; `None` when nobody does.
    pub rest: Option<Rest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in StrategyName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        assert_eq!("Merkle".parse::<StrategyName>(), Err(BadStrategy));
    }

    #[test]
    fn a_key_on_both_sides_is_differing_only() {
        let key = |first: u8| StateKey([first; 32]);
        let bits = |first: u8| key(first).prefix64();
        let both = Difference::of_sides(
            vec![bits(3), bits(1), bits(3)],
            vec![key(3), key(2), key(2)],
        );
        assert_eq!(both.differing, [bits(1), bits(3)]);
        assert_eq!(both.absent, [key(2)]);
    }
}
