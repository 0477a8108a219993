//! The other side: the storage engine alone, in this process, with the same states.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use crate::cli::bench::error::BenchError;
use crate::cli::bench::load::Operation;
use crate::cli::bench::measure::Round;
use crate::cli::bench::plan::{Draws, Plan, id, key};
use crate::cli::error::CliError;
use crate::store::baseline::Baseline;
use crate::store::error::StoreError;
use crate::types::hash::StateKey;

/// Keys that a reading thread draws before its time begins, and reads in turn.
const KEYS_DRAWN: usize = 100_000;

/// A file of the storage engine with all states in it.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    baseline: Baseline,
    plan: Plan,
    draws: Mutex<Draws>,
}

/// States to be written in one commit, by key.
type Batch = Vec<(StateKey, Vec<u8>)>;

impl Engine {
    /// Opens a file; a new one gets all states of the plan in it.
    ///
    /// # Errors
    /// [`CliError::Store`].
    pub async fn open(path: PathBuf, plan: Plan) -> Result<Self, CliError> {
        let inner = on_thread(move || Inner::open(&path, plan)).await?;
        Ok(Self(Arc::new(inner)))
    }

    /// Overwrites or reads states for the plan's time: writes in batches as large as the number
    /// of clients, reads with one thread for each client, but not more than the machine has cores.
    ///
    /// # Errors
    /// [`CliError`] when the engine fails or loses a state.
    pub async fn run(&self, operation: Operation, clients: usize) -> Result<Round, CliError> {
        let inner = Arc::clone(&self.0);
        on_thread(move || match operation {
            Operation::Put => inner.puts(clients),
            Operation::Get => inner.gets(clients),
        })
        .await
    }

    /// Overwrites states in batches of this size until told to stop.
    ///
    /// # Errors
    /// [`CliError`] when the engine fails.
    pub async fn overwrite_until(
        &self,
        stop: impl Fn() -> bool + Send + 'static,
        batch_size: usize,
    ) -> Result<(), CliError> {
        let inner = Arc::clone(&self.0);
        on_thread(move || {
            while !stop() {
                inner.put(&inner.next_batch(batch_size)?)?;
            }
            Ok(())
        })
        .await
    }

    /// Reads a state.
    ///
    /// # Errors
    /// [`BenchError::Differs`] when it is not there, [`CliError::Store`].
    pub fn read(&self, state: u64) -> Result<(), CliError> {
        self.0.read(state, &key(state)?)
    }
}

impl Inner {
    fn open(path: &Path, plan: Plan) -> Result<Self, CliError> {
        let inner = Self {
            baseline: Baseline::open(path)?,
            plan,
            draws: Mutex::new(plan.draws()),
        };
        let last = key(plan.states.saturating_sub(1))?;
        if inner.baseline.get(&last)?.is_none() {
            for states in plan.batches() {
                inner.put(&inner.batch(states.map(|state| (state, 0)))?)?;
            }
        }
        Ok(inner)
    }

    fn puts(&self, clients: usize) -> Result<Round, CliError> {
        let (mut spent, mut operations) = (Duration::ZERO, 0);
        while spent < self.plan.time {
            let batch = self.next_batch(clients)?;
            let began = Instant::now();
            self.put(&batch)?;
            spent += began.elapsed();
            operations += batch.len() as u64;
        }
        Ok(Round {
            operations,
            seconds: spent.as_secs_f64(),
            ..Round::default()
        })
    }

    fn gets(&self, clients: usize) -> Result<Round, CliError> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let drawn: Vec<_> = (0..clients.min(cores))
            .map(|_| self.drawn_keys())
            .collect::<Result<_, _>>()?;
        let began = Instant::now();
        let end = began + self.plan.time;
        let operations = thread::scope(|scope| {
            let threads: Vec<_> = drawn
                .iter()
                .map(|keys| scope.spawn(move || self.read_in_turn(keys, end)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(failed())))
                .sum::<Result<u64, CliError>>()
        })?;
        Ok(Round {
            operations,
            seconds: began.elapsed().as_secs_f64(),
            ..Round::default()
        })
    }

    fn read_in_turn(&self, keys: &[(u64, StateKey)], end: Instant) -> Result<u64, CliError> {
        let mut operations = 0;
        for (state, key) in keys.iter().cycle() {
            if Instant::now() >= end {
                break;
            }
            self.read(*state, key)?;
            operations += 1;
        }
        Ok(operations)
    }

    fn read(&self, state: u64, key: &StateKey) -> Result<(), CliError> {
        let value = self.baseline.get(key)?;
        // Comparing the bytes would cost as much as reading them, and the figure is the engine's.
        if value.is_some_and(|value| value.len() == self.plan.values.bytes) {
            return Ok(());
        }
        let (id, from) = (id(state), "the storage engine");
        Err(BenchError::Differs { id, from }.into())
    }

    fn put(&self, batch: &Batch) -> Result<(), StoreError> {
        let values = batch.iter().map(|(key, value)| (key, value.as_slice()));
        self.baseline.put(values)
    }

    fn next_batch(&self, size: usize) -> Result<Batch, CliError> {
        let writes: Vec<_> = {
            let mut draws = self.draws();
            (0..size).map(|_| draws.write()).collect()
        };
        self.batch(writes.into_iter())
    }

    fn batch(&self, writes: impl Iterator<Item = (u64, u64)>) -> Result<Batch, CliError> {
        let entry = |(state, version)| Ok((key(state)?, self.plan.values.make(state, version)));
        let mut batch: Batch = writes.map(entry).collect::<Result<_, CliError>>()?;
        // A state's later version stays behind its earlier one.
        batch.sort_by_key(|(key, _)| *key);
        Ok(batch)
    }

    fn drawn_keys(&self) -> Result<Vec<(u64, StateKey)>, CliError> {
        let mut draws = self.draws();
        let count = KEYS_DRAWN.min(self.plan.states as usize);
        let mut draw = || {
            let state = draws.state();
            Ok((state, key(state)?))
        };
        (0..count).map(|_| draw()).collect()
    }

    fn draws(&self) -> std::sync::MutexGuard<'_, Draws> {
        self.draws.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocking work, while signals are still heard.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    spawn_blocking(work).await.map_err(|_| failed())?
}

/// A thread of ours panicked.
fn failed() -> CliError {
    StoreError::Unexpected("a thread of the storage engine's measurement").into()
}
