//! A binary adaptive range coder: what entropy coding the `aligned` codec does itself.
//!
//! The coder is the carry-propagating one of LZMA (Igor Pavlov, "LZMA specification", 2015): a range of
//! 32 bits that each decision splits by its probability. A [`Chance`] learns fast at first and slower
//! later, because deltas are short.

use std::hint::select_unpredictable;

use crate::delta::error::DeltaError;

/// Bits of a probability.
const CHANCE_BITS: u32 = 12;
/// Low bits of a [`Chance`] that count how often it was used.
const COUNT_BITS: u32 = 4;
const COUNT_MAX: u16 = (1 << COUNT_BITS) - 1;
/// The other bits of a [`Chance`].
const NO_COUNT: u32 = !(COUNT_MAX as u32);
/// A probability of 1, as it would stand in a [`Chance`].
const ALWAYS: u32 = 1 << (CHANCE_BITS + COUNT_BITS);
/// By how much a probability moves, as a power of two, for each count.
const RATES: [u32; 16] = [1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5];
/// Below this the range is widened by a byte.
const TOP: u32 = 1 << 24;

/// How likely the next decision in one context is "yes".
#[derive(Debug, Clone, Copy)]
pub struct Chance(u16);

impl Default for Chance {
    fn default() -> Self {
        Self(1 << (CHANCE_BITS + COUNT_BITS - 1))
    }
}

impl Chance {
    /// The part of the range that means "no".
    fn bound(self, range: u32) -> u32 {
        (range >> CHANCE_BITS) * u32::from(self.0 >> COUNT_BITS)
    }

    /// True when one answer is at least fifteen times as likely as the other.
    #[inline(always)]
    fn is_clear(self) -> bool {
        const UNLIKELY: u16 = 1 << (CHANCE_BITS - 4);
        const LIKELY: u16 = (1 << CHANCE_BITS) - UNLIKELY;
        !(UNLIKELY..LIKELY).contains(&(self.0 >> COUNT_BITS))
    }

    #[inline(always)]
    fn learn(&mut self, yes: bool) {
        let (down, up) = self.moves();
        self.0 = if yes { down } else { up };
    }

    /// As [`Self::learn`], without a branch on what nobody foresees.
    #[inline(always)]
    fn learn_openly(&mut self, yes: bool) {
        let (down, up) = self.moves();
        self.0 = select_unpredictable(yes, down, up);
    }

    /// What comes after a yes, and what after a no.
    #[inline(always)]
    fn moves(self) -> (u16, u16) {
        const LAST_RATE: u32 = RATES[15];
        let (count, both) = (self.0 & COUNT_MAX, u32::from(self.0));
        // Neither comes nearer to an end than 31: from there on it would move by 0.
        if count == COUNT_MAX {
            // What most decisions come to, as short as it can be: the next one waits for it.
            let down = both - ((both >> LAST_RATE) & NO_COUNT);
            let up = both + (((ALWAYS + u32::from(COUNT_MAX) - both) >> LAST_RATE) & NO_COUNT);
            (down as u16, up as u16)
        } else {
            let (rate, no) = (RATES[usize::from(count)], both & NO_COUNT);
            let down = no - ((no >> rate) & NO_COUNT);
            let up = no + (((ALWAYS - no) >> rate) & NO_COUNT);
            let next = u32::from(count + 1);
            ((down | next) as u16, (up | next) as u16)
        }
    }
}

/// Writes decisions.
#[derive(Debug)]
pub struct Encoder {
    state: State,
    out: Vec<u8>,
}

/// What an [`Encoder`] goes on with.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// Where the range begins: 32 bits, and above them the bytes that wait and a carry.
    low: u64,
    range: u32,
    /// Bits of the bytes that wait.
    waiting: u32,
}

/// So many bits leave together, which is one branch instead of three.
const TOGETHER: u32 = 24;

impl Default for Encoder {
    fn default() -> Self {
        let state = State {
            low: 0,
            range: u32::MAX,
            waiting: 0,
        };
        let out = Vec::new();
        Self { state, out }
    }
}

impl Encoder {
    /// Writes one decision.
    #[inline]
    pub fn bit(&mut self, chance: &mut Chance, yes: bool) {
        let mut pen = self.pen();
        pen.bit(chance, yes);
        self.state = pen.state();
    }

