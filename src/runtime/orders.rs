//! What the writer is asked for beside writes: to take another name.

use std::time::{Duration, Instant};

use crate::replica::renew::Evidence;
use crate::types::id::ReplicaId;

/// Least time between two renewals. It doubles with each: what peers say cannot be proven, and one
/// that lies must not let versions gather names without end.
const WAIT: Duration = Duration::from_hours(1);

/// A change of what the namespace is.
#[derive(Debug, Clone)]
pub enum Order {
    /// Writes are to count under a new epoch, if the evidence holds.
    Renew(Evidence),
    /// The replica has another id.
    Name(ReplicaId),
}

/// How often a namespace may take another name on what others say.
#[derive(Debug)]
pub struct Patience {
    next: Option<Instant>,
    wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            next: None,
            wait: WAIT,
        }
    }
}

impl Patience {
    /// True when it may; then it may not for a while.
    pub fn allows(&mut self, now: Instant) -> bool {
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.next = now.checked_add(self.wait);
        self.wait = self.wait.saturating_mul(2);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_grow_rare() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        assert!(patience.allows(now));
        assert!(!patience.allows(now + WAIT / 2));
        assert!(patience.allows(now + WAIT));
        assert!(!patience.allows(now + WAIT * 2));
        let renewals = (0..24 * 365).filter(|hour| patience.allows(now + WAIT * *hour));
        assert!(renewals.count() < 16, "in a year");
    }
}
