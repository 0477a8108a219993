//! Load over HTTP: connections with one request each in flight, for a given time.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use futures_util::future::{join, try_join_all};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep_until;

use crate::cli::bench::connection::Connection;
use crate::cli::bench::error::BenchError;
use crate::cli::bench::measure::{Round, micros};
use crate::cli::bench::plan::{Draws, Plan, id};

/// Work before the time counts, for caches and connections to settle.
const WARM_UP: Duration = Duration::from_millis(300);

/// What the clients do over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Overwrite a state.
    Put,
    /// Read a state.
    Get,
}

/// A round of load.
#[derive(Debug)]
pub struct Load<'a> {
    /// What is done.
    pub operation: Operation,
    /// To which states, for how long.
    pub plan: &'a Plan,
    /// Connections with one request each in flight.
    pub clients: usize,
    /// Which state comes next.
    pub draws: &'a RefCell<Draws>,
}

/// The time that counts.
#[derive(Debug, Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Load<'_> {
    /// Runs it against the replica at an address.
    ///
    /// # Errors
    /// [`BenchError`] of the first request that was not answered as it should be.
    pub async fn run(&self, address: &str) -> Result<Round, BenchError> {
        let mut connections = Vec::new();
        for _ in 0..self.clients {
            connections.push(Connection::open(address).await?);
        }
        let begin = Instant::now() + WARM_UP;
        let window = Window {
            begin,
            end: begin + self.plan.time,
        };
        let clients = connections.into_iter();
        let clients = try_join_all(clients.map(|connection| self.client(connection, window)));
        let (micros, load) = join(clients, processor_share(window)).await;
        let seconds = self.plan.time.as_secs_f64();
        Ok(Round::new(micros?.concat(), seconds, load))
    }

    /// Returns how long its requests took, in microseconds.
    async fn client(
        &self,
        mut connection: Connection,
        window: Window,
    ) -> Result<Vec<u32>, BenchError> {
        let (mut taken, mut bytes) = (Vec::new(), Vec::new());
        loop {
            let began = match self.operation {
                Operation::Put => {
                    let (state, version) = self.draws.borrow_mut().write();
                    self.plan.values.fill(state, version, &mut bytes);
                    let began = Instant::now();
                    connection.put(&id(state), &bytes).await?;
                    began
                }
                Operation::Get => {
                    let state = self.draws.borrow_mut().state();
                    self.plan.values.fill(state, 0, &mut bytes);
                    let began = Instant::now();
                    if connection.get(&id(state)).await? != bytes {
                        return Err(differs(state));
                    }
                    began
                }
            };
            let now = Instant::now();
            if now > window.end {
                return Ok(taken);
            }
            if now >= window.begin {
                taken.push(micros(now - began));
            }
        }
    }
}

/// The error for a state that the replica gave back with other bytes.
fn differs(state: u64) -> BenchError {
    BenchError::Differs {
        id: id(state),
        from: "the server",
    }
}

/// Processor time of this process for each second of the window, in seconds.
async fn processor_share(window: Window) -> f64 {
    sleep_until(window.begin.into()).await;
    let (began, before) = (Instant::now(), processor_time());
    sleep_until(window.end.into()).await;
    let used = processor_time().saturating_sub(before);
    used.as_secs_f64() / began.elapsed().as_secs_f64().max(f64::EPSILON)
}

/// Processor time that this process has used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
