//! What was written and acknowledged, to hold a replica to it after it was killed.

/// The writes of one state that still matter, by version.
#[derive(Debug, Default, Clone, Copy)]
struct Entry {
    acknowledged: u32,
    /// Sent later, and not answered (yet): it may have been stored, or not.
    pending: Option<u32>,
}

/// What was found of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The version that was acknowledged last.
    Acknowledged,
    /// The version that was on its way when the replica was killed.
    InFlight,
    /// Neither of them: an acknowledged write is gone.
    Lost,
}

/// Remembers the last writes of every state. Each state has one writer at a time.
#[derive(Debug)]
pub struct Ledger {
    entries: Vec<Entry>,
    acknowledged: u64,
}

impl Ledger {
    /// All states were loaded, which is their version 0.
    pub fn loaded(states: u64) -> Self {
        Self {
            entries: vec![Entry::default(); states as usize],
            acknowledged: states,
        }
    }

    /// Writes that were acknowledged so far, the loaded states included.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// A write is on its way; returns its version.
    pub fn attempt(&mut self, state: u64) -> u64 {
        let Some(entry) = self.entries.get_mut(state as usize) else {
            return 0;
        };
        let version = entry.pending.unwrap_or(entry.acknowledged) + 1;
        entry.pending = Some(version);
        version.into()
    }

    /// The write on its way was acknowledged.
    pub fn acknowledge(&mut self, state: u64) {
        if let Some(entry) = self.entries.get_mut(state as usize)
            && let Some(version) = entry.pending.take()
        {
            entry.acknowledged = version;
            self.acknowledged += 1;
        }
    }

    /// Judges what a replica holds of a state after it was killed, given a test for versions, and
    /// settles on that.
    pub fn settle(&mut self, state: u64, mut is: impl FnMut(u64) -> bool) -> Found {
        let Some(entry) = self.entries.get_mut(state as usize) else {
            return Found::Lost;
        };
        let pending = entry.pending.take();
        if is(entry.acknowledged.into()) {
            return Found::Acknowledged;
        }
        match pending {
            Some(version) if is(version.into()) => {
                entry.acknowledged = version;
                Found::InFlight
            }
            _ => Found::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_writes_must_be_there_and_unanswered_ones_may() {
        // (version found, what that means): 0 loaded, 1 acknowledged, 2 unanswered.
        for (found, meaning) in [
            (0, Found::Lost),
            (1, Found::Acknowledged),
            (2, Found::InFlight),
            (3, Found::Lost),
        ] {
            let mut ledger = Ledger::loaded(2);
            assert_eq!(ledger.attempt(1), 1);
            ledger.acknowledge(1);
            assert_eq!(ledger.attempt(1), 2);
            assert_eq!(ledger.acknowledged(), 3);
            assert_eq!(ledger.settle(1, |version| version == found), meaning);
            assert_eq!(
                ledger.settle(0, |version| version == 0),
                Found::Acknowledged
            );
        }
    }

    #[test]
    fn what_was_found_is_what_counts_from_then_on() {
        let mut ledger = Ledger::loaded(1);
        ledger.attempt(0);
        assert_eq!(ledger.settle(0, |version| version == 1), Found::InFlight);
        assert_eq!(ledger.settle(0, |version| version == 0), Found::Lost);

        let mut ledger = Ledger::loaded(1);
        ledger.attempt(0);
        let loaded = ledger.settle(0, |version| version == 0);
        assert_eq!(loaded, Found::Acknowledged);
        assert_eq!(ledger.settle(0, |version| version == 1), Found::Lost);
        // The version that was never stored is free again.
        assert_eq!(ledger.attempt(0), 1);
        ledger.acknowledge(0);
        assert_eq!(ledger.acknowledged(), 2);
    }

    #[test]
    fn an_answer_without_a_write_counts_nothing() {
        let mut ledger = Ledger::loaded(1);
        ledger.acknowledge(0);
        ledger.acknowledge(7);
        assert_eq!(ledger.acknowledged(), 1);
        assert_eq!(ledger.settle(7, |_| true), Found::Lost);
    }
}
