//! The receiver's side of a transfer: the bytes of each wanted version, checked against the content
//! hash of its record.

use bytes::Bytes;

use crate::delta::codec::CodecId;
use crate::delta::registry::decode;
use crate::replica::view::View;
use crate::sync::news::Wanted;
use crate::sync::together::{Shared, Together};
use crate::sync::transfer::{TransferError, held_content};
use crate::types::hash::ContentHash;
use crate::types::limits::WHOLE_STATE_MAX;
use crate::wire::messages::BodyHead;

/// Decodes bodies in order and checks each against its content hash.
///
/// # Errors
/// [`TransferError`] at the first body that is not what its record says; none is to be kept then.
/// A version that the sender cannot read is no fault of the message: it comes back as `None`.
pub fn decode_bodies(
    view: &View,
    wanted: &[Wanted],
    heads: &[BodyHead],
    blob: &[u8],
    shared: Shared<'_>,
    decoder: &mut Decoder,
) -> Result<Vec<Option<Bytes>>, TransferError> {
    let mut together = Together::of(shared, wanted, heads)?;
    each_body(wanted, heads, blob, |wanted, head, payload| {
        decoder.decode(view, &mut together, wanted, head, payload)
    })
}

/// Takes the bodies of an answer apart and makes something of each that is there.
///
/// # Errors
/// [`TransferError`] when the answer does not fit what was `wanted`, or the first of `make`.
pub fn each_body<W, B>(
    wanted: &[W],
    heads: &[BodyHead],
    blob: &[u8],
    mut make: impl FnMut(&W, &BodyHead, &[u8]) -> Result<B, TransferError>,
) -> Result<Vec<Option<B>>, TransferError> {
    if heads.is_empty() || heads.len() > wanted.len() {
        return Err(TransferError::Malformed("the number of bodies is wrong"));
    }
    let mut rest = blob;
    let mut bodies = Vec::with_capacity(heads.len());
    for (wanted, head) in wanted.iter().zip(heads) {
        if head.codec == BodyHead::MISSING {
            bodies.push(None);
            continue;
        }
        let (payload, behind) = rest
            .split_at_checked(head.length as usize)
            .ok_or(TransferError::Malformed("a body ends too early"))?;
        rest = behind;
        bodies.push(Some(make(wanted, head, payload)?));
    }
    if !rest.is_empty() {
        return Err(TransferError::Malformed("bytes are left behind the bodies"));
    }
    Ok(bodies)
}

/// Decodes bodies one after the other, and remembers the last one, since the next may be a delta
/// against it.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Key and content hash, 64 bits of each, and the bytes.
    last: Option<(u64, u64, Bytes)>,
}

impl Decoder {
    /// Decodes one body and checks it against its content hash.
    ///
    /// # Errors
    /// [`TransferError`] when it is not what its record says.
    pub fn decode(
        &mut self,
        view: &View,
        together: &mut Together<'_>,
        wanted: &Wanted,
        head: &BodyHead,
        payload: &[u8],
    ) -> Result<Bytes, TransferError> {
        if CodecId(head.codec) == CodecId::TOGETHER {
            let bytes = together.next(wanted, head, payload)?;
            return self.check(wanted, bytes);
        }
        if wanted.version.size > WHOLE_STATE_MAX {
            return Err(TransferError::NotInChunks(wanted.id.clone()));
        }
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
        self.check(wanted, bytes)
    }

    fn check(&mut self, wanted: &Wanted, bytes: Vec<u8>) -> Result<Bytes, TransferError> {
        if !ContentHash::of(&bytes).matches(&wanted.version.content) {
            return Err(TransferError::WrongHash(wanted.id.clone()));
        }
        let bytes = Bytes::from(bytes);
        let content = wanted.version.content.prefix64();
        self.last = Some((wanted.want.state, content, bytes.clone()));
        Ok(bytes)
    }

    fn base(&self, view: &View, wanted: &Wanted, index: u8) -> Result<Bytes, TransferError> {
        let want = &wanted.want;
        let hint = want
            .bases
            .get(usize::from(index))
            .ok_or(TransferError::Malformed("a body names an unknown base"))?;
        let state = hint.state.unwrap_or(want.state);
        if let Some((last_state, last_content, bytes)) = &self.last
            && (*last_state, *last_content) == (state, hint.content)
        {
            return Ok(bytes.clone());
        }
        let held = held_content(view, state, hint.content, WHOLE_STATE_MAX)?;
        let held = held.map(Bytes::from);
        held.ok_or_else(|| TransferError::BaseGone(wanted.id.clone()))
    }
}
