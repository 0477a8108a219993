//! Checking the log of roots against itself and against the tree, and what is kept of the logs of
//! others against the signatures that it stands on.

use crate::replica::findings::CheckReport;
use crate::roots::entry::RootEntry;
use crate::roots::head::SignedHead;
use crate::roots::peaks::Peaks;
use crate::roots::witness::{Accusation, Fault};
use crate::store::error::StoreError;
use crate::store::read::Snapshot;
use crate::store::root_log::Told;
use crate::store::rows::{Head, Identity};
use crate::types::hash::LogHash;
use crate::types::id::Namespace;

/// What faults of the log of roots are listed as.
const ROOTS: &str = "roots";
/// What faults of what is kept of others are listed as.
const WITNESS: &str = "witness";

/// Rows that are read at once.
const PAGE: usize = 4096;
/// Nodes that stand where none can be, listed for each height.
const SURPLUS_MAX: usize = 16;
/// Heights that nodes over 64-bit places can have.
const HEIGHTS: u8 = 64;

/// The log of roots as far as it could be gone through.
struct Walked {
    peaks: Peaks,
    newest: Option<RootEntry>,
    is_whole: bool,
}

/// Checks the log of roots of a namespace. `stands` is what the namespace is and where, when that is
/// known.
///
/// # Errors
/// [`StoreError`] when the disk fails, or [`StoreError::Damaged`] when a table cannot be read to its
/// end.
pub fn check_root_log(
    snapshot: &Snapshot,
    stands: Option<(&Identity, &Head)>,
    report: &mut CheckReport,
    go_on: &dyn Fn() -> bool,
) -> Result<(), StoreError> {
    let walked = walk(snapshot, report, go_on)?;
    if !walked.is_whole {
        return Ok(());
    }
    surplus(snapshot, walked.peaks.size(), report)?;
    let mark = match snapshot.root_log_mark() {
        Err(StoreError::Damaged(what)) => {
            report.fault(ROOTS, &"size and hash", &what);
            return Ok(());
        }
        mark => mark?,
    };
    let told = mark.map(|mark| (mark.size, mark.hash));
    let found = walked.peaks.hash().map(|hash| (walked.peaks.size(), hash));
    if told != found {
        let say = |what: Option<(u64, LogHash)>| match what {
            Some((size, hash)) => format!("{size} entries with hash {hash}"),
            None => "no entries".to_owned(),
        };
        let detail = format!("there were {}, there are {}", say(told), say(found));
        report.fault(ROOTS, &"size and hash", &detail);
        return Ok(());
    }
    if let (Some(newest), Some(mark), Some((identity, head))) = (walked.newest, mark, stands) {
        newest_entry(&newest, mark.is_past, identity, head, report);
    }
    Ok(())
}

/// Goes through all entries, and compares each node with what they give.
fn walk(
    snapshot: &Snapshot,
    report: &mut CheckReport,
    go_on: &dyn Fn() -> bool,
) -> Result<Walked, StoreError> {
    let mut walked = Walked {
        peaks: Peaks::default(),
        newest: None,
        is_whole: true,
    };
    while go_on() {
        let next = walked.peaks.size();
        let rows = snapshot.root_rows((0, next), (0, u64::MAX), PAGE)?;
        if rows.is_empty() {
            return Ok(walked);
        }
        for ((_, place), row) in rows {
            let expected = walked.peaks.size();
            let broken = match RootEntry::from_bytes(&row) {
                _ if place != expected => {
                    Some(format!("is missing; the next one is entry {place}"))
                }
                None => Some("does not decode".to_owned()),
                Some(entry) => {
                    step(snapshot, &mut walked, entry, report)?;
                    None
                }
            };
            if let Some(detail) = broken {
                report.fault(ROOTS, &format!("entry {expected}"), &detail);
                walked.is_whole = false;
                return Ok(walked);
            }
            report.roots += 1;
        }
    }
    walked.is_whole = false;
    Ok(walked)
}

