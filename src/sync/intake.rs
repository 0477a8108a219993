//! Taking in the records of a comparison: each answer is held to what was asked for before the next
//! question, so that a peer that answers without end is given up at once.

use crate::reconcile::strategy::first_bits;
use crate::sync::exchange::SessionError;
use crate::sync::responder::RECORDS_AT_PREFIX;
use crate::types::hash::StateKey;
use crate::types::record::StateRecord;

/// Bytes of records, as [`StateRecord::weight`] counts them, that one comparison holds: three times
/// what as many states as one session may find different come to. More are copied in key order,
/// which holds a page at a time.
pub const HELD_MAX: u64 = 96 << 20;

/// The records that have come.
pub struct Intake {
    /// Sorted by key, no key twice.
    pub records: Vec<StateRecord>,
    last: Option<StateKey>,
    depth: u8,
    room: u64,
}

impl Intake {
    /// For at most `room` bytes of records below prefixes of `depth` bits.
    pub fn new(depth: u8, room: u64) -> Self {
        Self {
            records: Vec::new(),
            last: None,
            depth,
            room,
        }
    }

    /// Takes in an answer about the prefixes `asked`, which are sorted and lie behind those of the
    /// answers before. False when all together are too many bytes to be held.
    ///
    /// # Errors
    /// [`SessionError`] when no honest peer answers so.
    pub fn take(&mut self, records: Vec<StateRecord>, asked: &[u64]) -> Result<bool, SessionError> {
        if records.len() > asked.len().saturating_mul(RECORDS_AT_PREFIX) {
            return Err(SessionError::Misfit(
                "more records at a prefix than asked for",
            ));
        }
        let (mut at, mut there) = (None, 0);
        for record in &records {
            record.check()?;
            let key = record.key();
            let bits = first_bits(&key, self.depth);
            if asked.binary_search(&bits).is_err() {
                return Err(SessionError::Misfit("a record that was not asked for"));
            }
            if self.last.replace(key).is_some_and(|last| last >= key) {
                return Err(SessionError::Misfit("records out of place, or one twice"));
            }
            there = if at.replace(bits) == Some(bits) {
                there + 1
            } else {
                1
            };
            if there > RECORDS_AT_PREFIX {
                return Err(SessionError::Misfit(
                    "more records at a prefix than asked for",
                ));
            }
        }
        let weight: u64 = records.iter().map(|record| record.weight() as u64).sum();
        self.records.extend(records);
        match self.room.checked_sub(weight) {
            Some(room) => {
                self.room = room;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::ContentHash;
    use crate::types::id::{GameId, ReplicaId, WriterId};
    use crate::types::version::{Stamp, Version, VersionVector};

    fn record(number: usize) -> StateRecord {
        let mut vector = VersionVector::default();
        vector.set(WriterId(1), 1);
        let version = Version {
            vector,
            stamp: Stamp {
                millis: 1,
                logical: 0,
                replica: ReplicaId(1),
            },
            content: ContentHash::of(b"bytes"),
            size: 5,
            content_type: None,
            expires_at: None,
            lease_epoch: 0,
            tombstone: false,
        };
        StateRecord::new(GameId::new(&format!("match/{number}")).unwrap(), version)
    }

    /// Records in the order of their keys.
    fn records(count: usize) -> Vec<StateRecord> {
        let mut records: Vec<StateRecord> = (0..count).map(record).collect();
        records.sort_by_key(StateRecord::key);
        records
    }

    fn refused(intake: &mut Intake, records: Vec<StateRecord>, asked: &[u64]) -> String {
        intake.take(records, asked).unwrap_err().to_string()
    }

    #[test]
    fn answers_are_in_order_and_have_a_few_records_at_each_prefix() {
        // All keys begin with either bit.
        let (halves, sorted) = ([0, 1 << 63], records(40));
        let first = sorted.partition_point(|record| record.key().prefix64() < 1 << 63);
        let mut some = sorted[first - 3..first + 3].to_vec();
        let mut intake = Intake::new(1, u64::MAX);
        assert!(intake.take(some[..3].to_vec(), &halves[..1]).unwrap());
        let again = refused(&mut intake, some[2..].to_vec(), &halves);
        assert!(again.contains("out of place, or one twice"), "{again}");
        some.swap(4, 5);
        let swapped = refused(&mut Intake::new(1, u64::MAX), some, &halves);
        assert!(swapped.contains("out of place"), "{swapped}");
        let many = sorted[first..=first + RECORDS_AT_PREFIX].to_vec();
        let many = refused(&mut Intake::new(1, u64::MAX), many, &halves);
        assert!(many.contains("more records at a prefix"), "{many}");
        let other = sorted[first..=first].to_vec();
        let other = refused(&mut Intake::new(1, u64::MAX), other, &halves[..1]);
        assert!(other.contains("not asked for"), "{other}");
    }

    #[test]
    fn what_is_too_much_to_be_held_is_told() {
        let sorted = records(2);
        let weight = sorted[0].weight() as u64;
        let (first, second) = (sorted[..1].to_vec(), sorted[1..].to_vec());
        let bits = |records: &[StateRecord]| [first_bits(&records[0].key(), 64)];
        let mut intake = Intake::new(64, weight + 1);
        assert!(intake.take(first.clone(), &bits(&first)).unwrap());
        assert!(!intake.take(second.clone(), &bits(&second)).unwrap());
    }
}
