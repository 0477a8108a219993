//! The initiator behind `merkle` and `list`: keeps the subtrees that may differ, asks about them
//! in batches, and collects the leaves that one side lacks.

use std::collections::BTreeMap;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::reconcile::encoding::Reader;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::fingerprint::{FINGERPRINT_BYTES, Fingerprints};
use crate::reconcile::strategy::{
    Context, Difference, Rest, Step, Strategy, TOO_MANY_DIFFER, TOO_MANY_ROUNDS,
};
use crate::reconcile::subtrees::{Ask, IDS_MAX, SLOTS_MAX, Section, slot_prefix, write_question};
use crate::reconcile::view::SetView;
use crate::types::hash::StateKey;

/// Nodes that one question asks for at most; a responder grants as many by default.
const NODES_PER_MESSAGE: usize = 1 << 17;
/// Bits of a name beyond those that number all leaves.
const NAME_SPARE_BITS: u32 = 9;
/// Fewest bits of a name: records are asked for by no fewer.
const NAME_BITS_MIN: u8 = 24;
/// Levels by which a subtree is split that is too large to compare.
const SPLIT_LEVELS: u8 = 4;

/// Chooses what to ask about the subtrees that may differ.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Depth of the subtrees to begin with, from the leaves on the larger side.
    pub start: fn(leaves: u64) -> u8,
    /// What to ask about so many subtrees at a depth.
    pub ask: fn(depth: u8, subtrees: usize, leaves: u64, rest: Option<Rest>) -> Ask,
}

/// A section in flight, with the keys behind the ids that it carries.
#[derive(Debug)]
struct Asked {
    section: Section,
    keys: Vec<StateKey>,
}

/// What one question may still hold.
struct Room {
    nodes: usize,
    leaves: usize,
    subtrees: usize,
}

/// See the file's head.
#[derive(Debug)]
pub struct Descent {
    policy: Policy,
    context: Context,
    fingerprints: Fingerprints,
    /// Leaves on the larger side, for the policy.
    leaves: u64,
    /// First bits of keys that name a leaf of the peer's.
    names: u8,
    /// Slots that may differ, by depth.
    pending: BTreeMap<u8, Vec<u64>>,
    asked: Vec<Asked>,
    rounds: u32,
    theirs: Vec<u64>,
    mine: Vec<StateKey>,
}

impl Strategy for Descent {
    fn advance(
        &mut self,
        view: &dyn SetView,
        reply: Option<&[u8]>,
    ) -> Result<Step, ReconcileError> {
        let read = match (reply, self.asked.is_empty()) {
            (None, true) if self.rounds == 0 => self.start(view),
            (Some(reply), false) => self.read_reply(view, reply),
            _ => Err(ReconcileError::OutOfTurn),
        };
        match read {
            Ok(()) => self.ask(view),
            Err(ReconcileError::TooMany { .. }) => Ok(Step::CannotDecide(TOO_MANY_DIFFER)),
            Err(error) => Err(error),
        }
    }
}

impl Descent {
    /// Not started.
    pub fn new(policy: Policy, context: &Context) -> Self {
        Self {
            policy,
            context: *context,
            fingerprints: Fingerprints::new(&context.key),
            leaves: 0,
            names: Prefix::DEPTH_MAX,
            pending: BTreeMap::new(),
            asked: Vec::new(),
            rounds: 0,
            theirs: Vec::new(),
            mine: Vec::new(),
        }
    }

    fn start(&mut self, view: &dyn SetView) -> Result<(), ReconcileError> {
        let claimed = self.context.theirs.map_or(0, |root| root.leaves);
        self.leaves = view.root()?.leaves.max(claimed);
        self.names = name_bits(self.leaves);
        let depth = (self.policy.start)(self.leaves);
        self.pending.insert(depth, (0..1 << depth).collect());
        Ok(())
    }

    fn ask(&mut self, view: &dyn SetView) -> Result<Step, ReconcileError> {
        if self.pending.is_empty() {
            let (theirs, mine) = (self.theirs.split_off(0), self.mine.split_off(0));
            return Ok(Step::Found(Difference::at_depth(self.names, theirs, mine)));
        }
        if self.rounds >= self.context.limits.rounds {
            return Ok(Step::CannotDecide(TOO_MANY_ROUNDS));
        }
        self.rounds += 1;
        let bytes = self.context.limits.message_bytes;
        let mut room = Room {
            nodes: NODES_PER_MESSAGE.min(bytes / 8),
            leaves: IDS_MAX.min(bytes / 16),
            subtrees: SLOTS_MAX.min(bytes / 16),
        };
        while let Some((depth, mut slots)) = self.pending.pop_first() {
            slots.sort_unstable();
            let ask = (self.policy.ask)(depth, slots.len(), self.leaves, self.context.rest);
            let rest = match ask {
                Ask::Nodes { levels } => self.ask_nodes(depth, levels, slots, &mut room),
                Ask::Leaves { bits } => self.ask_leaves(view, depth, bits, slots, &mut room)?,
            };
            if !rest.is_empty() {
                self.pending.entry(depth).or_default().extend(rest);
                break;
            }
        }
        let sections = self.asked.iter().map(|asked| &asked.section);
        Ok(Step::Ask(write_question(&self.context.key, sections)))
    }

