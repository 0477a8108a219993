//! The bytes of `sketch`: questions and answers about cells.

use std::ops::Range;

use crate::reconcile::encoding::{Reader, Writer};
use crate::reconcile::error::ReconcileError;
use crate::reconcile::sizing::{FIRST_CELLS_MAX, Size};
use crate::sketch::cell::{Told, fitting, from_bytes, to_bytes};
use crate::sketch::estimator::{FULL_BYTES, SHORT_BYTES};
use crate::sketch::key::FINGERPRINT_BYTES;
use crate::sketch::table::{LEVELS_MAX, PARTITION_CELLS};

/// What the initiator asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// What differs, to begin with.
    First {
        /// Of the initiator's key.
        fingerprint: [u8; FINGERPRINT_BYTES],
        /// There are `2^levels` partitions at the initiator's.
        levels: u8,
        /// The answer may have `2^room` bytes.
        room: u8,
        /// Short form of the initiator's counters.
        counters: [u8; SHORT_BYTES],
        /// First cells of the initiator's whole set.
        cells: Vec<Told>,
    },
    /// The same, with all counters and no cells.
    Counted {
        /// Of the initiator's key.
        fingerprint: [u8; FINGERPRINT_BYTES],
        /// There are `2^levels` partitions at the initiator's.
        levels: u8,
        /// The answer may have `2^room` bytes.
        room: u8,
        /// Full form of the initiator's counters.
        counters: Box<[u8; FULL_BYTES]>,
    },
    /// Further cells of some partitions.
    More {
        /// There are `2^levels` partitions.
        levels: u8,
        /// Which of them, ascending.
        slots: Vec<u32>,
        /// Which cells of each.
        range: Range<usize>,
    },
}

/// Why a responder has no sketch to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is being built, or has gone on too far from the pinned commit.
    NotReady,
    /// It is under another key.
    OtherKey,
}

/// What the responder says to [`Question::First`] and [`Question::Counted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Another strategy is needed.
    Unfit(Unfit),
    /// The first cells told all. Of each place that differs, in ascending order: whether the
    /// responder holds anything there.
    Decoded(Vec<(u32, bool)>),
    /// So much differs that the short form of the counters does not tell how much.
    Count,
    /// Cells of all partitions, one behind the other.
    Cells(Size, Vec<Told>),
    /// About so many states differ: more than the sketches hold, or than a list costs.
    TooMany(u64),
}

const NO_LEVELS: ReconcileError = ReconcileError::Malformed("a sketch in too many partitions");
const NO_CELLS: ReconcileError = ReconcileError::Malformed("cells that cannot be");

/// Writes a question.
pub fn write_question(question: &Question) -> Vec<u8> {
    let mut out = Writer::new();
    match question {
        Question::First {
            fingerprint,
            levels,
            room,
            counters,
            cells,
        } => {
            out.byte(0);
            out.raw(fingerprint);
            out.byte(*levels);
            out.byte(*room);
            out.raw(counters);
            out.raw(&to_bytes(cells, &(0..cells.len())));
        }
        Question::Counted {
            fingerprint,
            levels,
            room,
            counters,
        } => {
            out.byte(1);
            out.raw(fingerprint);
            out.byte(*levels);
            out.byte(*room);
            out.raw(counters.as_slice());
        }
        Question::More {
            levels,
            slots,
            range,
        } => {
            out.byte(2);
            out.byte(*levels);
            out.varint(range.start as u64);
            out.varint(range.end as u64);
            out.sorted(&slots.iter().copied().map(u64::from).collect::<Vec<u64>>());
        }
    }
    out.finish()
}

/// Reads a question.
///
/// # Errors
/// [`ReconcileError`] when it is malformed.
pub fn read_question(bytes: &[u8]) -> Result<Question, ReconcileError> {
    let mut reader = Reader::new(bytes);
    match reader.byte()? {
        0 => {
            let (fingerprint, levels) = (reader.array()?, read_levels(&mut reader)?);
            let (room, counters) = (reader.byte()?, reader.array()?);
            let rest = reader.rest();
            // As many cells as there are bytes for.
            let range = 0..fitting(rest.len(), 1, &(0..FIRST_CELLS_MAX));
            Ok(Question::First {
                fingerprint,
                levels,
                room,
                counters,
                cells: from_bytes(rest, 1, &range).ok_or(NO_CELLS)?,
            })
        }
        1 => {
            let (fingerprint, levels) = (reader.array()?, read_levels(&mut reader)?);
            let (room, counters) = (reader.byte()?, Box::new(reader.array()?));
            reader.end()?;
            Ok(Question::Counted {
                fingerprint,
                levels,
                room,
                counters,
            })
        }
        2 => {
            let levels = read_levels(&mut reader)?;
            let start = reader.count(PARTITION_CELLS)?;
            let end = reader.count(PARTITION_CELLS)?;
            let slots = read_places(&mut reader, 1 << levels, 1 << levels)?;
            reader.end()?;
            Ok(Question::More {
                levels,
                slots,
                range: start..end,
            })
        }
        _ => Err(ReconcileError::Malformed("an unknown question about cells")),
    }
}

