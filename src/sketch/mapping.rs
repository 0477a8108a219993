//! Which cells of a partition a place is counted in.
//!
//! Cell `i` is chosen with probability `1 / (1 + i / 2)`, as in rateless IBLTs, so that every prefix
//! of the cells is as good a sketch as one of that length. The distance to the next cell comes from
//! a table of integers instead of a square root: no two machines may round differently.

/// `2^16 / sqrt(u)` for the middles of 4,096 equal parts of 0 to 1.
static WEIGHTS: [u32; 4096] = weights();

/// Multiplier of a full-period congruential generator (Steele and Vigna, "Computationally easy,
/// spectrally good multipliers", 2021).
const MULTIPLIER: u64 = 0xda94_2042_e4dd_58b5;

const fn weights() -> [u32; 4096] {
    let mut table = [0; 4096];
    let mut at = 0;
    while at < table.len() {
        // The integer square root of 2^32 * 8192 / (2 at + 1).
        let square = (8192u64 << 32) / (2 * at as u64 + 1);
        let (mut low, mut high) = (0u64, 1 << 24);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if middle * middle <= square {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        table[at] = low as u32;
        at += 1;
    }
    table
}

/// The cells of a place in ascending order, without end: 0 first.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    state: u64,
    next: u64,
}

impl Walk {
    /// The cells that a seed chooses.
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed | 1,
            next: 0,
        }
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER);
        // The lowest of the 4,096 parts is too coarse for the long jumps: six further bits each
        // time that the upper six are zero, and eight times the weight for 64 times the fineness.
        let (mut random, mut shift) = (self.state, 16);
        while random >> 58 == 0 && shift > 1 {
            random = random << 6 | 1;
            shift -= 3;
        }
        let weight = u64::from(WEIGHTS[(random >> 52) as usize]);
        // ceil((i + 1.5) * w - 1.5) for the weight w.
        let scaled = ((2 * self.next + 3) * weight) >> shift;
        let jump = scaled.saturating_sub(3).div_ceil(2);
        self.next = jump.max(self.next + 1);
    }

    /// The cells below `end`.
    pub fn below(self, end: usize) -> impl Iterator<Item = usize> {
        let mut walk = self;
        std::iter::from_fn(move || {
            let cell = usize::try_from(walk.next).ok().filter(|cell| *cell < end)?;
            walk.step();
            Some(cell)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_chosen_as_often_as_the_theory_says() {
        let walks = 200_000u64;
        let mut chosen = [0u32; 1024];
        for seed in 0..walks {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut before = None;
            for cell in Walk::new(seed).below(chosen.len()) {
                assert!(before < Some(cell));
                before = Some(cell);
                chosen[cell] += 1;
            }
        }
        assert_eq!(u64::from(chosen[0]), walks);
        for (range, slack) in [
            (1..2, 0.15),
            (2..10, 0.12),
            (100..200, 0.03),
            (900..1024, 0.03),
        ] {
            let expected: f64 = range.clone().map(|at| 2.0 / (2.0 + f64::from(at))).sum();
            let counted: u32 = chosen[range.start as usize..range.end as usize]
                .iter()
                .sum();
            let ratio = f64::from(counted) / walks as f64 / expected;
            assert!(
                (1.0 - slack..1.0 + slack).contains(&ratio),
                "{range:?}: {ratio}"
            );
        }
    }

    #[test]
    fn walks_are_those_of_the_reference() {
        let cells = |seed| Walk::new(seed).below(1024).collect::<Vec<usize>>();
        assert_eq!(cells(0), cells(1));
        assert_eq!(cells(7)[0], 0);
    }
}
