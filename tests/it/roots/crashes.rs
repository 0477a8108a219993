//! No head that could be handed out is taken back: whatever a power cut or a kill leaves, the log
//! of roots goes on from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use samestate::clock::WallClock;
use samestate::replica::check::check as check_all;
use samestate::replica::command::Command;
use samestate::replica::solo::Solo;
use samestate::roots::head::LogHead;
use samestate::roots::mountains;
use samestate::roots::verify::is_consistent;
use samestate::store::disk::Disk;
use samestate::store::options::StoreOptions;
use samestate::types::cursor::Epoch;
use samestate::types::id::{Namespace, ReplicaId};

use crate::harness::Rng;
use crate::harness::replica::put;
use crate::simulated_disk::{PowerCut, RecordingDisk};

struct Ticking(AtomicU64);

impl WallClock for Ticking {
    fn now_millis(&self) -> u64 {
        1_700_000_000_000 + self.0.fetch_add(7, Ordering::Relaxed)
    }
}

fn open(disk: Arc<dyn Disk>, now: u64) -> Solo {
    let (path, wall) = (Path::new("/data/t.redb"), Arc::new(Ticking(now.into())));
    let options = StoreOptions::default();
    Solo::open_on(disk, path, ReplicaId(1), Epoch(1), options, wall).unwrap()
}

/// A store that writes, seals, checkpoints and is opened again, and the heads it could hand out at
/// each position of its disk.
fn live(disk: &RecordingDisk, rng: &mut Rng) -> Vec<(usize, LogHead)> {
    let mut heads = Vec::new();
    let mut solo = open(Arc::new(disk.clone()), 0);
    for step in 0..40 {
        match rng.below(8) {
            0 => solo.checkpoint().unwrap(),
            1 => {
                drop(solo);
                solo = open(Arc::new(disk.clone()), step * 1000);
            }
            2 | 3 => {
                let sealed = solo.seal().unwrap();
                assert!(!sealed || !solo.seal().unwrap(), "one root is sealed once");
            }
            _ => {
                let (id, bytes) = (format!("s/{}", rng.below(5)), rng.bytes(40));
                let write = Command::Write(vec![put(&id, &bytes)]);
                assert!(solo.commit(vec![write], BTreeMap::new()).unwrap()[0].is_ok());
            }
        }
        if let Some(head) = solo.view().log_head().unwrap() {
            heads.push((disk.position(), head));
        }
    }
    heads
}

fn check(image: RecordingDisk, handed_out: Option<&LogHead>, seed: u64) {
    let mut solo = open(Arc::new(image), 90_000);
    let report = check_all(
        solo.view().snapshot(),
        &Namespace::default_namespace(),
        &mut |_| {},
    );
    assert_eq!(report.unwrap().faults, [], "seed {seed:#x}");
    let write = Command::Write(vec![put("later", &seed.to_le_bytes())]);
    assert!(solo.commit(vec![write], BTreeMap::new()).unwrap()[0].is_ok());
    assert!(solo.seal().unwrap());
    let view = solo.view();
    let now = view.log_head().unwrap().unwrap();
    for place in 1..now.size {
        let time = |place| view.snapshot().root_entry(place).unwrap().unwrap().time;
        assert!(time(place - 1) <= time(place));
    }
    let Some(old) = handed_out else {
        return;
    };
    assert_eq!(now.log, old.log, "seed {seed:#x}");
    assert!(
        now.size > old.size,
        "seed {seed:#x}: {old:?} was taken back"
    );
    let proof = mountains::consistency(view.snapshot(), old.size, now.size);
    let proof = proof.unwrap().unwrap();
    let follows = is_consistent((old.size, &old.hash), (now.size, &now.hash), &proof);
    assert!(follows, "seed {seed:#x}: {old:?} was rewritten");
    let newest = view.snapshot().root_entry(old.size - 1).unwrap();
    assert_eq!(newest, Some(old.newest), "seed {seed:#x}");
}

#[test]
fn no_head_is_taken_back_by_a_power_cut_or_a_kill() {
    let (mut seeds, mut with_heads) = (Rng::seeded(4), 0);
    for _ in 0..6 {
        let seed = seeds.next();
        let mut rng = Rng::quiet(seed);
        let disk = RecordingDisk::new();
        drop(open(Arc::new(disk.clone()), 0));
        let first = disk.position();
        let heads = live(&disk, &mut rng);
        for _ in 0..25 {
            let cut = PowerCut::random(&mut rng, first, disk.position());
            let image = if rng.one_in(4) {
                disk.kill(cut.position)
            } else {
                disk.cut_power(cut)
            };
            let handed_out = heads.iter().rfind(|(at, _)| *at <= cut.position);
            with_heads += u32::from(handed_out.is_some());
            check(image, handed_out.map(|(_, head)| head), seed);
        }
    }
    assert!(with_heads > 80, "{with_heads}");
}
