//! Finds out which part of the base each part of a new version goes along with.
//!
//! A *stretch* is a part of the new version that is mostly equal to a part of the base of the same
//! length: equal bytes with changed ones in between, as counters in records or tiles of a map leave
//! them. What goes along with nothing is literal.
//!
//! The base is followed in step for as long as enough bytes are equal. Where that ends, or where a
//! block looks poor, a sparse index of the base is asked for another place, and whatever it
//! knows is extended both ways. The longer nothing is found, the longer the steps, so that unrelated
//! input costs little.

use crate::delta::index::{Index, common_prefix, common_suffix};

/// Bytes that are compared at once.
const BLOCK: usize = 32;
/// Equal bytes of a block with which a stretch goes on where the base goes on, behind changes.
const RESUME_MIN: u32 = 24;
/// Shortest stretch that the format allows, in bytes. Bounds their number by the length of the result.
pub const STRETCH_MIN: usize = 8;
/// Bytes of a key of the index.
const KEY: usize = 16;

/// A part of the new version that goes along with the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Literal bytes before it.
    pub literal: u32,
    /// Its length in bytes.
    pub len: u32,
    /// Where in the base it begins.
    pub from: u32,
}

/// How finely to look.
#[derive(Debug, Clone, Copy)]
pub struct Grain {
    /// Equal bytes in a row that begin a stretch.
    pub begin_min: usize,
    /// Equal bytes of two blocks that begin a stretch without so many in a row; none do above 64.
    pub alike_min: u32,
    /// Distance of the indexed positions of the base, in bytes.
    pub stride: usize,
    /// Steps grow by two for each this many bytes (as a power of two) without a match.
    pub patience: u32,
    /// Equal bytes of a block without which the base is not followed any further.
    pub follow_min: u32,
    /// Equal bytes of a block from which on no better place is looked for.
    pub good_min: u32,
    /// At how many places of a poor block a better one is looked for.
    pub better_steps: usize,
    /// Bytes from the beginning of a block where no better place was found to where one is looked for again.
    pub pause: usize,
    /// Bytes that have to be gained by leaving a place for a better one.
    pub gain_min: usize,
}

/// The stretches of `new`, in order. Both inputs must be shorter than 4 GiB.
pub fn stretches(base: &[u8], new: &[u8], grain: Grain) -> Vec<Stretch> {
    let mut aligner = Aligner {
        base,
        new,
        grain,
        index: None,
        found: Vec::new(),
        literal_from: 0,
        base_next: 0,
        quiet_until: 0,
    };
    aligner.run();
    aligner.found
}

/// A position in the new version, and the one in the base that goes along with it.
type Place = (usize, usize);

/// True when parts of `new` that are looked at stand in the base as well. Takes a small part of the
/// time that [`stretches`] takes, and decides whether to bother about bytes that look random.
pub fn are_related(base: &[u8], new: &[u8]) -> bool {
    const PIECES: usize = 8;
    const STRIDE: usize = 512;
    if base.get(..KEY).is_some_and(|start| new.starts_with(start)) {
        return true;
    }
    let index = Index::<KEY>::new(base, STRIDE);
    let distance = (new.len() / PIECES).max(2 * STRIDE);
    new.chunks(distance).any(|piece| {
        piece.windows(KEY).take(STRIDE).any(|key| {
            let from = key.first_chunk().and_then(|key| index.get(key));
            from.is_some_and(|from| base.get(from..from + KEY) == Some(key))
        })
    })
}

struct Aligner<'a> {
    base: &'a [u8],
    new: &'a [u8],
    grain: Grain,
    /// Made when it is needed for the first time.
    index: Option<Index<KEY>>,
    found: Vec<Stretch>,
    /// Everything in `new` before this is within a stretch or a literal before one.
    literal_from: usize,
    /// Where the base goes on behind the last stretch.
    base_next: usize,
    /// Before this position in `new`, the index is not worth asking.
    quiet_until: usize,
}

