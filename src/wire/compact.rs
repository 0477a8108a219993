//! Wants and body heads as version 4 writes them: what nearly every one of them says takes no bytes.
//!
//! A *want*: one byte, of which bits 0 to 2 are how many bases are named, bit 3 is set when the byte of the
//! version follows (0 otherwise), bit 4 when the byte of the bases' kinds does (all 0 otherwise); these
//! two bytes; 64 bits of the state's key; of each base 64 bits of its content, or of a dictionary's hash, and in front of
//! these 64 bits of the other state's key when its kind is 1. Kinds have two bits each, lowest first: 0 a version
//! of the wanted state, 1 of another state, 2 a dictionary.
//!
//! *Body heads* are runs of equal codec and base. A run: one byte, of which bit 7 is set in the last run, bit 6
//! when a varint follows that says how many heads it stands for (1 otherwise), bits 3 to 5 are the codec (6: all
//! chunks were sent before, 7: missing, 5: the codec's byte follows), bits 0 to 2 are 0 without a base, its place and 1, or
//! 7 when the byte of its place follows; the codec's byte; the base's; how many. Behind all runs
//! stand the lengths of payloads as varints, but for the last payload, which is what the blob has left.

use crate::delta::codec::CodecId;
use crate::types::binary::encode_bare_into;
use crate::wire::error::BadFrame;
use crate::wire::fields::{Fields, put_varint};
use crate::wire::head::Head;
use crate::wire::messages::{
    BASES_MAX, BaseHint, BodiesRequest, BodyHead, BodyHeads, LIST_MAX, OfferReply, StoreRequest,
    Want,
};

const BASES: u8 = 0x07;
const HAS_VERSION: u8 = 0x08;
const HAS_KINDS: u8 = 0x10;
const WANT_BITS: u8 = BASES | HAS_VERSION | HAS_KINDS;

const OWN: u8 = 0;
const OTHER: u8 = 1;
const DICTIONARY: u8 = 2;

const LAST_RUN: u8 = 0x80;
const COUNTED: u8 = 0x40;
const CODEC_SHIFT: u8 = 3;
const CODEC_FOLLOWS: u8 = 5;
const STAGED: u8 = 6;
const MISSING: u8 = 7;
const BASE_FOLLOWS: u8 = 7;
/// Places of bases that have a number of their own.
const BASES_SHORT: u8 = BASE_FOLLOWS - 1;

/// Writes a list of wants.
pub fn put_wants(bytes: &mut Vec<u8>, wants: &[Want]) {
    put_varint(bytes, wants.len() as u64);
    for want in wants {
        put_want(bytes, want);
    }
}

fn put_want(bytes: &mut Vec<u8>, want: &Want) {
    debug_assert!(want.bases.len() <= BASES_MAX);
    let bases = &want.bases[..want.bases.len().min(BASES_MAX)];
    let kinds = bases
        .iter()
        .rev()
        .fold(0, |kinds, hint| (kinds << 2) | kind_of(hint));
    let mut form = bases.len() as u8;
    if want.version != 0 {
        form |= HAS_VERSION;
    }
    if kinds != 0 {
        form |= HAS_KINDS;
    }
    bytes.push(form);
    if want.version != 0 {
        bytes.push(want.version);
    }
    if kinds != 0 {
        bytes.push(kinds);
    }
    bytes.extend_from_slice(&want.state.to_be_bytes());
    for hint in bases {
        if let (OTHER, Some(state)) = (kind_of(hint), hint.state) {
            bytes.extend_from_slice(&state.to_be_bytes());
        }
        bytes.extend_from_slice(&hint.content.to_be_bytes());
    }
}

fn kind_of(hint: &BaseHint) -> u8 {
    match hint.state {
        None => OWN,
        Some(BaseHint::DICTIONARY) => DICTIONARY,
        Some(_) => OTHER,
    }
}

