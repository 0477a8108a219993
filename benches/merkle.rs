//! What the Merkle tree costs among many leaves, in memory: work and bytes, which do not depend on
//! the machine, and times beside the trees of the crates `jmt` and `merkle-search-tree`.
//!
//! `cargo bench --bench merkle [LEAVES]`, a million unless given. All trees hold the same keys and
//! digests; they take turns in every round, and medians of the rounds are printed. The goals of
//! work and bytes are asserted.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints its table and stops at the first surprise"
)]

#[path = "support/arguments.rs"]
mod arguments;
#[path = "support/trees.rs"]
mod trees;

use std::hint::black_box;
use std::time::Instant;

use samestate::merkle::asked::Asked;
use samestate::merkle::difference::{DifferenceLimits, Differences};
use samestate::merkle::proof_bytes::{encode, verify_bytes};
use samestate::types::binary;
use samestate::types::hash::{ContentHash, LeafDigest, StateKey};
use samestate::types::id::GameId;
use samestate::types::leaf::Leaf;

use arguments::first_number;
use trees::{Jmt, JmtProof, Mst, Ours};

const ROUNDS: u64 = 15;
/// Goals of the tree among a million leaves, for each proof and each put. Keys are as random as
/// SHA-256: now and then two share so many bits that telling them apart takes a hash or two more, so
/// one put in a thousand may.
const PROOF_BYTES: usize = 1_100;
const HASHES_A_PUT: u64 = 50;
const OVER_OF_1000: u64 = 1;
const ROWS_A_PUT: u64 = 3;

fn main() {
    let count = first_number(1_000_000);
    let leaves: Vec<Leaf> = (0..count).map(|n| leaf(n, 0)).collect();
    let mut ours = Ours::load(&leaves);
    println!("{count} leaves\n\nwork and bytes");
    proof_bytes(&ours, count);
    puts(&mut ours, count);
    let mut jmt = Jmt::load(&leaves);
    let mut mst = Mst::load(&leaves);
    println!(
        "\nmicroseconds, median of {ROUNDS} rounds      samestate        jmt  merkle-search-tree"
    );
    updates(&mut ours, &mut jmt, &mut mst, count);
    proofs(&ours, &jmt, count);
    let sound = Ours::load(&leaves);
    drop((ours, jmt, mst, leaves));
    differences(&sound, count);
}

fn id(n: u64) -> GameId {
    GameId::new(&format!("match/{n:08}")).expect("a valid id")
}

/// The leaf of a state of 200 bytes to 20 KB that was last written within a month.
fn leaf(n: u64, round: u64) -> Leaf {
    let random = mix(n ^ round << 40);
    Leaf {
        key: StateKey::of(&id(n)),
        digest: LeafDigest(ContentHash::of(&random.to_le_bytes()).0),
        size: 200 + random % 20_000,
        updated_at: 1_700_000_000_000 + (random >> 20) % 2_592_000_000,
    }
}

/// Steele, Lea and Flood's SplitMix64 (2014), one step.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn some(count: u64, of: u64, salt: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |n| mix(n ^ salt << 32) % of)
}

fn prove(ours: &Ours, numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    let asked = Asked::new(numbers.map(id).collect()).expect("at most a thousand ids");
    let proof = ours.view().prove_all(asked.keys()).expect("a sound tree");
    encode(&asked, &proof).expect("a proof about these ids")
}

fn proof_bytes(ours: &Ours, count: u64) {
    let sample = 100_000;
    for (what, from) in [("inclusion", 0), ("absence", count)] {
        let numbers = some(sample, count, 1).map(|n| n + from);
        let mut bytes: Vec<usize> = numbers
            .map(|n| prove(ours, [n].into_iter()).len())
            .collect();
        bytes.sort_unstable();
        let (mean, most) = (
            bytes.iter().sum::<usize>() / bytes.len(),
            bytes[bytes.len() - 1],
        );
        let p99 = bytes[bytes.len() * 99 / 100];
        let over = bytes.iter().filter(|bytes| **bytes > PROOF_BYTES).count();
        println!(
            "proof of {what}, {sample} of them: mean {mean} B, p99 {p99} B, most {most} B, \
             {over} above {PROOF_BYTES} B"
        );
        assert!(count > 1_000_000 || most <= PROOF_BYTES, "{most} B");
    }
    let numbers: Vec<u64> = some(1000, count, 2).collect();
    let singles: usize = numbers
        .iter()
        .map(|n| prove(ours, [*n].into_iter()).len())
        .sum();
    let together = prove(ours, numbers.iter().copied()).len();
    let ratio = together as f64 / singles as f64;
    println!("proof of 1000 ids: {together} B, {ratio:.3} of {singles} B for one each");
    assert!(ratio <= 0.6, "{ratio}");
}

fn puts(ours: &mut Ours, count: u64) {
    let singles = 20_000;
    let (mut hashes, mut rows, mut over) = (Vec::new(), 0, 0);
    for n in some(singles, count, 3) {
        let work = ours.put(&[leaf(n, 1)]);
        hashes.push(work.hashes);
        rows = work.rows_written.max(rows);
        over += u64::from(work.hashes > HASHES_A_PUT);
    }
    let mean = hashes.iter().sum::<u64>() as f64 / singles as f64;
    let most = hashes.iter().max().expect("some puts");
    println!(
        "one put, {singles} of them: mean {mean:.1} hashes, most {most}, {over} above {HASHES_A_PUT}; \
         at most {rows} rows written"
    );
    assert!(rows <= ROWS_A_PUT, "{rows} rows");
    let allowed = singles * OVER_OF_1000 / 1000;
    assert!(
        count > 1_000_000 || over <= allowed,
        "{over} puts took more"
    );
    let batch: Vec<Leaf> = some(1000, count, 4).map(|n| leaf(n, 2)).collect();
    let work = ours.put(&batch);
    println!(
        "a batch of 1000: {:.1} hashes and {:.2} rows a put",
        work.hashes as f64 / 1000.0,
        work.rows_written as f64 / 1000.0
    );
}

