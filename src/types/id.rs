//! Names: of a state, of a namespace, of a replica.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest allowed [`GameId`], in bytes of UTF-8.
pub const GAME_ID_MAX: usize = 512;

/// Why a text is not a valid id.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum BadId {
    /// The empty text names nothing.
    #[error("an id needs at least one byte")]
    Empty,
    /// More than [`GAME_ID_MAX`] bytes.
    #[error("an id may have at most {GAME_ID_MAX} bytes of UTF-8, this one has {0}")]
    TooLong(usize),
    /// Control characters would break listings, logs and terminals.
    #[error("an id may not hold control characters (found U+{0:04X})")]
    ControlCharacter(u32),
    /// Not of the form `[a-z0-9][a-z0-9-]{0,62}`.
    #[error(
        "a namespace has 1 to 63 characters from a-z, 0-9 and '-', and does not start with '-'"
    )]
    Namespace,
    /// Not 16 hexadecimal digits.
    #[error("a replica id has 16 hexadecimal digits")]
    Replica,
}

/// Names one state: 1 to 512 bytes of UTF-8 without control characters. May hold `/`.
///
/// Cheap to clone: the text is shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GameId(Arc<str>);

impl GameId {
    /// Checks and wraps an id.
    ///
    /// # Errors
    /// [`BadId`] when the text is empty, too long or holds control characters.
    pub fn new(text: &str) -> Result<Self, BadId> {
        if text.is_empty() {
            return Err(BadId::Empty);
        }
        if text.len() > GAME_ID_MAX {
            return Err(BadId::TooLong(text.len()));
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(BadId::ControlCharacter(control.into()));
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Everything up to and including the last `/`: states of one series share it.
    pub fn folder(&self) -> &str {
        self.0.rfind('/').map_or("", |slash| &self.0[..=slash])
    }
}

impl fmt::Display for GameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl TryFrom<String> for GameId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        Self::new(&text)
    }
}

impl From<GameId> for String {
    fn from(id: GameId) -> Self {
        id.0.to_string()
    }
}

impl FromStr for GameId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        Self::new(text)
    }
}

/// Names a unit of replication: `[a-z0-9][a-z0-9-]{0,62}`. Also its file name on disk.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Checks and wraps a namespace name.
    ///
    /// # Errors
    /// [`BadId::Namespace`] when the text is not of the allowed form.
    pub fn new(text: &str) -> Result<Self, BadId> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let fits = (1..=63).contains(&text.len());
        if fits && text.bytes().all(allowed) && !text.starts_with('-') {
            Ok(Self(text.into()))
        } else {
            Err(BadId::Namespace)
        }
    }

    /// The namespace that every replica has.
    pub fn default_namespace() -> Self {
        Self("default".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Namespace {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        Self::new(&text)
    }
}

impl From<Namespace> for String {
    fn from(name: Namespace) -> Self {
        name.0.to_string()
    }
}

impl FromStr for Namespace {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        Self::new(text)
    }
}

/// A replica's random 64-bit identity, made once with its data directory. Shown as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaId({self})")
    }
}

impl FromStr for ReplicaId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        parse_hex64(text).map(Self).ok_or(BadId::Replica)
    }
}

/// The number that exactly 16 hexadecimal digits stand for. (The standard library's parser takes a
/// sign as well.)
pub fn parse_hex64(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok())?
}

/// Names one life of a namespace's file as a writer, in version vectors. Two lives of one replica,
/// before and after a namespace was dropped and made anew, are two writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriterId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        assert!(GameId::new("match/eu-1/42").is_ok());
        assert!(GameId::new("спасибо").is_ok());
        assert_eq!(GameId::new(""), Err(BadId::Empty));
        assert_eq!(GameId::new(&"x".repeat(513)), Err(BadId::TooLong(513)));
        assert!(GameId::new(&"x".repeat(512)).is_ok());
        assert_eq!(GameId::new("a\nb"), Err(BadId::ControlCharacter(10)));
    }

    #[test]
    fn namespaces_are_checked() {
        for good in ["default", "0", "eu-1", &"a".repeat(63)] {
            assert!(Namespace::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a/b", "..", &"a".repeat(64)] {
            assert!(Namespace::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replica_ids_are_16_digits() {
        let id = ReplicaId(0xab);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "ab",
            "+0000000000000ab",
            "00000000000000ag",
            "é0000000000000a",
        ] {
            assert_eq!(bad.parse::<ReplicaId>(), Err(BadId::Replica), "{bad}");
        }
    }

    #[test]
    fn a_folder_is_what_a_series_shares() {
        assert_eq!(GameId::new("a/b/1.sav").unwrap().folder(), "a/b/");
        assert_eq!(GameId::new("solo").unwrap().folder(), "");
    }
}