    /// For many decisions in a row.
    #[inline]
    pub fn pen(&mut self) -> Pen<'_> {
        Pen {
            state: self.state,
            out: &mut self.out,
        }
    }

    /// To be called with the state of a [`Self::pen`] when it is done.
    #[inline]
    pub fn set(&mut self, state: State) {
        self.state = state;
    }

    /// Writes the low `count` bits of a value that nothing is known of.
    pub fn plain(&mut self, value: u64, count: u32) {
        let mut pen = self.pen();
        pen.plain(value, count);
        self.state = pen.state();
    }

    /// The bytes. What the decoder reads behind their end is 0, so zeros there are left away.
    pub fn finish(mut self) -> Vec<u8> {
        // First what waits, then the 32 bits of the range's beginning.
        for bits in [self.state.waiting, 32] {
            leave(&mut self.out, self.state.low >> 32, bits);
            self.state.low = (self.state.low & 0xffff_ffff) << 32;
        }
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

/// Puts the low bits of a value behind what is out, as bytes, and adds the carry above them.
fn leave(out: &mut Vec<u8>, value: u64, bits: u32) {
    if (value >> bits) & 1 == 1 {
        // Bytes of 255 pass a carry on.
        for byte in out.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
    }
    for place in (0..bits / 8).rev() {
        out.push((value >> (8 * place)) as u8);
    }
}

/// An [`Encoder`] whose state is in registers, which is what its speed depends on.
#[derive(Debug)]
pub struct Pen<'e> {
    state: State,
    out: &'e mut Vec<u8>,
}

impl Pen<'_> {
    /// Writes one decision that can be foreseen, or is known where this is called.
    #[inline(always)]
    pub fn bit(&mut self, chance: &mut Chance, yes: bool) {
        let bound = chance.bound(self.state.range);
        chance.learn(yes);
        if yes {
            self.state.low += u64::from(bound);
            self.state.range -= bound;
            self.widen();
        } else {
            self.state.range = bound;
            if bound < TOP {
                self.state.range <<= 8;
                self.state.low <<= 8;
                self.state.waiting += 8;
                self.let_go();
            }
        }
    }

    /// Writes one decision without a branch on how it went.
    #[inline(always)]
    pub fn open_bit(&mut self, chance: &mut Chance, yes: bool) {
        let (bound, range) = (chance.bound(self.state.range), self.state.range);
        self.state.low += u64::from(select_unpredictable(yes, bound, 0));
        self.state.range = select_unpredictable(yes, range - bound, bound);
        chance.learn_openly(yes);
        self.widen();
    }

    /// As [`Encoder::plain`].
    #[inline(always)]
    fn plain(&mut self, value: u64, count: u32) {
        for place in (0..count).rev() {
            self.state.range >>= 1;
            let yes = (value >> place) & 1 == 1;
            self.state.low += u64::from(select_unpredictable(yes, self.state.range, 0));
            self.widen();
        }
    }

    /// Widens the range if it has to be, without a branch. Once is enough: neither side takes less than
    /// 31 of 4,096.
    #[inline(always)]
    fn widen(&mut self) {
        let State { low, range, .. } = self.state;
        let narrow = range < TOP;
        self.state.range = select_unpredictable(narrow, range << 8, range);
        self.state.low = select_unpredictable(narrow, low << 8, low);
        self.state.waiting += u32::from(narrow) * 8;
        self.let_go();
    }

    /// Lets waiting bytes go when they are enough.
    #[inline(always)]
    fn let_go(&mut self) {
        if self.state.waiting == TOGETHER {
            leave(self.out, self.state.low >> 32, TOGETHER);
            self.state.low &= 0xffff_ffff;
            self.state.waiting = 0;
        }
    }

    /// What the encoder goes on with.
    #[inline]
    pub fn state(self) -> State {
        self.state
    }
}

/// Reads decisions. For many in a row, a copy that is handed to nobody stays in registers, which is what
/// the speed depends on.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    input: &'a [u8],
    at: usize,
    range: u32,
    code: u32,
}

impl<'a> Decoder<'a> {
    /// A decoder of what an [`Encoder`] wrote. Behind the end of the input it reads zeros.
    pub fn new(input: &'a [u8]) -> Self {
        let mut decoder = Self {
            input,
            at: 0,
            range: u32::MAX,
            code: 0,
        };
        for _ in 0..4 {
            decoder.code = (decoder.code << 8) | decoder.next();
        }
        decoder
    }

