//! What a repair does with the log of roots: it is kept whole or begins anew, never shortened; and
//! with what is kept of the logs of others.

use crate::replica::check_roots::unfounded;
use crate::replica::command::Effect;
use crate::replica::rebuild::Builder;
use crate::roots::entry::RootEntry;
use crate::roots::peaks::Peaks;
use crate::store::error::StoreError;
use crate::store::read::Snapshot;
use crate::store::root_log::{RootLogMark, Told};
use crate::store::salvage::Remains;
use crate::types::id::Namespace;

/// Entries that are read and written together.
const PAGE: usize = 4096;

/// What became of a log of roots.
#[derive(Debug)]
pub enum RootLogKept {
    /// All of it is in the new file.
    Whole,
    /// Nothing of it is, and why. A log that lacks entries would contradict what was signed, so
    /// another one begins, with another name.
    Broken(String),
}

/// Copies the log of roots, with its nodes made anew, if it can be read from its first entry to the
/// last one that the file knows of.
///
/// # Errors
/// [`StoreError`] when the new file fails.
pub fn save_root_log(remains: &Remains, builder: &mut Builder) -> Result<RootLogKept, StoreError> {
    let Some(snapshot) = remains.snapshot() else {
        let why = "the file's tables cannot be opened".to_owned();
        return Ok(RootLogKept::Broken(why));
    };
    let mark = match whole(snapshot) {
        Ok(mark) => mark,
        Err(error) => return Ok(RootLogKept::Broken(error.bare())),
    };
    walk(snapshot, &mut |entry| {
        builder.carry_out(Effect::Seal(entry));
        if builder.effects() >= PAGE {
            builder.flush()?;
        }
        Ok(())
    })?;
    builder.flush()?;
    if mark.is_some_and(|mark| mark.is_past) {
        builder.leave_root_behind()?;
    }
    Ok(RootLogKept::Whole)
}

/// What the file tells of its log of roots, if the entries are just that.
fn whole(snapshot: &Snapshot) -> Result<Option<RootLogMark>, StoreError> {
    let (mark, peaks) = (snapshot.root_log_mark()?, walk(snapshot, &mut |_| Ok(()))?);
    if mark.map(|mark| (mark.size, mark.hash)) == peaks.hash().map(|hash| (peaks.size(), hash)) {
        return Ok(mark);
    }
    let (told, found) = (mark.map_or(0, |mark| mark.size), peaks.size());
    Err(StoreError::damaged(format!(
        "its {found} entries are not the {told} that there were"
    )))
}

fn walk(
    snapshot: &Snapshot,
    take: &mut dyn FnMut(RootEntry) -> Result<(), StoreError>,
) -> Result<Peaks, StoreError> {
    let mut peaks = Peaks::default();
    loop {
        let rows = snapshot.root_rows((0, peaks.size()), (0, u64::MAX), PAGE)?;
        if rows.is_empty() {
            return Ok(peaks);
        }
        for ((_, place), row) in rows {
            let entry = RootEntry::from_bytes(&row).filter(|_| place == peaks.size());
            let Some(entry) = entry else {
                let detail = format!("entry {} cannot be read", peaks.size());
                return Err(StoreError::damaged(detail));
            };
            peaks.push(entry.leaf());
            take(entry)?;
        }
    }
}

/// Copies the heads and the evidence that are what they say by their signatures.
pub fn save_witnessed(remains: &Remains, namespace: &Namespace, builder: &mut Builder) {
    // What cannot be read is heard of again from the replicas themselves.
    let told = remains.snapshot().map(Snapshot::told_of_logs);
    let told = told.and_then(Result::ok).unwrap_or_default();
    for told in told.into_iter().filter_map(|(_, told)| told) {
        match told {
            Told::Witnessed(seen) if seen.head.is_signed(namespace) => {
                builder.carry_out(Effect::Witness(seen.into()));
            }
            Told::Accused(held) if unfounded(&held, namespace).is_none() => {
                builder.carry_out(Effect::Accuse(held.into()));
            }
            _ => {}
        }
    }
}
