//! What the integration tests share: seeded random numbers, recorded game states, replicas within
//! this process, and the real program as a child process.

pub mod folder;
pub mod http;
pub mod process;
pub mod proxy;
pub mod replica;
pub mod small_disk;

use std::path::PathBuf;
use std::sync::OnceLock;

use samestate::delta::archive::{self, Entry};

/// Random numbers that are the same for the same seed (SplitMix64: Steele, Lea and Flood, "Fast
/// Splittable Pseudorandom Number Generators", 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Prints the seed, which the test runner shows when the test fails.
    pub fn seeded(seed: u64) -> Self {
        println!("seed {seed}");
        Self::quiet(seed)
    }

    /// For seeds that were drawn from a printed one.
    pub fn quiet(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Bytes that no compressor makes smaller.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// An order of `items` like any other.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

pub fn fixture(name: &str) -> PathBuf {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures"]
        .iter()
        .collect();
    folder.join(name)
}

/// All recorded game states.
pub fn game_states() -> &'static [Entry] {
    static STATES: OnceLock<Vec<Entry>> = OnceLock::new();
    STATES.get_or_init(|| {
        let index = std::fs::read_to_string(fixture("game-states.tsv")).unwrap();
        let pack = std::fs::read(fixture("game-states.pack")).unwrap();
        archive::read(&index, &pack).unwrap()
    })
}

/// The recorded states of one series, in order of time.
pub fn series(name: &str) -> Vec<&'static Entry> {
    let entries = game_states().iter();
    entries.filter(|entry| entry.series == name).collect()
}