fn step(
    snapshot: &Snapshot,
    walked: &mut Walked,
    entry: RootEntry,
    report: &mut CheckReport,
) -> Result<(), StoreError> {
    let place = walked.peaks.size();
    if let Some(why) = walked
        .newest
        .and_then(|before| entry.cannot_follow(&before))
    {
        report.fault(ROOTS, &format!("entry {place}"), &why);
    }
    for node in walked.peaks.push(entry.leaf()) {
        let what = match snapshot.root_row(node.height, node.place)? {
            Some(row) if row == node.hash.0 => continue,
            Some(_) => "is not what the entries give",
            None => "is missing",
        };
        let name = format!("node {} at height {}", node.place, node.height);
        report.fault(ROOTS, &name, &what);
    }
    walked.newest = Some(entry);
    Ok(())
}

/// Finds nodes over entries that are not there.
fn surplus(snapshot: &Snapshot, size: u64, report: &mut CheckReport) -> Result<(), StoreError> {
    let heights = (1..HEIGHTS).map(|height| ((height, size >> height), (height, u64::MAX)));
    let beyond = ((HEIGHTS, 0), (u8::MAX, u64::MAX));
    for (from, to) in heights.chain([beyond]) {
        for ((height, place), _) in snapshot.root_rows(from, to, SURPLUS_MAX)? {
            let name = format!("node {place} at height {height}");
            report.fault(ROOTS, &name, &"stands over entries that are not there");
        }
    }
    Ok(())
}

/// Compares the newest entry with what the namespace holds now.
fn newest_entry(
    newest: &RootEntry,
    is_past: bool,
    identity: &Identity,
    head: &Head,
    report: &mut CheckReport,
) {
    if newest.epoch != identity.epoch {
        return;
    }
    if newest.seq > head.seq || newest.incarnation > identity.incarnation {
        let (there, here) = (newest.seq, head.seq);
        let (later, now) = (newest.incarnation, identity.incarnation);
        let detail = format!(
            "is of change {there} in incarnation {later}, the namespace stands at change {here} in \
             incarnation {now}"
        );
        report.fault(ROOTS, &"newest entry", &detail);
    } else if newest.seq == head.seq && !is_past && newest.root != head.root.hash {
        let detail = format!(
            "says that the root at change {} was {}, it is {}",
            newest.seq, newest.root, head.root.hash
        );
        report.fault(ROOTS, &"newest entry", &detail);
    }
}

/// Checks that every head kept of other replicas, and every piece of evidence, is what it says by
/// itself.
///
/// # Errors
/// As for [`check_root_log`].
pub fn check_witnessed(
    snapshot: &Snapshot,
    namespace: &Namespace,
    report: &mut CheckReport,
) -> Result<(), StoreError> {
    for (name, told) in snapshot.told_of_logs()? {
        report.witnessed += 1;
        let fault = match &told {
            None => Some("does not decode"),
            Some(told) if told.name() != name => Some("stands under the name of another key"),
            Some(Told::Witnessed(witnessed)) => unsigned(&[&witnessed.head], namespace),
            Some(Told::Accused(held)) => unfounded(held, namespace),
        };
        if let Some(fault) = fault {
            report.fault(WITNESS, &name, &fault);
        }
    }
    Ok(())
}

fn unsigned(heads: &[&SignedHead], namespace: &Namespace) -> Option<&'static str> {
    let all = heads.iter().all(|head| head.is_signed(namespace));
    (!all).then_some("has a head that is not signed by the key that it names")
}

/// Why evidence shows nothing, if it does not.
pub fn unfounded(held: &Accusation, namespace: &Namespace) -> Option<&'static str> {
    let (first, second) = (&held.first, &held.second);
    let same_key = first.key == second.key;
    let shows = match held.fault {
        Fault::TwoHeads => first.contradicts(second),
        // That a proof was refused cannot be shown afterwards.
        Fault::Rewritten => first.is_of_log_of(second) && first.head.size != second.head.size,
        Fault::BegunAnew => same_key && first.head.log != second.head.log,
        Fault::NewKey => !same_key && first.head.replica == second.head.replica,
    };
    let unsigned = unsigned(&[first, second], namespace);
    unsigned.or_else(|| (!shows).then_some("has two heads that do not show what they are kept for"))
}
