//! Bytes and time of the codecs on consecutive saves that ship with the crate, beside zstd with
//! the whole previous save as prefix (`zstd --patch-from`).
//!
//! `cargo bench --bench delta`. All methods encode each pair in turn; medians are printed.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints its table and stops at the first surprise"
)]

use std::time::Instant;

use samestate::delta::archive;
use samestate::delta::codec::Effort;
use samestate::delta::compress::{compress, compress_with_prefix};
use samestate::delta::registry::encode_smallest;

type Method = (&'static str, fn(&[u8], &[u8]) -> usize);

const METHODS: &[Method] = &[
    ("zstd -3 whole", |_, new| {
        compress(new, 3).expect("zstd").len()
    }),
    ("patch-from -3", |base, new| {
        compress_with_prefix(new, base, 3).expect("zstd").len()
    }),
    ("patch-from -9", |base, new| {
        compress_with_prefix(new, base, 9).expect("zstd").len()
    }),
    ("samestate fast", |base, new| {
        encode_smallest(&[base], new, Effort::Fast).payload.len()
    }),
    ("samestate small", |base, new| {
        encode_smallest(&[base], new, Effort::Small).payload.len()
    }),
];

fn main() {
    let index = include_str!("../tests/fixtures/game-states.tsv");
    let pack = include_bytes!("../tests/fixtures/game-states.pack");
    let entries = archive::read(index, pack).expect("the fixtures");
    for series in ["freeciv", "openttd"] {
        let saves: Vec<&[u8]> = entries
            .iter()
            .filter(|entry| entry.series == series)
            .map(|entry| &entry.bytes[..])
            .collect();
        measure(series, &saves);
    }
}

fn measure(series: &str, saves: &[&[u8]]) {
    let whole: usize = saves[1..].iter().map(|save| save.len()).sum();
    println!("{series}: {} pairs, {whole} bytes", saves.len() - 1);
    let mut bytes = vec![0usize; METHODS.len()];
    let mut millis: Vec<Vec<f64>> = vec![Vec::new(); METHODS.len()];
    for pair in saves.windows(2) {
        for round in 0..3 {
            for (place, (_, encode)) in METHODS.iter().enumerate() {
                let begin = Instant::now();
                let length = encode(pair[0], pair[1]);
                millis[place].push(begin.elapsed().as_secs_f64() * 1e3);
                if round == 0 {
                    bytes[place] += length;
                }
            }
        }
    }
    for (place, (name, _)) in METHODS.iter().enumerate() {
        let share = 100.0 * bytes[place] as f64 / whole as f64;
        let sample = &mut millis[place];
        sample.sort_by(f64::total_cmp);
        let median = sample[sample.len() / 2];
        println!("  {name:<16} {share:>6.2} % of the bytes  {median:>7.2} ms");
    }
}
