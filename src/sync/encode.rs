//! The sender's side of a transfer: each wanted version in the smallest form that the receiver can
//! decode.

use tracing::error;

use crate::delta::codec::{Codec, CodecId, Effort, Encoded};
use crate::delta::compress::compress;
use crate::delta::copy::CopyDelta;
use crate::delta::registry::encode_for;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::sync::transfer::{SMALL_STATE, TransferError, held_content, record_at};
use crate::types::limits::WHOLE_STATE_MAX;
use crate::wire::messages::{BASES_MAX, BodyHead, Want};
use crate::wire::version::Protocol;

/// State bytes of one message that are encoded with more effort, at 10 to 15 ms a MiB: a few saves
/// now and then are worth it, the bulk of a copy is not held up.
const CARE_BYTES: usize = 4 << 20;
/// Longest state for which more than one base is read.
const CHEAP_STATE: usize = 64 << 10;

/// Deltas up to this many bytes cost no more than the frame of any state.
const TINY_DELTA: usize = 16;
/// States up to this many bytes seldom take less than an eighth of them in a frame.
const TINY_STATE: usize = 512;

/// Encodes the versions of one message.
pub struct Encoder<'v> {
    view: &'v View,
    care: usize,
    /// State bytes that may still be read for this message.
    work: usize,
    /// Longest state that is read unless it is the message's first.
    longest: u64,
    /// The newest codec that the receiver knows.
    newest: CodecId,
}

impl<'v> Encoder<'v> {
    /// An encoder of versions that `view` holds, for a receiver that reads a version of the protocol, which stops
    /// after reading `work` bytes of states.
    pub fn new(view: &'v View, receiver: Protocol, work: usize) -> Self {
        Self {
            view,
            care: CARE_BYTES,
            work,
            longest: WHOLE_STATE_MAX,
            newest: receiver.newest_codec(),
        }
    }

    /// Leaves states above `longest` bytes to the next message, unless they are the first of this one.
    #[must_use]
    pub fn up_to(self, longest: u64) -> Self {
        Self { longest, ..self }
    }

    /// Encodes the first wants, as many as fit into `bytes_max` and the work, at least one.
    ///
    /// # Errors
    /// [`TransferError`] when a want names no record of the view, or the store fails.
    pub fn encode(
        &mut self,
        wants: &[Want],
        bytes_max: u64,
    ) -> Result<(Vec<BodyHead>, Vec<u8>), TransferError> {
        let (mut heads, mut blob) = (Vec::new(), Vec::new());
        for want in wants {
            let full = blob.len() as u64 >= bytes_max || self.work == 0;
            if full && !heads.is_empty() {
                break;
            }
            match self.body(want, &mut blob, heads.is_empty())? {
                Some(head) => heads.push(head),
                None => break,
            }
        }
        Ok((heads, blob))
    }

    /// `None` when the state is for another message.
    fn body(
        &mut self,
        want: &Want,
        blob: &mut Vec<u8>,
        is_first: bool,
    ) -> Result<Option<BodyHead>, TransferError> {
        let row = record_at(self.view, want.state)?;
        let row = row.ok_or(TransferError::Malformed("a want names an unknown state"))?;
        let (version, placement) = row
            .placed()
            .nth(usize::from(want.version))
            .ok_or(TransferError::Malformed("a want names an unknown version"))?;
        if version.size > WHOLE_STATE_MAX {
            return Err(TransferError::NotInChunks(row.record.id.clone()));
        }
        if version.size > self.longest && !is_first {
            return Ok(None);
        }
        let bytes = match self.view.snapshot().content(version, placement) {
            Ok(Some(bytes)) => bytes,
            Ok(None) if version.tombstone => {
                return Err(TransferError::Malformed("a want names a deletion"));
            }
            // It has expired by our clock, and not yet by the receiver's.
            Ok(None) => return Ok(Some(BodyHead::missing())),
            Err(StoreError::Damaged(what)) => {
                error!(id = %row.record.id, %what, "cannot send a damaged version");
                return Ok(Some(BodyHead::missing()));
            }
            Err(error) => return Err(error.into()),
        };
        let held = self.bases(want, bytes.len())?;
        let read: usize = held.iter().map(|(_, base)| base.len()).sum();
        self.work = self.work.saturating_sub(bytes.len() + read);
        let bases: Vec<&[u8]> = held.iter().map(|(_, base)| &base[..]).collect();
        let encoded = encode(self.newest, &bases, &bytes, self.effort(bytes.len()));
        let base = encoded.base.and_then(|chosen| held.get(chosen));
        blob.extend_from_slice(&encoded.payload);
        Ok(Some(BodyHead {
            codec: encoded.codec.0,
            base: base.map(|(index, _)| *index),
            length: encoded.payload.len() as u32,
        }))
    }

    /// The wanted bases that are held here, with their places in the want.
    fn bases(&self, want: &Want, size: usize) -> Result<Vec<(u8, Vec<u8>)>, TransferError> {
        // What is much longer than the state is no base that is worth its memory.
        let longest = self.longest.max(size as u64 * 2).min(WHOLE_STATE_MAX);
        let tries = if size <= CHEAP_STATE { BASES_MAX } else { 1 };
        let mut held = Vec::new();
        for (index, hint) in (0u8..).zip(&want.bases).take(tries) {
            let state = hint.state.unwrap_or(want.state);
            if let Some(base) = held_content(self.view, state, hint.content, longest)? {
                held.push((index, base));
            }
        }
        Ok(held)
    }

