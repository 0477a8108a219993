//! What is done to both sides alike: which states, in which order, for how long.

use std::time::Duration;

use crate::cli::bench::values::{Values, mix};
use crate::cli::error::CliError;
use crate::types::hash::StateKey;
use crate::types::id::GameId;

/// Most states in a batch by which states are loaded.
const BATCH_STATES: u64 = 1000;
/// Most bytes in it, unless one state is larger.
const BATCH_BYTES: u64 = 4 << 20;

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many states there are.
    pub states: u64,
    /// What is in them.
    pub values: Values,
    /// How long each side works in each round.
    pub time: Duration,
}

/// Draws states at random, and counts their versions. The same seed draws the same states.
#[derive(Debug)]
pub struct Draws {
    random: u64,
    versions: Vec<u32>,
}

impl Plan {
    /// The numbers of the states, in batches to load them by.
    pub fn batches(&self) -> impl Iterator<Item = std::ops::Range<u64>> + use<> {
        let size = (BATCH_BYTES / self.values.bytes as u64).clamp(1, BATCH_STATES);
        let states = self.states;
        (0..states.div_ceil(size)).map(move |batch| {
            let first = batch * size;
            first..states.min(first + size)
        })
    }

    /// A new sequence of draws, with every state at version 0.
    pub fn draws(&self) -> Draws {
        Draws {
            random: mix(self.values.seed),
            versions: vec![0; self.states as usize],
        }
    }
}

impl Draws {
    /// A state to read.
    pub fn state(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random % self.versions.len().max(1) as u64
    }

    /// A state to write, and which version of it.
    pub fn write(&mut self) -> (u64, u64) {
        let state = self.state();
        let version = self.versions.get_mut(state as usize).map_or(0, |version| {
            *version += 1;
            *version
        });
        (state, version.into())
    }
}

/// The id of a state.
pub fn id(state: u64) -> String {
    format!("match/{state:08}")
}

/// Its key, as the store has it.
///
/// # Errors
/// None for the ids that [`id`] makes.
pub fn key(state: u64) -> Result<StateKey, CliError> {
    let id = GameId::new(&id(state));
    let id = id.map_err(|error| CliError::NoId(error.to_string()))?;
    Ok(StateKey::of(&id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(states: u64, bytes: usize) -> Plan {
        Plan {
            states,
            values: Values { seed: 3, bytes },
            time: Duration::ZERO,
        }
    }

    #[test]
    fn batches_cover_every_state_once_and_stay_small() {
        for (states, bytes, batches) in [
            (1, 64, 1),
            (1000, 64, 1),
            (1001, 64, 2),
            (10, 1 << 20, 3),
            (3, 5 << 20, 3),
        ] {
            let plan = plan(states, bytes);
            assert_eq!(plan.batches().count(), batches);
            let all: Vec<u64> = plan.batches().flatten().collect();
            assert_eq!(all, (0..states).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn draws_are_the_same_each_time_and_no_write_comes_twice() {
        let plan = plan(10, 64);
        let (mut one, mut other) = (plan.draws(), plan.draws());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let (state, version) = one.write();
            assert_eq!((state, version), other.write());
            assert!(state < 10 && version > 0 && seen.insert((state, version)));
        }
        let states: std::collections::BTreeSet<u64> =
            seen.iter().map(|(state, _)| *state).collect();
        assert_eq!(states.len(), 10);
    }
}
