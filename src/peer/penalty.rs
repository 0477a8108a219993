//! Points for misbehaviour. They fade with time; too many at once and the peer is banned for a
//! while, so that a broken or hostile peer costs little and a repaired one comes back by itself.

use std::time::{Duration, Instant};

/// Points for one session that an honest peer would not have caused to fail.
const POINTS: f64 = 10.0;
/// Points at which the ban begins: the third fault within a few minutes.
const BAN_AT: f64 = 25.0;
/// Time after which points count half.
const HALF_LIFE: Duration = Duration::from_secs(600);
/// Length of a ban.
const BAN: Duration = Duration::from_secs(300);

/// The points of one peer.
#[derive(Debug, Clone, Copy)]
pub struct Penalty {
    points: f64,
    since: Instant,
    banned_until: Option<Instant>,
}

impl Penalty {
    /// A clean slate.
    pub fn new(now: Instant) -> Self {
        Self {
            points: 0.0,
            since: now,
            banned_until: None,
        }
    }

    /// Points that are left.
    pub fn points(&self, now: Instant) -> f64 {
        let elapsed = now.duration_since(self.since).as_secs_f64();
        self.points * 0.5f64.powf(elapsed / HALF_LIFE.as_secs_f64())
    }

    /// Counts one misbehaviour.
    pub fn add(&mut self, now: Instant) {
        self.points = self.points(now) + POINTS;
        self.since = now;
        if self.points >= BAN_AT {
            self.banned_until = Some(now + BAN);
        }
    }

    /// How long the ban still lasts, if there is one.
    pub fn banned_for(&self, now: Instant) -> Option<Duration> {
        let left = self.banned_until?.checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_misbehaviour_bans_and_time_heals() {
        let start = Instant::now();
        let mut penalty = Penalty::new(start);
        let second = start + Duration::from_secs(30);
        let third = start + Duration::from_secs(60);
        penalty.add(start);
        penalty.add(second);
        assert_eq!(penalty.banned_for(second), None);
        penalty.add(third);
        assert!(penalty.banned_for(third).is_some());
        assert_eq!(penalty.banned_for(third + BAN), None);
        assert!(penalty.points(start + HALF_LIFE) < 16.0);
    }

    #[test]
    fn rare_faults_never_add_up_to_a_ban() {
        let mut now = Instant::now();
        let mut penalty = Penalty::new(now);
        for _ in 0..50 {
            penalty.add(now);
            now += HALF_LIFE;
        }
        assert_eq!(penalty.banned_for(now), None);
    }
}
