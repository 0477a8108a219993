//! The collector of a namespace: finds on a view what is over and hands it to the writer in small
//! commands, one at a time, so that writes go on in between.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::replica::collect::{Plan, due, too_old};
use crate::replica::command::{Command, Step};
use crate::replica::staging::abandoned;
use crate::replica::view::View;
use crate::runtime::handle::{Queued, WriterHandle};
use crate::runtime::queue::SubmitError;
use crate::store::error::StoreError;
use crate::store::placement::RELEASE_CHUNKS;
use crate::types::hash::StateKey;

/// History is gone through once in this part of the age that it may reach.
const PASSES: u64 = 8;
/// Commands for one round; what is left over is for the next one.
const COMMANDS_MAX: usize = 10_000;
/// Pages of history for one round, about 130,000 changes.
const HISTORY_PAGES: usize = 64;

/// Why a round broke off.
#[derive(Debug, Error)]
pub enum CollectError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The writer took no more.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// What one round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Commands that were handed to the writer.
    pub commands: usize,
    /// Their steps.
    pub steps: usize,
    /// Most rows that one command touched, about.
    pub rows_max: usize,
}

/// Where the pass through a namespace's history stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass {
    began: u64,
    after: Option<StateKey>,
    is_running: bool,
}

/// What a round works on.
pub struct Site<'n> {
    /// The newest commit.
    pub views: &'n watch::Receiver<Arc<View>>,
    /// Who carries it out.
    pub writer: WriterHandle,
    /// Set when the namespace is closed, which is not to wait for the rest of a round.
    pub closed: &'n CancellationToken,
    /// How long superseded versions are kept, in milliseconds, if that is bounded.
    pub history_age: Option<u64>,
}

/// Collects what is over at `now`. Blocks.
///
/// # Errors
/// [`CollectError`]; what was collected before stays so, and the next round does the rest.
pub fn collect(site: Site<'_>, now: u64, pass: &mut Pass) -> Result<Collected, CollectError> {
    let age = site.history_age;
    let mut round = Round {
        site,
        done: Collected::default(),
    };
    round.everything_due(now)?;
    round.abandoned_stages(now)?;
    if let Some(age) = age {
        round.old_history(now, age, pass)?;
    }
    Ok(round.done)
}

struct Round<'n> {
    site: Site<'n>,
    done: Collected,
}

impl Round<'_> {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.site.views.borrow())
    }

    fn everything_due(&mut self, now: u64) -> Result<(), CollectError> {
        let (mut after, mut steps) = (None, 0);
        while self.done.commands < COMMANDS_MAX {
            let view = self.view();
            let plan = due(&view, &view.seen()?, now, after)?;
            after = self.hand_over(plan)?;
            // What was collected may leave something to be collected in front of it.
            if after.is_none() && self.done.steps == steps {
                break;
            }
            if after.is_none() {
                steps = self.done.steps;
            }
        }
        Ok(())
    }

    fn abandoned_stages(&mut self, now: u64) -> Result<(), CollectError> {
        while self.done.commands < COMMANDS_MAX {
            let steps = abandoned(&self.view(), now)?;
            if steps.is_empty() {
                break;
            }
            for step in steps {
                let plan = Plan {
                    steps: vec![step],
                    rows: 1 + 2 * RELEASE_CHUNKS,
                    next: None::<()>,
                };
                self.hand_over(plan)?;
            }
        }
        Ok(())
    }

    fn old_history(&mut self, now: u64, age: u64, pass: &mut Pass) -> Result<(), CollectError> {
        // A clock that was put back must not keep the next pass waiting.
        let is_recent = pass.began <= now && now - pass.began < age / PASSES;
        if !pass.is_running && is_recent {
            return Ok(());
        }
        if !pass.is_running {
            *pass = Pass {
                began: now,
                after: None,
                is_running: true,
            };
        }
        let before = now.saturating_sub(age);
        for _ in 0..HISTORY_PAGES {
            let plan = too_old(&self.view(), before, pass.after)?;
            pass.after = self.hand_over(plan)?;
            if pass.after.is_none() {
                pass.is_running = false;
                break;
            }
        }
        Ok(())
    }

    /// Waits until the plan's steps are durable. Returns where to go on.
    fn hand_over<P>(&mut self, plan: Plan<P>) -> Result<Option<P>, CollectError> {
        if !plan.steps.is_empty() {
            self.done.commands += 1;
            self.done.steps += plan.steps.len();
            self.done.rows_max = self.done.rows_max.max(plan.rows);
            self.submit(plan.steps)?;
        }
        Ok(plan.next)
    }

    fn submit(&self, steps: Vec<Step>) -> Result<(), SubmitError> {
        if self.site.closed.is_cancelled() {
            return Err(SubmitError::ShuttingDown);
        }
        let queued = self.site.writer.queue_blocking(Command::Collect(steps));
        queued.and_then(Queued::wait).map(|_| ())
    }
}
