//! Signed heads and proofs of logs of roots as JSON, as `/v1/ns/{ns}/roots` gives them out and
//! peers read them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::rfc3339;
use crate::roots::entry::RootEntry;
use crate::roots::head::{LogHead, PublicKey, SIGNATURE_BYTES, SignedHead};
use crate::roots::verify::PROOF_HASHES_MAX;
use crate::roots::witness::{Accusation, WITNESSED_MAX};
use crate::types::cursor::Epoch;
use crate::types::hash::{LogHash, hex};

/// Most bytes of a [`HeadsBody`] that is read.
pub const HEADS_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a [`ConsistencyBody`] that is read.
pub const CONSISTENCY_BYTES_MAX: usize = 64 << 10;

/// Why what a peer says of its log cannot be read.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("a head or proof of a log of roots is malformed")]
pub struct BadRoots;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryBody {
    /// The root of the tree of states, in hex.
    pub root: String,
    /// Position of the change feed.
    pub seq: u64,
    /// Which life of the feed.
    pub epoch: String,
    /// How often the file had been opened.
    pub incarnation: u64,
    /// Milliseconds since 1970-01-01 UTC; these are what is hashed.
    pub time_millis: u64,
    /// The same for people, RFC 3339.
    #[serde(default)]
    pub time: String,
}

impl From<&RootEntry> for EntryBody {
    fn from(entry: &RootEntry) -> Self {
        Self {
            root: entry.root.to_hex(),
            seq: entry.seq,
            epoch: entry.epoch.to_string(),
            incarnation: entry.incarnation,
            time_millis: entry.time,
            time: rfc3339(entry.time),
        }
    }
}

impl TryFrom<&EntryBody> for RootEntry {
    type Error = BadRoots;

    fn try_from(body: &EntryBody) -> Result<Self, BadRoots> {
        Ok(Self {
            root: body.root.parse().map_err(|_| BadRoots)?,
            seq: body.seq,
            epoch: Epoch(number(&body.epoch)?),
            incarnation: body.incarnation,
            time: body.time_millis,
        })
    }
}

fn number(text: &str) -> Result<u64, BadRoots> {
    if text.len() != 16 {
        return Err(BadRoots);
    }
    u64::from_str_radix(text, 16).map_err(|_| BadRoots)
}

/// A signed head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadBody {
    /// Whose log it is.
    pub replica: String,
    /// The Ed25519 key that signed, in hex.
    pub key: String,
    /// The log's name, in hex.
    pub log: String,
    /// Entries so far.
    pub size: u64,
    /// The hash over them, in hex.
    pub hash: String,
    /// The newest of them.
    pub newest: EntryBody,
    /// The Ed25519 signature, in hex.
    pub signature: String,
}

impl From<&SignedHead> for HeadBody {
    fn from(signed: &SignedHead) -> Self {
        Self {
            replica: signed.head.replica.to_string(),
            key: hex(&signed.key.0),
            log: signed.head.log.to_hex(),
            size: signed.head.size,
            hash: signed.head.hash.to_hex(),
            newest: (&signed.head.newest).into(),
            signature: hex(&signed.signature),
        }
    }
}

impl TryFrom<&HeadBody> for SignedHead {
    type Error = BadRoots;

    fn try_from(body: &HeadBody) -> Result<Self, BadRoots> {
        let hash = |text: &str| text.parse::<LogHash>().map_err(|_| BadRoots);
        let halves = body.signature.split_at_checked(SIGNATURE_BYTES);
        let (first, last) = halves.ok_or(BadRoots)?;
        Ok(Self {
            head: LogHead {
                replica: body.replica.parse().map_err(|_| BadRoots)?,
                log: hash(&body.log)?,
                size: body.size,
                hash: hash(&body.hash)?,
                newest: (&body.newest).try_into()?,
            },
            key: PublicKey(hash(&body.key)?.0),
            signature: [hash(first)?.0, hash(last)?.0].concat(),
        })
    }
}

/// `GET .../roots/heads`: a replica's own head, and those that it has seen of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadsBody {
    /// Its own; absent before the first entry.
    pub own: Option<HeadBody>,
    /// Of others, one a key.
    #[serde(default)]
    pub seen: Vec<HeadBody>,
}

impl HeadsBody {
    /// Its own head, and those of others, as far as anybody has to look at them.
    ///
    /// # Errors
    /// [`BadRoots`] when one is malformed.
    pub fn read(&self) -> Result<(Option<SignedHead>, Vec<SignedHead>), BadRoots> {
        let own = self.own.as_ref().map(SignedHead::try_from).transpose()?;
        let seen = self.seen.iter().take(WITNESSED_MAX);
        let seen = seen.map(SignedHead::try_from).collect::<Result<_, _>>()?;
        Ok((own, seen))
    }
}

/// An entry with its place, and the proof that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedBody {
    /// Counted from 0.
    pub place: u64,
    /// The entry.
    #[serde(flatten)]
    pub entry: EntryBody,
    /// Hashes that lead to the head, RFC 9162 section 2.1.3.1, in hex; when they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Vec<String>>,
}

/// `GET .../roots`: a page of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootsBody {
    /// Oldest first.
    pub roots: Vec<PlacedBody>,
    /// Place behind the last one, when there are more.
    pub next: Option<u64>,
    /// The proof that the log was once of the size that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<ConsistencyBody>,
    /// Over all entries; absent before the first.
    pub head: Option<HeadBody>,
}

