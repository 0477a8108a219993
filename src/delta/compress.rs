//! zstd with bounded output: for values at rest, network frames, and patches against a prefix.
//!
//! Frames are standard (RFC 8878). Decoding happens in one call into a buffer of bounded size, so
//! zstd needs no window buffer of its own, and a frame's claimed window costs no memory.
//!
//! Contexts for inputs up to 256 KiB are kept for each thread, because making one
//! costs as much as compressing a small value. zstd sizes its tables by the input, so what a
//! thread keeps is bounded too.

use std::cell::RefCell;

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx};

use crate::delta::error::{DeltaError, check_length};

/// First byte of a packed value that is kept as it is.
const TAG_RAW: u8 = 0;
/// First byte of a packed value that is a zstd frame.
const TAG_ZSTD: u8 = 1;
/// Level for values at rest: microseconds a value matter more there than the last percent.
const PACK_LEVEL: i32 = 1;
/// Below this many bytes, a frame's header and tables eat whatever it could save.
const PACK_MIN: usize = 48;
/// Largest input in bytes that is compressed with the thread's own context.
const POOLED_INPUT_MAX: usize = 256 << 10;
/// Prefixes above this many bytes overrun zstd's hash tables; long-distance matching covers them.
const LONG_DISTANCE_FROM: usize = 4 << 20;
/// The largest window that decoders of ordinary command line tools take without asking.
const WINDOW_LOG_MAX: u32 = 27;
/// Smallest window that zstd knows.
const WINDOW_LOG_MIN: u32 = 10;

/// Sample of the incompressibility check: pieces, and bytes a piece.
const SAMPLE_PIECES: usize = 16;
const SAMPLE_PIECE: usize = 256;
/// Shorter inputs say too little about their byte frequencies.
const SAMPLE_MIN: usize = 512;
/// What zstd returns when the content does not fit (`ZSTD_error_dstSize_tooSmall`, negated).
const NO_ROOM: usize = 70usize.wrapping_neg();

thread_local! {
    static COMPRESSOR: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECOMPRESSOR: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Packs a value for storage: a tag byte, then the bytes as they are or as a zstd frame, whichever
/// is smaller. The result is at most one byte longer than the value.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    if bytes.len() >= PACK_MIN && !looks_incompressible(bytes) {
        match compress(bytes, PACK_LEVEL) {
            Ok(frame) if frame.len() < bytes.len() => return [&[TAG_ZSTD], &frame[..]].concat(),
            _ => {}
        }
    }
    [&[TAG_RAW], bytes].concat()
}

/// Undoes [`pack`] for a value of known length in bytes.
///
/// # Errors
/// [`DeltaError`] when the packed bytes are damaged or hold a value of another length.
pub fn unpack(packed: &[u8], expected_len: usize) -> Result<Vec<u8>, DeltaError> {
    match packed.split_first() {
        Some((&TAG_RAW, bytes)) => check_length(bytes.to_vec(), expected_len),
        Some((&TAG_ZSTD, frame)) => decompress_exact(frame, expected_len),
        _ => Err(DeltaError::Malformed("packed value without a known tag")),
    }
}

/// Compresses into one zstd frame that declares its length. Levels as in zstd, 1 to 19.
///
/// # Errors
/// [`DeltaError::Zstd`] when zstd cannot get the memory.
pub fn compress(bytes: &[u8], level: i32) -> Result<Vec<u8>, DeltaError> {
    if bytes.len() > POOLED_INPUT_MAX {
        return compress_in(&mut CCtx::create(), bytes, level);
    }
    COMPRESSOR.with_borrow_mut(|context| compress_in(context, bytes, level))
}