    fn effort(&mut self, size: usize) -> Effort {
        let effort = if size <= self.care {
            Effort::Small
        } else {
            Effort::Fast
        };
        self.care = self.care.saturating_sub(size);
        effort
    }
}

fn encode(newest: CodecId, bases: &[&[u8]], bytes: &[u8], effort: Effort) -> Encoded {
    if bytes.len() as u64 > SMALL_STATE {
        return encode_for(newest, bases, bytes, effort);
    }
    let delta = bases
        .first()
        .and_then(|base| CopyDelta.encode(Some(base), bytes, effort).ok().flatten());
    match delta {
        Some(payload) if is_worthwhile(&payload, bytes) => Encoded {
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

/// True when a short state's delta is no more than the state takes in the frame around the batch. What
/// that comes to is only tried out where a guess may be wrong: zeros take less than most deltas.
fn is_worthwhile(delta: &[u8], bytes: &[u8]) -> bool {
    let (cost, size) = (delta.len(), bytes.len());
    let is_clear = cost <= TINY_DELTA || (size <= TINY_STATE && cost * 8 <= size);
    if is_clear || cost * 2 > size {
        return cost * 2 <= size;
    }
    compress(bytes, Effort::Fast.level()).is_ok_and(|frame| cost <= frame.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delta::sample::{any_edit, apply, noise, text};
    use crate::sync::dictionaries::Dictionaries;
    use crate::sync::together::put_together;
    use crate::wire::frame::seal_for;
    use crate::wire::messages::BodyHeads;
    use crate::wire::packing::level;

    /// What a state may cost over a zstd frame of it, its head included.
    const OVERHEAD: usize = 16;

    /// States of many kinds: random, text, repeated, zeros with specks, packed, and mixtures.
    fn any_state() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![0usize..300, 0usize..6000, 60_000usize..200_000];
        (length, 0u8..7, 1u64..).prop_map(|(length, kind, seed)| match kind {
            0 => noise(length, seed),
            1 => text(length),
            2 => noise(1 + length / 50, seed).repeat(50),
            3 => {
                let mut zeros = vec![0; length];
                zeros
                    .iter_mut()
                    .step_by(997)
                    .for_each(|byte| *byte = seed as u8);
                zeros
            }
            4 => compress(&text(length * 4), 1).unwrap(),
            5 => [text(length / 2), noise(length / 2, seed)].concat(),
            _ => noise(length, seed).iter().map(|byte| byte % 7).collect(),
        })
    }

    /// Bases of all sorts: none, a version before, something else, both.
    fn with_bases() -> impl Strategy<Value = (Vec<u8>, Vec<Vec<u8>>)> {
        let edits = proptest::collection::vec(any_edit(), 1..4);
        (any_state(), any_state(), edits, 0u8..4).prop_map(|(state, other, edits, which)| {
            let mut before = state.clone();
            edits.iter().for_each(|edit| apply(&mut before, edit));
            let bases = match which {
                0 => Vec::new(),
                1 => vec![before],
                2 => vec![other],
                _ => vec![other, before],
            };
            (state, bases)
        })
    }

    #[test]
    fn a_delta_that_costs_more_than_a_frame_is_not_taken() {
        let (mut state, mut base) = (vec![0; 156], vec![0; 10]);
        (state[0], base[0]) = (1, 49);
        let encoded = encode(CodecId::NEWEST, &[&base], &state, Effort::Small);
        assert_eq!(encoded.codec, CodecId::RAW, "{:?}", encoded.payload);
        let similar = [&state[..], &noise(20, 1)].concat();
        let encoded = encode(CodecId::NEWEST, &[&state], &similar, Effort::Small);
        assert_eq!(encoded.codec, CodecId::COPY);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn a_state_never_costs_more_than_a_zstd_frame_of_it_and_16_bytes(
            (state, bases) in with_bases(),
            fast: bool,
        ) {
            let bases: Vec<&[u8]> = bases.iter().map(Vec::as_slice).collect();
            let effort = if fast { Effort::Fast } else { Effort::Small };
            let encoded = encode(CodecId::NEWEST, &bases, &state, effort);
            let head = BodyHead {
                codec: encoded.codec.0,
                base: encoded.base.map(|base| base as u8),
                length: encoded.payload.len() as u32,
            };
            let sealed = |heads, blob: &[u8]| seal_for(Protocol::V4, 6, &BodyHeads { heads }, blob);
            let nothing = sealed(Vec::new(), &[]).len();
            let want = Want { state: 1, version: 0, bases: Vec::new() };
            let mut heads = vec![head];
            let none = Dictionaries::default();
            let blob = put_together(&none, &[want], &mut heads, encoded.payload);
            let message = sealed(heads, &blob);
            // By the levels of messages and of the codec; now and then the higher one does worse.
            let of_level = |level| compress(&state, level).unwrap().len();
            let whole = of_level(level(6, &state)).max(of_level(effort.level()));
            prop_assert!(
                message.len() <= nothing + whole + OVERHEAD,
                "{} bytes as {:?} where zstd takes {whole}", message.len(), encoded.codec
            );
        }
    }
}
