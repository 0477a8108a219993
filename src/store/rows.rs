//! The rows of the tables as bytes, and back. Layouts are prose in docs/reference/file-format.md.

use serde::{Deserialize, Serialize};

use crate::merkle::node::Summary;
use crate::store::error::StoreError;
use crate::store::log::place::LogPosition;
use crate::types::binary::{decode, decode_prefix, encode, encode_into};
use crate::types::cursor::Epoch;
use crate::types::hash::{ChunkHash, LeafDigest, StateKey};
use crate::types::id::{ReplicaId, WriterId};
use crate::types::leaf::Leaf;
use crate::types::record::StateRecord;
use crate::types::version::Version;

/// Where a version's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// A tombstone has none, and an expired version may have given them up.
    Nothing,
    /// In the row itself, packed.
    Inline(Vec<u8>),
    /// In the contents table under the version's content hash, counted.
    Shared,
}

/// How long the bytes of a version outlive it, in milliseconds: a peer whose clock is a little
/// behind takes the state for alive still, and asks for them.
pub const STRIP_GRACE_MILLIS: u64 = 60 * 1000;

/// A version and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The version.
    pub version: Version,
    /// Its bytes.
    pub placement: Placement,
}

impl Placed {
    /// A version and its place, as a record row has them.
    pub fn of((version, placement): (&Version, &Placement)) -> Self {
        Self {
            version: version.clone(),
            placement: placement.clone(),
        }
    }

    /// True when the version has bytes to show at a moment.
    pub fn is_readable(&self, now: u64) -> bool {
        self.placement != Placement::Nothing && !self.version.is_dead(now)
    }
}

/// A row of the records table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRow {
    /// What the tree knows of the state.
    pub leaf: Leaf,
    /// Position in this replica's change feed.
    pub seq: u64,
    /// The record.
    pub record: StateRecord,
    /// One for each version of the record, in its order.
    pub placements: Vec<Placement>,
}

/// Bytes in front of the encoded record: digest, size, updated_at, seq. They stand first so that
/// scanning a Merkle bucket does not decode records.
const HEADER: usize = 32 + 8 + 8 + 8;

/// Room for the encoded record, which few exceed.
const RECORD_ROOM: usize = 256;

impl RecordRow {
    /// Encodes the row.
    pub fn to_bytes(&self) -> Vec<u8> {
        let placed = |place: &Placement| match place {
            Placement::Inline(packed) => packed.len() + 5,
            Placement::Nothing | Placement::Shared => 1,
        };
        let placed = self.placements.iter().map(placed).sum::<usize>();
        let mut bytes = Vec::with_capacity(HEADER + RECORD_ROOM + placed);
        bytes.extend_from_slice(&self.leaf.digest.0);
        for number in [self.leaf.size, self.leaf.updated_at, self.seq] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        encode_into(&mut bytes, &self.record);
        for placement in &self.placements {
            write_placement(&mut bytes, placement);
        }
        bytes
    }

    /// Decodes a row found under `key`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the bytes are not a record row.
    pub fn from_bytes(key: StateKey, bytes: &[u8]) -> Result<Self, StoreError> {
        let leaf = leaf_of_row(key, bytes)?;
        let seq = seq_of_row(bytes)?;
        let rest = &bytes[HEADER..];
        let (record, used): (StateRecord, usize) = decode_prefix(rest)?;
        let mut reader = Reader(&rest[used..]);
        let placements = record
            .versions()
            .iter()
            .map(|_| reader.placement())
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self {
            leaf,
            seq,
            record,
            placements,
        })
    }

    /// The row itself, when its record is the one that its digest is of.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] otherwise.
    pub fn checked(self) -> Result<Self, StoreError> {
        if self.record.leaf() == self.leaf {
            return Ok(self);
        }
        let (id, key) = (&self.record.id, &self.leaf.key);
        Err(StoreError::damaged(format!(
            "the record of {id:?}, at {key}, is not the one that was written"
        )))
    }

    /// True when the shown version has bytes, whether its time is over or not.
    pub fn is_live(&self) -> bool {
        self.placements
            .first()
            .is_some_and(|place| *place != Placement::Nothing)
    }

    /// True when readers are shown the state at a moment.
    pub fn is_shown(&self, now: u64) -> bool {
        self.is_live() && !self.record.is_dead(now)
    }

    /// When something of the state is to be collected, in milliseconds since 1970-01-01 UTC: bytes
    /// of an expired version, or the whole record.
    pub fn due(&self) -> Option<u64> {
        let with_bytes = self
            .placed()
            .filter(|(_, place)| **place != Placement::Nothing);
        let ends = with_bytes.filter_map(|(version, _)| version.expires_at);
        let strip = ends.min().map(|at| at.saturating_add(STRIP_GRACE_MILLIS));
        strip.or_else(|| self.record.departs_at())
    }

    /// The versions with their bytes' places.
    pub fn placed(&self) -> impl Iterator<Item = (&Version, &Placement)> {
        self.record.versions().iter().zip(&self.placements)
    }
}

