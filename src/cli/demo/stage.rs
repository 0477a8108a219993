//! What all steps share: the three replicas, what was written to them, and what they sent.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, future, stream};
use serde::Serialize;
use tokio::time::sleep;

use crate::cli::demo::api::{Api, Root};
use crate::cli::demo::error::DemoError;
use crate::cli::demo::ledger::Ledger;
use crate::cli::demo::meter::{Meter, Traffic};
use crate::cli::demo::recording::State;
use crate::cli::demo::replicas::Replica;
use crate::cli::demo::show::Show;
use crate::cli::error::CliError;
use crate::cli::progress::waiting;
use crate::types::hash::ContentHash;

/// Longest time until replicas that can reach each other agree.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often they are asked meanwhile.
pub const POLL: Duration = Duration::from_millis(5);
/// Requests at once, where many are made.
const PARALLEL: usize = 8;

/// What a replica was found to hold, by id.
pub type Found = Vec<(String, Option<ContentHash>)>;

/// The three replicas.
#[derive(Debug)]
pub struct Trio {
    /// Where the games write.
    pub a: Replica,
    /// The one that will be killed.
    pub b: Replica,
    /// The one that will be cut off.
    pub c: Replica,
}

/// What a step cost.
#[derive(Debug, Clone, Serialize)]
pub struct StepCost {
    /// Which step.
    pub step: &'static str,
    /// What sessions sent in it.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// From its first request to its last answer.
    pub seconds: f64,
}

/// Everything that the steps work with.
#[derive(Debug)]
pub struct Stage {
    /// The replicas.
    pub trio: Trio,
    /// The output.
    pub show: Show,
    /// What was written.
    pub ledger: Ledger,
    /// What was sent.
    pub meter: Meter,
    /// What the steps so far cost.
    pub costs: Vec<StepCost>,
}

/// A step that is being measured.
#[derive(Debug)]
pub struct Measured {
    step: &'static str,
    before: Traffic,
    started: Instant,
}

impl Trio {
    /// All of them, in order of name.
    pub fn all(&self) -> [&Replica; 3] {
        [&self.a, &self.b, &self.c]
    }

    /// All of them.
    pub fn all_mut(&mut self) -> [&mut Replica; 3] {
        [&mut self.a, &mut self.b, &mut self.c]
    }
}

impl Stage {
    /// Begins to measure a step.
    pub fn measure(&self, step: &'static str) -> Measured {
        Measured {
            step,
            before: self.meter.total(),
            started: Instant::now(),
        }
    }

    /// Waits for sessions that still run, and writes down what the step cost.
    ///
    /// # Errors
    /// [`DemoError`] when a replica does not answer or a session does not end.
    pub async fn finish(&mut self, measured: Measured) -> Result<StepCost, DemoError> {
        let seconds = measured.started.elapsed().as_secs_f64();
        self.quiet().await?;
        let cost = StepCost {
            step: measured.step,
            traffic: self.meter.total() - measured.before,
            seconds,
        };
        self.costs.push(cost.clone());
        Ok(cost)
    }

    /// Waits until no replica runs a session.
    ///
    /// # Errors
    /// [`DemoError`] when a replica does not answer or a session does not end.
    pub async fn quiet(&mut self) -> Result<(), DemoError> {
        let started = Instant::now();
        loop {
            let mut running = 0;
            for replica in self.trio.all() {
                let sessions = replica.api.sessions().await?;
                self.meter.note(replica.name, replica.life, &sessions);
                running += sessions.iter().filter(|s| s.is_running()).count();
            }
            if running == 0 {
                return Ok(());
            }
            if started.elapsed() > AGREEMENT_TIMEOUT {
                return Err(DemoError::Waited {
                    seconds: AGREEMENT_TIMEOUT.as_secs(),
                    event: "the end of all sessions",
                    instead: format!("{running} still run"),
                });
            }
            sleep(POLL).await;
        }
    }

    /// Writes states to a replica, several at once, and notes them.
    ///
    /// # Errors
    /// [`CliError`] of the first write that failed.
    pub async fn put_each(&mut self, api: &Api, states: &[State]) -> Result<(), CliError> {
        for state in states {
            let content = ContentHash::of(&state.bytes);
            self.ledger.attempt(&state.id, content);
        }
        let put = async |state: &State| api.put(&state.id, state.bytes.clone(), None).await;
        let mut answers = stream::iter(states)
            .map(async |state| put(state).await.map(|_| state))
            .buffer_unordered(PARALLEL);
        while let Some(state) = answers.try_next().await? {
            self.ledger.acknowledge(&state.id);
        }
        Ok(())
    }

    /// Writes states to a replica in one commit, notes them, and returns the root behind it.
    ///
    /// # Errors
    /// [`CliError`] of the write.
    pub async fn put_moment(&mut self, api: &Api, states: &[State]) -> Result<String, CliError> {
        for state in states {
            let content = ContentHash::of(&state.bytes);
            self.ledger.attempt(&state.id, content);
        }
        let written = match states {
            [state] => api.put(&state.id, state.bytes.clone(), None).await?,
            states => api.put_all(states).await?,
        };
        for state in states {
            self.ledger.acknowledge(&state.id);
        }
        Ok(written.root)
    }

    /// Waits until these replicas have equal roots.
    ///
    /// # Errors
    /// [`DemoError::Waited`], or a replica does not answer.
    pub async fn agreement(&self, replicas: &[&Replica]) -> Result<Root, DemoError> {
        let names: Vec<&str> = replicas.iter().map(|replica| replica.name).collect();
        let doing = format!("waiting for equal roots on {}", names.join(", "));
        waiting(&doing, agree(replicas)).await
    }

    /// Reads states from a replica: the SHA-256 of each one's bytes, computed here; `None` where
    /// it holds no such state.
    ///
    /// # Errors
    /// [`CliError`] when it does not answer.
    pub async fn read_back(&self, replica: &Replica, ids: &[String]) -> Result<Found, CliError> {
        let doing = format!("reading {} states from {}", ids.len(), replica.name);
        let reads = stream::iter(ids)
            .map(async |id| Ok::<_, CliError>((id.clone(), found(&replica.api, id).await?)));
        waiting(&doing, reads.buffer_unordered(PARALLEL).try_collect()).await
    }
}

async fn found(api: &Api, id: &str) -> Result<Option<ContentHash>, CliError> {
    match api.get(id, None).await {
        Ok(read) => Ok(Some(ContentHash::of(&read.bytes))),
        Err(CliError::Problem(problem)) if problem.status == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

async fn agree(replicas: &[&Replica]) -> Result<Root, DemoError> {
    let started = Instant::now();
    loop {
        let asked = replicas.iter().map(|replica| replica.api.root());
        let roots = future::try_join_all(asked).await?;
        let differ = roots.windows(2).any(|pair| match pair {
            [one, other] => one.root != other.root,
            _ => false,
        });
        match roots.into_iter().next() {
            Some(root) if !differ => return Ok(root),
            Some(first) if started.elapsed() > AGREEMENT_TIMEOUT => {
                return Err(DemoError::Waited {
                    seconds: AGREEMENT_TIMEOUT.as_secs(),
                    event: "equal roots",
                    instead: format!("{} has {} states", first.root, first.count),
                });
            }
            _ => sleep(POLL).await,
        }
    }
}
