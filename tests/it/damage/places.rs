//! Damage by kind and place, and what a start and reads make of it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use samestate::replica::command::Command;

use crate::damage::stores::{Original, file_of, open, read_all, segments_of};
use crate::harness::Rng;
use crate::harness::replica::put;

#[test]
fn explore() {
    let original = Original::new(31);
    let mut rng = Rng::seeded(5);
    let file = std::fs::read(file_of(original.copy().path())).unwrap();
    println!("file {} pages {}", file.len(), file.len() / 4096);
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    let mut cases: Vec<(String, Box<dyn Fn(&Path)>)> = Vec::new();
    for page in (0..file.len() / 4096).step_by(7) {
        cases.push((
            format!("zero"),
            Box::new(move |dir| {
                let mut bytes = std::fs::read(file_of(dir)).unwrap();
                bytes[page * 4096..(page + 1) * 4096].fill(0);
                std::fs::write(file_of(dir), bytes).unwrap();
            }),
        ));
    }
    for _ in 0..200 {
        let bit = rng.below(file.len() * 8);
        cases.push((
            format!("flip"),
            Box::new(move |dir| {
                let mut bytes = std::fs::read(file_of(dir)).unwrap();
                bytes[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(file_of(dir), bytes).unwrap();
            }),
        ));
    }
    for (name, damage) in cases {
        let dir = original.copy();
        damage(dir.path());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut solo = match open(dir.path()) {
                Ok(solo) => solo,
                Err(error) => return format!("open: {error}"),
            };
            let read = read_all(&solo.view(), &original.known);
            let mut told = format!("missing {} stale {} ", read.missing.len(), read.stale.len());
            if let Some(error) = read.errors.first() {
                told += error;
            }
            let w = solo.commit(
                vec![Command::Write(vec![put("match/1", b"new")])],
                BTreeMap::new(),
            );
            if let Err(e) = w {
                told += &format!(" write: {e}");
            } else if let Err(e) = &w.unwrap()[0] {
                told += &format!(" refused: {e}");
            }
            if let Err(e) = solo.checkpoint() {
                told += &format!(" checkpoint: {e}");
            }
            drop(solo);
            match open(dir.path()) {
                Err(e) => told += &format!(" reopen: {e}"),
                Ok(solo) => {
                    let r = read_all(
                        &solo.view(),
                        &original
                            .known
                            .iter()
                            .filter(|(n, _)| *n != "match/1")
                            .map(|(a, b)| (a.clone(), b.clone()))
                            .collect(),
                    );
                    told += &format!(" again {} {}", r.missing.len(), r.stale.len());
                }
            }
            told
        }));
        let told =
            outcome.unwrap_or_else(|panic| format!("PANIC {:?}", panic.downcast_ref::<String>()));
        let told: String = told.replace(dir.path().to_str().unwrap(), "DIR");
        let mut clean = String::new();
        let mut run = 0;
        let told = told.replace("; stop the server and run `samestate verify --data DIR --repair`, and let peers or a backup bring back what is lost", "").replace("the store is damaged: ", "");
        let told: String = told
            .chars()
            .map(|c| if c.is_ascii_digit() { '1' } else { c })
            .collect();
        for c in told.chars() {
            if c.is_ascii_hexdigit() {
                run += 1;
                if run > 2 {
                    continue;
                }
            } else {
                run = 0;
            }
            clean.push(c);
        }
        *tally
            .entry(format!(
                "{name}: {}",
                clean.chars().take(400).collect::<String>()
            ))
            .or_default() += 1;
    }
    for (what, count) in tally {
        println!("{count:5} {what}");
    }
    println!("{:?}", segments_of(original.copy().path()));
}
