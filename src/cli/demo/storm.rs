//! Many writers at once, and a replica that is killed in the middle of it.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::cli::demo::api::Api;
use crate::cli::demo::error::DemoError;
use crate::cli::demo::ledger::Ledger;
use crate::cli::demo::meter::Meter;
use crate::cli::demo::recording::Recording;
use crate::cli::demo::replicas::Replica;
use crate::cli::demo::show::short;
use crate::cli::demo::stage::Stage;
use crate::cli::error::CliError;
use crate::cli::progress::waiting;
use crate::cli::text::count;
use crate::types::hash::ContentHash;

/// Writers at once, each with one request in flight.
const WRITERS: usize = 16;
/// States of each writer, written over and over in turn.
const SLOTS: usize = 32;
/// Acknowledged writes after which the replica is killed.
const CRASH_AFTER: u64 = 2_000;
/// The replica is killed after this time, however slow it is.
const CRASH_AT_LATEST: Duration = Duration::from_secs(10);
/// How often the other replicas are asked what their sessions sent.
const METER: Duration = Duration::from_millis(50);
/// Where the storm's states are.
const FOLDER: &str = "storm/";

/// What the writers share.
struct Storm<'a> {
    api: Api,
    contents: &'a [Vec<u8>],
    ledger: RefCell<&'a mut Ledger>,
    acknowledged: Cell<u64>,
    cut_off: Cell<u64>,
    crashed: Cell<bool>,
    refused: RefCell<Option<CliError>>,
}

/// Lets writers loose on a replica, kills it, starts it again and holds it to what it had said.
///
/// # Errors
/// [`DemoError`] when a write that was acknowledged is not there, or anything else went wrong.
pub async fn storm(stage: &mut Stage, recording: &Recording) -> Result<(), DemoError> {
    stage.show.step(
        "A write storm on b, which is killed in the middle of it (SIGKILL)",
        &format!("{WRITERS} writers at once, while a fetches what they write, and c from a"),
    )?;
    let measured = stage.measure("storm and crash");
    // What b could tell of its own sessions would die with it, so a runs them.
    stage.trio.b.api.unlink("a").await?;
    stage.trio.a.api.link("b", &stage.trio.b.url()).await?;
    let (acknowledged, cut_off) = rage(stage, recording).await?;
    let line = format!("killed after {acknowledged} acknowledged writes; {cut_off} were in flight");
    stage.show.held(&line)?;
    restart(stage).await?;
    check_every_write(stage, acknowledged).await?;
    let root = stage.agreement(&stage.trio.all()).await?;
    let claim = format!("equal roots on a, b and c: {}", short(&root.root));
    stage.show.held(&claim)?;
    stage.finish(measured).await?;
    Ok(())
}

/// Returns how many writes were acknowledged, and how many were cut off by the crash.
async fn rage(stage: &mut Stage, recording: &Recording) -> Result<(u64, u64), DemoError> {
    let storm = Storm {
        api: stage.trio.b.api.clone(),
        contents: &recording.records,
        ledger: RefCell::new(&mut stage.ledger),
        acknowledged: Cell::new(0),
        cut_off: Cell::new(0),
        crashed: Cell::new(false),
        refused: RefCell::new(None),
    };
    let others = [&stage.trio.a, &stage.trio.c];
    let all = async {
        tokio::join!(
            join_all((0..WRITERS).map(|writer| storm.write(writer))),
            storm.crash(&mut stage.trio.b),
            storm.follow(&others, &mut stage.meter),
        )
    };
    let (_, killed, followed) = waiting("writing to b", all).await;
    killed?;
    followed?;
    if let Some(error) = storm.refused.take() {
        return Err(error.into());
    }
    Ok((storm.acknowledged.get(), storm.cut_off.get()))
}

