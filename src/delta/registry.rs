//! Every codec, and the choice among them.

use crate::delta::aligned::Aligned;
use crate::delta::codec::{Codec, CodecId, Effort, Encoded};
use crate::delta::compress::compress;
use crate::delta::copy::CopyDelta;
use crate::delta::error::DeltaError;
use crate::delta::masked::Masked;
use crate::delta::raw::Raw;
use crate::delta::whole::{Whole, whole_within};

/// Candidate bases that are tried at most, for states where trying is cheap.
const CANDIDATES_MAX: usize = 4;
/// Longest state in bytes for which more than the first candidate is tried.
const CHEAP_STATE: usize = 64 << 10;
/// A delta this many times smaller than the state ends the search.
const GOOD_RATIO: usize = 8;
/// The sample that tells how well a state compresses by itself: pieces, and bytes a piece.
const SAMPLE_PIECES: usize = 32;
const SAMPLE_PIECE: usize = 1 << 10;
/// How many times smaller a delta is than what the sample promises when compression of the whole is
/// not tried: what repeats over longer distances than a piece is not seen there.
const FAR: u64 = 2;
/// What part of a delta one that is undone much faster may be larger.
const LITTLE: usize = 32;
/// Samples that zstd makes this many times smaller say that it will not take long.
const EASY_RATIO: usize = 16;

/// Every codec of this build, in order of wire id.
pub fn all() -> &'static [&'static dyn Codec] {
    &[&Raw, &Whole, &CopyDelta, &Aligned, &Masked]
}

/// The codec of a wire id.
pub fn codec(id: CodecId) -> Option<&'static dyn Codec> {
    all().iter().copied().find(|codec| codec.id() == id)
}

/// Encodes `new` as small as the effort allows; never larger than `new` itself.
///
/// `candidates` are versions that the receiver holds, the one most like `new` first. The others
/// are tried only for short states, and only while no good delta was found.
pub fn encode_smallest(candidates: &[&[u8]], new: &[u8], effort: Effort) -> Encoded {
    encode_for(CodecId::NEWEST, candidates, new, effort)
}

/// As [`encode_smallest`], for a receiver that knows no codec beyond `newest`.
pub fn encode_for(newest: CodecId, candidates: &[&[u8]], new: &[u8], effort: Effort) -> Encoded {
    let tries = if new.len() <= CHEAP_STATE {
        CANDIDATES_MAX
    } else {
        1
    };
    let mut best: Option<Encoded> = None;
    for (index, base) in candidates.iter().enumerate().take(tries) {
        let base = Some((index, *base));
        keep_smaller(&mut best, &Aligned, base, new, effort);
        if new.len() <= CHEAP_STATE {
            keep_smaller(&mut best, &CopyDelta, base, new, effort);
        }
        if is_good(best.as_ref(), new) {
            break;
        }
        if newest >= CodecId::MASKED {
            keep_masked(&mut best, base, new, effort);
        }
    }
    if !is_good(best.as_ref(), new)
        || new.len() <= CHEAP_STATE
        || !is_far_smaller(best.as_ref(), new)
    {
        keep_whole(&mut best, new, effort);
    }
    best.filter(|encoded| encoded.payload.len() < new.len())
        .unwrap_or_else(|| Encoded {
            codec: CodecId::RAW,
            base: None,
            payload: new.to_vec(),
        })
}

/// Gets back what [`encode_smallest`] or one of the codecs made, given the base it was made from.
///
/// # Errors
/// [`DeltaError`] when the codec is not known, or the payload does not give exactly
/// `expected_len` bytes.
pub fn decode(
    id: CodecId,
    base: Option<&[u8]>,
    payload: &[u8],
    expected_len: usize,
) -> Result<Vec<u8>, DeltaError> {
    codec(id)
        .ok_or(DeltaError::UnknownCodec(id.0))?
        .decode(base, payload, expected_len)
}

fn is_good(best: Option<&Encoded>, new: &[u8]) -> bool {
    best.is_some_and(|encoded| encoded.payload.len() * GOOD_RATIO <= new.len())
}