/// Writes an answer to [`Question::First`] or [`Question::Counted`].
pub fn write_answer(answer: &Answer) -> Vec<u8> {
    let mut out = Writer::new();
    match answer {
        Answer::Unfit(Unfit::NotReady) => out.byte(0),
        Answer::Unfit(Unfit::OtherKey) => out.byte(1),
        Answer::Decoded(places) => {
            out.byte(2);
            out.sorted(
                &places
                    .iter()
                    .map(|(place, _)| u64::from(*place))
                    .collect::<Vec<u64>>(),
            );
            out.bitmap(places.iter().map(|(_, held)| *held));
        }
        Answer::Count => out.byte(3),
        Answer::Cells(size, cells) => {
            out.byte(4);
            out.byte(size.levels);
            out.varint(size.cells as u64);
            out.raw(&to_bytes(cells, &(0..size.cells)));
        }
        Answer::TooMany(estimate) => {
            out.byte(5);
            out.varint(*estimate);
        }
    }
    out.finish()
}

/// Reads what [`write_answer`] wrote. `places_max` bounds the places, `places_end` is behind the
/// last one that may be named.
///
/// # Errors
/// [`ReconcileError`] when it is malformed.
pub fn read_answer(
    bytes: &[u8],
    places_max: usize,
    places_end: u64,
) -> Result<Answer, ReconcileError> {
    let mut reader = Reader::new(bytes);
    let answer = match reader.byte()? {
        0 => Answer::Unfit(Unfit::NotReady),
        1 => Answer::Unfit(Unfit::OtherKey),
        2 => {
            let places = read_places(&mut reader, places_max, places_end)?;
            let held = reader.bitmap(places.len())?;
            Answer::Decoded(places.into_iter().zip(held.iter().by_vals()).collect())
        }
        3 => Answer::Count,
        4 => {
            let levels = read_levels(&mut reader)?;
            let cells = reader.count(PARTITION_CELLS)?;
            let size = Size { levels, cells };
            let all = from_bytes(reader.rest(), 1 << levels, &(0..cells));
            return Ok(Answer::Cells(size, all.ok_or(NO_CELLS)?));
        }
        5 => Answer::TooMany(reader.varint()?),
        _ => return Err(ReconcileError::Malformed("an unknown answer about cells")),
    };
    reader.end()?;
    Ok(answer)
}

/// Reads the answer to [`Question::More`]: from each of so many partitions the first of the cells
/// that were asked for, as many as the responder grants, one partition behind the other. None at all
/// says that it has no sketch any more.
///
/// # Errors
/// [`ReconcileError::Malformed`].
pub fn read_more(
    bytes: &[u8],
    partitions: usize,
    range: &Range<usize>,
) -> Result<Vec<Told>, ReconcileError> {
    let granted = range.start..fitting(bytes.len(), partitions, range);
    from_bytes(bytes, partitions, &granted).ok_or(NO_CELLS)
}

fn read_levels(reader: &mut Reader<'_>) -> Result<u8, ReconcileError> {
    let levels = reader.byte()?;
    if levels > LEVELS_MAX {
        return Err(NO_LEVELS);
    }
    Ok(levels)
}

/// Ascending numbers below `end`, none twice.
fn read_places(
    reader: &mut Reader<'_>,
    limit: usize,
    end: u64,
) -> Result<Vec<u32>, ReconcileError> {
    let numbers = reader.sorted(limit)?;
    let in_order = numbers.is_sorted_by(|a, b| a < b);
    if !in_order || numbers.last().is_some_and(|last| *last >= end) {
        return Err(ReconcileError::Malformed("places that cannot be"));
    }
    Ok(numbers.into_iter().map(|number| number as u32).collect())
}
