//! What the simulated disk promises of its images, held against a model that is too simple to err.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use samestate::store::disk::{Disk, DiskFile};

use crate::harness::Rng;
use crate::simulated_disk::{Fault, PowerCut, RecordingDisk};

const FOLDER: &str = "/data";

fn at(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn make(disk: &RecordingDisk, name: &str) -> Arc<dyn DiskFile> {
    disk.open(&at(name), true).unwrap()
}

/// A disk with one file of these bytes, all of it durable.
fn disk_with(bytes: &[u8]) -> (RecordingDisk, Arc<dyn DiskFile>) {
    let disk = RecordingDisk::new();
    let file = make(&disk, "file");
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_folder(Path::new(FOLDER)).unwrap();
    (disk, file)
}

/// What many cuts at one position leave.
fn images(disk: &RecordingDisk, count: u64) -> impl Iterator<Item = RecordingDisk> {
    let position = disk.position();
    (0..count).map(move |seed| disk.cut_power(PowerCut { position, seed }))
}

fn file_of(image: &RecordingDisk) -> Vec<u8> {
    image.contents(&at("file")).unwrap()
}

/// Contents of a file since its last sync: as it was then, and after each change.
type Versions = Vec<Vec<u8>>;

/// Makes random changes to some files and returns the versions of each at every position.
fn run(disk: &RecordingDisk, rng: &mut Rng) -> Vec<(usize, Vec<Versions>)> {
    let files: Vec<_> = (0..3).map(|n| make(disk, &n.to_string())).collect();
    disk.sync_folder(Path::new(FOLDER)).unwrap();
    let mut versions = vec![vec![Vec::new()]; files.len()];
    let mut known = vec![(disk.position(), versions.clone())];
    for _ in 0..200 {
        let n = rng.below(files.len());
        let (file, versions_of) = (&files[n], &mut versions[n]);
        let mut now = versions_of.last().unwrap().clone();
        match rng.below(8) {
            0 => {
                file.sync().unwrap();
                versions_of.clear();
            }
            1 => {
                let length = rng.below(12_000);
                file.set_len(length as u64).unwrap();
                now.resize(length, 0);
            }
            _ => {
                let (offset, length) = (rng.below(8_000), 1 + rng.below(4_000));
                let bytes = rng.bytes(length);
                file.write_at(offset as u64, &bytes).unwrap();
                now.resize(now.len().max(offset + bytes.len()), 0);
                now[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
        }
        versions_of.push(now);
        known.push((disk.position(), versions.clone()));
    }
    known
}

/// Every byte is one that stood there since the last sync, and so is the length or lies between.
fn assert_possible(image: &[u8], versions: &Versions, cut: PowerCut) {
    let lengths = versions.iter().map(Vec::len);
    let (least, most) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
    assert!((least..=most).contains(&image.len()), "{cut}");
    for (place, byte) in image.iter().enumerate() {
        let mut stood = versions.iter().map(|v| v.get(place).copied().unwrap_or(0));
        assert!(
            stood.any(|b| b == *byte),
            "{cut}: byte {place} was never so"
        );
    }
    if let [only] = &versions[..] {
        assert!(image == only, "{cut}: durable bytes differ");
    }
}

#[test]
fn a_cut_keeps_what_was_synced_and_invents_nothing() {
    let mut rng = Rng::seeded(1);
    for _ in 0..3 {
        let disk = RecordingDisk::new();
        for (position, files) in run(&disk, &mut rng) {
            let killed = disk.kill(position);
            let cut = PowerCut::random(&mut rng, position, position);
            let image = disk.cut_power(cut);
            for (n, versions) in files.iter().enumerate() {
                let path = at(&n.to_string());
                assert_possible(&image.contents(&path).unwrap(), versions, cut);
                assert!(killed.contents(&path).as_ref() == versions.last(), "{cut}");
            }
        }
    }
}

#[test]
fn the_same_cut_of_the_same_history_leaves_the_same_disk() {
    let disks: [RecordingDisk; 2] = std::array::from_fn(|_| RecordingDisk::new());
    for disk in &disks {
        run(disk, &mut Rng::quiet(7));
    }
    let mut rng = Rng::seeded(8);
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let cut = PowerCut::random(&mut rng, 4, disks[0].position());
        let [one, other] = disks.each_ref().map(|disk| {
            let image = disk.cut_power(cut);
            let names = ["0", "1", "2"];
            names.map(|name| image.contents(&at(name)))
        });
        assert!(one == other, "{cut}");
        seen.insert(one);
    }
    assert!(seen.len() > 100, "{} different images", seen.len());
}

#[test]
fn an_image_and_its_original_go_their_own_ways() {
    let (disk, file) = disk_with(&[1; 9000]);
    let image = disk.kill(disk.position());
    let copy = image.open(&at("file"), false).unwrap();
    copy.write_at(10, &[2; 5000]).unwrap();
    file.write_at(4000, &[3; 10]).unwrap();
    file.set_len(4010).unwrap();
    let (original, image) = (file_of(&disk), file_of(&image));
    assert!(original == [vec![1; 4000], vec![3; 10]].concat());
    assert!(image == [vec![1; 10], vec![2; 5000], vec![1; 3990]].concat());
}

#[test]
fn writes_are_torn_into_any_set_of_sectors() {
    let (disk, file) = disk_with(&[0; 8 * 512]);
    // Two writes that share no sector. Neither begins or ends where one does.
    for begin in [100, 4 * 512 + 100] {
        file.write_at(begin, &[1; 3 * 512]).unwrap();
    }
    let whole = file_of(&disk);
    let mut seen = BTreeSet::new();
    for image in images(&disk, 20_000) {
        let bytes = file_of(&image);
        let sectors = bytes.chunks(512).zip(whole.chunks(512));
        let written = sectors.map(|(sector, whole)| {
            assert!(sector == whole || sector == [0; 512]);
            sector == whole
        });
        seen.insert(written.collect::<Vec<bool>>());
    }
    assert_eq!(seen.len(), 256);
}

#[test]
fn nothing_everything_one_and_all_but_one_happen_often() {
    let (disk, file) = disk_with(&[0; 8 * 4096]);
    for n in 0..8 {
        file.write_at(n * 4096, &[1; 4096]).unwrap();
    }
    // How many sectors of each write are there.
    let mut counts = BTreeMap::<Vec<usize>, usize>::new();
    for image in images(&disk, 4_000) {
        let bytes = file_of(&image);
        let sectors = |block: &[u8]| block.iter().step_by(512).filter(|b| **b == 1).count();
        let pattern = bytes.chunks(4096).map(sectors).collect();
        *counts.entry(pattern).or_default() += 1;
    }
    for (most, one) in [(0, 8), (8, 0)] {
        let mut pattern = vec![most; 8];
        assert!(counts[&pattern] > 200, "{pattern:?}: {counts:?}");
        for place in 0..8 {
            pattern[place] = one;
            assert!(counts[&pattern] > 20, "{pattern:?}: {counts:?}");
            pattern[place] = most;
        }
    }
    assert!(counts.len() > 500, "too few others: {}", counts.len());
}

#[test]
fn the_whole_disk_as_synced_and_as_written_happen_often() {
    let (disk, file) = disk_with(&[0; 4096]);
    let files = [file, make(&disk, "2"), make(&disk, "3"), make(&disk, "4")];
    for file in &files {
        file.write_at(100, &[1; 1000]).unwrap();
        file.write_at(4096, &[1; 4096]).unwrap();
    }
    let held = |disk: &RecordingDisk| {
        let paths = ["file", "2", "3", "4"].map(at);
        paths.map(|path| disk.contents(&path))
    };
    let (before, after) = ([Some(vec![0; 4096]), None, None, None], held(&disk));
    let seen: Vec<_> = images(&disk, 2_000).map(|image| held(&image)).collect();
    for whole in [before, after] {
        let count = seen.iter().filter(|image| **image == whole).count();
        assert!((80..400).contains(&count), "{count} of 2000");
    }
}

#[test]
fn a_length_is_one_that_the_file_had_or_passed() {
    let (disk, file) = disk_with(&[1; 1000]);
    file.write_at(1000, &[2; 500]).unwrap();
    file.set_len(3000).unwrap();
    let mut seen = BTreeSet::new();
    for image in images(&disk, 2_000) {
        let bytes = file_of(&image);
        assert!(bytes[..1000] == [1; 1000]);
        let written = &bytes[1000..bytes.len().min(1500)];
        assert!(written.iter().all(|byte| [0, 2].contains(byte)));
        assert!(bytes.iter().skip(1500).all(|byte| *byte == 0));
        seen.insert((bytes.len(), bytes.contains(&2)));
    }
    // 1024 is where a sector ends that the write goes through. Lengths go without the bytes.
    let lengths = [1024, 1500, 3000].into_iter();
    let possible = lengths.flat_map(|length| [(length, false), (length, true)]);
    assert_eq!(seen, possible.chain([(1000, false)]).collect());

    let (disk, file) = disk_with(&[1; 3000]);
    file.set_len(500).unwrap();
    let seen: BTreeSet<_> = images(&disk, 200).map(|i| file_of(&i)).collect();
    assert!(seen == [vec![1; 500], vec![1; 3000]].into());
    file.set_len(8192).unwrap();
    file.sync().unwrap();
    file.set_len(20_480).unwrap();
    file.set_len(16_384).unwrap();
    file.set_len(500).unwrap();
    let seen: BTreeSet<_> = images(&disk, 500).map(|i| file_of(&i).len()).collect();
    assert_eq!(seen, [500, 4096, 8192, 12_288, 16_384, 20_480].into());
    file.sync().unwrap();
    assert!(images(&disk, 100).all(|image| file_of(&image) == [1; 500]));
}

#[test]
fn names_change_in_order_and_up_to_any_moment() {
    let folder = Path::new(FOLDER);
    let (disk, _) = disk_with(b"old");
    make(&disk, "new");
    disk.rename(&at("file"), &at("recycled")).unwrap();
    disk.remove(&at("new")).unwrap();
    let elsewhere = Path::new("/elsewhere");
    disk.open(&elsewhere.join("x"), true).unwrap();
    let listed = |image: RecordingDisk| {
        let names = image.list(folder).unwrap().into_iter();
        let names: Vec<String> = names
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        (names.join(" "), image.list(elsewhere).unwrap().len())
    };
    let seen: BTreeSet<_> = images(&disk, 500).map(listed).collect();
    let states = ["file", "file new", "new recycled", "recycled"];
    let possible = states
        .into_iter()
        .flat_map(|s| [(s.to_owned(), 0), (s.to_owned(), 1)]);
    assert_eq!(seen, possible.collect());

    disk.sync_folder(folder).unwrap();
    let seen: BTreeSet<_> = images(&disk, 100).map(listed).collect();
    let possible = [("recycled".to_owned(), 0), ("recycled".to_owned(), 1)];
    assert_eq!(seen, possible.into());
}

#[test]
fn names_and_bytes_are_durable_apart_from_each_other() {
    let disk = RecordingDisk::new();
    let file = make(&disk, "draft");
    file.write_at(0, b"state").unwrap();
    file.sync().unwrap();
    let seen: BTreeSet<_> = images(&disk, 100)
        .map(|i| i.contents(&at("draft")))
        .collect();
    assert_eq!(seen, [None, Some(b"state".to_vec())].into());

    let file = make(&disk, "unsynced");
    file.write_at(0, b"state").unwrap();
    disk.rename(&at("unsynced"), &at("draft")).unwrap();
    disk.sync_folder(Path::new(FOLDER)).unwrap();
    let seen: BTreeSet<_> = images(&disk, 200)
        .map(|i| i.contents(&at("draft")))
        .collect();
    assert!(seen.contains(&Some(Vec::new())) && seen.contains(&Some(b"state".to_vec())));
    assert!(!seen.contains(&None));
}

#[test]
fn a_removed_file_comes_back_whole_when_the_removal_was_not_durable() {
    let (disk, file) = disk_with(b"state");
    disk.remove(&at("file")).unwrap();
    file.write_at(0, b"STATE").unwrap();
    file.sync().unwrap();
    let seen: BTreeSet<_> = images(&disk, 100)
        .map(|i| i.contents(&at("file")))
        .collect();
    assert_eq!(seen, [None, Some(b"STATE".to_vec())].into());
}

#[test]
fn what_a_failed_sync_left_out_no_later_sync_makes_durable() {
    let (disk, file) = disk_with(&[0; 1024]);
    file.write_at(0, &[1; 512]).unwrap();
    disk.fail(Fault::after(0, Errno::IO));
    assert!(file.sync().is_err());
    file.write_at(512, &[2; 1024]).unwrap();
    file.sync().unwrap();
    let after = [vec![1; 512], vec![2; 1024]].concat();
    assert!(file_of(&disk) == after);
    let seen: BTreeSet<_> = images(&disk, 200).map(|i| file_of(&i)).collect();
    let without = [vec![0; 512], vec![2; 1024]].concat();
    assert!(seen == [after.clone(), without].into());

    file.write_at(0, &[1; 512]).unwrap();
    let seen: BTreeSet<_> = images(&disk, 200).map(|i| file_of(&i)).collect();
    assert_eq!(seen.len(), 2);
    file.sync().unwrap();
    assert!(images(&disk, 100).all(|image| file_of(&image) == after));

    // A second failure casts no doubt on what was synced between the two.
    disk.fail(Fault::after(0, Errno::IO));
    assert!(file.sync().is_err());
    assert!(images(&disk, 100).all(|image| file_of(&image) == after));
}

#[test]
fn a_killed_process_leaves_all_it_wrote_but_none_of_it_safer() {
    let (disk, file) = disk_with(b"synced");
    file.write_at(0, b"WRITTEN").unwrap();
    let killed = disk.kill(disk.position());
    assert_eq!(file_of(&killed), b"WRITTEN");
    let seen: BTreeSet<_> = images(&killed, 100).map(|i| file_of(&i)).collect();
    assert!(seen.contains(&b"synced"[..]) && seen.contains(&b"WRITTEN"[..]));
    let again = killed.open(&at("file"), false).unwrap();
    again.sync().unwrap();
    assert!(images(&killed, 100).all(|image| file_of(&image) == b"WRITTEN"));
    // A cut in the second life keeps what that life synced and not what it only wrote.
    again.write_at(0, b"LATER").unwrap();
    let cut = images(&killed, 100).find(|image| file_of(image) == b"WRITTEN");
    let twice = cut.unwrap();
    assert!(images(&twice, 100).all(|image| file_of(&image) == b"WRITTEN"));
}
