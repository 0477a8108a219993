//! Spans of time as users write them, and how long a state may live.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest time to live, in milliseconds: ten years of 365 days.
pub const TTL_MAX: u64 = 3650 * 24 * 60 * 60 * 1000;

/// A text that is no time to live.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "a ttl is a whole number with a unit ms, s, m, h or d, from 1ms to 3650d, such as 30m or 36h; got {0:?}"
)]
pub struct BadTtl(String);

/// How long a state lives after it was written, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(u64);

impl Ttl {
    /// In milliseconds.
    pub fn millis(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

impl FromStr for Ttl {
    type Err = BadTtl;

    fn from_str(text: &str) -> Result<Self, BadTtl> {
        let millis = span_millis(text).filter(|millis| (1..=TTL_MAX).contains(millis));
        // What is repeated to whoever wrote it stays short.
        let bad = || BadTtl(text.chars().take(40).collect());
        millis.map(Self).ok_or_else(bad)
    }
}

/// Milliseconds of a whole number with a unit: `250ms`, `30s`, `5m`, `36h`, `7d`. `None` when the
/// text is anything else, or too long a time for 64 bits.
pub fn span_millis(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live() {
        for (text, millis) in [
            ("1ms", 1),
            ("90s", 90_000),
            ("30m", 1_800_000),
            ("36h", 129_600_000),
            ("3650d", TTL_MAX),
            ("007d", 7 * 86_400_000),
        ] {
            assert_eq!(text.parse(), Ok(Ttl(millis)), "{text}");
            assert_eq!(Ttl(millis).to_string().parse(), Ok(Ttl(millis)));
        }
        for bad in [
            "",
            "30",
            "m",
            "0s",
            "-1s",
            "+1s",
            "1.5h",
            "1w",
            "1 h",
            " 1h",
            "1H",
            "3651d",
            "99999999999999999999s",
            "18446744073709551615d",
            "é",
            "1mé",
        ] {
            assert_eq!(bad.parse::<Ttl>(), Err(BadTtl(bad.into())), "{bad}");
        }
    }
}
