//! The message pair behind `merkle` and `list`: one side asks about subtrees, the other tells
//! their nodes' fingerprints, or compares the leaves.

use crate::merkle::prefix::Prefix;
use crate::merkle::view::CHILD_LEVELS_MAX;
use crate::reconcile::budget::Budget;
use crate::reconcile::encoding::{Reader, Writer};
use crate::reconcile::error::ReconcileError;
use crate::reconcile::fingerprint::{FINGERPRINT_BYTES, Fingerprints};
use crate::reconcile::view::SetView;

/// Most sections of one question: one for every depth.
pub const SECTIONS_MAX: usize = 65;
/// Most subtrees of one question.
pub const SLOTS_MAX: usize = 1 << 16;
/// Most leaf ids of one question, which bounds the memory of both sides.
pub const IDS_MAX: usize = 1 << 20;
/// Bytes that one leaf of the responder takes in an answer, at most.
const NAMED_LEAF_BYTES: usize = 9;

/// What is asked about the subtrees of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The fingerprints of all nodes so many levels below, 1 to [`CHILD_LEVELS_MAX`].
    Nodes {
        /// Levels below the subtree.
        levels: u8,
    },
    /// Which leaves are not on the other side. The question carries our leaves' ids.
    Leaves {
        /// Width of an id, 1 to 64.
        bits: u8,
    },
}

/// Subtrees of one depth that are asked the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Depth of the subtrees.
    pub depth: u8,
    /// What is asked.
    pub ask: Ask,
    /// For [`Ask::Leaves`], the first bits of a key that name a leaf in the answer; at least `depth`.
    pub names: u8,
    /// The first `depth` bits of each, as a number; sorted.
    pub slots: Vec<u64>,
    /// For [`Ask::Leaves`], for each slot the asking side's leaf ids, sorted.
    pub ids: Vec<Vec<u64>>,
}

impl Section {
    /// The subtree of a slot; `None` when the depth has no such slot.
    pub fn prefix(&self, slot: u64) -> Option<Prefix> {
        slot_prefix(self.depth, slot)
    }
}

/// The subtree that is the `slot`-th at `depth`.
pub fn slot_prefix(depth: u8, slot: u64) -> Option<Prefix> {
    let fits = depth >= 64 || slot >> depth == 0;
    fits.then(|| Prefix::ROOT.child(slot, depth)).flatten()
}

/// Writes a question.
pub fn write_question<'a>(
    key: &[u8; 16],
    sections: impl ExactSizeIterator<Item = &'a Section>,
) -> Vec<u8> {
    let mut out = Writer::new();
    out.raw(key);
    out.varint(sections.len() as u64);
    for section in sections {
        out.byte(section.depth);
        match section.ask {
            Ask::Nodes { levels } => {
                out.byte(levels);
                out.sorted(&section.slots);
            }
            Ask::Leaves { bits } => {
                out.byte(0);
                out.byte(bits);
                out.byte(section.names);
                out.sorted(&section.slots);
                section.ids.iter().for_each(|ids| out.sorted(ids));
            }
        }
    }
    out.finish()
}

/// What one answer may still cost.
struct Allowance {
    nodes: usize,
    leaves: usize,
    bytes: usize,
}

/// Answers a question, or its first part when all of it would go over the budget.
///
/// # Errors
/// [`ReconcileError`] when the question is malformed or over the budget, or the view fails.
pub fn answer(
    view: &dyn SetView,
    question: &[u8],
    budget: &Budget,
) -> Result<Vec<u8>, ReconcileError> {
    let mut reader = Reader::new(question);
    let fingerprints = Fingerprints::new(&reader.array()?);
    let sections = reader.count(SECTIONS_MAX)?;
    let mut allowance = Allowance {
        nodes: budget.nodes,
        leaves: budget.leaves,
        // Counts and Rice parameters of all sections come on top of what is counted.
        bytes: budget.message_bytes.saturating_sub(64 * (sections + 1)),
    };
    let mut slots_left = SLOTS_MAX;
    let mut ids_left = IDS_MAX;
    let mut out = Writer::new();
    let mut open = true;
    for _ in 0..sections {
        let section = read_section(&mut reader, &mut slots_left, &mut ids_left)?;
        let answered = match section.ask {
            _ if !open => {
                out.varint(0);
                0
            }
            Ask::Nodes { levels } => tell_nodes(
                view,
                &fingerprints,
                &section,
                levels,
                &mut allowance,
                &mut out,
            )?,
            Ask::Leaves { bits } => compare_leaves(
                view,
                &fingerprints,
                &section,
                bits,
                &mut allowance,
                &mut out,
            )?,
        };
        open &= answered == section.slots.len();
    }
    reader.end()?;
    Ok(out.finish())
}

