//! Progress on a terminal, for work that takes longer than a second.

use std::future::Future;
use std::io::{IsTerminal, stderr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::cli::output::note;

/// Shorter work shows nothing.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// How often something moves while nothing else happens.
const TICK: Duration = Duration::from_millis(120);

const TOWARDS_TOTAL: &str =
    "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}";
const WITHOUT_TOTAL: &str = "{spinner} {binary_bytes} {binary_bytes_per_sec} {msg}";
const STEPS: &str = "{bar:30} {pos}/{len} {msg}";
const ITEMS: &str = "{bar:30} {pos}/{len} {eta} {msg}";
const CLOCK: &str = "{spinner} {msg} {elapsed}";

/// A bar on standard error that appears after a second, if that is a terminal. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    settled: Arc<AtomicBool>,
}

impl Progress {
    /// Counts bytes, towards a total if that is known.
    pub fn of_bytes(total: Option<u64>) -> Self {
        let style = match total {
            Some(_) => TOWARDS_TOTAL,
            None => WITHOUT_TOTAL,
        };
        Self::new(total, style)
    }

    /// Counts steps of several seconds each.
    pub fn of_rounds(total: u64) -> Self {
        Self::new(Some(total), STEPS)
    }

    /// Counts towards totals that [`Progress::begin`] tells, step by step.
    pub fn of_steps() -> Self {
        Self::new(None, WITHOUT_TOTAL)
    }

    /// A new step: what is done, and how much of which unit.
    pub fn begin(&self, doing: &str, total: u64, unit: &str) {
        let style = if unit == "bytes" {
            TOWARDS_TOTAL
        } else {
            ITEMS
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.bar.set_style(style);
        }
        self.bar.set_position(0);
        self.bar.set_length(total);
        self.say(doing.to_owned());
    }

    /// So much of the step is done altogether.
    pub fn reach(&self, done: u64) {
        self.show_when_due();
        self.bar.set_position(done);
    }

    /// Counts nothing and shows nothing.
    pub fn none() -> Self {
        let progress = Self::new(None, "");
        progress.settled.store(true, Ordering::Relaxed);
        progress
    }

    fn new(total: Option<u64>, style: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden())
            .with_finish(ProgressFinish::AndClear);
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self {
            bar,
            started: Instant::now(),
            settled: Arc::new(AtomicBool::new(!stderr().is_terminal())),
        }
    }

    /// So many bytes, or steps, more are done.
    pub fn advance(&self, more: u64) {
        self.show_when_due();
        self.bar.inc(more);
    }

    /// Sets the total once it is known.
    pub fn expect(&self, total: Option<u64>) {
        if let Some(total) = total
            && let Ok(style) = ProgressStyle::with_template(TOWARDS_TOTAL)
        {
            self.bar.set_length(total);
            self.bar.set_style(style);
        }
    }

    /// Says beside the bar how far things are.
    pub fn say(&self, text: String) {
        self.show_when_due();
        self.bar.set_message(text);
    }

    /// Writes a line to standard error without tearing the bar.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show_when_due(&self) {
        let due = self.started.elapsed() >= SHOWN_AFTER;
        if due && !self.settled.swap(true, Ordering::Relaxed) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

/// Waits for one long answer, with a clock beside `doing` once it takes more than a second.
pub async fn waiting<F: Future>(doing: &str, work: F) -> F::Output {
    let mut work = pin!(work);
    let progress = Progress::new(None, CLOCK);
    progress.bar.set_message(doing.to_owned());
    loop {
        if let Ok(output) = tokio::time::timeout(TICK, &mut work).await {
            progress.finish();
            return output;
        }
        progress.show_when_due();
        progress.bar.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_drawn_before_its_time() {
        let progress = Progress::of_bytes(Some(10));
        progress.advance(3);
        assert_eq!(progress.bar.position(), 3);
        assert!(progress.bar.is_hidden());
    }

    #[test]
    fn every_style_is_valid() {
        for style in [TOWARDS_TOTAL, WITHOUT_TOTAL, STEPS, ITEMS, CLOCK] {
            assert!(ProgressStyle::with_template(style).is_ok(), "{style}");
        }
    }
}