fn updates(ours: &mut Ours, jmt: &mut Jmt, mst: &mut Mst, count: u64) {
    for size in [1, 1000] {
        let repeats = if size == 1 { 200 } else { 4 };
        let mut times = [const { Vec::new() }; 3];
        for round in 0..ROUNDS {
            let batch = |part: u64| -> Vec<Leaf> {
                let salt = 100 + round * 1000 + part;
                some(size, count, salt).map(|n| leaf(n, salt)).collect()
            };
            let batches: Vec<Vec<Leaf>> = (0..repeats).map(batch).collect();
            let each = repeats as f64;
            times[0].push(
                time(|| {
                    batches.iter().for_each(|b| {
                        black_box(ours.put(b));
                    });
                }) / each,
            );
            times[1].push(time(|| batches.iter().for_each(|b| jmt.put(b))) / each);
            times[2].push(time(|| batches.iter().for_each(|b| mst.put(b))) / each);
        }
        row(&format!("update of {size}"), &times);
    }
}

fn proofs(ours: &Ours, jmt: &Jmt, count: u64) {
    let repeats = 500;
    let mut made = [const { Vec::new() }; 2];
    let mut verified = [const { Vec::new() }; 2];
    let mut bytes = [0, 0];
    let root = ours.root().hash;
    for round in 0..ROUNDS {
        let numbers: Vec<u64> = some(repeats, count, 50_000 + round).collect();
        let keys: Vec<StateKey> = numbers.iter().map(|n| StateKey::of(&id(*n))).collect();
        let (mut own, mut theirs): (Vec<Vec<u8>>, Vec<(_, JmtProof)>) = Default::default();
        let each = repeats as f64;
        made[0].push(
            time(|| {
                own = numbers
                    .iter()
                    .map(|n| prove(ours, [*n].into_iter()))
                    .collect();
            }) / each,
        );
        made[1].push(time(|| theirs = keys.iter().map(|key| jmt.prove(key)).collect()) / each);
        verified[0].push(
            time(|| {
                for proof in &own {
                    black_box(verify_bytes(proof, &root).expect("a sound proof"));
                }
            }) / each,
        );
        verified[1].push(
            time(|| {
                for (key, proof) in keys.iter().zip(&theirs) {
                    jmt.verify(key, proof);
                }
            }) / each,
        );
        bytes[0] += own.iter().map(Vec::len).sum::<usize>();
        bytes[1] += theirs
            .iter()
            .map(|(_, proof)| binary::encode(proof).len())
            .sum::<usize>();
    }
    row("proof made", &made);
    row("proof verified", &verified);
    let mean = bytes.map(|bytes| bytes as u64 / (repeats * ROUNDS));
    println!(
        "{:<38} {:>10} {:>10}",
        "bytes of a proof, mean", mean[0], mean[1]
    );
    let mut many = [const { Vec::new() }; 2];
    for round in 0..ROUNDS {
        let mut proof = Vec::new();
        many[0].push(time(|| {
            proof = prove(ours, some(1000, count, 60_000 + round));
        }));
        many[1].push(time(|| {
            drop(verify_bytes(&proof, &root).expect("a sound proof"));
        }));
    }
    let [made, verified] = many.map(median);
    println!("one proof of 1000 ids: made in {made:.0}, verified in {verified:.0} microseconds");
}

fn differences(sound: &Ours, count: u64) {
    println!(
        "\ndifference of two trees            samestate                    merkle-search-tree"
    );
    println!("      d   rows read  leaves read   microseconds   pages listed   microseconds");
    let all: Vec<Leaf> = (0..count).map(|n| leaf(n, 0)).collect();
    let base = Mst::load(&all);
    for d in [1, 100, 10_000u64] {
        let changed: Vec<Leaf> = (0..d).map(|n| leaf(n * (count / d), 9)).collect();
        let (mut other, mut theirs) = (sound.clone(), Mst::load(&all));
        other.put(&changed);
        theirs.put(&changed);
        let mut times = [const { Vec::new() }; 2];
        let (mut work, mut pages) = (None, 0);
        for _ in 0..5 {
            times[0].push(time(|| {
                let limits = DifferenceLimits::default();
                let mut found = Differences::new(sound.view(), other.view(), limits);
                assert_eq!(found.by_ref().filter(Result::is_ok).count() as u64, d);
                work = Some(found.work());
            }));
            times[1].push(time(|| pages = base.differing(&theirs).1));
        }
        let work = work.expect("five rounds");
        let [own, theirs] = times.map(median);
        println!(
            "{d:>7} {:>11} {:>12} {own:>14.0} {pages:>14} {theirs:>14.0}",
            work.rows_read, work.leaves_read
        );
        let levels = f64::from((count as f64).log2().ceil() as u32);
        assert!(
            work.rows_read as f64 <= d as f64 * levels,
            "more than d log n rows"
        );
    }
}

/// Microseconds.
fn time(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(what: &str, times: &[Vec<f64>]) {
    let times: Vec<String> = times
        .iter()
        .map(|times| format!("{:>10.2}", median(times.clone())))
        .collect();
    println!("{what:<38} {}", times.join(" "));
}
