//! Where the literals of an `aligned` delta go, and which part of the base is the prefix that they are
//! compressed with. Large states are cut into windows, so that a prefix is bounded whatever their size.

use std::ops::Range;

/// Bytes of the result in a window.
const WINDOW: usize = 8 << 20;
/// Bytes of the base that a window looks at, at most.
const BASE_MAX: usize = 16 << 20;
/// How far a window looks over its border in the base, in bytes.
const REACH: usize = 1 << 20;
/// Bytes at both ends of an unchanged run that stay in the prefix, so that zstd can match literals
/// across the seam.
const SEAM: usize = 32;

/// A place for literals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// Where in the result.
    pub place: Range<usize>,
    /// Where the stretch before it ended in the base.
    pub base: usize,
}

impl Hole {
    /// Adds a hole, unless it is empty.
    pub fn push(holes: &mut Vec<Self>, place: Range<usize>, base: usize) {
        if !place.is_empty() {
            holes.push(Self { place, base });
        }
    }
}

/// Holes that are filled from one frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Window<'a> {
    /// The holes.
    pub holes: &'a [Hole],
    /// The part of the base that their prefix is made from.
    pub base: Range<usize>,
}

/// Cuts holes into windows, by where each begins.
pub fn windows(holes: &[Hole], base_len: usize) -> impl Iterator<Item = Window<'_>> {
    let together = holes.chunk_by(|a, b| a.place.start / WINDOW == b.place.start / WINDOW);
    together.map(move |holes| {
        let base = if base_len <= BASE_MAX {
            0..base_len
        } else {
            let first = holes.first().map_or(0, |hole| hole.base);
            let last = holes.last().map_or(0, |hole| hole.base);
            let start = first.min(last).saturating_sub(REACH);
            let end = first.max(last).saturating_add(REACH);
            start..end.min(start + BASE_MAX).min(base_len)
        };
        Window { holes, base }
    })
}

/// What is left of a base without the inside of its long unchanged runs: what is new resembles most
/// what it replaced.
#[derive(Debug, Default)]
pub struct Remains {
    unchanged: Vec<Range<usize>>,
}

impl Remains {
    /// Notes a run within a stretch that begins at `from` in the base.
    pub fn note(&mut self, from: usize, run: Range<usize>) {
        if run.len() > 2 * SEAM {
            self.unchanged
                .push(from + run.start + SEAM..from + run.end - SEAM);
        }
    }

    /// To be called when all runs are noted.
    pub fn sort(&mut self) {
        self.unchanged
            .sort_unstable_by_key(|run| (run.start, run.end));
    }

    /// Puts what is left of a part of the base into `rest`. Runs that begin before it count for nothing.
    pub fn within(&self, base: &[u8], part: Range<usize>, rest: &mut Vec<u8>) {
        rest.clear();
        let first = self.unchanged.partition_point(|run| run.start < part.start);
        let mut covered = part.start;
        for run in self.unchanged.get(first..).unwrap_or_default() {
            if run.start >= part.end {
                break;
            }
            rest.extend_from_slice(base.get(covered..run.start).unwrap_or_default());
            covered = covered.max(run.end);
        }
        rest.extend_from_slice(base.get(covered..part.end).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remains_are_what_no_long_run_covers_and_a_seam() {
        let base: Vec<u8> = (0..=255).collect();
        let mut remains = Remains::default();
        let within = |remains: &Remains, part| {
            let mut rest = vec![7; 3];
            remains.within(&base, part, &mut rest);
            rest
        };
        assert_eq!(within(&remains, 0..256), base);
        remains.note(100, 20..120);
        remains.note(0, 0..64);
        remains.note(10, 0..90);
        remains.sort();
        let expected: Vec<u8> = (0..42)
            .chain(68..152)
            .chain(188..256)
            .map(|n| n as u8)
            .collect();
        assert_eq!(within(&remains, 0..256), expected);
        assert_eq!(
            within(&remains, 60..156),
            [60..=151u8].into_iter().flatten().collect::<Vec<_>>()
        );
    }

    #[test]
    fn windows_follow_the_base_and_stay_bounded() {
        let hole = |start, base| Hole {
            place: start..start + 10,
            base,
        };
        let holes = [
            hole(5, 7),
            hole(WINDOW - 1, 9),
            hole(WINDOW, 70 << 20),
            hole(9 << 20, 20 << 20),
        ];
        let near: Vec<_> = windows(&holes, 1000)
            .map(|w| (w.holes.len(), w.base))
            .collect();
        assert_eq!(near, [(2, 0..1000), (2, 0..1000)]);
        let far: Vec<_> = windows(&holes, 80 << 20).map(|w| w.base).collect();
        assert_eq!(far, [0..9 + REACH, 19 << 20..(19 << 20) + BASE_MAX]);
        assert_eq!(windows(&[], 1000).count(), 0);
    }
}
