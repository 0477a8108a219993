//! Moving the bytes of states: what a receiver wants and holds, what a sender makes of it, and
//! how the receiver gets the bytes back and checks them.

use std::collections::HashMap;

use bytes::Bytes;
use thiserror::Error;

use crate::delta::codec::{Codec, CodecId, Effort, Encoded};
use crate::delta::copy::CopyDelta;
use crate::delta::error::DeltaError;
use crate::delta::registry::{decode, encode_smallest};
use crate::merkle::prefix::{Prefix, leading_bits};
use crate::replica::command::Incoming;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::{Placed, RecordRow};
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::GameId;
use crate::types::record::StateRecord;
use crate::types::version::Version;
use crate::wire::messages::{BASES_MAX, BaseHint, BodyHead, Want};

/// States up to this size travel raw or as a tiny delta, since the frame around a batch of them
/// is compressed as one.
const SMALL_STATE: u64 = 4096;
/// State bytes of one message that are encoded with more effort, at 10 to 15 ms a MiB: a few saves
/// now and then are worth it, the bulk of a copy is not held up.
const CARE_BYTES: usize = 4 << 20;

/// Why bytes from a peer were not taken.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The bytes are not those that the record's hash speaks of.
    #[error("wrong bytes for {0:?}: they do not have the content hash of its record")]
    WrongHash(GameId),
    /// The payload does not decode.
    #[error("the bytes of {id:?} do not decode: {source}")]
    Undecodable {
        /// The state.
        id: GameId,
        /// What is wrong with them.
        source: DeltaError,
    },
    /// The message's parts do not fit together.
    #[error("malformed transfer: {0}")]
    Malformed(&'static str),
    /// History moved on while the session ran.
    #[error("the version that a delta of {0:?} was made from is gone; sync again")]
    BaseGone(GameId),
    /// The sender cannot read the version any more.
    #[error("the peer cannot read its copy of {0:?}; run `samestate verify` there")]
    MissingAtPeer(GameId),
    /// A state larger than this replica takes.
    #[error("{id:?} has {size} bytes, this replica takes at most {limit}; raise max_state_bytes")]
    TooLarge {
        /// The state.
        id: GameId,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Our own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the receiver knows of one wanted version.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The state.
    pub id: GameId,
    /// Its key.
    pub key: StateKey,
    /// The version.
    pub version: Version,
    /// What the sender is told.
    pub want: Want,
}

/// A record that is news to the receiver, with what is lacking to take it over.
#[derive(Debug)]
pub struct News {
    /// The record with the bytes that were found here.
    pub incoming: Incoming,
    /// Bytes that the sender must send.
    pub wanted: Vec<Wanted>,
}

/// Compares a record from a peer with what is held here. `None` when it is no news.
///
/// `previous` is the version wanted just before, which will have been decoded by the time this
/// one is: in a series of states it makes a good base.
///
/// # Errors
/// [`TransferError`] when a version is too large or the store fails.
pub fn news(
    view: &View,
    record: &StateRecord,
    previous: Option<&Wanted>,
    state_bytes_max: u64,
) -> Result<Option<News>, TransferError> {
    let key = record.key();
    let held = view.snapshot().record(&key)?;
    let merged = held.as_ref().map(|row| row.record.merge(record).0);
    if held.as_ref().map(|row| &row.record) == Some(merged.as_ref().unwrap_or(record)) {
        return Ok(None);
    }
    let kept = merged.as_ref().unwrap_or(record).versions();
    let known = view.versions(&key)?;
    let current = held.as_ref().map_or(0, |row| row.record.versions().len());
    let mut news = News {
        incoming: Incoming {
            record: record.clone(),
            bodies: Vec::new(),
        },
        wanted: Vec::new(),
    };
    for (index, version) in record.versions().iter().enumerate() {
        let held_already = held
            .as_ref()
            .is_some_and(|row| row.record.versions().contains(version));
        if version.tombstone || held_already || !kept.contains(version) {
            continue;
        }
        if version.size > state_bytes_max {
            return Err(TransferError::TooLarge {
                id: record.id.clone(),
                size: version.size,
                limit: state_bytes_max,
            });
        }
        if let Some(bytes) = same_bytes(view, &known, version)? {
            news.incoming.bodies.push((version.content, bytes));
            continue;
        }
        let version_index = u8::try_from(index)
            .map_err(|_| TransferError::Malformed("a record has too many versions"))?;
        news.wanted.push(Wanted {
            id: record.id.clone(),
            key,
            version: version.clone(),
            want: Want {
                state: leading_bits(&key),
                version: version_index,
                bases: bases(view, &record.id, &known, current, previous, version.size)?,
            },
        });
    }
    Ok(Some(news))
}

/// Bytes of a version that are here already, with another version of the state.
fn same_bytes(
    view: &View,
    known: &[Placed],
    version: &Version,
) -> Result<Option<Bytes>, StoreError> {
    let twin = known
        .iter()
        .find(|held| held.version.content == version.content && !held.version.tombstone);
    match twin {
        Some(twin) => Ok(view.content(twin)?.map(Bytes::from)),
        None => Ok(None),
    }
}

/// Versions here that are likely to resemble a wanted one: those of the state itself, of which the
/// first `current` of `known` are current ones, or the state before it in its folder.
fn bases(
    view: &View,
    id: &GameId,
    known: &[Placed],
    current: usize,
    previous: Option<&Wanted>,
    size: u64,
) -> Result<Vec<BaseHint>, StoreError> {
    let hint = |held: &Placed| BaseHint {
        state: None,
        content: content_bits(&held.version.content),
    };
    let has_bytes = |held: &&Placed| !held.version.tombstone;
    // What is current here is what the sender is likely to remember; older versions are not.
    let (here, history) = known.split_at(current.min(known.len()));
    let mut hints: Vec<BaseHint> = here.iter().filter(has_bytes).map(hint).collect();
    hints.truncate(BASES_MAX);
    if hints.is_empty() {
        hints.extend(history.iter().find(has_bytes).map(hint));
    }
    if hints.is_empty() && size > SMALL_STATE {
        hints.extend(neighbour(view, id, previous)?);
    }
    Ok(hints)
}

fn neighbour(
    view: &View,
    id: &GameId,
    previous: Option<&Wanted>,
) -> Result<Option<BaseHint>, StoreError> {
    let here = match view.snapshot().neighbour(id)? {
        Some(key) => view.snapshot().record(&key)?,
        None => None,
    };
    let coming = previous.filter(|wanted| wanted.id.folder() == id.folder() && wanted.id < *id);
    let nearer = |wanted: &&Wanted| here.as_ref().is_none_or(|row| wanted.id > row.record.id);
    if let Some(wanted) = coming.filter(nearer) {
        return Ok(Some(BaseHint {
            state: Some(leading_bits(&wanted.key)),
            content: content_bits(&wanted.version.content),
        }));
    }
    Ok(here
        .filter(|row| !row.record.is_deleted())
        .map(|row| BaseHint {
            state: Some(leading_bits(&row.leaf.key)),
            content: content_bits(&row.record.shown().content),
        }))
}

/// Encodes the first wants, as many as fit into `bytes_max`, at least one.
///
/// # Errors
/// [`TransferError`] when a want names no record of the view, or the store fails.
pub fn encode_bodies(
    view: &View,
    wants: &[Want],
    bytes_max: u64,
) -> Result<(Vec<BodyHead>, Vec<u8>), TransferError> {
    let (mut heads, mut blob) = (Vec::new(), Vec::new());
    let mut care = CARE_BYTES;
    for want in wants {
        if !heads.is_empty() && blob.len() as u64 >= bytes_max {
            break;
        }
        heads.push(encode_body(view, want, &mut care, &mut blob)?);
    }
    Ok((heads, blob))
}

fn encode_body(
    view: &View,
    want: &Want,
    care: &mut usize,
    blob: &mut Vec<u8>,
) -> Result<BodyHead, TransferError> {
    let row = record_at(view, want.state)?;
    let row = row.ok_or(TransferError::Malformed("a want names an unknown state"))?;
    let (version, placement) = row
        .placed()
        .nth(usize::from(want.version))
        .ok_or(TransferError::Malformed("a want names an unknown version"))?;
    let bytes = match view.snapshot().content(version, placement) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(TransferError::Malformed("a want names a deletion")),
        Err(StoreError::Damaged(what)) => {
            tracing::error!(id = %row.record.id, %what, "cannot send a damaged version");
            return Ok(missing());
        }
        Err(error) => return Err(error.into()),
    };
    let mut candidates = Vec::new();
    for (index, hint) in want.bases.iter().take(BASES_MAX).enumerate() {
        let state = hint.state.unwrap_or(want.state);
        if let Some(base) = held_content(view, state, hint.content)? {
            candidates.push((index, base));
        }
    }
    let bases: Vec<&[u8]> = candidates.iter().map(|(_, base)| &base[..]).collect();
    let effort = if bytes.len() <= *care {
        Effort::Small
    } else {
        Effort::Fast
    };
    *care = care.saturating_sub(bytes.len());
    let encoded = encode(&bases, &bytes, effort);
    let base = encoded.base.and_then(|chosen| candidates.get(chosen));
    blob.extend_from_slice(&encoded.payload);
    Ok(BodyHead {
        codec: encoded.codec.0,
        base: base.map(|(index, _)| *index as u8),
        length: encoded.payload.len() as u32,
    })
}