/// As [`compress`], but gives up once the frame would take more than `max_len` bytes, in as large a part of
/// the time.
///
/// # Errors
/// [`DeltaError::Zstd`] when zstd cannot get the memory.
pub fn compress_within(
    bytes: &[u8],
    level: i32,
    max_len: usize,
) -> Result<Option<Vec<u8>>, DeltaError> {
    let room = max_len.min(zstd_safe::compress_bound(bytes.len()));
    let compress = |context: &mut CCtx<'_>| {
        set(context, CParameter::CompressionLevel(level.clamp(1, 19)))?;
        let mut frame = Vec::with_capacity(room);
        match context.compress2(&mut frame, bytes) {
            Ok(_) => Ok(Some(frame)),
            Err(NO_ROOM) => Ok(None),
            Err(code) => Err(zstd_error(code)),
        }
    };
    if bytes.len() > POOLED_INPUT_MAX {
        return compress(&mut CCtx::create());
    }
    COMPRESSOR.with_borrow_mut(compress)
}

/// Decompresses zstd frames of at most `max_len` bytes of content. Frames need not declare their
/// length; when they do, one that exceeds the bound is refused before any memory is taken.
///
/// # Errors
/// [`DeltaError::TooLarge`] over the bound, otherwise what is wrong with the frames.
pub fn decompress(bytes: &[u8], max_len: usize) -> Result<Vec<u8>, DeltaError> {
    DECOMPRESSOR.with_borrow_mut(|context| decompress_in(context, bytes, max_len))
}

/// Decompresses one zstd frame, and nothing behind it, of exactly `exact_len` bytes of content.
///
/// # Errors
/// [`DeltaError`] when it is anything else.
pub fn decompress_exact(bytes: &[u8], exact_len: usize) -> Result<Vec<u8>, DeltaError> {
    check_one_frame(bytes)?;
    check_length(decompress(bytes, exact_len)?, exact_len)
}

/// Compresses into one frame that can copy from `prefix`, which the decoder must have too: the
/// frame of `zstd --patch-from`, and of RFC 9842 behind its header. The two must not lie in the same
/// memory: zstd does not look into a prefix that the input overlaps.
///
/// # Errors
/// [`DeltaError::Zstd`] when zstd cannot get the memory.
pub fn compress_with_prefix(
    bytes: &[u8],
    prefix: &[u8],
    level: i32,
) -> Result<Vec<u8>, DeltaError> {
    let long = prefix.len() > LONG_DISTANCE_FROM;
    compress_patch(bytes, prefix, Patch { level, long })
}

/// How a patch is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// The zstd level, 1 to 19.
    pub level: i32,
    /// Whether matches far away are looked for as well (`--long`).
    pub long: bool,
}

/// As [`compress_with_prefix`], for whoever knows better how.
///
/// # Errors
/// [`DeltaError::Zstd`] when zstd cannot get the memory.
pub fn compress_patch(bytes: &[u8], prefix: &[u8], patch: Patch) -> Result<Vec<u8>, DeltaError> {
    patch_within(bytes, prefix, patch, WINDOW_LOG_MAX)
}

/// As [`compress_with_prefix`], with a window of at most `2^window_log_max` bytes.
///
/// # Errors
/// [`DeltaError::Zstd`] when zstd cannot get the memory.
pub fn compress_windowed(
    bytes: &[u8],
    prefix: &[u8],
    level: i32,
    window_log_max: u32,
) -> Result<Vec<u8>, DeltaError> {
    let long = prefix.len() > LONG_DISTANCE_FROM;
    let patch = Patch { level, long };
    patch_within(bytes, prefix, patch, window_log_max.min(WINDOW_LOG_MAX))
}

fn patch_within(
    bytes: &[u8],
    prefix: &[u8],
    patch: Patch,
    window_log_max: u32,
) -> Result<Vec<u8>, DeltaError> {
    let mut context = CCtx::create();
    let reach = window_log(prefix.len().saturating_add(bytes.len()));
    let window = reach.min(window_log_max);
    set(&mut context, CParameter::WindowLog(window))?;
    if patch.long {
        set(&mut context, CParameter::EnableLongDistanceMatching(true))?;
    }
    context.ref_prefix(prefix).map_err(zstd_error)?;
    compress_in(&mut context, bytes, patch.level)
}