/// True when the state's own compression is no match: a sample of it takes far more than its share of
/// the delta. Never true of what compresses so well that trying it takes next to no time.
fn is_far_smaller(best: Option<&Encoded>, new: &[u8]) -> bool {
    let distance = (new.len() / SAMPLE_PIECES).max(SAMPLE_PIECE);
    let pieces = new
        .chunks(distance)
        .map(|piece| &piece[..piece.len().min(SAMPLE_PIECE)]);
    let sample = pieces.collect::<Vec<&[u8]>>().concat();
    let Some(best) = best else {
        return false;
    };
    compress(&sample, 1).is_ok_and(|frame| {
        let whole = frame.len() as u64 * new.len() as u64 / sample.len().max(1) as u64;
        best.payload.len() as u64 * FAR <= whole && frame.len() * EASY_RATIO > sample.len()
    })
}

/// Replaces `best` by what `codec` makes of `new`, if that is smaller. A codec that fails for want
/// of memory is one that cannot help.
fn keep_smaller(
    best: &mut Option<Encoded>,
    codec: &dyn Codec,
    base: Option<(usize, &[u8])>,
    new: &[u8],
    effort: Effort,
) {
    let (index, base) = base.unzip();
    let Ok(Some(payload)) = codec.encode(base, new, effort) else {
        return;
    };
    if best
        .as_ref()
        .is_none_or(|b| payload.len() < b.payload.len())
    {
        *best = Some(Encoded {
            codec: codec.id(),
            base: index,
            payload,
        });
    }
}

/// Replaces `best` by what `masked` makes of `new`, if that is smaller or little larger: it is undone ten
/// times as fast.
fn keep_masked(
    best: &mut Option<Encoded>,
    base: Option<(usize, &[u8])>,
    new: &[u8],
    effort: Effort,
) {
    let mut masked = None;
    keep_smaller(&mut masked, &Masked, base, new, effort);
    let most = best.as_ref().map_or(usize::MAX, |best| {
        best.payload.len() + best.payload.len() / LITTLE
    });
    if masked.as_ref().is_some_and(|m| m.payload.len() <= most) {
        *best = masked;
    }
}