/// The leaf of an encoded record row, without decoding the record.
///
/// # Errors
/// [`StoreError::Damaged`] when the row is too short.
pub fn leaf_of_row(key: StateKey, bytes: &[u8]) -> Result<Leaf, StoreError> {
    let mut reader = Reader(bytes);
    Ok(Leaf {
        key,
        digest: LeafDigest(reader.array()?),
        size: reader.number()?,
        updated_at: reader.number()?,
    })
}

/// The feed position of an encoded record row, without decoding the record.
///
/// # Errors
/// [`StoreError::Damaged`] when the row is too short.
pub fn seq_of_row(bytes: &[u8]) -> Result<u64, StoreError> {
    let tail = bytes.get(HEADER - 8..HEADER).ok_or_else(short)?;
    Reader(tail).number()
}

/// Encodes the versions that one change superseded.
pub fn history_to_bytes(entries: &[Placed]) -> Vec<u8> {
    let versions: Vec<&Version> = entries.iter().map(|entry| &entry.version).collect();
    let mut bytes = encode(&versions);
    for entry in entries {
        write_placement(&mut bytes, &entry.placement);
    }
    bytes
}

/// Decodes a history row.
///
/// # Errors
/// [`StoreError::Damaged`] when the bytes are not a history row.
pub fn history_from_bytes(bytes: &[u8]) -> Result<Vec<Placed>, StoreError> {
    let (versions, used): (Vec<Version>, usize) = decode_prefix(bytes)?;
    let mut reader = Reader(&bytes[used..]);
    let entries = versions
        .into_iter()
        .map(|version| {
            let placement = reader.placement()?;
            Ok(Placed { version, placement })
        })
        .collect::<Result<_, StoreError>>()?;
    reader.finish()?;
    Ok(entries)
}

/// Bytes of a content that is too large for a row of its own record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentBody {
    /// One packed value.
    Packed(Vec<u8>),
    /// Chunks with their lengths, in order.
    Chunks(Vec<(ChunkHash, u32)>),
}

/// A row of the contents table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRow {
    /// How many versions, current or in history, have these bytes.
    pub references: u64,
    /// Length of the content.
    pub size: u64,
    /// Where the bytes are.
    pub body: ContentBody,
}

impl ContentRow {
    /// Encodes the row.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.references.to_le_bytes());
        bytes.extend_from_slice(&self.size.to_le_bytes());
        match &self.body {
            ContentBody::Packed(packed) => {
                bytes.push(0);
                bytes.extend_from_slice(packed);
            }
            ContentBody::Chunks(chunks) => {
                bytes.push(1);
                push_chunk_list(&mut bytes, chunks);
            }
        }
        bytes
    }

    /// Decodes the row.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the bytes are not a content row.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader(bytes);
        let (references, size) = (reader.number()?, reader.number()?);
        let body = match reader.byte()? {
            0 => ContentBody::Packed(reader.0.to_vec()),
            1 if let Some(chunks) = chunk_list(reader.0) => ContentBody::Chunks(chunks),
            _ => return Err(StoreError::damaged("a content row has an unknown form")),
        };
        Ok(Self {
            references,
            size,
            body,
        })
    }
}

/// Bytes of a chunk in a list: its hash and its length.
const CHUNK_ENTRY: usize = 32 + 4;

/// Appends chunks to an encoded list.
pub fn push_chunk_list(bytes: &mut Vec<u8>, chunks: &[(ChunkHash, u32)]) {
    for (hash, length) in chunks {
        bytes.extend_from_slice(&hash.0);
        bytes.extend_from_slice(&length.to_le_bytes());
    }
}

