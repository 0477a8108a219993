//! Time: the only place that reads the wall clock, and the hybrid logical clock built on it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::types::id::ReplicaId;
use crate::types::version::Stamp;

/// How far ahead of our own clock a stamp from elsewhere may push it. A replica whose clock is
/// wrong by years must not drag everybody along.
pub const DRIFT_MAX_MILLIS: u64 = 60 * 60 * 1000;

/// Where "now" comes from; tests bring their own.
pub trait WallClock: Send + Sync {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_millis(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now_millis(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |elapsed| {
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

/// Nanoseconds from 1970-01-01 UTC to a time that the operating system gave; `None` for one before.
pub fn unix_nanos(time: SystemTime) -> Option<u128> {
    let since = time.duration_since(UNIX_EPOCH);
    since.ok().map(|elapsed| elapsed.as_nanos())
}

/// Hybrid logical clock: stamps grow strictly, stay close to wall time, and a write made after
/// seeing another one is stamped later (Kulkarni et al., 2014).
#[derive(Debug, Clone)]
pub struct HybridClock {
    replica: ReplicaId,
    millis: u64,
    logical: u32,
}

impl HybridClock {
    /// A clock that goes on behind `millis`, the newest stamp its owner ever gave.
    pub fn new(replica: ReplicaId, millis: u64) -> Self {
        Self {
            replica,
            millis,
            logical: u32::MAX,
        }
    }

    /// Who stamps.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The stamp of a write made now.
    pub fn tick(&mut self, now: u64) -> Stamp {
        if now > self.millis {
            self.millis = now;
            self.logical = 0;
        } else if let Some(next) = self.logical.checked_add(1) {
            self.logical = next;
        } else {
            self.millis += 1;
            self.logical = 0;
        }
        Stamp {
            millis: self.millis,
            logical: self.logical,
            replica: self.replica,
        }
    }

    /// Takes note of a stamp from elsewhere: later ticks come after it, unless it lies more than
    /// [`DRIFT_MAX_MILLIS`] ahead of `now`.
    pub fn observe(&mut self, stamp: Stamp, now: u64) {
        let believable = stamp.millis <= now.saturating_add(DRIFT_MAX_MILLIS);
        if believable && (stamp.millis, stamp.logical) > (self.millis, self.logical) {
            self.millis = stamp.millis;
            self.logical = stamp.logical;
        }
    }

    /// The newest millisecond given out or seen, to be kept across restarts.
    pub fn millis(&self) -> u64 {
        self.millis
    }
}

/// `YYYY-MM-DDThh:mm:ss.mmmZ` (RFC 3339) of milliseconds since 1970-01-01 UTC.
pub fn rfc3339(millis: u64) -> String {
    let (year, month, day, second_of_day) = civil(millis / 1000);
    let (hour, minute, second) = clock_parts(second_of_day);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        millis % 1000
    )
}

/// The HTTP date (RFC 9110 section 5.6.7) of milliseconds since 1970-01-01 UTC.
pub fn http_date(millis: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = millis / 1000;
    let (year, month, day, second_of_day) = civil(seconds);
    let (hour, minute, second) = clock_parts(second_of_day);
    let weekday = DAYS[(seconds / 86_400 % 7) as usize];
    let month = MONTHS[(month - 1) as usize];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

fn clock_parts(second_of_day: u64) -> (u64, u64, u64) {
    (
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    )
}

/// Year, month, day and second of the day, by the days-to-civil algorithm of Howard Hinnant
/// ("chrono-compatible low-level date algorithms").
fn civil(seconds: u64) -> (u64, u64, u64, u64) {
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day, seconds % 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_when_the_wall_clock_stands_or_goes_back() {
        let mut clock = HybridClock::new(ReplicaId(1), 0);
        let mut last = clock.tick(1000);
        for now in [1000, 1000, 900, 0, 1001, 1001] {
            let stamp = clock.tick(now);
            assert!(stamp > last, "{stamp:?} after {last:?}");
            last = stamp;
        }
    }

    #[test]
    fn a_restarted_clock_goes_on_behind_its_last_stamp() {
        let before = HybridClock::new(ReplicaId(1), 0).tick(5000);
        assert!(HybridClock::new(ReplicaId(1), before.millis).tick(100) > before);
    }

    #[test]
    fn stamps_from_elsewhere_are_followed_only_so_far() {
        let stamp = |millis| Stamp {
            millis,
            logical: 3,
            replica: ReplicaId(2),
        };
        let mut clock = HybridClock::new(ReplicaId(1), 0);
        clock.observe(stamp(2000), 1000);
        assert!(clock.tick(1000) > stamp(2000));
        clock.observe(stamp(1000 + DRIFT_MAX_MILLIS + 1), 1000);
        assert!(clock.millis() < 3000);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