/// Undoes [`compress_with_prefix`] for content of exactly `exact_len` bytes.
///
/// # Errors
/// [`DeltaError`] when the frame is damaged, was made with another prefix, or has another length.
pub fn decompress_with_prefix(
    bytes: &[u8],
    prefix: &[u8],
    exact_len: usize,
) -> Result<Vec<u8>, DeltaError> {
    check_one_frame(bytes)?;
    check_length(decompress_patch(bytes, prefix, exact_len)?, exact_len)
}

/// As [`decompress_with_prefix`], for a sender who does not say the length beforehand: content of
/// at most `max_len` bytes.
///
/// # Errors
/// [`DeltaError::TooLarge`] over the bound, otherwise what is wrong with the frame.
pub fn decompress_patch(
    bytes: &[u8],
    prefix: &[u8],
    max_len: usize,
) -> Result<Vec<u8>, DeltaError> {
    let mut context = DCtx::create();
    context.ref_prefix(prefix).map_err(zstd_error)?;
    decompress_in(&mut context, bytes, max_len)
}

/// True when the byte frequencies of a sample are as even as those of random, encrypted or
/// compressed data. Costs about a microsecond. Random blocks that repeat are taken for
/// incompressible too.
///
/// Measured is the chance that two sampled bytes are equal: 1/256 for random bytes, and at most
/// 15% more with this sample size, while text and game structures have several times that.
pub fn looks_incompressible(bytes: &[u8]) -> bool {
    if bytes.len() < SAMPLE_MIN {
        return false;
    }
    let mut counts = [0u64; 256];
    let mut sampled = 0u64;
    let piece_distance = (bytes.len() / SAMPLE_PIECES).max(SAMPLE_PIECE);
    for piece in bytes.chunks(piece_distance).take(SAMPLE_PIECES) {
        for &byte in piece.iter().take(SAMPLE_PIECE) {
            counts[usize::from(byte)] += 1;
            sampled += 1;
        }
    }
    let equal_pairs: u64 = counts.iter().map(|&n| n * n.saturating_sub(1)).sum();
    equal_pairs * 256 * 100 < 115 * sampled * (sampled - 1)
}

fn compress_in(context: &mut CCtx<'_>, bytes: &[u8], level: i32) -> Result<Vec<u8>, DeltaError> {
    set(context, CParameter::CompressionLevel(level.clamp(1, 19)))?;
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    context.compress2(&mut frame, bytes).map_err(zstd_error)?;
    Ok(frame)
}

fn decompress_in(
    context: &mut DCtx<'_>,
    bytes: &[u8],
    max_len: usize,
) -> Result<Vec<u8>, DeltaError> {
    let bound = content_bound(bytes, max_len)?;
    let mut content = Vec::with_capacity(bound);
    match context.decompress(&mut content, bytes) {
        Ok(_) => Ok(content),
        // Only frames that do not say how long their content is get this far.
        Err(NO_ROOM) if bound == max_len => Err(DeltaError::TooLarge { limit: max_len }),
        Err(code) => Err(zstd_error(code)),
    }
}

/// Refuses several frames, skippable ones and whatever may stand behind a frame.
fn check_one_frame(bytes: &[u8]) -> Result<(), DeltaError> {
    let is_standard = bytes.starts_with(&zstd_safe::MAGICNUMBER.to_le_bytes());
    match zstd_safe::find_frame_compressed_size(bytes) {
        Ok(len) if is_standard && len == bytes.len() => Ok(()),
        _ => Err(DeltaError::Malformed("not exactly one zstd frame")),
    }
}

