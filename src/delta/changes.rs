//! Writes down which bytes of a stretch changed, and into what.
//!
//! Whether a byte changed is predicted from the byte of the base and from how long ago the last change
//! was; into what, from what the same byte of the base became the last time: a counter that goes up
//! does so in many records at once. Long runs of unchanged bytes are numbers.

use std::hint::select_unpredictable;
use std::ops::Range;

use crate::delta::error::DeltaError;
use crate::delta::index::common_prefix;
use crate::delta::range_coder::{Chance, Decoder, Encoder, Number, Pen};

/// After this many unchanged bytes the length of the rest of the run is told.
const RUN_FROM: usize = 16;

/// What was learned from the stretches so far.
#[derive(Debug)]
pub struct Changes {
    changed: Box<[[Chance; 256]; 4]>,
    run: Number,
    values: Values,
}

/// What bytes became.
#[derive(Debug)]
struct Values {
    again: Box<[Chance; 256]>,
    became: [u8; 256],
    /// Values that were not told before, in order, and how many of them were written or read.
    new: Vec<u8>,
    next: usize,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            changed: Box::new([[Chance::default(); 256]; 4]),
            run: Number::default(),
            values: Values::of(Vec::new()),
        }
    }
}

/// How near a position is to the last change, by the number of unchanged bytes in between.
const NEARNESS: [usize; RUN_FROM] = [0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3];

/// The same, as how many positions in a row are how near.
const NEAR: [(usize, usize); 4] = [(0, 1), (1, 1), (2, 4), (3, 10)];

impl Changes {
    /// For reading: the values that the stretches take, in order.
    pub fn of_values(values: Vec<u8>) -> Self {
        Self {
            values: Values::of(values),
            ..Self::default()
        }
    }

    /// The values that were written, in order.
    pub fn values(&self) -> &[u8] {
        &self.values.new[..self.values.next]
    }

    /// Checks that all values were read.
    ///
    /// # Errors
    /// [`DeltaError`] when there were more or fewer.
    pub fn check(&self) -> Result<(), DeltaError> {
        if self.values.next == self.values.new.len() {
            Ok(())
        } else {
            Err(DeltaError::Malformed("another number of values"))
        }
    }

    /// Writes what makes `new` out of as many bytes of the base. Long unchanged runs are handed to
    /// `run`, as ranges within the stretch.
    pub fn write(
        &mut self,
        out: &mut Encoder,
        base: &[u8],
        new: &[u8],
        mut run: impl FnMut(Range<usize>),
    ) {
        let len = new.len().min(base.len());
        let (base, new) = (&base[..len], &new[..len]);
        let mut at = 0;
        while at < len {
            let rest = common_prefix(&new[at..], &base[at..]);
            self.run.write(out, rest as u64);
            run(at..at + rest);
            at += rest;
            if at < len {
                let mut pen = out.pen();
                self.values.write(&mut pen, base[at], new[at]);
                at = self.write_near(&mut pen, base, new, at + 1);
                let state = pen.state();
                out.set(state);
            }
        }
    }

    /// Writes decisions from behind a changed byte to behind so many unchanged ones that a run is told,
    /// or to the end. Returns where that is.
    #[inline(always)]
    fn write_near(&mut self, pen: &mut Pen<'_>, base: &[u8], new: &[u8], mut at: usize) -> usize {
        let changed = &mut *self.changed;
        loop {
            let end = base.len().min(at + RUN_FROM);
            let pairs = base[at..end].iter().zip(&new[at..end]);
            let mut differs = None;
            for ((old, now), near) in pairs.zip(&NEARNESS) {
                let chance = &mut changed[near & 3][usize::from(*old)];
                if old != now {
                    pen.bit(chance, true);
                    differs = Some((*old, *now));
                    break;
                }
                pen.bit(chance, false);
                at += 1;
            }
            let Some((old, now)) = differs else {
                return at;
            };
            self.values.write(pen, old, now);
            at += 1;
        }
    }

