//! `sketch`: subtracts the two sides' sketches. About 13 bytes for each state that differs, updated
//! or missing, and nothing for those that do not, usually in one round trip.

use std::ops::Range;

use crate::reconcile::error::ReconcileError;
use crate::reconcile::sizing::{FIRST_CELLS, Size, more_cells};
use crate::reconcile::sketch_answer::leaves_at;
use crate::reconcile::sketch_messages::{
    Answer, Question, Unfit, read_answer, read_more, write_question,
};
use crate::reconcile::strategy::{
    Context, Difference, Step, Strategy, TOO_MANY_DIFFER, TOO_MANY_ROUNDS,
};
use crate::reconcile::view::{SetView, SketchView};
use crate::sketch::cell::{Told, fitting, told_all};
use crate::sketch::decoder::{Decoder, Found, Partition, Theirs};
use crate::sketch::field::{P, add};
use crate::sketch::key::{PLACE_BITS, slots_of};
use crate::sketch::table::PARTITION_CELLS;

/// Why a strategy gives up when there is no sketch here.
const NOT_READY_HERE: &str = "the sketch of the states here is not ready";
/// Why it does when there is none at the peer's.
const NOT_READY_THERE: &str = "the peer's sketch is not ready";
/// Why it does when a list or a descent is better.
pub const TOO_MANY_FOR_SKETCHES: &str = "more states differ than sketches are good for";
/// Leaves of ours that are looked at in one place: more are no accident.
const LEAVES_AT_PLACE: usize = 1024;

/// A partition that is not decoded yet.
#[derive(Debug)]
struct Open {
    partition: Partition,
    /// The peer's cells, as far as they are here.
    theirs: Vec<Told>,
    /// See [`Theirs::borrows`].
    borrows: u8,
}

/// What was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Beginning,
    More {
        levels: u8,
        range: Range<usize>,
        /// True when the partitions asked for are the first halves of those that are open.
        halves: bool,
    },
}

/// The initiator's side.
#[derive(Debug)]
pub struct SketchWalk {
    context: Context,
    asked: Option<Asked>,
    rounds: u32,
    open: Vec<Open>,
    found: Vec<Found>,
    estimate: Option<u64>,
}

impl SketchWalk {
    /// Not started.
    pub fn new(context: &Context) -> Self {
        Self {
            context: *context,
            asked: None,
            rounds: 0,
            open: Vec::new(),
            found: Vec::new(),
            estimate: None,
        }
    }

    /// Answers may have so many bytes, as a power of two.
    fn room(&self) -> u8 {
        self.context.limits.message_bytes.max(1).ilog2() as u8
    }

    fn send(&mut self, asked: Asked, question: &Question) -> Step {
        let bytes = write_question(question);
        if self.rounds >= self.context.limits.rounds {
            return Step::CannotDecide(TOO_MANY_ROUNDS);
        }
        if bytes.len() > self.context.limits.message_bytes {
            return Step::CannotDecide("a question about cells would not fit into a message");
        }
        self.rounds += 1;
        self.asked = Some(asked);
        Step::Ask(bytes)
    }

    fn begin(&mut self, own: &dyn SketchView) -> Step {
        let first = own.estimator().zip(own.fold(0, &[0], &(0..FIRST_CELLS)));
        let Some((estimator, cells)) = first else {
            return Step::CannotDecide(NOT_READY_HERE);
        };
        let question = Question::First {
            fingerprint: own.key().fingerprint(),
            levels: own.levels(),
            room: self.room(),
            counters: estimator.to_short(),
            cells: told_all(&cells, &(0..FIRST_CELLS)),
        };
        self.send(Asked::Beginning, &question)
    }

    fn count(&mut self, own: &dyn SketchView) -> Step {
        let Some(estimator) = own.estimator() else {
            return Step::CannotDecide(NOT_READY_HERE);
        };
        let question = Question::Counted {
            fingerprint: own.key().fingerprint(),
            levels: own.levels(),
            room: self.room(),
            counters: Box::new(estimator.to_full()),
        };
        self.send(Asked::Beginning, &question)
    }