impl Aligner<'_> {
    fn run(&mut self) {
        let mut at = 0;
        while at + 8 <= self.new.len() {
            let Some(mut place) = self.begin(at) else {
                // Odd steps, so that they do not keep missing the strides of the index.
                at += 1 + 2 * ((at - self.literal_from) >> self.grain.patience);
                continue;
            };
            while let Some(better) = self.follow(place) {
                place = better;
            }
            at = self.literal_from.max(at + 1);
        }
    }

    /// A place in the base that the new version goes along with from about `at` on.
    fn begin(&mut self, at: usize) -> Option<Place> {
        let from = self.base_next + (at - self.literal_from);
        let there = self.base.get(from..).and_then(|base| base.first_chunk());
        if there.is_some() && there == self.new[at..].first_chunk::<8>() {
            let blocks = block(self.new, at).zip(block(self.base, from));
            let min = match blocks {
                Some((new, old)) if equal_bytes(new, old) >= RESUME_MIN => STRETCH_MIN,
                _ => self.grain.begin_min,
            };
            if let Some(begin) = self.extended(at, from, min) {
                return Some(begin);
            }
        }
        let from = self.indexed(at)?;
        self.extended(at, from, self.grain.begin_min)
    }

    /// What the index knows of the bytes at `at`.
    fn indexed(&mut self, at: usize) -> Option<usize> {
        let key = self.new.get(at..)?.first_chunk::<KEY>()?;
        // The index of a large base takes 16 MiB at most.
        let stride = (self.base.len() >> 21).next_power_of_two();
        let (base, stride) = (self.base, self.grain.stride.max(stride));
        let index = self.index.get_or_insert_with(|| Index::new(base, stride));
        let from = index.get(key)?;
        (self.base.get(from..)?.first_chunk() == Some(key)).then_some(from)
    }

    /// Where the equal bytes around a match begin, if they are enough.
    fn extended(&self, at: usize, from: usize, min: usize) -> Option<Place> {
        let literals = &self.new[self.literal_from..at];
        let back = common_suffix(literals, &self.base[..from]);
        let forward = common_prefix(&self.new[at..], &self.base[from..]);
        let begin = (at - back, from - back);
        (back + forward >= min || self.is_alike(begin)).then(|| self.before(begin))
    }

    /// Where the bytes begin that are mostly equal, followed backward from where a match begins.
    fn before(&self, (mut at, mut from): Place) -> Place {
        while let (Some(start), Some(there)) = (at.checked_sub(BLOCK), from.checked_sub(BLOCK)) {
            let blocks = block(self.new, start).zip(block(self.base, there));
            let equal = blocks.map_or(0, |(new, old)| equal_bytes(new, old));
            if start < self.literal_from || equal < RESUME_MIN {
                break;
            }
            (at, from) = (start, there);
        }
        // Changed bytes at the beginning are literals.
        let changed = self.new[at..].iter().zip(&self.base[from..]);
        let changed = changed.take_while(|(new, old)| new != old).count();
        (at + changed, from + changed)
    }

    /// True when nearly all bytes of the blocks from here on are equal: records in which a field changed have
    /// no long runs.
    fn is_alike(&self, (at, from): Place) -> bool {
        let places = [(at, from), (at + BLOCK, from + BLOCK)];
        let equal = places.map(|(at, from)| {
            let blocks = block(self.new, at).zip(block(self.base, from));
            blocks.map_or(0, |(new, old)| equal_bytes(new, old))
        });
        equal.iter().sum::<u32>() >= self.grain.alike_min
    }

    /// Follows the base in step with the new version for as long as that is good. Returns the better
    /// place at which it was left, if it was for one.
    fn follow(&mut self, (start, from): Place) -> Option<Place> {
        let (new, base) = (&self.new[start..], &self.base[from..]);
        let mut len = common_prefix(new, base);
        while let (Some(ours), Some(theirs)) = (block(new, len), block(base, len)) {
            let equal = equal_bytes(ours, theirs);
            if equal < self.grain.follow_min {
                break;
            }
            if equal < self.grain.good_min
                && start + len >= self.quiet_until
                && let Some(better) = self.better((start + len, from + len))
            {
                self.take((start, from), better.0 - start);
                return Some(better);
            }
            len += BLOCK;
            if equal == BLOCK as u32 {
                len += common_prefix(&new[len..], &base[len..]);
            }
        }
        len += common_prefix(&new[len..], &base[len..]);
        // Changed bytes at the end are literals.
        while len > 0 && new[len - 1] != base[len - 1] {
            len -= 1;
        }
        self.take((start, from), len);
        None
    }

    /// A place from which more bytes come right than from here, if the block here holds the
    /// beginning of such a match.
    fn better(&mut self, here: Place) -> Option<Place> {
        for step in 0..self.grain.better_steps {
            let (at, there) = (here.0 + step, here.1 + step);
            let Some(from) = self.indexed(at).filter(|from| *from != there) else {
                continue;
            };
            let forward = common_prefix(&self.new[at..], &self.base[from..]);
            let ours = self.base.get(there..).unwrap_or_default();
            let pairs = self.new[at..at + forward].iter().zip(ours);
            let wrong = pairs.filter(|(a, b)| a != b).count();
            if wrong >= self.grain.gain_min {
                let back = common_suffix(&self.new[here.0..at], &self.base[..from]);
                return Some((at - back, from - back));
            }
            self.quiet_until = at + forward / 2;
        }
        self.quiet_until = self.quiet_until.max(here.0 + self.grain.pause);
        None
    }

    fn take(&mut self, (start, from): Place, len: usize) {
        if len >= STRETCH_MIN {
            self.found.push(Stretch {
                literal: (start - self.literal_from) as u32,
                len: len as u32,
                from: from as u32,
            });
            self.literal_from = start + len;
            self.base_next = from + len;
        }
    }
}

