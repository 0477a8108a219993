//! Writes down where stretches stand.

use crate::delta::align::{STRETCH_MIN, Stretch};
use crate::delta::error::DeltaError;
use crate::delta::range_coder::{Chance, Decoder, Encoder, Number};

/// What was learned from the places so far.
#[derive(Debug, Default)]
pub struct Places {
    count: Number,
    literal: Number,
    len: Number,
    /// Whether the base goes on behind as many bytes as were replaced.
    in_step: Chance,
    /// Whether it goes on where it was left.
    inserted: Chance,
    backward: Chance,
    jump: Number,
}

impl Places {
    /// Writes how many stretches there are.
    pub fn write_count(&mut self, out: &mut Encoder, count: usize) {
        self.count.write(out, count as u64);
    }

    /// Reads how many stretches there are.
    ///
    /// # Errors
    /// [`DeltaError`] when it is no number.
    pub fn read_count(&mut self, input: &mut Decoder<'_>) -> Result<usize, DeltaError> {
        Ok(usize::try_from(self.count.read(input)?).unwrap_or(usize::MAX))
    }

    /// Writes a place. `previous_end` is where the stretch before it ended in the base.
    pub fn write(&mut self, out: &mut Encoder, stretch: &Stretch, previous_end: usize) {
        let (from, previous_end) = (u64::from(stretch.from), previous_end as u64);
        self.literal.write(out, u64::from(stretch.literal));
        let expected = previous_end + u64::from(stretch.literal);
        out.bit(&mut self.in_step, from == expected);
        if from != expected {
            out.bit(&mut self.inserted, from == previous_end);
            if from != previous_end {
                out.bit(&mut self.backward, from < expected);
                self.jump.write(out, from.abs_diff(expected));
            }
        }
        self.len
            .write(out, u64::from(stretch.len) - STRETCH_MIN as u64);
    }

    /// Reads the length of the literals before a stretch, where in the base it begins, and its length.
    ///
    /// # Errors
    /// [`DeltaError`] when it cannot be a place.
    pub fn read(
        &mut self,
        input: &mut Decoder<'_>,
        previous_end: usize,
    ) -> Result<(usize, usize, usize), DeltaError> {
        let literal = self.literal.read(input)?;
        let expected = previous_end as u64 + literal;
        let from = if input.bit(&mut self.in_step) {
            Some(expected)
        } else if input.bit(&mut self.inserted) {
            Some(previous_end as u64)
        } else if input.bit(&mut self.backward) {
            expected.checked_sub(self.jump.read(input)?)
        } else {
            expected.checked_add(self.jump.read(input)?)
        };
        let len = self.len.read(input)? + STRETCH_MIN as u64;
        let small = |value: u64| usize::try_from(value).ok();
        let place = (small(literal), from.and_then(small), small(len));
        match place {
            (Some(literal), Some(from), Some(len)) => Ok((literal, from, len)),
            _ => Err(DeltaError::Malformed("stretch outside the base")),
        }
    }
}