/// How much memory the content of these frames may need, within `max_len`.
fn content_bound(bytes: &[u8], max_len: usize) -> Result<usize, DeltaError> {
    const NOT_FRAMES: DeltaError = DeltaError::Malformed("not whole zstd frames");
    if bytes.is_empty() {
        return Err(NOT_FRAMES);
    }
    let too_large = DeltaError::TooLarge { limit: max_len };
    match zstd_safe::find_decompressed_size(bytes).map_err(|_| NOT_FRAMES)? {
        Some(declared) => match usize::try_from(declared) {
            Ok(declared) if declared <= max_len => Ok(declared),
            _ => Err(too_large),
        },
        None => {
            let bound = zstd_safe::decompress_bound(bytes).map_err(zstd_error)?;
            Ok(usize::try_from(bound).map_or(max_len, |bound| bound.min(max_len)))
        }
    }
}

/// The smallest window that reaches over this many bytes.
fn window_log(reach: usize) -> u32 {
    let log = reach
        .checked_next_power_of_two()
        .map_or(u32::MAX, usize::ilog2);
    log.clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX)
}

fn set(context: &mut CCtx<'_>, parameter: CParameter) -> Result<(), DeltaError> {
    context
        .set_parameter(parameter)
        .map(drop)
        .map_err(zstd_error)
}