impl Storm<'_> {
    /// Writes until the replica is gone.
    async fn write(&self, writer: usize) {
        for round in 0.. {
            if self.crashed.get() {
                return;
            }
            let id = format!("{FOLDER}{writer:02}/{:02}", round % SLOTS);
            let bytes = content(self.contents, &id, writer, round);
            self.ledger
                .borrow_mut()
                .attempt(&id, ContentHash::of(&bytes));
            match self.api.put(&id, bytes, None).await {
                Ok(_) => {
                    self.ledger.borrow_mut().acknowledge(&id);
                    add_one(&self.acknowledged);
                }
                Err(_) if self.crashed.get() => return add_one(&self.cut_off),
                Err(error) => {
                    self.refused.replace(Some(error));
                    return;
                }
            }
        }
    }

    /// Kills the replica once enough was written.
    async fn crash(&self, replica: &mut Replica) -> Result<(), CliError> {
        let started = Instant::now();
        while self.acknowledged.get() < CRASH_AFTER
            && started.elapsed() < CRASH_AT_LATEST
            && self.refused.borrow().is_none()
        {
            sleep(Duration::from_millis(1)).await;
        }
        self.crashed.set(true);
        replica.kill()
    }

    /// Reads what the other replicas' sessions sent before their lists grow too long.
    async fn follow(&self, others: &[&Replica], meter: &mut Meter) -> Result<(), CliError> {
        while !self.crashed.get() {
            for replica in others {
                let sessions = replica.api.sessions().await?;
                meter.note(replica.name, replica.life, &sessions);
            }
            sleep(METER).await;
        }
        Ok(())
    }
}

/// A recorded state, marked so that no two writes have the same bytes.
fn content(contents: &[Vec<u8>], id: &str, writer: usize, round: usize) -> Vec<u8> {
    let recorded = contents.get((writer * SLOTS + round) % contents.len().max(1));
    let mark = format!("{id} {round}\n");
    [mark.as_bytes(), recorded.map_or(&[][..], Vec::as_slice)].concat()
}

fn add_one(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

async fn restart(stage: &mut Stage) -> Result<(), DemoError> {
    let b = &mut stage.trio.b;
    let before = b.ready.clone();
    waiting("starting b again", b.restart(&[])).await?;
    let (seconds, ready) = (b.seconds_to_ready(), &b.ready);
    let claim = format!(
        "started again on the same files: ready after {seconds:.3} s with {}",
        count(ready.states, "state")
    );
    let found = format!("it is {} now and was {}", ready.replica, before.replica);
    let same = ready.replica == before.replica;
    stage.show.claim(same, &claim, &found)
}

async fn check_every_write(stage: &mut Stage, acknowledged: u64) -> Result<(), DemoError> {
    let ids = stage.ledger.ids(FOLDER);
    let held = stage.read_back(&stage.trio.b, &ids).await?;
    let wrong = held
        .iter()
        .filter(|(id, found)| !stage.ledger.allows(id, *found));
    let wrong: Vec<&str> = wrong.map(|(id, _)| id.as_str()).collect();
    let was_acknowledged = |(id, found): &&(String, Option<ContentHash>)| {
        found.is_some_and(|found| stage.ledger.is_acknowledged(id, found))
    };
    let exact = held.iter().filter(was_acknowledged).count();
    let newer = held.len() - exact;
    let claim = format!(
        "none of the {acknowledged} acknowledged writes is lost\n{} read: {exact} as last \
         acknowledged, {newer} by a write that was in flight",
        count(held.len() as u64, "state")
    );
    let found = format!("{} are wrong: {}", wrong.len(), wrong.join(", "));
    stage.show.claim(wrong.is_empty(), &claim, &found)?;
    for (id, found) in held {
        stage.ledger.settle(&id, found);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_writes_of_a_storm_have_the_same_bytes() {
        let contents = [b"one".to_vec(), b"two".to_vec()];
        let mut seen = BTreeSet::new();
        for writer in 0..WRITERS {
            for round in 0..3 * SLOTS {
                let id = format!("{FOLDER}{writer:02}/{:02}", round % SLOTS);
                assert!(seen.insert(content(&contents, &id, writer, round)));
            }
        }
        assert_eq!(content(&[], "x", 0, 0), b"x 0\n");
    }
}