    #[inline]
    fn next(&mut self) -> u32 {
        let byte = self.input.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        u32::from(byte)
    }

    /// Reads one decision.
    #[inline]
    pub fn bit(&mut self, chance: &mut Chance) -> bool {
        let bound = chance.bound(self.range);
        let yes = self.code >= bound;
        if yes {
            self.code -= bound;
            self.range -= bound;
        } else {
            self.range = bound;
        }
        chance.learn(yes);
        if self.range < TOP {
            self.range <<= 8;
            self.code = (self.code << 8) | self.next();
        }
        yes
    }

    /// Reads one decision of which nobody knows how it is likely to go. One that the processor cannot foresee
    /// is read without a branch: a wrong guess costs as much as several decisions.
    #[inline(always)]
    pub fn open_bit(&mut self, chance: &mut Chance) -> bool {
        if chance.is_clear() {
            return self.bit(chance);
        }
        let bound = chance.bound(self.range);
        let yes = self.code >= bound;
        self.code -= select_unpredictable(yes, bound, 0);
        self.range = select_unpredictable(yes, self.range - bound, bound);
        chance.learn_openly(yes);
        self.widen();
        yes
    }

    /// Reads one decision that is most often no.
    #[inline(always)]
    pub fn rare_bit(&mut self, chance: &mut Chance) -> bool {
        let bound = chance.bound(self.range);
        if self.code < bound {
            self.range = bound;
            chance.learn(false);
            if self.range < TOP {
                self.range <<= 8;
                self.code = (self.code << 8) | self.next();
            }
            return false;
        }
        self.code -= bound;
        self.range -= bound;
        chance.learn(true);
        self.widen();
        true
    }

    /// Widens the range if it has to be, without a branch.
    #[inline(always)]
    fn widen(&mut self) {
        let byte = self.input.get(self.at).copied().unwrap_or(0);
        let narrow = self.range < TOP;
        let wider = (self.code << 8) | u32::from(byte);
        self.range = select_unpredictable(narrow, self.range << 8, self.range);
        self.code = select_unpredictable(narrow, wider, self.code);
        self.at += usize::from(narrow);
    }

    /// Reads `count` bits that nothing is known of.
    pub fn plain(&mut self, count: u32) -> u64 {
        let mut value = 0;
        for _ in 0..count {
            self.range >>= 1;
            let yes = self.code >= self.range;
            self.code -= select_unpredictable(yes, self.range, 0);
            value = (value << 1) | u64::from(yes);
            if self.range < TOP {
                self.range <<= 8;
                self.code = (self.code << 8) | self.next();
            }
        }
        value
    }
}

/// Whole numbers of up to 40 bits: how many bits one has is learned, and its first bits below the
/// highest one.
#[derive(Debug, Clone)]
pub struct Number {
    length: [Chance; 64],
    first: [[Chance; 4]; 64],
}

/// Most bits of a [`Number`].
const NUMBER_BITS: u32 = 40;

impl Default for Number {
    fn default() -> Self {
        Self {
            length: [Chance::default(); 64],
            first: [[Chance::default(); 4]; 64],
        }
    }
}

impl Number {
    /// Writes a number below 2^40.
    pub fn write(&mut self, out: &mut Encoder, value: u64) {
        let bits = u64::BITS - value.leading_zeros();
        let mut node = 1;
        let mut pen = out.pen();
        for place in (0..6).rev() {
            let yes = (bits >> place) & 1 == 1;
            pen.open_bit(&mut self.length[node & 63], yes);
            node = node * 2 + usize::from(yes);
        }
        let mut node = 1;
        for place in (0..bits.saturating_sub(1)).rev() {
            if node >= 4 {
                pen.plain(value & ((1 << (place + 1)) - 1), place + 1);
                break;
            }
            let yes = (value >> place) & 1 == 1;
            pen.open_bit(&mut self.first[(bits & 63) as usize][node & 3], yes);
            node = node * 2 + usize::from(yes);
        }
        out.state = pen.state();
    }

