//! Content-defined chunks, in which large states are stored.
//!
//! Boundaries follow the bytes around them (FastCDC, Xia et al., "The Design of Fast
//! Content-Defined Chunking for Data Deduplication Based Storage Systems", 2020), so an insertion
//! moves the chunks behind it without changing them, and versions of a state share what they have
//! in common.
//!
//! The parameters are part of the storage format: other ones would cut stored states anew.

use std::ops::Range;

use fastcdc::v2020::{FastCDC, Normalization};

/// No chunk but the last one of a state is shorter, in bytes.
pub const CHUNK_MIN: usize = 2 << 10;
/// Usual length in bytes.
pub const CHUNK_AVERAGE: usize = 8 << 10;
/// Longest chunk in bytes. With its hash and tag it must stay below 16,000, because redb keeps
/// values in runs of pages of a power of two.
pub const CHUNK_MAX: usize = 15_800;

/// Cuts bytes into chunks, given as ranges in order and without gaps. None for no bytes.
pub fn chunks(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    FastCDC::with_level(
        bytes,
        CHUNK_MIN,
        CHUNK_AVERAGE,
        CHUNK_MAX,
        Normalization::Level1,
    )
    .map(|chunk| chunk.offset..chunk.offset + chunk.length)
}

/// Cuts bytes that come piece by piece into the chunks that all of them together have.
#[derive(Debug, Default)]
pub struct Cutter {
    /// Bytes behind the last chunk.
    rest: Vec<u8>,
}

impl Cutter {
    /// Takes the next piece, and hands out the chunks that end in it.
    ///
    /// # Errors
    /// The first that `take` returns.
    pub fn push<E>(
        &mut self,
        piece: &[u8],
        take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.rest.extend_from_slice(piece);
        // Where a chunk ends is certain once as many bytes are there as it may have.
        self.cut(CHUNK_MAX, take)
    }

    /// Hands out what is left.
    ///
    /// # Errors
    /// The first that `take` returns.
    pub fn finish<E>(mut self, take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.cut(1, take)
    }

    fn cut<E>(
        &mut self,
        ahead: usize,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut end = 0;
        for chunk in chunks(&self.rest) {
            if self.rest.len() - chunk.start < ahead {
                break;
            }
            end = chunk.end;
            take(&self.rest[chunk])?;
        }
        self.rest.drain(..end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::sample::noise;

    #[test]
    fn chunks_cover_the_bytes_within_the_size_limits() {
        for len in [0, 1, CHUNK_MIN, CHUNK_MIN + 1, CHUNK_MAX, 300_000] {
            for bytes in [noise(len, 7), vec![0; len]] {
                let mut end = 0;
                for chunk in chunks(&bytes) {
                    assert_eq!(chunk.start, end);
                    assert!(chunk.len() <= CHUNK_MAX);
                    assert!(chunk.len() >= CHUNK_MIN || chunk.end == len);
                    end = chunk.end;
                }
                assert_eq!(end, len);
            }
        }
    }

    #[test]
    fn boundaries_never_change() {
        let ends: Vec<usize> = chunks(&noise(100_000, 1)).map(|chunk| chunk.end).collect();
        assert_eq!(
            ends,
            [
                6354, 22154, 35911, 38874, 50279, 58595, 67678, 79114, 82480, 98280, 100_000
            ]
        );
        assert_eq!(chunks(&noise(4_000_000, 2)).count(), 418);
    }

    #[test]
    fn bytes_that_come_in_pieces_are_cut_as_if_they_came_at_once() {
        for (bytes, step) in [
            (noise(300_000, 4), 1_000),
            (noise(300_000, 5), 100_000),
            (vec![0; 100_000], 7_000),
            (noise(CHUNK_MAX, 6), CHUNK_MAX),
            (Vec::new(), 1),
        ] {
            let (mut cutter, mut cut) = (Cutter::default(), Vec::new());
            let mut take = |chunk: &[u8]| {
                cut.push(chunk.to_vec());
                Ok::<_, ()>(())
            };
            for piece in bytes.chunks(step) {
                cutter.push(piece, &mut take).unwrap();
            }
            cutter.finish(&mut take).unwrap();
            let whole: Vec<&[u8]> = chunks(&bytes).map(|chunk| &bytes[chunk]).collect();
            assert!(cut == whole);
        }
    }

    #[test]
    fn an_insertion_changes_only_the_chunks_around_it() {
        let before = noise(200_000, 3);
        let after = [&before[..90_000], b"inserted", &before[90_000..]].concat();
        let known: Vec<&[u8]> = chunks(&before).map(|chunk| &before[chunk]).collect();
        let new = chunks(&after).filter(|chunk| !known.contains(&&after[chunk.clone()]));
        assert!(new.count() <= 2);
    }
}