/// `GET .../roots/consistency`: that the log of `from` entries is a prefix of that of `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsistencyBody {
    /// Entries of the shorter log.
    pub from: u64,
    /// Entries of the longer one.
    pub to: u64,
    /// Hashes, RFC 9162 section 2.1.4.1, in hex.
    pub proof: Vec<String>,
    /// The head of the longer one, when that is the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadBody>,
}

impl ConsistencyBody {
    /// The proof's hashes.
    ///
    /// # Errors
    /// [`BadRoots`] when one is malformed or there are too many.
    pub fn hashes(&self) -> Result<Vec<LogHash>, BadRoots> {
        hashes(&self.proof)
    }
}

/// The hashes of a proof.
///
/// # Errors
/// [`BadRoots`] when one is malformed or there are too many.
pub fn hashes(proof: &[String]) -> Result<Vec<LogHash>, BadRoots> {
    if proof.len() > PROOF_HASHES_MAX {
        return Err(BadRoots);
    }
    let hashes = proof.iter().map(|hash| hash.parse());
    hashes.collect::<Result<_, _>>().map_err(|_| BadRoots)
}

/// `GET .../roots/inclusion`: that an entry is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InclusionBody {
    /// Its place, counted from 0.
    pub place: u64,
    /// The entry.
    pub entry: EntryBody,
    /// Hashes, RFC 9162 section 2.1.3.1, in hex.
    pub proof: Vec<String>,
    /// The head that the proof leads to.
    pub head: HeadBody,
}

/// Evidence against a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccusationBody {
    /// The replica that the heads name.
    pub replica: String,
    /// `two_heads`, `rewritten`, `begun_anew` or `new_key`.
    pub fault: &'static str,
    /// When that was found, RFC 3339.
    pub found: String,
    /// The head that was known.
    pub first: HeadBody,
    /// The one that does not go with it.
    pub second: HeadBody,
}

impl From<&Accusation> for AccusationBody {
    fn from(accusation: &Accusation) -> Self {
        Self {
            replica: accusation.second.head.replica.to_string(),
            fault: accusation.fault.name(),
            found: rfc3339(accusation.found_at),
            first: (&accusation.first).into(),
            second: (&accusation.second).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roots::head::SecretKey;
    use crate::types::hash::NodeHash;
    use crate::types::id::{Namespace, ReplicaId};

    #[test]
    fn a_head_comes_back_signed() {
        let newest = RootEntry {
            root: NodeHash([3; 32]),
            seq: 7,
            epoch: Epoch(5),
            incarnation: 2,
            time: 1_700_000_000_000,
        };
        let head = LogHead {
            replica: ReplicaId(9),
            log: LogHash([4; 32]),
            size: 1,
            hash: newest.leaf(),
            newest,
        };
        let namespace = Namespace::default_namespace();
        let signed = SecretKey::from_seed(&[1; 32]).sign(&namespace, head);
        let body = HeadBody::from(&signed);
        let text = serde_json::to_string(&body).unwrap();
        let body: HeadBody = serde_json::from_str(&text).unwrap();
        let back = SignedHead::try_from(&body).unwrap();
        assert!(back == signed && back.is_signed(&namespace));
        for cut in 0..body.signature.len() {
            let mut short = body.clone();
            short.signature.truncate(cut);
            assert_eq!(SignedHead::try_from(&short), Err(BadRoots));
        }
        let mut strange = body;
        strange.signature = "é".repeat(64);
        assert_eq!(SignedHead::try_from(&strange), Err(BadRoots));
    }

    #[test]
    fn lists_from_outside_are_read_up_to_their_bounds() {
        let proof = vec![LogHash([7; 32]).to_hex(); PROOF_HASHES_MAX];
        assert_eq!(hashes(&proof).unwrap().len(), PROOF_HASHES_MAX);
        assert_eq!(hashes(&[&proof[..], &proof[..1]].concat()), Err(BadRoots));
        assert_eq!(hashes(&[proof[0][1..].to_owned()]), Err(BadRoots));
        let entry = EntryBody::from(&RootEntry {
            root: NodeHash([3; 32]),
            seq: 7,
            epoch: Epoch(5),
            incarnation: 2,
            time: u64::MAX,
        });
        let head = HeadBody {
            replica: ReplicaId(9).to_string(),
            key: proof[0].clone(),
            log: proof[0].clone(),
            size: u64::MAX,
            hash: proof[0].clone(),
            newest: entry,
            signature: [&proof[0][..]; 2].concat(),
        };
        let many = HeadsBody {
            own: None,
            seen: vec![head.clone(); 10 * WITNESSED_MAX],
        };
        let (own, seen) = many.read().unwrap();
        assert_eq!((own, seen.len()), (None, WITNESSED_MAX));
        assert!(!seen[0].is_signed(&Namespace::default_namespace()));
        // As many as are read fit into what is read.
        let all = HeadsBody {
            own: Some(head.clone()),
            seen: vec![head; WITNESSED_MAX],
        };
        assert!(serde_json::to_string(&all).unwrap().len() < HEADS_BYTES_MAX / 2);
    }
}
