//! `bloom`: each side sends a filter of its leaves and the other names what is not in it. One round
//! trip, about 14 bits for each state at 0.1%, but a filter hides that share of the differences:
//! the session's root check notices, and `merkle` finds the rest.

use crate::bloom::{BYTES_MAX, BloomFilter};
use crate::merkle::prefix::Prefix;
use crate::reconcile::budget::Budget;
use crate::reconcile::descent::expected_below;
use crate::reconcile::encoding::{Reader, Writer};
use crate::reconcile::error::ReconcileError;
use crate::reconcile::fingerprint::leaf_bytes;
use crate::reconcile::strategy::{
    Context, Difference, Step, Strategy, TOO_MANY_DIFFER, TOO_MANY_ROUNDS,
};
use crate::reconcile::subtrees::slot_prefix;
use crate::reconcile::view::SetView;
use crate::types::leaf::Leaf;

/// Leaves of one page, about.
const PAGE_LEAVES: u64 = 1 << 18;
/// Error rates travel in parts per million.
const RATE_UNIT: f64 = 1e6;
/// Bytes of an answer besides its filter and its named leaves.
const ANSWER_OVERHEAD: usize = 64;
/// Bytes that a named leaf takes, at most.
const NAMED_LEAF_BYTES: usize = 9;
/// Leaves of one page at most: an honest page never holds twice the expected number.
const PAGE_LEAVES_MAX: usize = 1 << 19;

/// The initiator's side.
#[derive(Debug)]
pub struct Bloom {
    context: Context,
    /// Pages to ask for, the next one last.
    pages: Vec<Prefix>,
    asked: Option<Prefix>,
    rounds: u32,
    differing: Vec<u64>,
}

impl Bloom {
    /// Not started.
    pub fn new(context: &Context) -> Self {
        Self {
            context: *context,
            pages: Vec::new(),
            asked: None,
            rounds: 0,
            differing: Vec::new(),
        }
    }

    fn rate(&self) -> u64 {
        (self.context.bloom.fpr * RATE_UNIT) as u64
    }

    /// Leaves that the filter of a page at this depth is sized for at least.
    fn items_below(&self, depth: u8) -> u64 {
        expected_below(self.context.bloom.items.min(PAGE_LEAVES), depth)
    }

    /// Pages of even size; `false` when that takes too many trips.
    fn start(&mut self, view: &dyn SetView) -> Result<bool, ReconcileError> {
        let theirs = self.context.theirs.map_or(0, |root| root.leaves);
        let leaves = view.root()?.leaves.max(theirs).max(self.items_below(0));
        let largest = self.context.limits.message_bytes.min(BYTES_MAX) / 2;
        let fits = |depth: &u8| {
            let page = leaves >> depth;
            page <= PAGE_LEAVES && BloomFilter::bytes_for(page, self.context.bloom.fpr) <= largest
        };
        let depth = (0..63).find(fits);
        let Some(depth) = depth.filter(|depth| 1 << depth <= u64::from(self.context.limits.rounds))
        else {
            return Ok(false);
        };
        let page = |slot| slot_prefix(depth, slot);
        self.pages = (0..1 << depth).rev().filter_map(page).collect();
        Ok(true)
    }

    fn ask(&mut self, view: &dyn SetView) -> Result<Step, ReconcileError> {
        if self.differing.len() > self.context.limits.differing {
            return Ok(Step::CannotDecide(TOO_MANY_DIFFER));
        }
        let Some(page) = self.pages.pop() else {
            // A leaf that is not in their filter may be there in another version that ours hides,
            // so nothing is surely absent.
            let differing = self.differing.split_off(0);
            return Ok(Step::Found(Difference::of_sides(differing, Vec::new())));
        };
        if self.rounds >= self.context.limits.rounds {
            return Ok(Step::CannotDecide(TOO_MANY_ROUNDS));
        }
        self.rounds += 1;
        let limit = self.context.limits.message_bytes;
        let leaves = view.leaves(page, PAGE_LEAVES_MAX + 1)?;
        let filter = (leaves.len() <= PAGE_LEAVES_MAX)
            .then(|| {
                let least = self.items_below(page.depth());
                filter_of(&leaves, least, self.context.bloom.fpr, self.context.key)
            })
            .transpose()?;
        let Some(filter) = filter.filter(|filter| filter.len() < limit - limit / 8) else {
            return Ok(Step::CannotDecide("a filter would not fit into a message"));
        };
        let mut out = Writer::new();
        out.raw(&self.context.key);
        out.byte(page.depth());
        out.varint(page.slot(page.depth()));
        out.varint(self.rate());
        out.raw(&filter);
        self.asked = Some(page);
        Ok(Step::Ask(out.finish()))
    }

