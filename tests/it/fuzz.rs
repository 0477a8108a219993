//! The targets of `fuzz/` over their seeds and over changes of them, without `cargo fuzz`.

#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use samestate::reconcile::memory::Random;
use samestate::types::hash::hex;

use crate::fuzz::targets::{TARGETS, named, seeds};

/// Changes of each seed, unless `FUZZ_CHANGES` says otherwise.
const CHANGES: usize = 120;

fn seeds_of(target: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    folder.join(target)
}

/// All files of a target's folder, sorted by name.
fn read_seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for file in fs::read_dir(seeds_of(target)).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        found.push((name, fs::read(file.path()).unwrap()));
    }
    found.sort();
    found
}

/// What damage and attacks do: bits flipped, bytes set to the ends of their range, parts left out,
/// repeated, moved or taken from elsewhere, and the end cut off.
fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(16)).min(bytes.len());
        match random.below(8) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 if at < end => drop(bytes.drain(at..end)),
            4 if at < end => bytes.extend_from_within(at..end),
            5 if !other.is_empty() => {
                let from = random.below(other.len());
                let part = &other[from..(from + 1 + random.below(32)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            6 if at < end => bytes[at..end].fill(random.number() as u8),
            7 => bytes.truncate(at),
            _ => bytes.push(random.number() as u8),
        }
    }
}

fn run(target: &str, input: &[u8], case: &str) {
    let ran = catch_unwind(AssertUnwindSafe(|| named(target)(input)));
    assert!(ran.is_ok(), "{target}, {case}: {}", hex(input));
}

#[test]
fn every_target_bears_its_seeds_and_changes_of_them() {
    let changes = std::env::var("FUZZ_CHANGES").ok();
    let changes = changes.map_or(CHANGES, |text| text.parse().unwrap());
    for (number, (target, _)) in TARGETS.iter().enumerate() {
        let seeds = read_seeds(target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        let mut random = Random(number as u64);
        for (name, bytes) in &seeds {
            run(target, bytes, name);
            for turn in 0..changes {
                let other = &seeds[random.below(seeds.len())].1;
                let mut changed = bytes.clone();
                change(&mut changed, other, &mut random);
                run(target, &changed, &format!("{name}, change {turn}"));
            }
        }
    }
}

#[test]
fn the_seeds_are_those_that_are_made() {
    for (target, _) in TARGETS {
        let there = read_seeds(target);
        for (name, bytes) in seeds::of(target) {
            assert!(
                !bytes.is_empty() || name == "empty",
                "{target}/{name} is empty"
            );
            assert!(
                there.iter().any(|(held, _)| *held == name),
                "{target}/{name} is missing"
            );
            run(target, &bytes, &name);
        }
    }
}

#[test]
#[ignore = "writes the seeds: cargo test --test it -- --ignored write_the_seeds"]
fn write_the_seeds() {
    for (target, _) in TARGETS {
        fs::create_dir_all(seeds_of(target)).unwrap();
        for (name, bytes) in seeds::of(target) {
            fs::write(seeds_of(target).join(name), bytes).unwrap();
        }
    }
}
