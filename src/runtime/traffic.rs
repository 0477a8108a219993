//! Bytes that pass through sockets, counted where they pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::report::Passed;

/// A count that connections share. Reading it never waits.
#[derive(Debug, Default)]
pub struct Counter {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counter {
    /// Counts bytes that were handed to the operating system.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that the operating system gave.
    pub fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts what another counter has counted.
    pub fn add(&self, passed: Passed) {
        self.sent.fetch_add(passed.sent, Ordering::Relaxed);
        self.received.fetch_add(passed.received, Ordering::Relaxed);
    }

    /// What has passed so far.
    pub fn passed(&self) -> Passed {
        Passed {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }
}

/// All that a process sends and receives.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Through connections that others opened: clients, and peers that ask.
    pub served: Arc<Counter>,
    /// Through connections to peers that were opened here.
    pub asked: Arc<Counter>,
}
