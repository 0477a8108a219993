//! Short versions without a base in one frame, made with a dictionary that both sides have.
//!
//! The head of the first one has the codec [`CodecId::TOGETHER`], the dictionary as its base and the frame
//! as its payload; the heads of the others have the same codec and nothing else. The frame holds the
//! bytes of all of them, in order.

use crate::delta::codec::CodecId;
use crate::delta::compress::compress;
use crate::delta::dictionary::{Dictionary, TOGETHER_MAX};
use crate::sync::dictionaries::Dictionaries;
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::news::Wanted;
use crate::sync::transfer::{SMALL_STATE, TransferError};
use crate::sync::transport::TransportError;
use crate::wire::compact::put_heads;
use crate::wire::messages::{
    BaseHint, BodyHead, DictionaryReply, DictionaryRequest, Endpoint, Want,
};
use crate::wire::packing::level;

/// What the frame of a message leaves away.
const ZSTD_MAGIC_BYTES: usize = 4;
/// How many bytes that came together count as one that came alone.
pub const TOGETHER_SHARE: u64 = 8;

/// Puts together what can be, when the receiver of the `wants` has said that it has a dictionary which is
/// here, too, and it helps.
pub fn put_together(
    dictionaries: &Dictionaries,
    wants: &[Want],
    heads: &mut [BodyHead],
    blob: Vec<u8>,
) -> Vec<u8> {
    let made = dictionaries
        .common(wants)
        .and_then(|(place, common)| with(&common, place, heads, &blob, dictionaries));
    made.unwrap_or_else(|| by_itself(heads, blob))
}

/// A short version that is the only one of its message goes as a frame of its own where it would take
/// more in one frame with the head of the message: a byte in front may hide from zstd what it would find.
fn by_itself(heads: &mut [BodyHead], blob: Vec<u8>) -> Vec<u8> {
    let mut behind_head = Vec::new();
    match heads {
        [head] if is_alone(head) => put_heads(&mut behind_head, heads),
        _ => return blob,
    }
    behind_head.extend_from_slice(&blob);
    let [own, of_message] =
        [&blob, &behind_head].map(|bytes| compress(bytes, level(Endpoint::Bodies.kind(), bytes)));
    match (own, of_message) {
        (Ok(own), Ok(of_message))
            if own.len() + ZSTD_MAGIC_BYTES < of_message.len().min(blob.len()) =>
        {
            for head in heads {
                head.codec = CodecId::WHOLE.0;
                head.length = own.len() as u32;
            }
            own
        }
        _ => blob,
    }
}

fn is_alone(head: &BodyHead) -> bool {
    CodecId(head.codec) == CodecId::RAW && (1..=SMALL_STATE as u32).contains(&head.length)
}

/// The blob with the frame in it, and `heads` changed accordingly; `None` when that is not smaller.
fn with(
    dictionary: &Dictionary,
    place: u8,
    heads: &mut [BodyHead],
    blob: &[u8],
    dictionaries: &Dictionaries,
) -> Option<Vec<u8>> {
    let total: usize = heads
        .iter()
        .filter(|head| is_alone(head))
        .map(|head| head.length as usize)
        .sum();
    if !(1..=TOGETHER_MAX).contains(&total) {
        return None;
    }
    let (mut alone, mut at, mut rest) = (Vec::with_capacity(total), 0, blob);
    // Where the frame is to stand among what is left.
    let (mut others, mut frame_at) = (Vec::new(), None);
    for head in &*heads {
        let (payload, behind) = rest.split_at_checked(head.length as usize)?;
        rest = behind;
        if is_alone(head) {
            frame_at = frame_at.or(Some(at));
            alone.extend_from_slice(payload);
        } else {
            at += payload.len();
            others.extend_from_slice(payload);
        }
    }
    let frame = dictionary.compress(&alone).ok()?;
    let plain = compress(&alone, level(Endpoint::Bodies.kind(), &alone))
        .map_or(total, |plain| plain.len().min(total));
    dictionaries.note_use(total, frame.len().min(plain), plain);
    let (before, behind) = others.split_at_checked(frame_at?)?;
    if frame.len() >= plain {
        return None;
    }
    let (mut base, mut length) = (Some(place), frame.len() as u32);
    for head in heads.iter_mut().filter(|head| is_alone(head)) {
        *head = BodyHead {
            codec: CodecId::TOGETHER.0,
            base: base.take(),
            length: std::mem::take(&mut length),
        };
    }
    Some([before, &frame, behind].concat())
}

/// What the wants of a message name at the first of them.
pub fn hints(wants: &[Want]) -> &[BaseHint] {
    wants.first().map_or(&[], |first| &first.bases)
}

