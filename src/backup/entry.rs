//! What a backup keeps of a state: its versions, and where their bytes are.

use serde::{Deserialize, Serialize};

use crate::types::id::GameId;
use crate::types::record::StateRecord;
use crate::types::version::{Causality, Version};

/// Pieces that follow each other in one data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The backup that the file was written for.
    pub backup: u32,
    /// Number of the first piece.
    pub first: u64,
    /// How many.
    pub count: u32,
}

/// A version, and the pieces that make up its bytes; none for a deletion, an empty state, or a version
/// that had expired and given up its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The version.
    pub version: Version,
    /// Its bytes, in order.
    pub pieces: Vec<Run>,
}

impl Held {
    /// True when the version had given up its bytes.
    pub fn is_given_up(&self) -> bool {
        let Version {
            tombstone, size, ..
        } = self.version;
        !tombstone && size > 0 && self.pieces.is_empty() && self.version.expires_at.is_some()
    }
}

/// A state as of one backup. It takes the place of what earlier backups say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The state.
    pub id: GameId,
    /// Superseded versions, oldest first.
    pub history: Vec<Held>,
    /// Current versions in the order of the record. None when the state is gone altogether.
    pub current: Vec<Held>,
}

impl Entry {
    /// Says that a state of earlier backups is gone, tombstone and all.
    pub fn removed(id: GameId) -> Self {
        Self {
            id,
            history: Vec::new(),
            current: Vec::new(),
        }
    }

    /// True when a current version has seen this one. Another one would become current when it is
    /// merged.
    pub fn supersedes(&self, version: &Version) -> bool {
        let seen = |held: &Held| held.version.vector.compare(&version.vector) == Causality::After;
        self.current.iter().any(seen)
    }

    /// The record; `None` when the state is gone.
    ///
    /// # Errors
    /// What keeps the versions from being a record and its history.
    pub fn record(&self) -> Result<Option<StateRecord>, String> {
        let versions = self.current.iter().map(|held| held.version.clone());
        let made = StateRecord::from_versions(self.id.clone(), versions.collect());
        let Some((record, seen)) = made else {
            return Ok(None);
        };
        record.check().map_err(|error| error.to_string())?;
        if !seen.is_empty() || record.versions().len() != self.current.len() {
            return Err("a current version has been superseded".into());
        }
        for Held { version, .. } in &self.history {
            version.check().map_err(|error| error.to_string())?;
            if !self.supersedes(version) {
                return Err("an old version that no current one has seen".into());
            }
        }
        Ok(Some(record))
    }

    /// All versions in the order in which merging them one by one makes the state what it was:
    /// oldest first, and of the current ones the shown one last.
    pub fn oldest_first(&self) -> impl Iterator<Item = &Held> {
        self.history.iter().chain(self.current.iter().rev())
    }
}

/// Adds pieces to a list of runs.
pub fn extend(runs: &mut Vec<Run>, backup: u32, number: u64) {
    if let Some(last) = runs.last_mut()
        && last.backup == backup
        && last.first + u64::from(last.count) == number
        && last.count < u32::MAX
    {
        last.count += 1;
        return;
    }
    runs.push(Run {
        backup,
        first: number,
        count: 1,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_run() {
        let mut runs = Vec::new();
        for (backup, number) in [(1, 5), (1, 6), (2, 7), (2, 8), (2, 10), (1, 11)] {
            extend(&mut runs, backup, number);
        }
        let run = |backup, first, count| Run {
            backup,
            first,
            count,
        };
        let expected = [run(1, 5, 2), run(2, 7, 2), run(2, 10, 1), run(1, 11, 1)];
        assert_eq!(runs, expected);
    }
}
