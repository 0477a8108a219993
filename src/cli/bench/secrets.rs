//! `bench reconcile --secrets`: the same sets under one cluster secret after the other. What differs
//! is where places fall, so each secret is a trial of its own, without new sets.

use serde::Serialize;

use crate::cli::text::{Align, Table, grouped};

/// What one trial took.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// Message bytes both ways.
    pub bytes: usize,
    /// Questions.
    pub trips: u32,
}

/// What `sketch` took over all secrets.
#[derive(Debug, Clone, Serialize)]
pub struct Spread {
    states: usize,
    differing: usize,
    secrets: usize,
    bytes_mean: usize,
    bytes_p95: usize,
    bytes_max: usize,
    /// Trials that took one round trip, and two.
    one_trip: usize,
    two_trips: usize,
    /// Trials that gave no result.
    undecided: usize,
}

impl Spread {
    /// Of trials over sets of `states`, of which `differing` differ; `None` is one without a result.
    pub fn of(states: usize, differing: usize, trials: &[Option<Trial>]) -> Self {
        let mut bytes: Vec<usize> = trials.iter().flatten().map(|trial| trial.bytes).collect();
        bytes.sort_unstable();
        let took = |trips| {
            let took = trials.iter().flatten().filter(|trial| trial.trips == trips);
            took.count()
        };
        // The smallest number that 95 of 100 do not exceed.
        let at = (bytes.len() * 95).div_ceil(100).max(1) - 1;
        Self {
            states,
            differing,
            secrets: trials.len(),
            bytes_mean: bytes.iter().sum::<usize>() / bytes.len().max(1),
            bytes_p95: bytes.get(at).copied().unwrap_or(0),
            bytes_max: bytes.last().copied().unwrap_or(0),
            one_trip: took(1),
            two_trips: took(2),
            undecided: trials.iter().filter(|trial| trial.is_none()).count(),
        }
    }
}

/// The rows as text.
pub fn table(rows: &[Spread]) -> String {
    let mut table = Table::new(&[
        ("STATES", Align::Right),
        ("DIFFERING", Align::Right),
        ("SECRETS", Align::Right),
        ("BYTES MEAN", Align::Right),
        ("95%", Align::Right),
        ("MOST", Align::Right),
        ("ONE TRIP", Align::Right),
        ("TWO", Align::Right),
        ("UNDECIDED", Align::Right),
    ]);
    for row in rows {
        table.row([
            grouped(row.states as u64),
            grouped(row.differing as u64),
            row.secrets.to_string(),
            grouped(row.bytes_mean as u64),
            grouped(row.bytes_p95 as u64),
            grouped(row.bytes_max as u64),
            row.one_trip.to_string(),
            row.two_trips.to_string(),
            row.undecided.to_string(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_are_summed_up() {
        let trial = |bytes, trips| Some(Trial { bytes, trips });
        let mut trials: Vec<Option<Trial>> = (1..=40).map(|bytes| trial(bytes, 1)).collect();
        trials.push(None);
        trials[3] = trial(100, 2);
        let spread = Spread::of(10, 5, &trials);
        assert_eq!((spread.secrets, spread.undecided), (41, 1));
        assert_eq!((spread.one_trip, spread.two_trips), (39, 1));
        assert_eq!((spread.bytes_p95, spread.bytes_max), (39, 100));
        assert_eq!(Spread::of(10, 5, &[]).bytes_max, 0);
    }
}
