//! Failures that a test asks for.

use std::io;

use rustix::io::Errno;

use crate::harness::Rng;

/// A failure that is to happen once so many steps have succeeded, counted from when it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    after: u64,
    error: Errno,
    partial: bool,
    sticky: bool,
    reads_count: bool,
}

impl Fault {
    /// One failure, after `after` steps that change the disk: writes, lengths, syncs, names.
    pub fn after(after: u64, error: Errno) -> Self {
        Self {
            after,
            error,
            partial: false,
            sticky: false,
            reads_count: false,
        }
    }

    /// When a write fails, some of its bytes are written all the same, from the first on.
    pub fn partial(self) -> Self {
        Self {
            partial: true,
            ..self
        }
    }

    /// Every counted step fails from then on, until the fault is taken back.
    pub fn sticky(self) -> Self {
        Self {
            sticky: true,
            ..self
        }
    }

    /// True when it does not pass by itself.
    pub fn is_sticky(self) -> bool {
        self.sticky
    }

    /// Counts what only looks at the disk as well, and lets it fail: reads, sizes, lists, free
    /// space, and opening a file that exists.
    pub fn counting_reads(self) -> Self {
        Self {
            reads_count: true,
            ..self
        }
    }
}

/// The fault that was asked for, and how far it is.
#[derive(Debug, Default)]
pub struct Faults {
    planned: Option<Fault>,
    /// Counted steps since the fault was asked for.
    steps: u64,
    failed: u64,
}

/// A step that has to fail.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    fault: Fault,
    step: u64,
}

impl Faults {
    pub fn plan(&mut self, fault: Fault) {
        *self = Self {
            planned: Some(fault),
            ..Self::default()
        };
    }

    pub fn clear(&mut self) {
        self.planned = None;
    }

    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Counts a step that changes the disk.
    pub fn change(&mut self) -> Option<Failure> {
        let fault = self.planned?;
        let step = self.steps;
        self.steps += 1;
        let fails = step == fault.after || fault.sticky && step > fault.after;
        self.failed += u64::from(fails);
        fails.then_some(Failure { fault, step })
    }

    /// Counts a step that only looks at the disk.
    pub fn look(&mut self) -> io::Result<()> {
        match self.planned {
            Some(fault) if fault.reads_count => fail_if(self.change()),
            _ => Ok(()),
        }
    }
}

/// The failure as an error.
pub fn fail_if(failure: Option<Failure>) -> io::Result<()> {
    failure.map_or(Ok(()), |failure| Err(failure.error()))
}

impl Failure {
    pub fn error(self) -> io::Error {
        self.fault.error.into()
    }

    /// How many bytes of a failing write of `length` are written: fewer than all.
    pub fn written(self, length: usize) -> usize {
        if self.fault.partial && length > 0 {
            Rng::quiet(self.step).below(length)
        } else {
            0
        }
    }
}