fn missing() -> BodyHead {
    BodyHead {
        codec: BodyHead::MISSING,
        base: None,
        length: 0,
    }
}

fn encode(bases: &[&[u8]], bytes: &[u8], effort: Effort) -> Encoded {
    if bytes.len() as u64 > SMALL_STATE {
        return encode_smallest(bases, bytes, effort);
    }
    let delta = bases
        .first()
        .and_then(|base| CopyDelta.encode(Some(base), bytes, effort).ok().flatten());
    match delta {
        Some(payload) if payload.len() * 2 <= bytes.len() => Encoded {
            codec: CodecId::COPY,
            base: Some(0),
            payload,
        },
        _ => Encoded {
            codec: CodecId::RAW,
            base: None,
            payload: bytes.to_vec(),
        },
    }
}

/// Decodes bodies in order and checks each against its content hash.
///
/// # Errors
/// [`TransferError`] at the first body that is not what its record says; none is to be kept then.
pub fn decode_bodies(
    view: &View,
    wanted: &[Wanted],
    heads: &[BodyHead],
    blob: &[u8],
    decoder: &mut Decoder,
) -> Result<Vec<Bytes>, TransferError> {
    if heads.is_empty() || heads.len() > wanted.len() {
        return Err(TransferError::Malformed("the number of bodies is wrong"));
    }
    let mut rest = blob;
    let mut bodies = Vec::with_capacity(heads.len());
    for (wanted, head) in wanted.iter().zip(heads) {
        if head.codec == BodyHead::MISSING {
            return Err(TransferError::MissingAtPeer(wanted.id.clone()));
        }
        let (payload, behind) = rest
            .split_at_checked(head.length as usize)
            .ok_or(TransferError::Malformed("a body ends too early"))?;
        rest = behind;
        bodies.push(decoder.decode(view, wanted, head, payload)?);
    }
    if !rest.is_empty() {
        return Err(TransferError::Malformed("bytes are left behind the bodies"));
    }
    Ok(bodies)
}