    fn read_beginning(
        &mut self,
        view: &dyn SetView,
        own: &dyn SketchView,
        reply: &[u8],
    ) -> Result<Step, ReconcileError> {
        let limit = self.context.limits.differing;
        let answer = match read_answer(reply, limit, u64::from(P)) {
            Err(ReconcileError::TooMany { .. }) => return Ok(Step::CannotDecide(TOO_MANY_DIFFER)),
            read => read?,
        };
        match answer {
            Answer::Unfit(Unfit::NotReady) => Ok(Step::CannotDecide(NOT_READY_THERE)),
            Answer::Unfit(Unfit::OtherKey) => Ok(Step::CannotDecide(
                "the replicas were given different cluster secrets",
            )),
            Answer::TooMany(estimate) => {
                self.estimate = Some(estimate);
                Ok(Step::CannotDecide(TOO_MANY_FOR_SKETCHES))
            }
            Answer::Count if self.rounds == 1 => Ok(self.count(own)),
            Answer::Count => Err(ReconcileError::Inconsistent("counters asked for again")),
            Answer::Decoded(places) => as_told(view, &places),
            Answer::Cells(size, cells) => self.read_cells(view, own, size, &cells),
        }
    }

    fn read_cells(
        &mut self,
        view: &dyn SetView,
        own: &dyn SketchView,
        size: Size,
        cells: &[Told],
    ) -> Result<Step, ReconcileError> {
        if size.levels > own.levels() || size.cells == 0 {
            return Err(ReconcileError::Inconsistent(
                "a sketch in more partitions than asked for",
            ));
        }
        let parts = (0..).zip(cells.chunks_exact(size.cells));
        self.open = parts
            .map(|(slot, cells)| Open {
                partition: Partition {
                    levels: size.levels,
                    slot,
                },
                theirs: cells.to_vec(),
                borrows: 0,
            })
            .collect();
        self.go_on(view, own)
    }

    /// Decodes what can be, and asks for more cells of the rest.
    fn go_on(&mut self, view: &dyn SetView, own: &dyn SketchView) -> Result<Step, ReconcileError> {
        let partitions = self.open.len();
        let mut decoder = Decoder::new(own.key());
        for open in std::mem::take(&mut self.open) {
            let Partition { levels, slot } = open.partition;
            let Some(mut cells) = own.fold(levels, &[slot], &(0..open.theirs.len())) else {
                return Ok(Step::CannotDecide(NOT_READY_HERE));
            };
            let theirs = Theirs {
                cells: &open.theirs,
                borrows: open.borrows,
            };
            let decoded = decoder.decode(open.partition, &mut cells, theirs);
            match decoded.map_err(|_| ReconcileError::Inconsistent("cells of no set"))? {
                Some(found) => self.found.extend(found),
                None => self.open.push(open),
            }
        }
        if self.found.len() > self.context.limits.differing {
            return Ok(Step::CannotDecide(TOO_MANY_DIFFER));
        }
        let Some(first) = self.open.first() else {
            return self.finish(view, own);
        };
        let (levels, have) = (first.partition.levels, first.theirs.len());
        let failed: Vec<u32> = self.open.iter().map(|open| open.partition.slot).collect();
        let halves = have == PARTITION_CELLS;
        if halves && levels >= own.levels() {
            return Ok(Step::CannotDecide(TOO_MANY_FOR_SKETCHES));
        }
        let (levels, slots, range) = if halves {
            let slots = failed.iter().map(|slot| slot * 2).collect();
            (levels + 1, slots, 0..PARTITION_CELLS)
        } else {
            let end = more_cells(have, (failed.len(), partitions), self.rounds);
            (levels, failed, have..end)
        };
        let fit = fitting(self.context.limits.message_bytes, self.open.len(), &range);
        let range = range.start..fit.max(range.start + 1);
        let asked = Asked::More {
            levels,
            range: range.clone(),
            halves,
        };
        let question = Question::More {
            levels,
            slots,
            range,
        };
        Ok(self.send(asked, &question))
    }