    /// Reads a number.
    ///
    /// # Errors
    /// [`DeltaError`] when it is larger than any that was written.
    pub fn read(&mut self, input: &mut Decoder<'_>) -> Result<u64, DeltaError> {
        let mut reader = input.clone();
        let value = self.read_with(&mut reader);
        *input = reader;
        value
    }

    #[inline(always)]
    fn read_with(&mut self, input: &mut Decoder<'_>) -> Result<u64, DeltaError> {
        let mut node = 1;
        for _ in 0..6 {
            node = node * 2 + usize::from(input.open_bit(&mut self.length[node & 63]));
        }
        let bits = (node & 63) as u32;
        if bits > NUMBER_BITS {
            return Err(DeltaError::Malformed("number too long"));
        }
        let Some(below) = bits.checked_sub(1) else {
            return Ok(0);
        };
        let (mut value, mut node) = (1, 1);
        for place in (0..below).rev() {
            if node >= 4 {
                value = (value << (place + 1)) | input.plain(place + 1);
                break;
            }
            let yes = input.open_bit(&mut self.first[(bits & 63) as usize][node & 3]);
            value = (value << 1) | u64::from(yes);
            node = node * 2 + usize::from(yes);
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Bit(usize, bool),
        Plain(u64, u32),
        Number(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..4, any::<bool>()).prop_map(|(context, yes)| Step::Bit(context, yes)),
            // Nearly always the same: probabilities at their ends, long carries.
            (4usize..6, 0u32..200).prop_map(|(context, n)| Step::Bit(context, n == 0)),
            (any::<u64>(), 1u32..40).prop_map(|(n, bits)| Step::Plain(n & ((1 << bits) - 1), bits)),
            (any::<u64>(), 24u32..64).prop_map(|(n, shift)| Step::Number(n >> shift)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(steps in proptest::collection::vec(any_step(), 0..3000)) {
            let (mut out, mut chances) = (Encoder::default(), [Chance::default(); 6]);
            let mut number = Number::default();
            for step in &steps {
                match step {
                    Step::Bit(context, yes) => out.bit(&mut chances[*context], *yes),
                    Step::Plain(value, bits) => out.plain(*value, *bits),
                    Step::Number(value) => number.write(&mut out, *value),
                }
            }
            let bytes = out.finish();
            let (mut input, mut chances) = (Decoder::new(&bytes), [Chance::default(); 6]);
            let mut number = Number::default();
            for step in &steps {
                match step {
                    Step::Bit(context, yes) => {
                        let chance = &mut chances[*context];
                        let read = match context % 3 {
                            0 => input.bit(chance),
                            1 => input.open_bit(chance),
                            _ => input.rare_bit(chance),
                        };
                        prop_assert_eq!(read, *yes);
                    }
                    Step::Plain(value, bits) => prop_assert_eq!(input.plain(*bits), *value),
                    Step::Number(value) => prop_assert_eq!(number.read(&mut input), Ok(*value)),
                }
            }
        }
    }

    #[test]
    fn what_is_likely_costs_little() {
        let (mut out, mut chance) = (Encoder::default(), Chance::default());
        (0..8000).for_each(|n| out.bit(&mut chance, n % 1000 == 999));
        assert!(out.finish().len() < 60);
        let mut out = Encoder::default();
        (0..1000).for_each(|_| out.bit(&mut Chance::default(), false));
        assert_eq!(out.finish(), b"");
    }

    #[test]
    fn numbers_too_large_for_any_writer_are_refused() {
        let mut input = Decoder::new(&[0xff; 20]);
        assert!(Number::default().read(&mut input).is_err());
    }

    #[test]
    fn neither_side_of_a_decision_ever_takes_less_than_a_byte_of_the_range() {
        let decisions = |seed: u32, n: u32| (n.wrapping_mul(seed) >> 3).is_multiple_of(64);
        for seed in [0, 1, 2_654_435_769, 40_503] {
            for flip in [false, true] {
                let mut chance = Chance::default();
                for n in 0..5000 {
                    let no = u32::from(chance.0 >> COUNT_BITS);
                    assert!((31..=4065).contains(&no), "seed {seed}, {n}: {no}");
                    // So one byte brings the range back above its least.
                    let smaller = chance.bound(TOP).min(TOP - chance.bound(TOP));
                    assert!(smaller >= TOP >> 8);
                    chance.learn(decisions(seed, n) != flip);
                }
            }
        }
    }
}