    fn read_reply(
        &mut self,
        view: &dyn SetView,
        page: Prefix,
        reply: &[u8],
    ) -> Result<(), ReconcileError> {
        let limit = self.context.limits.message_bytes;
        if reply.len() > limit {
            let what = "bytes of an answer";
            return Err(ReconcileError::OverBudget { what, limit });
        }
        let mut reader = Reader::new(reply);
        if reader.byte()? == 0 {
            let halves = [1, 0].map(|slot| page.child(slot, 1));
            self.pages.extend(halves.into_iter().flatten());
            return reader.end();
        }
        let theirs = reader.sorted(self.context.limits.differing)?;
        let inside = |bits: &u64| Prefix::new(*bits, page.depth()) == Some(page);
        if !theirs.iter().all(inside) {
            return Err(ReconcileError::Inconsistent("a leaf outside the page"));
        }
        self.differing.extend(theirs);
        let filter = read_filter(reader.rest(), self.context.key)?;
        let mine = view.leaves(page, PAGE_LEAVES_MAX)?;
        let lacked = mine
            .iter()
            .filter(|leaf| !filter.contains(&leaf_bytes(leaf)));
        self.differing
            .extend(lacked.map(|leaf| leaf.key.prefix64()));
        Ok(())
    }
}

impl Strategy for Bloom {
    fn advance(
        &mut self,
        view: &dyn SetView,
        reply: Option<&[u8]>,
    ) -> Result<Step, ReconcileError> {
        match (reply, self.asked.take()) {
            (None, None) if self.rounds == 0 => {
                if !self.start(view)? {
                    return Ok(Step::CannotDecide(TOO_MANY_ROUNDS));
                }
            }
            (Some(reply), Some(page)) => match self.read_reply(view, page, reply) {
                Err(ReconcileError::TooMany { .. }) => {
                    return Ok(Step::CannotDecide(TOO_MANY_DIFFER));
                }
                read => read?,
            },
            _ => return Err(ReconcileError::OutOfTurn),
        }
        self.ask(view)
    }
}

/// Answers with the prefixes of our leaves that are not in the peer's filter, and a filter of ours;
/// or with a zero byte when the page is too large for the budget.
///
/// # Errors
/// [`ReconcileError`] when the question is malformed or the view fails.
pub fn answer(
    view: &dyn SetView,
    question: &[u8],
    budget: &Budget,
) -> Result<Vec<u8>, ReconcileError> {
    let mut reader = Reader::new(question);
    let key = reader.array()?;
    let depth = reader.byte()?;
    let page = slot_prefix(depth, reader.varint()?);
    let page = page.ok_or(ReconcileError::Malformed("a page outside the tree"))?;
    let rate = reader.varint()? as f64 / RATE_UNIT;
    let theirs = read_filter(reader.rest(), key)?;
    let mut out = Writer::new();
    let leaves = view.leaves(page, budget.leaves.saturating_add(1))?;
    if leaves.len() > budget.leaves {
        out.byte(0);
        return Ok(out.finish());
    }
    let unnamed: Vec<u64> = leaves
        .iter()
        .filter(|leaf| !theirs.contains(&leaf_bytes(leaf)))
        .map(|leaf| leaf.key.prefix64())
        .collect();
    let bytes = BloomFilter::bytes_for(leaves.len() as u64, rate)
        .saturating_add(unnamed.len() * NAMED_LEAF_BYTES + ANSWER_OVERHEAD);
    if bytes > budget.message_bytes {
        out.byte(0);
        return Ok(out.finish());
    }
    out.byte(1);
    out.sorted(&unnamed);
    out.raw(&filter_of(&leaves, 0, rate, key)?);
    Ok(out.finish())
}

/// A filter of the leaves, sized for `least` of them or more.
fn filter_of(
    leaves: &[Leaf],
    least: u64,
    fpr: f64,
    key: [u8; 16],
) -> Result<Vec<u8>, ReconcileError> {
    let over = |_| ReconcileError::OverBudget {
        what: "bytes of a Bloom filter",
        limit: BYTES_MAX,
    };
    let items = least.max(leaves.len() as u64);
    let mut filter = BloomFilter::with_rate(items, fpr, key).map_err(over)?;
    for leaf in leaves {
        filter.insert(&leaf_bytes(leaf));
    }
    Ok(filter.to_bytes())
}

fn read_filter(bytes: &[u8], key: [u8; 16]) -> Result<BloomFilter, ReconcileError> {
    BloomFilter::from_bytes(bytes, key)
        .map_err(|_| ReconcileError::Malformed("bytes that are no Bloom filter"))
}