    fn read_more(
        &mut self,
        view: &dyn SetView,
        own: &dyn SketchView,
        (levels, range, halves): (u8, Range<usize>, bool),
        reply: &[u8],
    ) -> Result<Step, ReconcileError> {
        if reply.is_empty() {
            return Ok(Step::CannotDecide(NOT_READY_THERE));
        }
        let cells = read_more(reply, self.open.len(), &range)?;
        let granted = cells.len() / self.open.len().max(1);
        if granted == 0 {
            return Err(ReconcileError::Inconsistent("an answer without cells"));
        }
        let parts = cells.chunks_exact(granted);
        if !halves {
            for (open, cells) in self.open.iter_mut().zip(parts) {
                open.theirs.extend_from_slice(cells);
            }
            return self.go_on(view, own);
        }
        let whole = std::mem::take(&mut self.open);
        for (whole, first) in whole.into_iter().zip(parts) {
            // What the whole holds and its first half does not is in the second.
            let mut second = whole.theirs;
            second.truncate(granted);
            for (index, (cell, first)) in second.iter_mut().zip(first).enumerate() {
                cell.subtract(first, index);
            }
            let halves = [(first.to_vec(), 0), (second, whole.borrows + 1)];
            for (slot, (theirs, borrows)) in (whole.partition.slot * 2..).zip(halves) {
                let partition = Partition { levels, slot };
                self.open.push(Open {
                    partition,
                    theirs,
                    borrows,
                });
            }
        }
        self.go_on(view, own)
    }

    fn finish(&self, view: &dyn SetView, own: &dyn SketchView) -> Result<Step, ReconcileError> {
        let (mut theirs, mut mine) = (Vec::new(), Vec::new());
        for one in &self.found {
            let leaves = leaves_at(view, one.place, LEAVES_AT_PLACE)?;
            let values = leaves.iter();
            let values = values.map(|leaf| own.key().value(&leaf.key, &leaf.digest));
            if leaves.is_empty() || values.fold(0, add) != one.amount {
                theirs.extend(prefixes(one.place));
            } else {
                // All of the difference is ours.
                mine.extend(leaves.into_iter().map(|leaf| leaf.key));
            }
        }
        let difference = Difference::at_depth(PLACE_BITS, theirs, mine);
        Ok(Step::Found(difference))
    }
}

/// The difference as the responder found it.
fn as_told(view: &dyn SetView, places: &[(u32, bool)]) -> Result<Step, ReconcileError> {
    let (mut theirs, mut mine) = (Vec::new(), Vec::new());
    for (place, is_held) in places {
        if *is_held {
            theirs.extend(prefixes(*place));
        } else {
            let leaves = leaves_at(view, *place, LEAVES_AT_PLACE)?;
            mine.extend(leaves.into_iter().map(|leaf| leaf.key));
        }
    }
    let difference = Difference::at_depth(PLACE_BITS, theirs, mine);
    Ok(Step::Found(difference))
}

fn prefixes(place: u32) -> impl Iterator<Item = u64> {
    slots_of(place).map(|slot| slot << (64 - u32::from(PLACE_BITS)))
}

impl Strategy for SketchWalk {
    fn advance(
        &mut self,
        view: &dyn SetView,
        reply: Option<&[u8]>,
    ) -> Result<Step, ReconcileError> {
        let asked = self.asked.take();
        if reply.is_none() && (asked.is_some() || self.rounds > 0) {
            return Err(ReconcileError::OutOfTurn);
        }
        let limit = self.context.limits.message_bytes;
        if reply.is_some_and(|reply| reply.len() > limit) {
            let what = "bytes of an answer";
            return Err(ReconcileError::OverBudget { what, limit });
        }
        let step = match (reply, asked, view.sketch()) {
            (Some(_), None, _) => return Err(ReconcileError::OutOfTurn),
            (_, _, None) => Step::CannotDecide(NOT_READY_HERE),
            (Some(reply), Some(Asked::Beginning), Some(own)) => {
                self.read_beginning(view, own, reply)?
            }
            (
                Some(reply),
                Some(Asked::More {
                    levels,
                    range,
                    halves,
                }),
                Some(own),
            ) => self.read_more(view, own, (levels, range, halves), reply)?,
            (None, _, Some(own)) => self.begin(own),
        };
        Ok(step)
    }

    fn estimate(&self) -> Option<u64> {
        self.estimate
    }
}
