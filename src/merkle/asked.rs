//! The ids that a proof is about, in the order in which proofs speak of them.

use crate::merkle::multiproof::Shown;
use crate::merkle::node::Summary;
use crate::merkle::proof::{BadProof, PROOF_IDS_MAX, Proven};
use crate::types::hash::StateKey;
use crate::types::id::GameId;

/// Ids in the order of their keys, each once, with these keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    ids: Vec<GameId>,
    keys: Vec<StateKey>,
}

/// What a proof shows, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownIds {
    /// The ids in the order of their keys, each with what the tree holds under it.
    pub answers: Vec<(GameId, Proven)>,
    /// The whole tree.
    pub whole: Summary,
}

impl Asked {
    /// Sorts ids and drops repeated ones.
    ///
    /// # Errors
    /// [`BadProof::TooManyIds`] or, without any, [`BadProof::Unsorted`].
    pub fn new(ids: Vec<GameId>) -> Result<Self, BadProof> {
        let mut asked: Vec<(StateKey, GameId)> =
            ids.into_iter().map(|id| (StateKey::of(&id), id)).collect();
        asked.sort();
        asked.dedup();
        Self::checked(asked.into_iter())
    }

    /// Takes ids that are in the order of their keys already.
    ///
    /// # Errors
    /// As [`Asked::new`]; [`BadProof::Unsorted`] also when they are not in order or not unique.
    pub fn in_order(ids: Vec<GameId>) -> Result<Self, BadProof> {
        Self::checked(ids.into_iter().map(|id| (StateKey::of(&id), id)))
    }

    fn checked(asked: impl Iterator<Item = (StateKey, GameId)>) -> Result<Self, BadProof> {
        let (keys, ids): (Vec<StateKey>, Vec<GameId>) = asked.unzip();
        if keys.len() > PROOF_IDS_MAX {
            return Err(BadProof::TooManyIds(keys.len()));
        }
        if keys.is_empty() || !keys.is_sorted_by(|a, b| a < b) {
            return Err(BadProof::Unsorted);
        }
        Ok(Self { ids, keys })
    }

    /// The ids, in the order of their keys.
    pub fn ids(&self) -> &[GameId] {
        &self.ids
    }

    /// Their keys, sorted and unique.
    pub fn keys(&self) -> &[StateKey] {
        &self.keys
    }

    /// Puts the ids to what was shown of their keys.
    pub fn name(self, shown: Shown) -> ShownIds {
        let answers = self.ids.into_iter().zip(shown.answers).collect();
        let whole = shown.whole;
        ShownIds { answers, whole }
    }
}
