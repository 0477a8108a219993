//! A compaction as those who asked for it see it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::runtime::lock::lock;
use crate::store::compaction::CompactionProgress;

/// How a compaction ended: what it came to, or why it was given up.
pub type Ending = Result<CompactionProgress, String>;

#[derive(Default)]
struct State {
    wanted: bool,
    /// True when somebody asked for it and waits.
    ordered: bool,
    progress: CompactionProgress,
    /// How the last one ended.
    ending: Option<Ending>,
}

/// Where a compaction is asked for and followed.
#[derive(Default)]
pub struct Compacting {
    state: Mutex<State>,
    changed: Condvar,
}

impl Compacting {
    /// Asks for a compaction, or joins the one that goes on.
    pub fn want(&self) {
        self.ask(true);
    }

    /// Asks for a compaction that nobody waits for: it makes way for writes.
    pub fn suggest(&self) {
        self.ask(false);
    }

    fn ask(&self, is_ordered: bool) {
        let mut state = lock(&self.state);
        if !state.wanted {
            *state = State {
                wanted: true,
                ..State::default()
            };
        }
        state.ordered |= is_ordered;
    }

    /// True while one that makes way for writes is asked for and has not ended.
    pub fn makes_way(&self) -> bool {
        let state = lock(&self.state);
        state.wanted && !state.ordered
    }

    /// True while one is asked for and has not ended.
    pub fn is_wanted(&self) -> bool {
        lock(&self.state).wanted
    }

    /// Says how far it has come.
    pub fn progress(&self, progress: CompactionProgress) {
        lock(&self.state).progress = progress;
        self.changed.notify_all();
    }

    /// Says how it has ended; without one that is wanted this changes nothing.
    pub fn ended(&self, ending: Ending) {
        let mut state = lock(&self.state);
        if state.wanted {
            state.wanted = false;
            state.ending = Some(ending);
            self.changed.notify_all();
        }
    }

    /// How far it has come, and how it ended if it has; waits for news for a limited time.
    pub fn follow(&self, limit: Duration) -> (CompactionProgress, Option<Ending>) {
        let state = lock(&self.state);
        let waited = self
            .changed
            .wait_timeout_while(state, limit, |state| state.ending.is_none());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (state.progress, state.ending.clone())
    }
}