    /// Puts what a stretch that goes along with `base` came to behind `result`, and hands over its long
    /// unchanged runs, as [`Self::write`] does.
    ///
    /// # Errors
    /// [`DeltaError`] when a run is longer than the stretch.
    pub fn read(
        &mut self,
        input: &mut Decoder<'_>,
        base: &[u8],
        result: &mut Vec<u8>,
        mut run: impl FnMut(Range<usize>),
    ) -> Result<(), DeltaError> {
        let start = result.len();
        result.extend_from_slice(base);
        let new = &mut result[start..];
        let mut at = 0;
        while at < base.len() {
            let rest = usize::try_from(self.run.read(input)?).unwrap_or(usize::MAX);
            let end = at.checked_add(rest).filter(|end| *end <= base.len());
            let end = end.ok_or(DeltaError::Malformed("run beyond its stretch"))?;
            run(at..end);
            at = end;
            if at < base.len() {
                let mut reader = input.clone();
                new[at] = self.values.read(&mut reader, base[at]);
                at = self.read_near(&mut reader, base, new, at + 1);
                *input = reader;
            }
        }
        Ok(())
    }

    /// Reads decisions as [`Self::write_near`] writes them. What did not change is there already.
    #[inline(always)]
    fn read_near(
        &mut self,
        input: &mut Decoder<'_>,
        base: &[u8],
        new: &mut [u8],
        mut at: usize,
    ) -> usize {
        let changed = &mut *self.changed;
        'change: loop {
            for (near, count) in NEAR {
                let end = base.len().min(at + count);
                for old in &base[at..end] {
                    if input.rare_bit(&mut changed[near][usize::from(*old)]) {
                        new[at] = self.values.read(input, *old);
                        at += 1;
                        continue 'change;
                    }
                    at += 1;
                }
            }
            return at;
        }
    }
}

impl Values {
    fn of(values: Vec<u8>) -> Self {
        Self {
            again: Box::new([Chance::default(); 256]),
            became: [0; 256],
            new: values,
            next: 0,
        }
    }

    /// Nearly half of the values are known already, which no processor foresees: so there are no branches here.
    #[inline(always)]
    fn write(&mut self, pen: &mut Pen<'_>, old: u8, now: u8) {
        let place = usize::from(old);
        let same = self.became[place] == now;
        pen.open_bit(&mut self.again[place], same);
        self.became[place] = now;
        if self.next == self.new.len() {
            self.new.resize(2 * self.next + 64, 0);
        }
        self.new[self.next] = now;
        self.next += usize::from(!same);
    }

    /// As [`Self::write`], without branches but for those that can be foreseen.
    #[inline(always)]
    fn read(&mut self, input: &mut Decoder<'_>, old: u8) -> u8 {
        let place = usize::from(old);
        let same = input.open_bit(&mut self.again[place]);
        let told = self.new.get(self.next).copied().unwrap_or(0);
        let now = select_unpredictable(same, self.became[place], told);
        self.next += usize::from(!same);
        self.became[place] = now;
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::sample::text;

    #[test]
    fn changes_come_back_with_the_same_runs() {
        let base = text(4000);
        let mut new = base.clone();
        (0..50).for_each(|place| new[place * place] ^= 1 << (place % 7));
        let (mut out, mut changes, mut runs) = (Encoder::default(), Changes::default(), Vec::new());
        for (old, now) in base.chunks(700).zip(new.chunks(700)) {
            changes.write(&mut out, old, now, |run| runs.push(run));
        }
        let coded = out.finish();
        let (mut input, mut read) = (
            Decoder::new(&coded),
            Changes::of_values(changes.values().to_vec()),
        );
        let (mut back, mut runs_back) = (Vec::new(), Vec::new());
        for old in base.chunks(700) {
            read.read(&mut input, old, &mut back, |run| runs_back.push(run))
                .unwrap();
        }
        assert_eq!((back, runs_back), (new, runs));
        assert_eq!(read.check(), Ok(()));
        assert!(changes.check().is_err());
    }
}