/// What zstd says of a failure.
pub fn zstd_error(code: usize) -> DeltaError {
    DeltaError::Zstd(zstd_safe::get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::sample::noise;

    #[test]
    fn content_of_unknown_length_is_bounded() {
        let content = vec![7; 100_000];
        let mut context = CCtx::create();
        set(&mut context, CParameter::ContentSizeFlag(false)).unwrap();
        let frame = compress_in(&mut context, &content, 3).unwrap();
        assert!(matches!(
            zstd_safe::find_decompressed_size(&frame),
            Ok(None)
        ));
        assert_eq!(decompress(&frame, content.len()).as_ref(), Ok(&content));
        assert_eq!(decompress(&frame, 1 << 20).as_ref(), Ok(&content));
        for limit in [0, 1, 99_999] {
            let refused = Err(DeltaError::TooLarge { limit });
            assert_eq!(decompress(&frame, limit), refused);
            assert_eq!(decompress_patch(&frame, &[], limit), refused);
        }
    }

    #[test]
    fn packed_values_are_at_most_one_byte_longer() {
        for len in [0, 1, 47, 48, 511, 512, 1024, 15_800] {
            for bytes in [noise(len, 9), vec![7; len]] {
                let packed = pack(&bytes);
                assert!(packed.len() <= len + 1);
                assert_eq!(unpack(&packed, len).unwrap(), bytes);
                assert!(unpack(&packed, len + 1).is_err());
                assert!(len == 0 || unpack(&packed, len - 1).is_err());
            }
        }
        assert!(pack(&[7; 1024]).len() < 40);
        assert!(unpack(&[], 0).is_err());
        assert!(unpack(&[2, 7], 1).is_err());
    }

    #[test]
    fn packed_values_of_the_first_release_are_read() {
        assert_eq!(unpack(b"\x00abc", 3).unwrap(), b"abc");
        let packed = [
            1, 40, 181, 47, 253, 96, 44, 0, 77, 0, 0, 16, 97, 97, 1, 0, 39, 42, 192, 2,
        ];
        assert_eq!(unpack(&packed, 300).unwrap(), [b'a'; 300]);
    }

    #[test]
    fn random_bytes_look_incompressible_and_text_does_not() {
        let text = b"[player0]\nname=\"Pachakuti\"\nunits=12,40,\"Explorer\",FALSE\n".repeat(40);
        let counters: Vec<u8> = (0..4000u32).flat_map(u32::to_le_bytes).collect();
        for len in [600, 1024, 16_000, 1 << 20] {
            let noise = noise(len, 9);
            assert!(looks_incompressible(&noise), "{len}");
            let base64: Vec<u8> = noise.iter().map(|byte| b'0' + byte % 64).collect();
            assert!(!looks_incompressible(&base64), "{len}");
        }
        assert!(looks_incompressible(&compress(&noise(4096, 9), 3).unwrap()));
        assert!(!looks_incompressible(&text));
        assert!(!looks_incompressible(&counters));
    }

    #[test]
    fn a_bomb_is_refused_before_memory_is_taken() {
        let bomb = compress(&vec![0; 64 << 20], 3).unwrap();
        assert!(bomb.len() < 10_000);
        let too_large = DeltaError::TooLarge { limit: 1 << 20 };
        assert_eq!(decompress(&bomb, 1 << 20), Err(too_large.clone()));
        assert_eq!(decompress_patch(&bomb, b"prefix", 1 << 20), Err(too_large));
        assert!(decompress_exact(&bomb, 1 << 20).is_err());
        let silent = zstd::stream::encode_all(&*vec![0; 8 << 20], 3).unwrap();
        assert!(decompress(&silent, 1 << 20).is_err());
        let content = decompress(&silent, 9 << 20).unwrap();
        assert_eq!(content.len(), 8 << 20);
        assert!(content.capacity() <= 9 << 20);
    }

    #[test]
    fn a_failed_frame_does_not_spoil_the_next_one() {
        let frame = compress(b"what was written, what was written", 3).unwrap();
        for len in 0..frame.len() {
            assert!(decompress(&frame[..len], 100).is_err(), "{len}");
            assert_eq!(decompress(&frame, 100).unwrap().len(), 34);
        }
    }

    #[test]
    fn an_exact_frame_has_no_company() {
        let frame = compress(b"state", 3).unwrap();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
        assert_eq!(decompress_exact(&frame, 5).unwrap(), b"state");
        for bad in [
            [&frame[..], &[0]].concat(),
            [&frame[..], &skippable].concat(),
            [&skippable[..], &frame].concat(),
            [&frame[..], &frame].concat(),
        ] {
            assert!(decompress_exact(&bad, 5).is_err());
            assert!(decompress_exact(&bad, 10).is_err());
            assert!(decompress_with_prefix(&bad, b"", 5).is_err());
        }
        assert_eq!(
            decompress(&[&frame[..], &frame].concat(), 10).unwrap(),
            b"statestate"
        );
    }

    #[test]
    fn a_prefix_saves_what_it_shares() {
        let old = noise(200_000, 9);
        let new = [&old[..100_000], b"edit", &old[100_010..]].concat();
        let patch = compress_with_prefix(&new, &old, 3).unwrap();
        assert!(patch.len() < 200, "{}", patch.len());
        assert_eq!(
            decompress_with_prefix(&patch, &old, new.len()).unwrap(),
            new
        );
        assert_eq!(decompress_patch(&patch, &old, 1 << 20).unwrap(), new);
        assert!(decompress_with_prefix(&patch, &old, new.len() + 1).is_err());
        assert_ne!(decompress_with_prefix(&patch, &new, new.len()), Ok(new));
    }

    #[test]
    fn a_prefix_that_looks_like_a_dictionary_is_taken_as_bytes() {
        let prefix = [&[0x37, 0xa4, 0x30, 0xec][..], &noise(1000, 9)].concat();
        let new = prefix[1..].to_vec();
        let patch = compress_with_prefix(&new, &prefix, 3).unwrap();
        assert!(patch.len() < 40, "{}", patch.len());
        assert_eq!(decompress_with_prefix(&patch, &prefix, 1003).unwrap(), new);
    }

    #[test]
    fn frames_that_become_too_long_are_given_up() {
        for len in [3000, 400_000] {
            let bytes: Vec<u8> = noise(len, 9).iter().map(|byte| byte % 16).collect();
            let frame = compress(&bytes, 3).unwrap();
            for (room, fits) in [
                (0, false),
                (frame.len() / 2, false),
                (frame.len() - 1, false),
                (len, true),
            ] {
                let made = compress_within(&bytes, 3, room).unwrap();
                assert_eq!(made.is_some(), fits, "{len} within {room}");
                assert!(made.is_none_or(|made| made == frame));
            }
            assert_eq!(compress(&bytes, 3).unwrap(), frame);
        }
    }
}
