//! `cursor`: what changed on either side since both were proven equal. One entry of about 13 bytes
//! for each state that changed at the peer, and nothing at all for those that changed here.

use crate::merkle::prefix::Prefix;
use crate::reconcile::budget::Budget;
use crate::reconcile::encoding::{Reader, Writer};
use crate::reconcile::error::ReconcileError;
use crate::reconcile::fingerprint::{FINGERPRINT_BYTES, Fingerprints};
use crate::reconcile::strategy::{
    AgreementMark, Context, Difference, Step, Strategy, TOO_MANY_DIFFER, TOO_MANY_ROUNDS,
};
use crate::reconcile::view::SetView;
use crate::types::leaf::Leaf;

/// Entries of one page at most: under 1 MB.
const PAGE_ENTRIES: usize = 1 << 16;
/// Bytes of one entry at most: a prefix of 64 bits and its coding, and a fingerprint.
const ENTRY_BYTES: usize = 9 + FINGERPRINT_BYTES;
/// Bytes of an answer besides its entries.
const ANSWER_OVERHEAD: usize = 64;

/// The initiator's side.
#[derive(Debug)]
pub struct CursorWalk {
    context: Context,
    fingerprints: Fingerprints,
    /// Where the question in flight begins.
    asked: Option<u64>,
    rounds: u32,
    differing: Vec<u64>,
    equal: Vec<u64>,
}

impl CursorWalk {
    /// Not started.
    pub fn new(context: &Context) -> Self {
        Self {
            context: *context,
            fingerprints: Fingerprints::new(&context.key),
            asked: None,
            rounds: 0,
            differing: Vec::new(),
            equal: Vec::new(),
        }
    }

    fn ask(&mut self, since: u64) -> Step {
        if self.rounds >= self.context.limits.rounds {
            return Step::CannotDecide(TOO_MANY_ROUNDS);
        }
        self.rounds += 1;
        self.asked = Some(since);
        let mut out = Writer::new();
        out.raw(&self.context.key);
        out.varint(since);
        out.varint(self.page_entries() as u64);
        Step::Ask(out.finish())
    }

    fn page_entries(&self) -> usize {
        PAGE_ENTRIES.min(self.context.limits.message_bytes / ENTRY_BYTES)
    }

    /// Takes a page in and says where the next begins, if there is one.
    fn read_reply(
        &mut self,
        view: &dyn SetView,
        since: u64,
        reply: &[u8],
    ) -> Result<Option<u64>, ReconcileError> {
        let limit = self.context.limits.message_bytes;
        if reply.len() > limit {
            let what = "bytes of an answer";
            return Err(ReconcileError::OverBudget { what, limit });
        }
        let mut reader = Reader::new(reply);
        let next = reader.varint()?;
        let prefixes = reader.sorted(self.page_entries())?;
        for bits in &prefixes {
            let theirs = reader.array()?;
            if self.holds(view, *bits, &theirs)? {
                self.equal.push(*bits);
            } else {
                self.differing.push(*bits);
            }
        }
        reader.end()?;
        match next {
            0 => Ok(None),
            next if next > since && !prefixes.is_empty() => Ok(Some(next)),
            _ => Err(ReconcileError::Inconsistent("a feed that does not go on")),
        }
    }

    fn holds(
        &self,
        view: &dyn SetView,
        bits: u64,
        theirs: &[u8; FINGERPRINT_BYTES],
    ) -> Result<bool, ReconcileError> {
        let Some(prefix) = Prefix::new(bits, Prefix::DEPTH_MAX) else {
            return Ok(false);
        };
        // Two of our keys under one 64-bit prefix count as different, which is never wrong.
        let ours = view.leaves(prefix, 2)?;
        Ok(matches!(&ours[..], [leaf] if self.fingerprints.leaf(leaf) == *theirs))
    }

    /// What changed here since the mark and the peer has not named: it still holds the old form.
    fn finish(&mut self, view: &dyn SetView, our_seq: u64) -> Result<Step, ReconcileError> {
        let limit = self.context.limits.differing;
        self.equal.sort_unstable();
        let mut since = our_seq;
        while self.differing.len() <= limit {
            let changes = view.changes_after(since, PAGE_ENTRIES)?;
            let Some((last, _)) = changes.last() else {
                let differing = self.differing.split_off(0);
                return Ok(Step::Found(Difference::of_sides(differing, Vec::new())));
            };
            since = *last;
            let changed = changes.iter().map(|(_, leaf)| leaf.key.prefix64());
            let unnamed = changed.filter(|bits| self.equal.binary_search(bits).is_err());
            self.differing.extend(unnamed);
        }
        Ok(Step::CannotDecide(TOO_MANY_DIFFER))
    }
}

impl Strategy for CursorWalk {
    fn advance(
        &mut self,
        view: &dyn SetView,
        reply: Option<&[u8]>,
    ) -> Result<Step, ReconcileError> {
        let Some(AgreementMark { their_seq, our_seq }) = self.context.mark else {
            return Ok(Step::CannotDecide("both sides were never proven equal"));
        };
        match (reply, self.asked.take()) {
            (None, None) if self.rounds == 0 => match self.context.their_seq.checked_sub(their_seq)
            {
                None => Ok(Step::CannotDecide("the peer's feed is shorter than it was")),
                Some(0) => self.finish(view, our_seq),
                Some(_) => Ok(self.ask(their_seq)),
            },
            (Some(reply), Some(since)) => match self.read_reply(view, since, reply)? {
                _ if self.differing.len() > self.context.limits.differing => {
                    Ok(Step::CannotDecide(TOO_MANY_DIFFER))
                }
                Some(next) => Ok(self.ask(next)),
                None => self.finish(view, our_seq),
            },
            _ => Err(ReconcileError::OutOfTurn),
        }
    }
}

/// Answers with a page of changes: where the next page begins or 0, then the changed keys' 64-bit
/// prefixes in key order, then the fingerprint of each leaf.
///
/// # Errors
/// [`ReconcileError`] when the question is malformed or the view fails.
pub fn answer(
    view: &dyn SetView,
    question: &[u8],
    budget: &Budget,
) -> Result<Vec<u8>, ReconcileError> {
    let mut reader = Reader::new(question);
    let fingerprints = Fingerprints::new(&reader.array()?);
    let since = reader.varint()?;
    let asked = reader.varint()?;
    reader.end()?;
    let bytes = budget.message_bytes.saturating_sub(ANSWER_OVERHEAD);
    let granted = (bytes / ENTRY_BYTES).min(budget.leaves).min(PAGE_ENTRIES);
    let entries = usize::try_from(asked).map_or(granted, |asked| asked.min(granted));
    if entries == 0 {
        let what = "entries of a page";
        return Err(ReconcileError::OverBudget { what, limit: 0 });
    }
    let mut changes = view.changes_after(since, entries + 1)?;
    let more = changes.len() > entries;
    changes.truncate(entries);
    let last = changes.last().map_or(0, |(seq, _)| *seq);
    let mut leaves: Vec<Leaf> = changes.into_iter().map(|(_, leaf)| leaf).collect();
    leaves.sort_unstable_by_key(|leaf| leaf.key);
    let prefixes: Vec<u64> = leaves.iter().map(|leaf| leaf.key.prefix64()).collect();
    let mut out = Writer::new();
    out.varint(if more { last } else { 0 });
    out.sorted(&prefixes);
    for leaf in &leaves {
        out.raw(&fingerprints.leaf(leaf));
    }
    Ok(out.finish())
}
