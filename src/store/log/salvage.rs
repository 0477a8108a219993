//! Reading what is left of a damaged log: every group that is intact, whatever stands around it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;

use crate::store::directory::unusable;
use crate::store::error::StoreError;
use crate::store::log::group::{ALIGNMENT, EntryKind, ReadGroup, SegmentKey, lengths, open};
use crate::store::log::place::{LogPlace, LogPosition};
use crate::store::log::segment::{Header, SEGMENT_HEADER, read_header};
use crate::types::cursor::Epoch;

/// Times as many bytes as a segment has are hashed at most for what looks like groups and is none. The
/// states of clients stand in the log; a repair has more time than a start.
const SEARCH_FACTOR: usize = 1024;

/// What is left of a log.
#[derive(Debug, Default)]
pub struct LogRemains {
    /// Changes of each commit that the file does not hold, in order.
    pub commits: BTreeMap<u64, Bytes>,
    /// Commits that must have been there and are not.
    pub lost: u64,
    /// The segments' files.
    pub segments: Vec<PathBuf>,
}

/// Reads every intact group. `from` says where the engine's file stands, `epoch` whose log it is;
/// without them everything counts, whosever it is.
///
/// # Errors
/// [`StoreError::Unusable`] when the disk fails.
pub fn salvage_log(
    place: &LogPlace,
    from: Option<LogPosition>,
    epoch: Option<Epoch>,
) -> Result<LogRemains, StoreError> {
    let numbers = place.numbers();
    let numbers = numbers.map_err(|source| unusable(&place.folder, source))?;
    let mut remains = LogRemains::default();
    let mut seen = BTreeSet::new();
    for number in numbers {
        let path = place.path(number);
        let bytes = load(place, number);
        let bytes = bytes.map_err(|source| unusable(&path, source))?;
        remains.segments.push(path);
        // The header is a help and no more: groups are checked with the key of their segment.
        let epoch = match (epoch, read_header(&bytes)) {
            (Some(epoch), _) => epoch,
            (None, Header::Key(found)) => found.epoch,
            (None, _) => continue,
        };
        read_groups(SegmentKey { epoch, number }, &bytes, &mut |commit, kind| {
            seen.insert(commit);
            match kind {
                EntryKind::Void => remains.commits.remove(&commit),
                EntryKind::Changes(changes) => remains.commits.insert(commit, changes),
            };
        });
    }
    let first = seen.first().copied().unwrap_or(0);
    let begin = from.map_or(first, |from| from.commit + 1);
    remains.commits.retain(|commit, _| *commit >= begin);
    let there = seen.range(begin..).count() as u64;
    if let Some(last) = seen.last() {
        remains.lost = (last + 1).saturating_sub(begin).saturating_sub(there);
    }
    Ok(remains)
}

fn load(place: &LogPlace, number: u64) -> std::io::Result<Bytes> {
    let file = place.disk.open(&place.path(number), false)?;
    let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(usize::MAX)];
    file.read_at(0, &mut bytes)?;
    Ok(bytes.into())
}

fn read_groups(key: SegmentKey, bytes: &Bytes, take: &mut dyn FnMut(u64, EntryKind)) {
    let mut at = SEGMENT_HEADER as usize;
    let mut budget = bytes.len().saturating_mul(SEARCH_FACTOR);
    while at < bytes.len() {
        // Groups are shorter than what is made to look like one and reach to the end.
        let length = lengths(&bytes[at..]).map_or(0, |(length, _)| length);
        let is_there = length > 0 && length <= bytes.len() - at && length <= budget;
        if !is_there {
            at += ALIGNMENT as usize;
            continue;
        }
        match open(key, &bytes.slice(at..)) {
            ReadGroup::Intact(entries, used) => {
                for entry in entries {
                    take(entry.commit, entry.kind);
                }
                at += used;
            }
            ReadGroup::None => {
                budget -= length;
                at += ALIGNMENT as usize;
            }
        }
    }
}
