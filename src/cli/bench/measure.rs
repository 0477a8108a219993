//! Latencies, rates, and what several rounds say together.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What one side did in one round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Round {
    /// Operations that ended within the time.
    pub operations: u64,
    /// The time, in seconds.
    pub seconds: f64,
    /// How long each of them took, in microseconds, in ascending order.
    pub micros: Vec<u32>,
    /// Processor time of this process for each second, in seconds.
    pub load: f64,
}

/// A row of results: several rounds of both sides with the same number of clients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Connections with one request each in flight.
    pub clients: usize,
    /// Operations a second over HTTP.
    pub per_second: f64,
    /// Half of them took at most this long, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took at most this long, in milliseconds.
    pub p99_ms: f64,
    /// Operations a second of the storage engine alone.
    pub redb_per_second: f64,
    /// The first rate divided by the second, within one round.
    pub ratio: f64,
    /// Processor time that sending and checking took for each second, in seconds.
    pub generator_load: f64,
}

impl Round {
    /// Puts the figures of a round together.
    pub fn new(mut micros: Vec<u32>, seconds: f64, load: f64) -> Self {
        micros.sort_unstable();
        Self {
            operations: micros.len() as u64,
            seconds,
            micros,
            load,
        }
    }

    /// Operations a second.
    pub fn per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.operations as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// The shortest time that this share of the operations did not exceed, in milliseconds.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        f64::from(percentile(&self.micros, share).unwrap_or(0)) / 1000.0
    }
}

impl Row {
    /// Medians over rounds, each a pair of ours and the engine's.
    pub fn of(clients: usize, rounds: &[(Round, Round)]) -> Self {
        let over = |figure: &dyn Fn(&(Round, Round)) -> f64| {
            median(rounds.iter().map(figure).collect()).unwrap_or(0.0)
        };
        Self {
            clients,
            per_second: over(&|(ours, _)| ours.per_second()),
            p50_ms: over(&|(ours, _)| ours.percentile_ms(0.50)),
            p99_ms: over(&|(ours, _)| ours.percentile_ms(0.99)),
            redb_per_second: over(&|(_, engine)| engine.per_second()),
            ratio: over(&|(ours, engine)| ratio(ours.per_second(), engine.per_second())),
            generator_load: over(&|(ours, _)| ours.load),
        }
    }
}

/// One figure divided by another; 0 when there is nothing to divide by.
pub fn ratio(one: f64, other: f64) -> f64 {
    if other > 0.0 { one / other } else { 0.0 }
}

/// The smallest of the ascending values that at least this share of them does not exceed (the
/// nearest-rank definition); `None` of none.
pub fn percentile(ascending: &[u32], share: f64) -> Option<u32> {
    let rank = (share * ascending.len() as f64).ceil() as usize;
    let last = ascending.len().checked_sub(1)?;
    ascending.get(rank.saturating_sub(1).min(last)).copied()
}

/// The value in the middle, or between the two in the middle; `None` of none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = values.get(values.len() / 2 - 1)?;
    Some(f64::midpoint(*lower, upper))
}

/// Processor time of this thread, in milliseconds.
pub fn thread_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// A duration in whole microseconds.
pub fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<u32> = (1..=100).collect();
        for (share, expected) in [(0.0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (1.0, 100)] {
            assert_eq!(percentile(&hundred, share), Some(expected), "{share}");
        }
        assert_eq!(percentile(&[7], 0.99), Some(7));
        assert_eq!(percentile(&[1, 9], 0.5), Some(1));
        assert_eq!(percentile(&[1, 9], 0.51), Some(9));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn medians_do_not_follow_one_bad_round() {
        assert_eq!(median(vec![3.0, 1000.0, 1.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 100.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_row_compares_within_rounds() {
        let round = |operations: u32, seconds| Round::new(vec![operations; 100], seconds, 0.5);
        // The machine is ten times slower in the second round; the ratio does not mind.
        let rounds = [
            (round(1000, 1.0), round(0, 0.5)),
            (round(9000, 10.0), round(0, 5.0)),
            (round(1000, 1.0), round(0, 0.5)),
        ];
        let expected = Row {
            clients: 4,
            per_second: 100.0,
            p50_ms: 1.0,
            p99_ms: 1.0,
            redb_per_second: 200.0,
            ratio: 0.5,
            generator_load: 0.5,
        };
        assert_eq!(Row::of(4, &rounds), expected);
        assert_eq!(Row::of(1, &[]).ratio, 0.0);
    }
}