/// Bytes of short versions that travelled alone although others like them might have been known, unless
/// there were so many that they have enough in common with each other. One that came by itself counts as many
/// bytes as its `message` had, at most.
pub fn alone_bytes(wants: &[Want], heads: &[BodyHead], message: u64) -> u64 {
    let is_known = |want: &Want| want.bases.iter().any(|hint| !hint.is_dictionary());
    let both = wants.iter().zip(heads);
    let short = |head: &BodyHead| {
        let whole = CodecId(head.codec) == CodecId::WHOLE;
        is_alone(head) || (whole && u64::from(head.length) <= SMALL_STATE)
    };
    let alone = both.filter(|(want, head)| short(head) && !is_known(want));
    let bytes = alone.fold(0, |bytes, (_, head)| bytes + u64::from(head.length));
    match heads {
        [_] => bytes.min(message),
        _ if bytes > TOGETHER_MAX as u64 => 0,
        _ => bytes,
    }
}

/// What versions that came together count for in [`ask_when_missed`]: the peer may have a better dictionary by
/// now, which is worth a question now and then.
pub fn together_share(wanted: &[Wanted], heads: &[BodyHead]) -> u64 {
    let both = wanted.iter().zip(heads);
    let together = both.filter(|(_, head)| CodecId(head.codec) == CodecId::TOGETHER);
    let bytes: u64 = together.map(|(wanted, _)| wanted.version.size).sum();
    bytes / TOGETHER_SHARE
}

/// Counts bytes that travelled without a dictionary, and asks the peer for its own when that has happened
/// often enough. One that has none, or knows nothing of dictionaries, is asked ever more seldom.
///
/// # Errors
/// [`SessionError`] when there is no usable answer, or the dictionary is not what it is said to be.
pub fn ask_when_missed(
    exchange: &mut Exchange<'_>,
    dictionaries: &Dictionaries,
    bytes: u64,
) -> Result<(), SessionError> {
    if bytes == 0 || !dictionaries.missed(bytes) {
        return Ok(());
    }
    let head = DictionaryRequest {
        held: dictionaries.names(),
    };
    let asked = exchange.ask("state_transfer", Endpoint::Dictionary, &head, &[]);
    let (reply, bytes) = match asked {
        Err(SessionError::Transport(TransportError::Refused { .. })) => {
            (DictionaryReply { hash: None }, Vec::new())
        }
        asked => asked?,
    };
    Ok(dictionaries.take(&reply, bytes)?)
}

/// The dictionaries that a message may use.
#[derive(Debug, Clone, Copy)]
pub struct Shared<'a> {
    /// Those that are here.
    pub dictionaries: &'a Dictionaries,
    /// What the receiver has named.
    pub hints: &'a [BaseHint],
}

/// The bytes of versions that came together, as far as they have not been taken out yet.
#[derive(Debug)]
pub struct Together<'a> {
    shared: Shared<'a>,
    /// Bytes that they have in all.
    total: usize,
    left: Option<Vec<u8>>,
    taken: usize,
}

impl<'a> Together<'a> {
    /// Looks at the heads of a message.
    ///
    /// # Errors
    /// [`TransferError`] when versions come together that are too long, or too many.
    pub fn of(
        shared: Shared<'a>,
        wanted: &[Wanted],
        heads: &[BodyHead],
    ) -> Result<Self, TransferError> {
        let both = wanted.iter().zip(heads);
        let together = both.filter(|(_, head)| CodecId(head.codec) == CodecId::TOGETHER);
        let mut total: u64 = 0;
        for (wanted, _) in together {
            if wanted.version.size > SMALL_STATE {
                return Err(TransferError::Malformed("a long state among short ones"));
            }
            total += wanted.version.size;
        }
        if total > TOGETHER_MAX as u64 {
            return Err(TransferError::Malformed("too many states in one frame"));
        }
        Ok(Self {
            shared,
            total: total as usize,
            left: None,
            taken: 0,
        })
    }

    /// The bytes of the next one. `first` is the first want of the message.
    ///
    /// # Errors
    /// [`TransferError`] when there is no frame, or it does not decode.
    pub fn next(
        &mut self,
        wanted: &Wanted,
        head: &BodyHead,
        payload: &[u8],
    ) -> Result<Vec<u8>, TransferError> {
        let content = match (self.left.take(), head.base) {
            (Some(content), None) if payload.is_empty() => content,
            (None, Some(place)) => {
                let hint = self.shared.hints.get(usize::from(place));
                let hint = hint.filter(|hint| hint.is_dictionary());
                let hint = hint.ok_or(TransferError::Malformed("a frame without dictionary"))?;
                let dictionary = self.shared.dictionaries.named(hint);
                let dictionary = dictionary.ok_or(TransferError::DictionaryGone)?;
                let content = dictionary.decompress(payload, self.total);
                content.map_err(|source| TransferError::Undecodable {
                    id: wanted.id.clone(),
                    source,
                })?
            }
            _ => return Err(TransferError::Malformed("no frame, or a second one")),
        };
        let behind = content.get(self.taken..).unwrap_or_default();
        let bytes = behind.get(..wanted.version.size as usize);
        let bytes = bytes.map(<[u8]>::to_vec);
        self.taken += wanted.version.size as usize;
        self.left = Some(content);
        bytes.ok_or(TransferError::Malformed("a frame ends too early"))
    }
}