/// Decodes bodies one after the other, and remembers the last one of each step since the next
/// may be a delta against it.
#[derive(Debug, Default)]
pub struct Decoder {
    last: HashMap<(u64, u64), Bytes>,
}

impl Decoder {
    fn decode(
        &mut self,
        view: &View,
        wanted: &Wanted,
        head: &BodyHead,
        payload: &[u8],
    ) -> Result<Bytes, TransferError> {
        let base = match head.base {
            Some(index) => Some(self.base(view, wanted, index)?),
            None => None,
        };
        let size = usize::try_from(wanted.version.size)
            .map_err(|_| TransferError::Malformed("a state is too large for this machine"))?;
        let bytes =
            decode(CodecId(head.codec), base.as_deref(), payload, size).map_err(|source| {
                TransferError::Undecodable {
                    id: wanted.id.clone(),
                    source,
                }
            })?;
        if !ContentHash::of(&bytes).matches(&wanted.version.content) {
            return Err(TransferError::WrongHash(wanted.id.clone()));
        }
        let bytes = Bytes::from(bytes);
        self.last.clear();
        let name = (wanted.want.state, content_bits(&wanted.version.content));
        self.last.insert(name, bytes.clone());
        Ok(bytes)
    }

    fn base(&self, view: &View, wanted: &Wanted, index: u8) -> Result<Bytes, TransferError> {
        let want = &wanted.want;
        let hint = want
            .bases
            .get(usize::from(index))
            .ok_or(TransferError::Malformed("a body names an unknown base"))?;
        let state = hint.state.unwrap_or(want.state);
        if let Some(bytes) = self.last.get(&(state, hint.content)) {
            return Ok(bytes.clone());
        }
        let held = held_content(view, state, hint.content)?;
        let held = held.map(Bytes::from);
        held.ok_or_else(|| TransferError::BaseGone(wanted.id.clone()))
    }
}

/// The only record below a 64-bit prefix; of several the first, whose bytes then fail their hash.
fn record_at(view: &View, bits: u64) -> Result<Option<RecordRow>, StoreError> {
    let at = Prefix::new(bits, Prefix::DEPTH_MAX);
    let at = at.ok_or_else(|| StoreError::damaged("a prefix is too deep"))?;
    Ok(view.snapshot().records_below(at, 1)?.pop())
}

/// Bytes of a version of a state that are held here, current or in history.
fn held_content(view: &View, state: u64, content: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(row) = record_at(view, state)? else {
        return Ok(None);
    };
    let known = view.versions(&row.leaf.key)?;
    let found = known
        .iter()
        .find(|held| !held.version.tombstone && content_bits(&held.version.content) == content);
    match found.map(|placed| view.content(placed)) {
        // A base that cannot be read is no base.
        None | Some(Err(StoreError::Damaged(_))) => Ok(None),
        Some(result) => result,
    }
}

fn content_bits(hash: &ContentHash) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&hash.0[..8]);
    u64::from_be_bytes(eight)
}