fn block(bytes: &[u8], at: usize) -> Option<&[u8; BLOCK]> {
    bytes.get(at..)?.first_chunk()
}

fn equal_bytes(a: &[u8; BLOCK], b: &[u8; BLOCK]) -> u32 {
    a.iter().zip(b).map(|(a, b)| u32::from(a == b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::sample::{noise, text};

    const GRAIN: Grain = Grain {
        begin_min: 32,
        alike_min: 56,
        stride: 4,
        patience: 7,
        follow_min: 12,
        good_min: 28,
        better_steps: 32,
        pause: 0,
        gain_min: 8,
    };

    fn stretch(literal: usize, len: usize, from: usize) -> Stretch {
        Stretch {
            literal: literal as u32,
            len: len as u32,
            from: from as u32,
        }
    }

    #[test]
    fn equal_and_changed_bytes_are_one_stretch() {
        let base = text(5000);
        let mut new = base.clone();
        let whole = [stretch(0, 5000, 0)];
        assert_eq!(stretches(&base, &new, GRAIN), whole);
        (1..=200).for_each(|place| new[20 * place] = b'#');
        assert_eq!(stretches(&base, &new, GRAIN), whole);
        assert!(stretches(&base, b"", GRAIN).is_empty());
        assert!(stretches(b"", &base, GRAIN).is_empty());
    }

    #[test]
    fn insertions_and_moves_are_followed() {
        let (a, b, c) = (noise(3000, 1), noise(2000, 2), noise(1000, 3));
        let base = [&a[..], &b, &c].concat();
        let new = [&c[..], &a, b"what is new", &b].concat();
        let expected = [
            stretch(0, 1000, 5000),
            stretch(0, 3000, 0),
            stretch(11, 2000, 3000),
        ];
        assert_eq!(stretches(&base, &new, GRAIN), expected);
    }

    #[test]
    fn a_poor_place_is_left_for_a_better_one() {
        // Half of the bytes are 0 everywhere, so that any place passes for a match.
        let sparse = |seed| noise(4000, seed).into_iter().flat_map(|byte| [0, byte]);
        let base: Vec<u8> = sparse(7).collect();
        let new: Vec<u8> = [&base[..2000], &base[2600..]].concat();
        let found = stretches(&base, &new, GRAIN);
        assert_eq!(found.len(), 2, "{found:?}");
        let wrong = found.iter().scan(0, |at, s| {
            let start = *at + s.literal as usize;
            *at = start + s.len as usize;
            let pairs = new[start..*at].iter().zip(&base[s.from as usize..]);
            Some(pairs.filter(|(a, b)| a != b).count())
        });
        assert!(wrong.sum::<usize>() <= 32);
    }

    #[test]
    fn shifted_records_of_which_a_field_changed_are_found() {
        // 32 bytes each, a counter in every one, and something inserted here and there.
        let ids = noise(32 * 4000, 5);
        let version = |tick: u8, every: usize| -> Vec<u8> {
            let records = ids.as_chunks::<32>().0.iter().enumerate();
            let bytes = records.flat_map(|(n, record)| {
                let mut record = record.to_vec();
                record[8] = tick.wrapping_add(record[9]);
                if n.is_multiple_of(every) {
                    record.extend(noise(20 + n % 50, (n + 1) as u64 * u64::from(tick)));
                }
                record
            });
            bytes.collect()
        };
        let (base, new) = (version(1, 200), version(2, 170));
        let found = stretches(&base, &new, GRAIN);
        let covered: usize = found.iter().map(|stretch| stretch.len as usize).sum();
        assert!(
            covered * 100 >= new.len() * 95,
            "{covered} of {}",
            new.len()
        );
    }

    #[test]
    fn relations_are_seen_wherever_they_are() {
        let base = noise(100_000, 1);
        assert!(!are_related(&base, &noise(100_000, 2)));
        assert!(are_related(
            &base,
            &[&noise(30_000, 2)[..], &base[31..]].concat()
        ));
        assert!(are_related(&base, &base[..20]));
        assert!(!are_related(b"", &base));
        assert!(!are_related(&base, b""));
    }
}