/// Reads a list of wants.
///
/// # Errors
/// [`BadFrame`] when it is none, or longer than [`LIST_MAX`].
pub fn wants(fields: &mut Fields<'_>) -> Result<Vec<Want>, BadFrame> {
    let count = fields.count(LIST_MAX)?;
    (0..count).map(|_| want(fields)).collect()
}

fn want(fields: &mut Fields<'_>) -> Result<Want, BadFrame> {
    let form = fields.byte()?;
    let count = usize::from(form & BASES);
    if form & !WANT_BITS != 0 || count > BASES_MAX {
        return Err(BadFrame::Malformed("a want of an unknown form"));
    }
    let mut optional = |bit: u8| match form & bit {
        0 => Ok(0),
        _ => match fields.byte()? {
            0 => Err(BadFrame::Malformed("a byte that was not needed")),
            byte => Ok(byte),
        },
    };
    let (version, mut kinds) = (optional(HAS_VERSION)?, optional(HAS_KINDS)?);
    let state = fields.bits()?;
    let mut bases = Vec::with_capacity(count);
    for _ in 0..count {
        let of = match kinds & 3 {
            OWN => None,
            OTHER => Some(fields.bits()?),
            DICTIONARY => Some(BaseHint::DICTIONARY),
            _ => return Err(BadFrame::Malformed("a base of an unknown kind")),
        };
        kinds >>= 2;
        bases.push(BaseHint {
            state: of,
            content: fields.bits()?,
        });
    }
    if kinds != 0 {
        return Err(BadFrame::Malformed("kinds of bases that are not named"));
    }
    Ok(Want {
        state,
        version,
        bases,
    })
}

/// Writes body heads, behind which nothing but their payloads may follow.
pub fn put_heads(bytes: &mut Vec<u8>, heads: &[BodyHead]) {
    let mut runs = heads.chunk_by(is_alike).peekable();
    if runs.peek().is_none() {
        bytes.extend_from_slice(&[LAST_RUN | COUNTED, 0]);
    }
    while let Some(run) = runs.next() {
        let last = if runs.peek().is_none() { LAST_RUN } else { 0 };
        if let Some(head) = run.first() {
            put_run(bytes, last, head, run.len());
        }
    }
    let mut lengths = heads.iter().filter(|head| has_payload(head)).peekable();
    while let Some(head) = lengths.next() {
        if lengths.peek().is_some() {
            put_varint(bytes, u64::from(head.length));
        }
    }
}

fn is_alike(a: &BodyHead, b: &BodyHead) -> bool {
    (a.codec, a.base) == (b.codec, b.base)
}

/// Those behind the first of several that came together have none, nor have those that came before, or
/// not at all.
fn has_payload(head: &BodyHead) -> bool {
    let together = CodecId(head.codec) == CodecId::TOGETHER;
    !(matches!(head.codec, BodyHead::MISSING | BodyHead::STAGED)
        || (together && head.base.is_none()))
}

fn put_run(bytes: &mut Vec<u8>, last: u8, head: &BodyHead, count: usize) {
    let codec = match head.codec {
        BodyHead::MISSING => MISSING,
        BodyHead::STAGED => STAGED,
        codec => codec.min(CODEC_FOLLOWS),
    };
    let base = match head.base {
        None => 0,
        Some(place) => place.min(BASES_SHORT) + 1,
    };
    let counted = if count == 1 { 0 } else { COUNTED };
    bytes.push(last | counted | (codec << CODEC_SHIFT) | base);
    if codec == CODEC_FOLLOWS {
        bytes.push(head.codec);
    }
    if let (BASE_FOLLOWS, Some(place)) = (base, head.base) {
        bytes.push(place);
    }
    if count != 1 {
        put_varint(bytes, count as u64);
    }
}