    /// Adds a section for as many slots as there is room for, and gives back the others.
    fn ask_nodes(
        &mut self,
        depth: u8,
        levels: u8,
        mut slots: Vec<u64>,
        room: &mut Room,
    ) -> Vec<u64> {
        let mut fit = room.subtrees.min(room.nodes >> levels).min(slots.len());
        if self.asked.is_empty() {
            fit = fit.max(1);
        }
        let rest = slots.split_off(fit);
        room.nodes = room.nodes.saturating_sub(fit << levels);
        room.subtrees = room.subtrees.saturating_sub(fit);
        self.push(depth, Ask::Nodes { levels }, slots, Vec::new(), Vec::new());
        rest
    }

    /// Adds a section with our leaves' ids. Subtrees in which we hold too many are split.
    fn ask_leaves(
        &mut self,
        view: &dyn SetView,
        depth: u8,
        bits: u8,
        slots: Vec<u64>,
        room: &mut Room,
    ) -> Result<Vec<u64>, ReconcileError> {
        let whole = IDS_MAX.min(self.context.limits.message_bytes / 16);
        let expected = expected_below(self.leaves, depth).min(whole as u64) as usize;
        let mut slots = slots.into_iter();
        let (mut chosen, mut all_ids, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = Vec::new();
        for slot in slots.by_ref() {
            let first = self.asked.is_empty() && chosen.is_empty();
            if !first && (room.subtrees == 0 || room.leaves < expected) {
                rest.push(slot);
                break;
            }
            let leaves = view.leaves(prefix_at(depth, slot)?, whole + 1)?;
            if leaves.len() > whole {
                self.split(depth, slot)?;
                continue;
            }
            if !first && leaves.len() > room.leaves {
                rest.push(slot);
                break;
            }
            room.leaves = room
                .leaves
                .saturating_sub(leaves.len().max(expected).max(1));
            room.subtrees = room.subtrees.saturating_sub(1);
            let id = |leaf| self.fingerprints.leaf_id(leaf, bits);
            let mut by_id: Vec<_> = leaves.iter().map(|leaf| (id(leaf), leaf.key)).collect();
            by_id.sort_unstable();
            chosen.push(slot);
            all_ids.push(by_id.iter().map(|(id, _)| *id).collect());
            keys.extend(by_id.into_iter().map(|(_, key)| key));
        }
        rest.extend(slots);
        self.push(depth, Ask::Leaves { bits }, chosen, all_ids, keys);
        Ok(rest)
    }

    fn push(
        &mut self,
        depth: u8,
        ask: Ask,
        slots: Vec<u64>,
        ids: Vec<Vec<u64>>,
        keys: Vec<StateKey>,
    ) {
        if !slots.is_empty() {
            let section = Section {
                depth,
                ask,
                names: self.names.max(depth),
                slots,
                ids,
            };
            self.asked.push(Asked { section, keys });
        }
    }

    fn split(&mut self, depth: u8, slot: u64) -> Result<(), ReconcileError> {
        let levels = SPLIT_LEVELS.min(Prefix::DEPTH_MAX - depth);
        if levels == 0 {
            return Err(ReconcileError::OverBudget {
                what: "leaves whose keys share 64 bits",
                limit: IDS_MAX,
            });
        }
        let first = slot << levels;
        let children = self.pending.entry(depth + levels).or_default();
        children.extend(first..first + (1 << levels));
        Ok(())
    }

    fn read_reply(&mut self, view: &dyn SetView, reply: &[u8]) -> Result<(), ReconcileError> {
        let limit = self.context.limits.message_bytes;
        if reply.len() > limit {
            let what = "bytes of an answer";
            return Err(ReconcileError::OverBudget { what, limit });
        }
        let mut reader = Reader::new(reply);
        for (index, asked) in self.asked.split_off(0).into_iter().enumerate() {
            let section = &asked.section;
            let answered = reader.count(section.slots.len())?;
            if answered == 0 && index == 0 {
                // The responder's whole budget is too small for the first subtree alone.
                self.split(section.depth, section.slots[0])?;
                self.requeue(section.depth, &section.slots[1..]);
                continue;
            }
            self.requeue(section.depth, &section.slots[answered..]);
            if answered == 0 {
                continue;
            }
            match section.ask {
                Ask::Nodes { levels } => {
                    self.read_nodes(view, section, levels, answered, &mut reader)?;
                }
                Ask::Leaves { .. } => self.read_leaves(&asked, answered, &mut reader)?,
            }
        }
        reader.end()?;
        // Every subtree that was found to differ holds a difference. Pages and parts of split
        // subtrees come on top.
        let limit = self.context.limits.differing.saturating_add(SLOTS_MAX);
        let pending: usize = self.pending.values().map(Vec::len).sum();
        if pending > limit {
            let got = pending as u64;
            return Err(ReconcileError::TooMany { got, limit });
        }
        Ok(())
    }

    fn requeue(&mut self, depth: u8, slots: &[u64]) {
        if !slots.is_empty() {
            self.pending.entry(depth).or_default().extend(slots);
        }
    }

    fn read_nodes(
        &mut self,
        view: &dyn SetView,
        section: &Section,
        levels: u8,
        answered: usize,
        reader: &mut Reader<'_>,
    ) -> Result<(), ReconcileError> {
        let mut filled = reader.bitmap(answered << levels)?.iter().by_vals();
        // Fingerprints stand behind the whole bitmap, so the rest is read while walking.
        for slot in &section.slots[..answered] {
            let ours = view.children(prefix_at(section.depth, *slot)?, levels)?;
            for (child, node) in (slot << levels..).zip(&ours) {
                let theirs = match filled.next() {
                    Some(true) => Some(reader.array::<FINGERPRINT_BYTES>()?),
                    _ => None,
                };
                self.compare(view, section.depth + levels, child, node, theirs)?;
            }
        }
        Ok(())
    }

    /// Compares one node with the peer's fingerprint; `None` is an empty one.
    fn compare(
        &mut self,
        view: &dyn SetView,
        depth: u8,
        slot: u64,
        ours: &Summary,
        theirs: Option<[u8; FINGERPRINT_BYTES]>,
    ) -> Result<(), ReconcileError> {
        match theirs {
            None if ours.leaves == 0 => {}
            Some(theirs) if ours.leaves > 0 && theirs == self.fingerprints.node(ours) => {}
            Some(_) => self.pending.entry(depth).or_default().push(slot),
            None => {
                let limit = self
                    .context
                    .limits
                    .differing
                    .saturating_sub(self.mine.len());
                let leaves = view.leaves(prefix_at(depth, slot)?, limit.saturating_add(1))?;
                if leaves.len() > limit {
                    let got = leaves.len() as u64;
                    return Err(ReconcileError::TooMany { got, limit });
                }
                self.mine.extend(leaves.iter().map(|leaf| leaf.key));
            }
        }
        Ok(())
    }

    fn read_leaves(
        &mut self,
        asked: &Asked,
        answered: usize,
        reader: &mut Reader<'_>,
    ) -> Result<(), ReconcileError> {
        let section = &asked.section;
        let limit = self.context.limits.differing;
        let theirs = reader.sorted(limit.saturating_sub(self.theirs.len()))?;
        let slots = &section.slots[..answered];
        for name in theirs {
            let named = slot_prefix(section.names, name).filter(|named| {
                let slot = named.ancestor(section.depth).slot(section.depth);
                slots.binary_search(&slot).is_ok()
            });
            let named = named.ok_or(ReconcileError::Inconsistent("a leaf outside the subtree"))?;
            // All of a session have as many bits.
            self.theirs.push(named.ancestor(self.names).bits());
        }
        let sent = section.ids[..answered].iter().map(Vec::len).sum();
        let lacked = reader.sorted(limit.saturating_sub(self.mine.len()).min(sent))?;
        for position in lacked {
            let position = usize::try_from(position).ok().filter(|at| *at < sent);
            let key = position.and_then(|position| asked.keys.get(position));
            let key = key.ok_or(ReconcileError::Inconsistent("an id that was not sent"))?;
            self.mine.push(*key);
        }
        Ok(())
    }
}

/// First bits of a key that name a leaf among so many: one name in 512 brings an equal leaf, too.
fn name_bits(leaves: u64) -> u8 {
    let bits = u64::BITS - leaves.leading_zeros() + NAME_SPARE_BITS;
    (bits as u8).clamp(NAME_BITS_MIN, Prefix::DEPTH_MAX)
}

/// Leaves to expect below a prefix: keys are hashes, so they spread evenly.
pub fn expected_below(leaves: u64, depth: u8) -> u64 {
    leaves.checked_shr(u32::from(depth)).unwrap_or(0)
}

/// Width of leaf ids for which a session over so many leaves has a chance of one in
/// `2^certainty` that two different leaves of one subtree look equal.
pub fn id_bits(leaves: u64, in_subtree: u64, certainty: u32) -> u8 {
    let log2 = |count: u64| u64::BITS - count.leading_zeros();
    (log2(leaves) + log2(in_subtree) + certainty).clamp(1, 64) as u8
}

fn prefix_at(depth: u8, slot: u64) -> Result<Prefix, ReconcileError> {
    slot_prefix(depth, slot).ok_or(ReconcileError::Inconsistent("a subtree that cannot be"))
}
