//! The recorded game states that ship with the program, put in the order in which they are played.

use std::collections::BTreeMap;

use crate::cli::demo::error::DemoError;
use crate::delta::archive::{Entry, read};

/// Index and content of the recording; tests/fixtures/README.md says where it comes from.
const INDEX: &str = include_str!("../../../tests/fixtures/game-states.tsv");
const PACK: &[u8] = include_bytes!("../../../tests/fixtures/game-states.pack");

/// The state that both sides of a partition write.
const CONTESTED: &str = "freeciv/player/0";

/// Bytes that are stored under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The id.
    pub id: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// What a game writes at one moment: a save, or the records that changed in a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// For people.
    pub name: String,
    /// What is written.
    pub states: Vec<State>,
}

/// The parts of the recording.
#[derive(Debug)]
pub struct Recording {
    /// The beginning of both games.
    pub beginning: Moment,
    /// What follows, the series spread evenly over the time.
    pub later: Vec<Moment>,
    /// What is written while the replicas are parted.
    pub parting: Parting,
    /// Contents of many sizes for whoever needs some.
    pub records: Vec<Vec<u8>>,
}

/// Writes on both sides of a partition.
#[derive(Debug)]
pub struct Parting {
    /// On one side: cities and what belongs to players, but for the contested state.
    pub here: Vec<State>,
    /// On the other side: units.
    pub there: Vec<State>,
    /// One state that either side writes, differently: first here, then there.
    pub contested: (State, State),
}

impl Moment {
    /// Size of everything in it, in bytes.
    pub fn bytes(&self) -> u64 {
        size_of_states(&self.states)
    }
}

/// Size of states together, in bytes.
pub fn size_of_states(states: &[State]) -> u64 {
    states.iter().map(|state| state.bytes.len() as u64).sum()
}

impl Recording {
    /// Unpacks the recording.
    ///
    /// # Errors
    /// [`DemoError::Recording`] or [`DemoError::Lacking`] when the program was built with others.
    pub fn open() -> Result<Self, DemoError> {
        Self::arrange(read(INDEX, PACK)?)
    }

    fn arrange(entries: Vec<Entry>) -> Result<Self, DemoError> {
        let mut saves: BTreeMap<String, Vec<Moment>> = BTreeMap::new();
        let mut turns: BTreeMap<String, Vec<State>> = BTreeMap::new();
        for entry in entries {
            if let Some((key, turn)) = entry.name.split_once('@') {
                let id = format!("freeciv/{key}");
                let bytes = entry.bytes;
                let turn = turns.entry(turn.to_owned()).or_default();
                turn.push(State { id, bytes });
            } else {
                let series = saves.entry(entry.series.clone()).or_default();
                series.push(save(entry));
            }
        }
        let turns: Vec<Moment> = turns.into_iter().map(turn).collect();
        let all_records = turns.iter().flat_map(|turn| &turn.states);
        let records = all_records.map(|state| state.bytes.clone()).collect();
        let [first, between @ .., parting, last] = turns.as_slice() else {
            return Err(DemoError::Lacking("four turns of records"));
        };
        let mut beginning = first.states.clone();
        let mut series = vec![between.to_vec()];
        for mut saves in saves.into_values() {
            beginning.extend(saves.remove(0).states);
            series.push(saves);
        }
        Ok(Self {
            beginning: Moment {
                name: "beginning".to_owned(),
                states: beginning,
            },
            later: interleave(series),
            parting: Parting::between(&parting.states, &last.states)?,
            records,
        })
    }
}

impl Parting {
    fn between(first: &[State], second: &[State]) -> Result<Self, DemoError> {
        let contested = |states: &[State]| {
            let found = states.iter().find(|state| state.id == CONTESTED).cloned();
            found.ok_or(DemoError::Lacking("two versions of the contested player"))
        };
        let is_unit = |state: &State| state.id.starts_with("freeciv/unit/");
        let others = first.iter().filter(|state| state.id != CONTESTED).cloned();
        let (there, here) = others.partition(is_unit);
        Ok(Self {
            here,
            there,
            contested: (contested(first)?, contested(second)?),
        })
    }
}

fn save(entry: Entry) -> Moment {
    let number = entry.name.trim_end_matches(".sav").trim_start_matches('0');
    Moment {
        name: format!("{} {number}", entry.series),
        states: vec![State {
            id: format!("{}/game.sav", entry.series),
            bytes: entry.bytes,
        }],
    }
}

fn turn((turn, states): (String, Vec<State>)) -> Moment {
    Moment {
        name: format!("{} records {turn}", states.len()),
        states,
    }
}

/// One sequence of several, each keeping its order and spread evenly from start to end.
fn interleave(series: Vec<Vec<Moment>>) -> Vec<Moment> {
    let mut timed = Vec::new();
    for (track, moments) in series.into_iter().enumerate() {
        let steps = moments.len() + 1;
        for (at, moment) in moments.into_iter().enumerate() {
            // In thousandths of the whole, which sorts and compares exactly.
            timed.push(((at + 1) * 1000 / steps, track, moment));
        }
    }
    timed.sort_by_key(|(time, track, _)| (*time, *track));
    timed.into_iter().map(|(_, _, moment)| moment).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_recording_has_what_the_demonstration_shows() {
        let recording = Recording::open().unwrap();
        let ids = |states: &[State]| -> BTreeSet<String> {
            states.iter().map(|state| state.id.clone()).collect()
        };
        let beginning = ids(&recording.beginning.states);
        assert_eq!(beginning.len(), recording.beginning.states.len());
        assert!(beginning.contains("freeciv/game.sav") && beginning.contains("openttd/game.sav"));
        assert_eq!(recording.later.len(), 11 + 4 + 2);
        let order: Vec<&str> = recording.later.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(order[0], "freeciv 61");
        assert_eq!(order.last(), Some(&"freeciv 71"));
        let parting = &recording.parting;
        assert!(!parting.here.is_empty() && !parting.there.is_empty());
        assert!(ids(&parting.here).is_disjoint(&ids(&parting.there)));
        let (here, there) = &parting.contested;
        assert_eq!(here.id, there.id);
        assert_ne!(here.bytes, there.bytes);
        assert_eq!(recording.records.len(), 408);
    }

    #[test]
    fn another_recording_is_refused_by_name() {
        let entry = |name: &str| Entry {
            series: "records".to_owned(),
            name: name.to_owned(),
            bytes: Vec::new(),
        };
        let short = vec![entry("player/0@1"), entry("player/0@2")];
        let lacking = Recording::arrange(short).unwrap_err();
        assert!(lacking.to_string().contains("four turns"), "{lacking}");
        let unplayed = (1..=4).map(|turn| entry(&format!("city/1@{turn}")));
        let lacking = Recording::arrange(unplayed.collect()).unwrap_err();
        assert!(lacking.to_string().contains("contested"), "{lacking}");
    }

    #[test]
    fn series_are_spread_evenly() {
        let series = |name: &str, count: usize| -> Vec<Moment> {
            let moment = |at| Moment {
                name: format!("{name}{at}"),
                states: Vec::new(),
            };
            (0..count).map(moment).collect()
        };
        let mixed = interleave(vec![series("a", 1), series("b", 4), series("c", 0)]);
        let names: Vec<&str> = mixed.iter().map(|moment| moment.name.as_str()).collect();
        assert_eq!(names, ["b0", "b1", "a0", "b2", "b3"]);
    }
}