fn read_section(
    reader: &mut Reader<'_>,
    slots_left: &mut usize,
    ids_left: &mut usize,
) -> Result<Section, ReconcileError> {
    let depth = reader.byte()?;
    let (ask, names) = match reader.byte()? {
        0 => {
            let bits = reader.byte()?;
            (Ask::Leaves { bits }, reader.byte()?)
        }
        levels => (Ask::Nodes { levels }, depth),
    };
    let (below, bits) = match ask {
        Ask::Nodes { levels } => (levels, 1),
        Ask::Leaves { bits } => (0, bits),
    };
    let deepest = depth.saturating_add(below).max(names);
    let is_possible = deepest <= Prefix::DEPTH_MAX && names >= depth && (1..=64).contains(&bits);
    if below > CHILD_LEVELS_MAX || !is_possible {
        return Err(ReconcileError::Malformed("a question below the tree"));
    }
    let slots = reader.sorted(*slots_left)?;
    *slots_left -= slots.len();
    let ascending = slots.is_sorted_by(|a, b| a < b);
    let last = slots.last().copied().unwrap_or(0);
    if !ascending || slot_prefix(depth, last).is_none() {
        return Err(ReconcileError::Malformed("subtrees out of order or range"));
    }
    let mut ids = Vec::new();
    if let Ask::Leaves { .. } = ask {
        for _ in &slots {
            let of_slot = reader.sorted(*ids_left)?;
            *ids_left -= of_slot.len();
            ids.push(of_slot);
        }
    }
    Ok(Section {
        depth,
        ask,
        names,
        slots,
        ids,
    })
}

/// Answers with how many subtrees are told, a bitmap of their nodes that are not empty, and the
/// fingerprints of those.
fn tell_nodes(
    view: &dyn SetView,
    fingerprints: &Fingerprints,
    section: &Section,
    levels: u8,
    allowance: &mut Allowance,
    out: &mut Writer,
) -> Result<usize, ReconcileError> {
    let nodes_each = 1 << levels;
    let bytes_each = (nodes_each * FINGERPRINT_BYTES) + nodes_each.div_ceil(8);
    let told = section
        .slots
        .len()
        .min(allowance.nodes / nodes_each)
        .min(allowance.bytes / bytes_each);
    let mut filled = Vec::with_capacity(told * nodes_each);
    let mut hashes = Vec::new();
    for slot in &section.slots[..told] {
        let Some(prefix) = section.prefix(*slot) else {
            continue;
        };
        for node in view.children(prefix, levels)? {
            filled.push(node.leaves > 0);
            if node.leaves > 0 {
                hashes.extend(fingerprints.node(&node));
            }
        }
    }
    allowance.nodes -= told * nodes_each;
    allowance.bytes -= told * bytes_each;
    out.varint(told as u64);
    out.bitmap(filled);
    out.raw(&hashes);
    Ok(told)
}

/// Answers with how many subtrees were compared, the first bits of our leaves that the
/// question does not name, and the positions in the question of ids that we lack.
fn compare_leaves(
    view: &dyn SetView,
    fingerprints: &Fingerprints,
    section: &Section,
    bits: u8,
    allowance: &mut Allowance,
    out: &mut Writer,
) -> Result<usize, ReconcileError> {
    let (mut only_here, mut only_there) = (Vec::new(), Vec::new());
    let mut compared = 0;
    let mut position = 0;
    for (slot, asked) in section.slots.iter().zip(&section.ids) {
        let Some(prefix) = section.prefix(*slot) else {
            break;
        };
        let leaves = view.leaves(prefix, allowance.leaves.saturating_add(1))?;
        if leaves.len() > allowance.leaves {
            break;
        }
        let id = |leaf| fingerprints.leaf_id(leaf, bits);
        let mut ids: Vec<u64> = leaves.iter().map(id).collect();
        let unnamed: Vec<u64> = leaves
            .iter()
            .zip(&ids)
            .filter(|(_, id)| asked.binary_search(id).is_err())
            .map(|(leaf, _)| Prefix::of(&leaf.key, section.names).slot(section.names))
            .collect();
        ids.sort_unstable();
        let lacked: Vec<u64> = (position..)
            .zip(asked)
            .filter(|(_, id)| ids.binary_search(id).is_err())
            .map(|(position, _)| position)
            .collect();
        let cost = (unnamed.len() + lacked.len()) * NAMED_LEAF_BYTES;
        if cost > allowance.bytes {
            break;
        }
        allowance.bytes -= cost;
        allowance.leaves -= leaves.len();
        position += asked.len() as u64;
        only_here.extend(unnamed);
        only_here.dedup();
        only_there.extend(lacked);
        compared += 1;
    }
    out.varint(compared as u64);
    if compared > 0 {
        out.sorted(&only_here);
        out.sorted(&only_there);
    }
    Ok(compared)
}
