//! A position in a replica's change feed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::id::parse_hex64;

/// Names one life of a namespace's change feed on one replica: random, made with the namespace's
/// file, so positions of a namespace that was dropped and created again are told apart. A copy of a
/// file has the epoch of the original. 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// `<epoch>-<seq>`: everything up to and including `seq` has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        if !seq.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadCursor);
        }
        Ok(Self {
            epoch: parse_hex64(epoch).map(Epoch).ok_or(BadCursor)?,
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
            "+0000000000000ab-1",
            "00000000000000ab-+1",
            "00000000000000ab-99999999999999999999",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad}");
        }
    }
}
