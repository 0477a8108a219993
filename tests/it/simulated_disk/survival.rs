//! What a power cut leaves of a disk: all that was synced, and by chance any part of the rest.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::harness::Rng;
use crate::simulated_disk::content::{BLOCK, Content, parts};
use crate::simulated_disk::volume::{Change, NameChange, Names, Pending, StoredFile, Volume};

/// Bytes that a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// Which of the changes since a file's last sync are on the medium.
#[derive(Debug, Clone, Copy)]
enum Kept {
    Nothing,
    Everything,
    AllBut(usize),
    AllButSectorsOf(usize),
    Only(usize),
    OnlySectorsOf(usize),
    /// All before this one, and some sectors of it: what a disk does that keeps the order.
    UpTo(usize),
    /// Each whole change with a chance of so many in 256.
    Changes(u8),
    /// Each sector of each change with a chance of so many in 256.
    Sectors(u8),
}

/// How much of one change is on the medium.
#[derive(Debug, Clone, Copy)]
enum Share {
    None,
    Whole,
    /// Each sector with a chance of so many in 256.
    Sectors(u8),
}

const HALF: u8 = 128;

/// A disk as it may look when the power comes back. The same `rng` gives the same disk.
pub fn after_power_cut(volume: &Volume, rng: &mut Rng) -> Volume {
    // The two ends for the whole disk are worth more than their share among all combinations.
    let all = match rng.below(16) {
        0 => Some(Kept::Nothing),
        1 => Some(Kept::Everything),
        _ => None,
    };
    let names = surviving_names(volume, all, rng);
    let files = names.into_iter().map(|(path, file)| {
        let file = volume.file(file);
        (path, surviving_content(file, all, rng))
    });
    Volume::durable(files.collect::<Vec<_>>())
}

/// Of each folder, the changes to its names up to some moment since its last sync.
fn surviving_names(volume: &Volume, all: Option<Kept>, rng: &mut Rng) -> Names {
    let mut folders: BTreeMap<&Path, Vec<&NameChange>> = BTreeMap::new();
    for change in &volume.pending_names {
        folders.entry(change.folder()).or_default().push(change);
    }
    let mut names = Names::clone(&volume.synced_names);
    for changes in folders.values() {
        let made = match (all, rng.below(4)) {
            (Some(Kept::Nothing), _) | (None, 0) => 0,
            (Some(_), _) | (None, 1) => changes.len(),
            (None, _) => rng.below(changes.len() + 1),
        };
        for change in &changes[..made] {
            change.apply(&mut names);
        }
    }
    names
}

fn surviving_content(file: &StoredFile, all: Option<Kept>, rng: &mut Rng) -> Arc<Content> {
    if file.pending.is_empty() {
        return Arc::clone(&file.synced);
    }
    let kept = all.unwrap_or_else(|| Kept::any(file.pending.len(), rng));
    let (lengths, length) = surviving_length(file, kept, all.is_some(), rng);
    let mut content = Content::clone(&file.synced);
    for (at, pending) in file.pending.iter().enumerate() {
        match &pending.change {
            Change::SetLength(length) if at < lengths => content.set_length(*length),
            Change::SetLength(_) => {}
            Change::Write { offset, bytes } => {
                let durable = at < file.settled && !pending.doubtful;
                let share = if durable {
                    Share::Whole
                } else {
                    kept.share_of(at, rng)
                };
                keep(&mut content, *offset, bytes, share, rng);
            }
        }
    }
    content.set_length(length);
    Arc::new(content)
}

/// How many of the changes have had their effect on the file's length, and that length.
///
/// Lengths change in order, whatever becomes of the bytes. A write beyond the end may have got to
/// any sector, and a cut or a growth to any block in between.
fn surviving_length(file: &StoredFile, kept: Kept, all: bool, rng: &mut Rng) -> (usize, u64) {
    let (first, last) = (file.settled, file.pending.len());
    let lengths = match (kept, rng.below(4)) {
        (Kept::Nothing, _) if all => first,
        (Kept::Everything, _) if all => last,
        (Kept::UpTo(one), _) => one.max(first),
        (_, 0) => first,
        (_, 1) => last,
        _ => first + rng.below(last - first + 1),
    };
    let reached = match file.pending[..lengths].last() {
        Some(pending) => pending.length,
        None => file.synced.length(),
    };
    let halfway = file.pending.get(lengths).filter(|_| !all);
    let halfway = halfway.and_then(|next| between(reached, next, rng));
    (lengths, halfway.unwrap_or(reached))
}

/// A length that a file may have while it goes from one length to the next.
fn between(length: u64, next: &Pending, rng: &mut Rng) -> Option<u64> {
    let unit = match next.change {
        Change::Write { .. } => SECTOR,
        Change::SetLength(_) => BLOCK,
    } as u64;
    let (least, most) = (length.min(next.length), length.max(next.length));
    let units = least / unit + 1..most.div_ceil(unit);
    if units.is_empty() || rng.one_in(2) {
        return None;
    }
    Some((units.start + rng.next() % (units.end - units.start)) * unit)
}

/// Puts the part of a write that is on the medium into the file.
fn keep(content: &mut Content, offset: u64, bytes: &[u8], share: Share, rng: &mut Rng) {
    match share {
        Share::None => {}
        Share::Whole => content.write(offset, bytes),
        Share::Sectors(chance) => {
            for part in parts(offset, bytes.len(), SECTOR) {
                if is_so(chance, rng) {
                    let bytes = &bytes[part.at..part.at + part.length];
                    content.write(offset + part.at as u64, bytes);
                }
            }
        }
    }
}

fn is_so(chance: u8, rng: &mut Rng) -> bool {
    rng.below(256) < usize::from(chance)
}

impl Kept {
    fn any(changes: usize, rng: &mut Rng) -> Self {
        let one = rng.below(changes);
        let chance = [16, HALF, HALF, 240][rng.below(4)];
        match rng.below(14) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 => Self::AllBut(one),
            3 => Self::AllButSectorsOf(one),
            4 => Self::Only(one),
            5 => Self::OnlySectorsOf(one),
            6 | 7 => Self::UpTo(one),
            8..11 => Self::Changes(chance),
            _ => Self::Sectors(chance),
        }
    }

    fn share_of(self, change: usize, rng: &mut Rng) -> Share {
        let whole = |kept: bool| if kept { Share::Whole } else { Share::None };
        match self {
            Self::Nothing => Share::None,
            Self::Everything => Share::Whole,
            Self::AllBut(one) => whole(change != one),
            Self::AllButSectorsOf(one) if change != one => Share::Whole,
            Self::Only(one) => whole(change == one),
            Self::OnlySectorsOf(one) if change != one => Share::None,
            Self::UpTo(one) if change != one => whole(change < one),
            Self::AllButSectorsOf(_) | Self::OnlySectorsOf(_) | Self::UpTo(_) => {
                Share::Sectors(HALF)
            }
            Self::Changes(chance) => whole(is_so(chance, rng)),
            Self::Sectors(chance) => Share::Sectors(chance),
        }
    }
}