/// Reads body heads; what is left behind them are their payloads.
///
/// # Errors
/// [`BadFrame`] when there are none, more than [`LIST_MAX`], or payloads are longer than what is left.
pub fn heads(fields: &mut Fields<'_>) -> Result<Vec<BodyHead>, BadFrame> {
    let mut heads: Vec<BodyHead> = Vec::new();
    loop {
        let (run, head, count) = run(fields, LIST_MAX - heads.len())?;
        let is_going_on = heads.last().is_some_and(|before| is_alike(before, &head));
        if is_going_on || (count == 0 && (run & LAST_RUN == 0 || !heads.is_empty())) {
            return Err(BadFrame::Malformed("a run of bodies that was not needed"));
        }
        heads.resize(heads.len() + count, head);
        if run & LAST_RUN != 0 {
            break;
        }
    }
    let mut with_payload = heads.iter_mut().filter(|head| has_payload(head)).peekable();
    let mut sum: usize = 0;
    while let Some(head) = with_payload.next() {
        if with_payload.peek().is_some() {
            head.length = fields.u32()?;
            sum = sum.saturating_add(head.length as usize);
        } else {
            let rest = fields.left().checked_sub(sum).ok_or(BadFrame::CutOff)?;
            head.length = u32::try_from(rest).map_err(|_| BadFrame::Number)?;
        }
    }
    Ok(heads)
}

fn run(fields: &mut Fields<'_>, room: usize) -> Result<(u8, BodyHead, usize), BadFrame> {
    let run = fields.byte()?;
    let codec = match (run >> CODEC_SHIFT) & 7 {
        CODEC_FOLLOWS => match fields.byte()? {
            codec @ CODEC_FOLLOWS..BodyHead::STAGED => codec,
            _ => {
                return Err(BadFrame::Malformed(
                    "a codec in a form that it does not have",
                ));
            }
        },
        STAGED => BodyHead::STAGED,
        MISSING => BodyHead::MISSING,
        codec => codec,
    };
    let base = match run & BASE_FOLLOWS {
        0 => None,
        BASE_FOLLOWS => match fields.byte()? {
            place @ BASES_SHORT.. => Some(place),
            _ => {
                return Err(BadFrame::Malformed(
                    "a base in a form that it does not have",
                ));
            }
        },
        place => Some(place - 1),
    };
    let count = match run & COUNTED {
        0 => 1,
        _ => match fields.count(room)? {
            1 => return Err(BadFrame::Malformed("a count that was not needed")),
            count => count,
        },
    };
    if count > room {
        return Err(BadFrame::TooMany {
            got: count,
            limit: room,
        });
    }
    let head = BodyHead {
        codec,
        base,
        length: 0,
    };
    Ok((run, head, count))
}

impl Head for BodiesRequest {
    fn write(&self, bytes: &mut Vec<u8>) {
        encode_bare_into(bytes, &self.session);
        put_wants(bytes, &self.wants);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, BadFrame> {
        Ok(Self {
            session: fields.value()?,
            wants: wants(fields)?,
        })
    }
}

impl Head for BodyHeads {
    fn write(&self, bytes: &mut Vec<u8>) {
        put_heads(bytes, &self.heads);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, BadFrame> {
        Ok(Self {
            heads: heads(fields)?,
        })
    }
}

impl Head for OfferReply {
    fn write(&self, bytes: &mut Vec<u8>) {
        encode_bare_into(bytes, &self.wanted);
        put_wants(bytes, &self.wants);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, BadFrame> {
        Ok(Self {
            wanted: fields.value()?,
            wants: wants(fields)?,
        })
    }
}

impl Head for StoreRequest {
    fn write(&self, bytes: &mut Vec<u8>) {
        encode_bare_into(bytes, &self.session);
        encode_bare_into(bytes, &self.records);
        put_wants(bytes, &self.wants);
        put_heads(bytes, &self.heads);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, BadFrame> {
        Ok(Self {
            session: fields.value()?,
            records: fields.value()?,
            wants: wants(fields)?,
            heads: heads(fields)?,
        })
    }
}
