//! The literals of an `aligned` delta: what goes along with no part of the base, compressed in the light of
//! what is left of it.

use crate::delta::codec::Effort;
use crate::delta::compress::{Patch, compress_patch, decompress_with_prefix, looks_incompressible};
use crate::delta::error::DeltaError;
use crate::delta::ops::{read_varint, take, write_varint};
use crate::delta::windows::{Hole, Remains, windows};

/// Literals of fewer bytes gain nothing from zstd.
const COMPRESS_MIN: usize = 32;
/// Bytes of literals and prefix together up to which zstd's highest level is worth its time.
const HIGHEST_LEVEL: usize = 1 << 20;

/// What the stretches leave over.
pub struct Layout {
    /// Where literals go, in order; none of them empty.
    pub holes: Vec<Hole>,
    /// What is left of the base.
    pub remains: Remains,
}

/// The literals of `new`, and whether they are frames: one for each window.
///
/// # Errors
/// [`DeltaError::Zstd`] when zstd cannot get the memory.
pub fn write_literals(
    base: &[u8],
    new: &[u8],
    layout: &Layout,
    effort: Effort,
) -> Result<(Vec<u8>, bool), DeltaError> {
    let plain = collect(new, &layout.holes);
    if plain.len() < COMPRESS_MIN || looks_incompressible(&plain) {
        return Ok((plain, false));
    }
    let (mut out, mut prefix) = (Vec::new(), Vec::new());
    let mut rest = &plain[..];
    for window in windows(&layout.holes, base.len()) {
        layout.remains.within(base, window.base, &mut prefix);
        let len = window.holes.iter().map(|hole| hole.place.len()).sum();
        let (literals, behind) = rest.split_at(len);
        rest = behind;
        let patch = patch(effort, literals.len() + prefix.len());
        let frame = compress_patch(literals, &prefix, patch)?;
        write_varint(&mut out, frame.len() as u64);
        out.extend_from_slice(&frame);
    }
    if out.len() >= plain.len() {
        return Ok((plain, false));
    }
    Ok((out, true))
}

/// How so many bytes of literals and prefix are compressed. Matches far away need no search of their own:
/// they are what stretches are made of.
fn patch(effort: Effort, bytes: usize) -> Patch {
    let level = match effort {
        Effort::Fast => 2,
        Effort::Small if bytes <= HIGHEST_LEVEL => 19,
        Effort::Small => 12,
    };
    let long = false;
    Patch { level, long }
}

fn collect(new: &[u8], holes: &[Hole]) -> Vec<u8> {
    let parts: Vec<&[u8]> = holes.iter().map(|hole| &new[hole.place.clone()]).collect();
    parts.concat()
}

/// Puts literals where they go.
///
/// # Errors
/// [`DeltaError`] when they are damaged, or fill anything else than the holes.
pub fn read_literals(
    base: &[u8],
    layout: &Layout,
    mut input: &[u8],
    packed: bool,
    result: &mut [u8],
) -> Result<(), DeltaError> {
    if !packed {
        return fill(result, &layout.holes, input);
    }
    let mut prefix = Vec::new();
    for window in windows(&layout.holes, base.len()) {
        layout.remains.within(base, window.base, &mut prefix);
        let len = window.holes.iter().map(|hole| hole.place.len()).sum();
        let frame_len = read_varint(&mut input)?;
        let frame = take(&mut input, frame_len)?;
        let literals = decompress_with_prefix(frame, &prefix, len)?;
        fill(result, window.holes, &literals)?;
    }
    if input.is_empty() {
        Ok(())
    } else {
        Err(DeltaError::Malformed("bytes behind the literals"))
    }
}

fn fill(result: &mut [u8], holes: &[Hole], literals: &[u8]) -> Result<(), DeltaError> {
    const OTHER_LENGTH: DeltaError = DeltaError::Malformed("literals of another length");
    let mut rest = literals;
    for hole in holes {
        let (literal, behind) = rest
            .split_at_checked(hole.place.len())
            .ok_or(OTHER_LENGTH)?;
        let place = result.get_mut(hole.place.clone()).ok_or(OTHER_LENGTH)?;
        place.copy_from_slice(literal);
        rest = behind;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(OTHER_LENGTH)
    }
}
