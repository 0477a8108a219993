//! Tells when the rows that batches need are on the disk and not in memory: behind a start, or when
//! the system has given the memory to others.
//!
//! The writer asks for one row after the other, and each of a million states has rows of its own. With a disk
//! that takes a millisecond for a read that is some hundred writes a second, however many clients wait.

use std::time::{Duration, Instant};

/// With so many commands that share a wait it is no time to begin threads.
const COMMANDS_MIN: usize = 4;
/// Commands for each read that had to wait, below which rows count as cold.
const COMMANDS_FOR_A_WAIT: u64 = 4;
/// For how long they count as cold then.
const LASTS: Duration = Duration::from_secs(1);

/// What the batches so far tell of the next one.
#[derive(Debug, Default)]
pub struct ColdRows {
    /// Reads that had waited for the disk when the newest batch began.
    slow_reads: u64,
    /// Commands of that batch.
    commands: u64,
    until: Option<Instant>,
}

impl ColdRows {
    /// True when the rows of a batch of so many commands, that begins now, had better be read ahead. `slow_reads`
    /// are those of the files so far, which others may have waited for as well.
    pub fn are_expected(&mut self, slow_reads: u64, commands: usize, now: Instant) -> bool {
        // Less than before when a file was opened again.
        let waits = slow_reads.saturating_sub(self.slow_reads);
        if waits > 0 && waits.saturating_mul(COMMANDS_FOR_A_WAIT) >= self.commands {
            self.until = now.checked_add(LASTS);
        }
        self.slow_reads = slow_reads;
        self.commands = commands as u64;
        commands >= COMMANDS_MIN && self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cold_for_a_while_after_batches_that_waited_for_them() {
        let (mut cold, start) = (ColdRows::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert!(!cold.are_expected(0, 64, at(0)));
        // One wait in 64 commands is none to speak of.
        assert!(!cold.are_expected(1, 64, at(10)));
        assert!(cold.are_expected(17, 64, at(20)));
        assert!(!cold.are_expected(17, 3, at(30)));
        // Reading ahead waits, too.
        assert!(cold.are_expected(40, 64, at(40)));
        assert!(cold.are_expected(40, 64, at(1_039)));
        assert!(!cold.are_expected(40, 64, at(1_040)));
        // The file was opened again.
        assert!(!cold.are_expected(0, 64, at(1_050)));
        assert!(cold.are_expected(90, 64, at(1_060)));
    }
}
