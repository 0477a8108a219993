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
            self.millis = self.millis.saturating_add(1);
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
        if is_believable(stamp, now) && (stamp.millis, stamp.logical) > (self.millis, self.logical)
        {
            self.millis = stamp.millis;
            self.logical = stamp.logical;
        }
    }

    /// The newest millisecond given out or seen, to be kept across restarts.
    pub fn millis(&self) -> u64 {
        self.millis
    }
}

/// True when a stamp from elsewhere is not more than [`DRIFT_MAX_MILLIS`] ahead of `now`.
pub fn is_believable(stamp: Stamp, now: u64) -> bool {
    stamp.millis <= now.saturating_add(DRIFT_MAX_MILLIS)
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

/// Milliseconds since 1970-01-01 UTC of a date and time of RFC 3339: `2026-01-31T12:00:00Z`, with
/// any fraction of a second and any offset. `None` when it is anything else, or before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_at_checked(10)?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, offset) = match time.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let (time, offset) = time.split_at_checked(time.len().checked_sub(6)?)?;
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            let [hours, minutes] = numbers(offset.strip_prefix(['+', '-'])?, ':', [2, 2])?;
            (
                time,
                (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))?,
            )
        }
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let days_of_month = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_date = (1..=12).contains(&month) && (1..=days_of_month).contains(&day);
    // A leap second counts as the last one of its minute.
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit()) && !fraction.is_empty();
    let millis: i64 = format!("{fraction:0<3}")
        .get(..3)
        .filter(|_| digits)?
        .parse()
        .ok()?;
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset;
    u64::try_from((minutes * 60 + second.min(59)) * 1000 + millis).ok()
}

/// Numbers of given lengths with a separator between them.
fn numbers<const N: usize>(text: &str, between: char, lengths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        let part = parts.next()?;
        let fits = part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = part.parse().ok().filter(|_| fits)?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days since 1970-01-01 of a date, the inverse of the algorithm in [`civil`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
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

    #[test]
    fn dates_are_read_as_they_are_written() {
        for step in 0..2000 {
            let millis = step * 7_919_333_777 % 4_102_444_800_000;
            assert_eq!(parse_rfc3339(&rfc3339(millis)), Some(millis), "{millis}");
        }
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t01:00:00.5+01:00", 500),
            ("2000-02-29 12:34:56.789999z", 951_827_696_789),
            ("1969-12-31T23:00:00-01:30", 30 * 60_000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ] {
            assert_eq!(parse_rfc3339(text), Some(millis), "{text}");
        }
        for bad in [
            "",
            "2000",
            "2000-01-01",
            "2000-01-01T00:00:00",
            "2000-13-01T00:00:00Z",
            "2001-02-29T00:00:00Z",
            "2000-01-01T24:00:00Z",
            "2000-01-01T00:00:00.Z",
            "2000-01-01T00:00:00+1:00",
            "2000-01-01T00:00:00+24:00",
            "1969-12-31T23:59:59Z",
            "2000-1-01T00:00:00Z",
            "2000-01-01T00:00Z",
            "2000-01-01T0é:00:00Z",
            "é",
            "+000-01-01T00:00:00Z",
            "2000-01-01T00:00:00.é1Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
