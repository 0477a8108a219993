//! A position in a replica's change feed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names one continuous life of a namespace's change feed on one replica. It changes when a data
/// directory is restored from a backup, since positions then mean other changes. 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// `<epoch>-<seq>`: everything up to and including `seq` has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which life of the feed `seq` belongs to.
    pub epoch: Epoch,
    /// Position of the last seen change; 0 before the first.
    pub seq: u64,
}

/// Why a text is not a cursor.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "a cursor has the form <epoch>-<seq> as given out by /changes; leave it out to start from the beginning"
)]
pub struct BadCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (epoch, seq) = text.split_once('-').ok_or(BadCursor)?;
        if epoch.len() != 16 || seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadCursor);
        }
        Ok(Self {
            epoch: Epoch(u64::from_str_radix(epoch, 16).map_err(|_| BadCursor)?),
            seq: seq.parse().map_err(|_| BadCursor)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip() {
        let cursor = Cursor {
            epoch: Epoch(0xab),
            seq: 17,
        };
        assert_eq!(cursor.to_string(), "00000000000000ab-17");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in [
            "",
            "-",
            "17",
            "00000000000000ab-",
            "00000000000000ab--1",
            "ab-1",
            "00000000000000ab-99999999999999999999",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad}");
        }
    }
}