/// Replaces `best` by a frame of the whole, if that is smaller.
fn keep_whole(best: &mut Option<Encoded>, new: &[u8], effort: Effort) {
    let shortest = best.as_ref().map_or(new.len(), |best| best.payload.len());
    if let Some(payload) = whole_within(new, effort, shortest.saturating_sub(1)) {
        *best = Some(Encoded {
            codec: CodecId::WHOLE,
            base: None,
            payload,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::archive;
    use crate::delta::compress::compress;
    use crate::delta::sample::noise;

    fn text(seed: u32, lines: u32) -> Vec<u8> {
        let line = |n: u32| format!("unit {} at {}\n", n, (n + seed) * 7919 % 1000);
        (0..lines).flat_map(|n| line(n).into_bytes()).collect()
    }

    #[test]
    fn wire_ids_are_stable_and_unique() {
        let ids = all().iter().map(|codec| (codec.id().0, codec.name()));
        assert!(ids.eq([
            (0, "raw"),
            (1, "zstd"),
            (2, "copy"),
            (3, "aligned"),
            (5, "masked")
        ]));
        assert!(all().iter().all(|c| codec(c.id()).unwrap().id() == c.id()));
        assert!(codec(CodecId::TOGETHER).is_none());
        for unknown in [CodecId::TOGETHER.0, 6] {
            let decoded = decode(CodecId(unknown), None, b"", 0);
            assert_eq!(decoded, Err(DeltaError::UnknownCodec(unknown)));
        }
        let missing = decode(CodecId::COPY, None, b"\0", 0);
        assert_eq!(missing, Err(DeltaError::MissingBase("copy")));
    }

    #[test]
    fn the_smallest_way_is_taken() {
        let state = text(1, 300);
        let near = [&state[..2000], b"edit", &state[2000..]].concat();
        let far = noise(3000, 9);
        let empty = Vec::new();
        let cases = [
            (vec![], &state, CodecId::WHOLE, None),
            (vec![&near[..]], &state, CodecId::COPY, Some(0)),
            (vec![&far, &near], &state, CodecId::COPY, Some(1)),
            (vec![&far], &state, CodecId::WHOLE, None),
            (vec![&state, &near], &far, CodecId::RAW, None),
            (vec![&state], &empty, CodecId::RAW, None),
        ];
        for (number, (candidates, new, codec, base)) in cases.into_iter().enumerate() {
            for effort in [Effort::Fast, Effort::Small] {
                let encoded = encode_smallest(&candidates, new, effort);
                assert_eq!(
                    (encoded.codec, encoded.base),
                    (codec, base),
                    "case {number}"
                );
                assert!(encoded.payload.len() <= new.len());
                let base = encoded.base.map(|index| candidates[index]);
                let decoded = decode(encoded.codec, base, &encoded.payload, new.len());
                assert_eq!(decoded.as_ref(), Ok(new));
                assert!(decode(encoded.codec, base, &encoded.payload, new.len() + 1).is_err());
            }
        }
    }

    #[test]
    fn what_changed_everywhere_goes_masked_to_those_who_know_it() {
        let base = noise(100_000, 9);
        let (mut new, random) = (base.clone(), noise(40_000, 8));
        for (place, pair) in random.chunks_exact(2).enumerate() {
            new[place * 5 + usize::from(pair[0] % 5)] = pair[1];
        }
        let made = encode_smallest(&[&base], &new, Effort::Fast);
        let older = encode_for(CodecId::TOGETHER, &[&base], &new, Effort::Fast);
        assert_eq!(made.codec, CodecId::MASKED);
        assert!(older.codec < CodecId::MASKED);
        assert!(made.payload.len() <= older.payload.len() * 33 / 32);
        for one in [made, older] {
            let base = one.base.map(|_| &base[..]);
            let decoded = decode(one.codec, base, &one.payload, new.len());
            assert!(decoded.as_ref() == Ok(&new));
        }
    }

    #[test]
    fn unrelated_noise_goes_raw_whatever_its_length() {
        let noise = noise(200_000, 9);
        for len in [1, 100, 1000, 70_000] {
            let new = &noise[..len];
            let encoded = encode_smallest(&[&noise[100_000..]], new, Effort::Fast);
            assert_eq!(
                (encoded.codec, encoded.payload.as_slice()),
                (CodecId::RAW, new)
            );
        }
    }

    #[test]
    fn what_zstd_makes_smallest_goes_whole() {
        let mut repeated = noise(5000, 3).repeat(40);
        let unlike = noise(200_000, 4);
        let zeros = vec![0; 300_000];
        let mut speckled = zeros.clone();
        (0..300).for_each(|place| speckled[place * 1000] = 1 + place as u8 % 9);
        repeated.extend_from_slice(&unlike[..64]);
        // Both would do, but there is more that changed than the whole comes to.
        let pattern = noise(100, 5).repeat(300);
        let mut worn = pattern.clone();
        (0..3000).for_each(|place| worn[place * 10] ^= noise(1, place as u64 + 1)[0] | 1);
        for (base, new) in [
            (&worn, &pattern),
            (&unlike, &repeated),
            (&speckled, &zeros),
            (&zeros, &speckled),
        ] {
            let whole = compress(new, 3).unwrap().len();
            let encoded = encode_smallest(&[base], new, Effort::Fast);
            assert!(
                encoded.payload.len() <= whole + 16,
                "{} {whole}",
                encoded.payload.len()
            );
        }
    }

    /// Bytes of deltas between consecutive versions, and of the same versions sent whole.
    fn bytes_sent(series: &[Vec<u8>], effort: Effort) -> (usize, usize) {
        let (mut deltas, mut whole) = (0, 0);
        for pair in series.windows(2) {
            let encoded = encode_smallest(&[&pair[0]], &pair[1], effort);
            assert_eq!(encoded.codec, CodecId::ALIGNED);
            let decoded = decode(
                CodecId::ALIGNED,
                Some(&pair[0]),
                &encoded.payload,
                pair[1].len(),
            );
            assert!(decoded.as_ref() == Ok(&pair[1]));
            deltas += encoded.payload.len();
            whole += compress(&pair[1], 3).unwrap().len();
        }
        (deltas, whole)
    }

    #[test]
    fn consecutive_saves_of_real_games_cost_a_fraction() {
        let index = include_str!("../../tests/fixtures/game-states.tsv");
        let pack = include_bytes!("../../tests/fixtures/game-states.pack");
        let entries = archive::read(index, pack).unwrap();
        for (name, effort, percent) in [
            ("freeciv", Effort::Fast, 13),
            ("freeciv", Effort::Small, 11),
            ("openttd", Effort::Fast, 26),
            ("openttd", Effort::Small, 23),
        ] {
            let of_series = entries.iter().filter(|entry| entry.series == name);
            let series: Vec<Vec<u8>> = of_series.map(|e| e.bytes.clone()).take(4).collect();
            let (deltas, whole) = bytes_sent(&series, effort);
            assert!(
                deltas * 100 <= whole * percent,
                "{name} {effort:?}: {deltas} bytes of {whole}"
            );
        }
    }
}
