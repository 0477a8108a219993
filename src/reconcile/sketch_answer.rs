//! The responder behind `sketch`: decodes small differences at once, and sends cells for others.

use crate::reconcile::budget::Budget;
use crate::reconcile::costs::rest;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::list;
use crate::reconcile::sizing::{Precision, Size, size_for};
use crate::reconcile::sketch_messages::{Answer, Question, Unfit, read_question, write_answer};
use crate::reconcile::subtrees::slot_prefix;
use crate::reconcile::view::{SetView, SketchView};
use crate::sketch::cell::{Told, fitting, to_bytes, told_all};
use crate::sketch::decoder::{Decoder, Partition, Theirs};
use crate::sketch::estimator::SATURATED;
use crate::sketch::key::{FINGERPRINT_BYTES, PLACE_BITS, slots_of};
use crate::types::leaf::Leaf;

/// Bytes of an answer besides its cells.
const ANSWER_OVERHEAD: usize = 64;
/// Cells are sent up to so many times the bytes of a list, which reads all states of both sides; and so
/// much more when what that hides takes further trips.
const LIST_SHARE: f64 = 1.1;
const TRIPS_SHARE: f64 = 0.9;
/// But never more than this beyond the bytes of a list, for each trip that it takes more: two milliseconds
/// at 100 Mbit/s.
const TRIP: f64 = 25_000.0;
/// Cells that cost less than this are sent anyway.
const CHEAP_BYTES: f64 = 1024.0;

/// Answers a question about cells.
///
/// # Errors
/// [`ReconcileError`] when the question is malformed or over the budget, or the view fails.
pub fn answer(
    view: &dyn SetView,
    question: &[u8],
    budget: &Budget,
) -> Result<Vec<u8>, ReconcileError> {
    let question = read_question(question)?;
    if let Question::More {
        levels,
        slots,
        range,
    } = question
    {
        let limit = budget.message_bytes;
        let granted = range.start..fitting(room_for_cells(limit), slots.len(), &range);
        if granted.is_empty() {
            let what = "bytes of cells of one question";
            return Err(ReconcileError::OverBudget { what, limit });
        }
        let folded = view
            .sketch()
            .and_then(|own| own.fold(levels, &slots, &granted));
        // Nothing at all says that there are none to be had any more.
        return Ok(folded.map_or_else(Vec::new, |cells| {
            to_bytes(&told_all(&cells, &granted), &granted)
        }));
    }
    let reply = reply_to(view, question, budget)?;
    Ok(write_answer(&reply))
}

fn reply_to(
    view: &dyn SetView,
    question: Question,
    budget: &Budget,
) -> Result<Answer, ReconcileError> {
    const NOT_READY: Answer = Answer::Unfit(Unfit::NotReady);
    let Some(own) = view.sketch() else {
        return Ok(NOT_READY);
    };
    let Some(counters) = own.estimator() else {
        return Ok(NOT_READY);
    };
    let fits = |theirs: [u8; FINGERPRINT_BYTES]| own.key().fingerprint() == theirs;
    let (levels, room, estimate, precision) = match question {
        Question::First { fingerprint, .. } | Question::Counted { fingerprint, .. }
            if !fits(fingerprint) =>
        {
            return Ok(Answer::Unfit(Unfit::OtherKey));
        }
        Question::First {
            levels,
            room,
            counters: short,
            cells,
            ..
        } => {
            if let Some(places) = decode(view, own, &cells)? {
                return Ok(Answer::Decoded(places));
            }
            let estimate = counters.differing_roughly(&short);
            if estimate >= SATURATED {
                return Ok(Answer::Count);
            }
            (levels, room, estimate, Precision::Rough)
        }
        Question::Counted {
            levels,
            room,
            counters: full,
            ..
        } => {
            let estimate = counters.differing(&full);
            (levels, room, estimate, Precision::Good)
        }
        Question::More { .. } => return Ok(NOT_READY),
    };
    let size = size_for(estimate, precision, levels.min(own.levels()));
    let room = 1usize.checked_shl(u32::from(room)).unwrap_or(usize::MAX);
    let room = budget.message_bytes.min(room);
    let states = view.root()?.leaves;
    let (list, hidden) = list::expected(states, &rest(estimate, true));
    let share = LIST_SHARE + TRIPS_SHARE * hidden;
    let worth = (list.max(CHEAP_BYTES) * share).min(list + TRIP * (1.0 + hidden));
    let size = size.and_then(|size| granted(size, worth, room));
    let Some(size) = size else {
        return Ok(Answer::TooMany(estimate));
    };
    let told = tell_all(own, size);
    Ok(told.map_or(NOT_READY, |cells| Answer::Cells(size, cells)))
}

/// As much of it as fits into a message; the initiator asks for the rest. `None` where a list is
/// better.
fn granted(size: Size, worth: f64, room: usize) -> Option<Size> {
    let is_worth_it = size.bytes() as f64 <= worth;
    let cells = fitting(room_for_cells(room), 1 << size.levels, &(0..size.cells));
    (is_worth_it && cells > 0).then_some(Size { cells, ..size })
}

/// Bytes that cells may take in a message.
fn room_for_cells(bytes: usize) -> usize {
    bytes.saturating_sub(ANSWER_OVERHEAD)
}

/// The first cells of every partition.
fn tell_all(sketch: &dyn SketchView, size: Size) -> Option<Vec<Told>> {
    let slots: Vec<u32> = (0..1 << size.levels).collect();
    let range = 0..size.cells;
    let cells = sketch.fold(size.levels, &slots, &range)?;
    Some(told_all(&cells, &range))
}

/// The places that differ, with whether anything is held here, if the initiator's first cells tell.
fn decode(
    view: &dyn SetView,
    own: &dyn SketchView,
    theirs: &[Told],
) -> Result<Option<Vec<(u32, bool)>>, ReconcileError> {
    let Some(mut ours) = own.fold(0, &[0], &(0..theirs.len())) else {
        return Ok(None);
    };
    if theirs.is_empty() {
        return Ok(None);
    }
    let theirs = Theirs {
        cells: theirs,
        borrows: 0,
    };
    let decoded = Decoder::new(own.key()).decode(Partition::WHOLE, &mut ours, theirs);
    let found = decoded.map_err(|_| ReconcileError::Inconsistent("cells of no set"))?;
    let Some(found) = found else {
        return Ok(None);
    };
    let mut places = Vec::with_capacity(found.len());
    for one in found {
        places.push((one.place, !leaves_at(view, one.place, 1)?.is_empty()));
    }
    places.sort_unstable();
    Ok(Some(places))
}

/// The first leaves at a place.
///
/// # Errors
/// [`ReconcileError`] when the view fails.
pub fn leaves_at(
    view: &dyn SetView,
    place: u32,
    limit: usize,
) -> Result<Vec<Leaf>, ReconcileError> {
    let mut leaves = Vec::new();
    for slot in slots_of(place) {
        let prefix = slot_prefix(PLACE_BITS, slot);
        let prefix = prefix.ok_or(ReconcileError::Inconsistent("a place outside the tree"))?;
        leaves.extend(view.leaves(prefix, limit)?);
    }
    Ok(leaves)
}
