//! Copying everything in key order, region by region: each region's records are proven against
//! the announced root before any of them is stored, regions that are equal already are skipped,
//! and so a copy that broke off goes on where it stopped.

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::trie::summary_at;
use crate::merkle::view::CHILD_LEVELS_MAX;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::pull::Puller;
use crate::sync::transport::Home;
use crate::types::leaf::Leaf;
use crate::types::record::StateRecord;
use crate::wire::messages::{
    Endpoint, LIST_MAX, RangeReply, RangeRequest, SubtreesReply, SubtreesRequest,
};

/// Records that one region should have: few enough for one answer even where chance puts more.
const REGION: u64 = LIST_MAX as u64 * 3 / 4;

/// Copies whatever lies below `at`, which the peer's snapshot sums up as `theirs`. With a puller
/// records are taken over; our own extra states are noted either way.
///
/// # Errors
/// [`SessionError`]; regions before the one that failed stay.
pub fn copy_region(
    exchange: &mut Exchange<'_>,
    home: &dyn Home,
    puller: &mut Puller<'_>,
    at: Prefix,
    theirs: Summary,
) -> Result<(), SessionError> {
    let session = puller.session();
    let view = home.view();
    let ours = view.tree().subtree(at).map_err(StoreError::from)?;
    if ours.matches(&theirs) {
        return Ok(());
    }
    if theirs.leaves <= LIST_MAX as u64 {
        let records = fetch_range(exchange, session, at, &theirs)?;
        note_extra(&view, at, &records, puller)?;
        return puller.take(exchange, records);
    }
    let levels = levels_to_regions(theirs.leaves);
    let subtrees = fetch_subtrees(exchange, session, at, levels, &theirs)?;
    for (slot, subtree) in subtrees.into_iter().enumerate() {
        let child = at.child(slot as u64, levels);
        let child = child.ok_or(SessionError::Misfit("a tree deeper than its keys"))?;
        copy_region(exchange, home, puller, child, subtree)?;
    }
    Ok(())
}

/// How many levels down subtrees are small enough, keys being spread evenly.
fn levels_to_regions(leaves: u64) -> u8 {
    let regions = leaves.div_ceil(REGION).next_power_of_two();
    let levels = u8::try_from(regions.ilog2()).unwrap_or(CHILD_LEVELS_MAX);
    levels.clamp(1, CHILD_LEVELS_MAX)
}

fn fetch_range(
    exchange: &mut Exchange<'_>,
    session: u64,
    at: Prefix,
    theirs: &Summary,
) -> Result<Vec<StateRecord>, SessionError> {
    if theirs.leaves == 0 {
        return Ok(Vec::new());
    }
    let (mut records, mut leaves): (Vec<StateRecord>, Vec<Leaf>) = (Vec::new(), Vec::new());
    loop {
        let after = leaves.last().map(|leaf| leaf.key);
        let head = RangeRequest { session, at, after };
        let asked = exchange.ask("state_request", Endpoint::Range, &head, &[]);
        let (reply, _): (RangeReply, _) = asked?;
        if reply.records.is_empty() && !reply.complete {
            return Err(SessionError::Misfit("an answer without records"));
        }
        for record in reply.records {
            record.check()?;
            let leaf = record.leaf();
            if !at.covers(&leaf.key) || leaves.last().is_some_and(|last| last.key >= leaf.key) {
                return Err(SessionError::Misfit("records out of place"));
            }
            leaves.push(leaf);
            records.push(record);
        }
        if leaves.len() as u64 > theirs.leaves {
            return Err(SessionError::Misfit("more records than there are"));
        }
        if reply.complete {
            break;
        }
    }
    let sum = summary_at(&leaves, at.depth());
    if sum.matches(theirs) {
        Ok(records)
    } else {
        Err(SessionError::RootMismatch)
    }
}

fn fetch_subtrees(
    exchange: &mut Exchange<'_>,
    session: u64,
    at: Prefix,
    levels: u8,
    theirs: &Summary,
) -> Result<Vec<Summary>, SessionError> {
    let head = SubtreesRequest {
        session,
        at,
        levels,
    };
    let asked = exchange.ask("merkle_comparison", Endpoint::Subtrees, &head, &[]);
    let (reply, _): (SubtreesReply, _) = asked?;
    if reply.subtrees.len() != 1 << levels {
        return Err(SessionError::Misfit("another number of subtrees"));
    }
    let mut level = reply.subtrees.clone();
    for depth in (at.depth()..at.depth() + levels).rev() {
        level = level
            .chunks_exact(2)
            .map(|pair| Summary::of_children(depth, &pair[0], &pair[1]))
            .collect();
    }
    match level.first() {
        Some(sum) if sum.matches(theirs) => Ok(reply.subtrees),
        _ => Err(SessionError::RootMismatch),
    }
}

/// Our states in the region that the peer does not have.
fn note_extra(
    view: &View,
    at: Prefix,
    records: &[StateRecord],
    puller: &mut Puller<'_>,
) -> Result<(), SessionError> {
    let theirs: Vec<_> = records.iter().map(StateRecord::key).collect();
    let ours = view.snapshot().leaves_below(at, usize::MAX)?;
    let extra = ours
        .into_iter()
        .map(|leaf| leaf.key)
        .filter(|key| theirs.binary_search(key).is_err());
    puller.note_absent(view, extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_neither_too_large_nor_needlessly_small() {
        for (leaves, levels) in [(4097, 1), (10_000, 2), (100_000, 6), (1_000_000, 8)] {
            assert_eq!(levels_to_regions(leaves), levels, "{leaves}");
        }
        assert_eq!(levels_to_regions(u64::MAX / 2), CHILD_LEVELS_MAX);
    }
}