/// Decodes a list of chunks; `None` when the bytes are not one.
pub fn chunk_list(bytes: &[u8]) -> Option<Vec<(ChunkHash, u32)>> {
    let (entries, rest) = bytes.as_chunks::<CHUNK_ENTRY>();
    let entry = |entry: &[u8; CHUNK_ENTRY]| {
        let (hash, length) = entry.split_first_chunk::<32>()?;
        let length = length.try_into().ok()?;
        Some((ChunkHash(*hash), u32::from_le_bytes(length)))
    };
    let entries = rest.is_empty().then_some(entries)?;
    entries.iter().map(entry).collect()
}

/// What a namespace's file is; only the incarnation changes during its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The replica it belongs to.
    pub replica: ReplicaId,
    /// Which life of the change feed.
    pub epoch: Epoch,
    /// How often the file has been opened for writing.
    pub incarnation: u64,
}

impl Identity {
    /// The name under which this file's writes count in version vectors: one for each life of the
    /// feed, since the counter is the feed position. A namespace that was dropped and made anew
    /// counts from 1 again, and must not seem to repeat writes that its peers still remember.
    pub fn writer(&self) -> WriterId {
        WriterId(self.epoch.0)
    }
}

/// Where the namespace stands after its newest commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Newest position of the change feed; 0 before the first write.
    pub seq: u64,
    /// Root of the Merkle tree with its aggregates.
    pub root: Summary,
    /// States that are not deleted.
    pub live: u64,
    /// Newest millisecond of the hybrid logical clock.
    pub clock: u64,
    /// Up to where the file holds what the log says. Kept by checkpoints; rows in memory have it
    /// as the newest checkpoint left it.
    pub log: LogPosition,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            seq: 0,
            root: Summary::EMPTY,
            live: 0,
            clock: 0,
            log: LogPosition::default(),
        }
    }
}

/// The last moment at which a peer and we were proven to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The life of the peer's change feed.
    pub their_epoch: Epoch,
    /// Position of the peer's feed then.
    pub their_seq: u64,
    /// How often the peer's file had been opened.
    pub their_incarnation: u64,
    /// Position of our own feed then; whatever we changed later, the peer may not have.
    pub our_seq: u64,
}

/// Decodes the head, which a new file does not have yet.
///
/// # Errors
/// [`StoreError::Damaged`] when the bytes are something else.
pub fn head_from_bytes(bytes: Option<&[u8]>) -> Result<Head, StoreError> {
    Ok(bytes.map(decode).transpose()?.unwrap_or_default())
}

fn write_placement(bytes: &mut Vec<u8>, placement: &Placement) {
    match placement {
        Placement::Nothing => bytes.push(0),
        Placement::Inline(packed) => {
            bytes.push(1);
            bytes.extend_from_slice(&(packed.len() as u32).to_le_bytes());
            bytes.extend_from_slice(packed);
        }
        Placement::Shared => bytes.push(2),
    }
}

fn short() -> StoreError {
    StoreError::damaged("a row ends too early")
}

/// Reads fields off the front of a row.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], StoreError> {
        let (front, rest) = self.0.split_at_checked(length).ok_or_else(short)?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.take(N)?.try_into().map_err(|_| short())
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn placement(&mut self) -> Result<Placement, StoreError> {
        match self.byte()? {
            0 => Ok(Placement::Nothing),
            1 => {
                let length = u32::from_le_bytes(self.array()?);
                Ok(Placement::Inline(self.take(length as usize)?.to_vec()))
            }
            2 => Ok(Placement::Shared),
            _ => Err(StoreError::damaged("a row names an unknown place")),
        }
    }

    fn finish(&self) -> Result<(), StoreError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(StoreError::damaged("a row is longer than its fields"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::GameId;

    #[test]
    fn a_record_without_versions_is_damage() {
        let id = GameId::new("a").unwrap();
        let mut row = vec![0; HEADER];
        row.extend(encode(&(&id, Vec::<Version>::new())));
        let read = RecordRow::from_bytes(StateKey::of(&id), &row);
        let Err(StoreError::Damaged(what)) = read else {
            panic!("{read:?}");
        };
        assert!(what.contains("at least one version"), "{what}");
    }
}
