//! The whole store on the simulated disk: after a power cut or a kill at any moment, and another one
//! while it recovers, it opens, holds every acknowledged write, no half batch, and has no fault; and
//! then it goes on writing.
//!
//! `CRASH_IMAGES=100000 cargo test --release --test it crash_images -- --nocapture` looks longer,
//! `CRASH_SEED=n` elsewhere.

mod backend;
mod broken;
mod commands;
mod faults;
mod life;
mod migration;
mod model;
mod shard_migration;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use samestate::replica::solo::Solo;

use crate::crash_images::life::{Life, open};
use crate::harness::Rng;
use crate::simulated_disk::{PowerCut, RecordingDisk};

const STEPS: usize = 30;
/// Images of one life, apart from those of recoveries.
const IMAGES: usize = 40;

/// A store that was opened on an image, and the place of the model that it is at.
struct Found {
    solo: Solo,
    model: usize,
}

/// Opens an image and compares it with the model that its feed position tells.
fn look(image: &RecordingDisk, life: &Life, promised: (usize, u64)) -> Result<Found, String> {
    let solo = open(Arc::new(image.clone())).map_err(|error| format!("does not open: {error}"))?;
    let view = solo.view();
    let seq = view.head().seq;
    let model = life.model_at(seq);
    let model = model.ok_or_else(|| format!("no batch ends at position {seq} of the feed"))?;
    let (least, incarnation) = promised;
    if model < least {
        return Err(format!("is at batch {model}, but {least} was acknowledged"));
    }
    if view.identity().incarnation <= incarnation {
        return Err(format!("opening {incarnation} was counted before"));
    }
    life.models[model].compare(&view)?;
    Ok(Found { solo, model })
}

/// Checks an image, one taken while it recovered, and one of its life after that.
fn check(
    image: &RecordingDisk,
    life: &Life,
    position: usize,
    rng: &mut Rng,
) -> Result<u64, String> {
    let found = look(image, life, life.promised(position))?;
    let incarnation = found.solo.view().identity().incarnation;
    let opened = image.position();
    let mut images = 1;
    if rng.one_in(4) {
        let mut again = Life::go_on(
            image.clone(),
            found.solo,
            life.models[found.model].clone(),
            Rng::quiet(rng.next()),
        );
        let lived = again.live(1 + rng.below(6));
        lived.map_err(|error| format!("does not go on: {error}"))?;
        let cut = PowerCut::random(rng, again.first_position(), image.position());
        let second = image.cut_power(cut);
        let looked = look(&second, &again, again.promised(cut.position));
        looked.map_err(|fault| told(image, cut, &fault))?;
        images += 1;
    } else {
        drop(found.solo);
    }
    let cut = PowerCut::random(rng, 0, opened);
    let promised = if cut.position == opened {
        (found.model, incarnation)
    } else {
        life.promised(position)
    };
    let looked = look(&image.cut_power(cut), life, promised);
    looked.map_err(|fault| told(image, cut, &fault))?;
    Ok(images + 1)
}

fn told(image: &RecordingDisk, cut: PowerCut, fault: &str) -> String {
    let steps = image.steps_before(cut.position);
    format!("of that image, {cut}: {fault}\n{steps}that was after")
}

/// Takes an image of a life and checks it. The message tells how to see it again.
fn check_any(life: &Life, rng: &mut Rng) -> Result<u64, String> {
    let cut = PowerCut::random(rng, life.first_position(), life.recording.position());
    let killed = rng.one_in(6);
    let image = if killed {
        life.recording.kill(cut.position)
    } else {
        life.recording.cut_power(cut)
    };
    let checked = catch_unwind(AssertUnwindSafe(|| check(&image, life, cut.position, rng)));
    let checked = checked.unwrap_or_else(|_| Err("panics".into()));
    checked.map_err(|fault| {
        let steps = life.recording.steps_before(cut.position);
        let how = if killed { "kill" } else { "cut" };
        format!("{how} {cut}: {fault}\n{steps}")
    })
}

fn number(name: &str, default: u64) -> u64 {
    let wanted = std::env::var(name).ok();
    wanted.map_or(default, |number| number.parse().unwrap())
}

#[test]
fn acknowledged_writes_survive_any_power_cut() {
    let wanted = number("CRASH_IMAGES", 150);
    let mut seeds = Rng::seeded(number("CRASH_SEED", 1));
    let (started, mut images, mut lives) = (Instant::now(), 0, 0);
    while images < wanted {
        let seed = seeds.next();
        let mut rng = Rng::quiet(seed);
        let disk = RecordingDisk::new();
        let life = Life::new(disk.clone(), Arc::new(disk), Rng::quiet(rng.next()));
        let mut life = life.unwrap();
        life.live(STEPS).unwrap();
        life.close();
        lives += 1;
        for _ in 0..IMAGES {
            let checked = check_any(&life, &mut rng);
            images += checked.unwrap_or_else(|fault| panic!("life {seed:#x}, {fault}"));
        }
    }
    println!(
        "{images} images of {lives} lives in {:.1?}",
        started.elapsed()
    );
}
