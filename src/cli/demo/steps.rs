//! The quiet steps: start, import, first replication, and an hour of saves.

use std::path::Path;
use std::time::Instant;

use tokio::time::sleep;

use crate::cli::demo::api::Api;
use crate::cli::demo::error::DemoError;
use crate::cli::demo::ledger::Ledger;
use crate::cli::demo::meter::{Meter, Session, Traffic};
use crate::cli::demo::recording::{Moment, Recording};
use crate::cli::demo::replicas::Replica;
use crate::cli::demo::show::{Column, Show, percent, short};
use crate::cli::demo::stage::{POLL, Stage, Trio};
use crate::cli::progress::waiting;
use crate::cli::text::{Align, count, human_bytes};
use crate::delta::compress::compress;

/// What `zstd` takes when it is not told otherwise.
const ZSTD_LEVEL: i32 = 3;

const SESSIONS: &[Column] = &[
    ("SESSION", Align::Left, 14),
    ("STRATEGY", Align::Left, 10),
    ("STATES", Align::Right, 7),
    ("ON THE WIRE", Align::Right, 12),
    ("IF SENT WHOLE", Align::Right, 14),
    ("RATIO", Align::Right, 7),
    ("SECONDS", Align::Right, 8),
];

const SAVES: &[Column] = &[
    ("WRITTEN TO a", Align::Left, 16),
    ("SIZE", Align::Right, 10),
    ("AS ZSTD", Align::Right, 10),
    ("SENT TO b", Align::Right, 10),
    ("RATIO", Align::Right, 7),
    ("b HAS IT", Align::Right, 9),
    ("c HAS IT", Align::Right, 9),
];

/// Starts the three replicas.
///
/// # Errors
/// [`DemoError`] when one does not come up, or they are not empty.
pub async fn start(mut show: Show, program: &Path, folder: &Path) -> Result<Stage, DemoError> {
    show.step(
        "Three replicas start",
        "each a process of its own: samestate serve --data DIR --listen 127.0.0.1:0",
    )?;
    let [a, b, c] = ["a", "b", "c"].map(|name| Replica::start(program, folder, name));
    let (a, b, c) = tokio::try_join!(a, b, c)?;
    let stage = Stage {
        trio: Trio { a, b, c },
        show,
        ledger: Ledger::default(),
        meter: Meter::default(),
        costs: Vec::new(),
    };
    for replica in stage.trio.all() {
        let (url, id) = (replica.url(), &replica.ready.replica);
        let (name, seconds) = (replica.name, replica.seconds_to_ready());
        let line = format!("{name}  {url}  replica {id}  ready after {seconds:.3} s");
        stage.show.say(&line)?;
    }
    let root = stage.agreement(&stage.trio.all()).await?;
    let claim = format!("all are empty, with equal roots {}", short(&root.root));
    let found = format!("{} states", root.count);
    stage.show.claim(root.count == 0, &claim, &found)?;
    Ok(stage)
}

/// Writes the beginning of both games to one replica.
///
/// # Errors
/// [`DemoError`] when a write fails.
pub async fn import(stage: &mut Stage, recording: &Recording) -> Result<(), DemoError> {
    stage.show.step(
        "Game states are imported into a",
        "the first saves of a Freeciv and an OpenTTD game, and Freeciv's single cities and units",
    )?;
    let (api, states) = (stage.trio.a.api.clone(), &recording.beginning.states);
    let started = Instant::now();
    waiting("importing", stage.put_each(&api, states)).await?;
    let seconds = started.elapsed().as_secs_f64();
    let root = api.root().await?;
    let claim = format!(
        "{} with {} are on disk after {seconds:.2} s; root {}",
        count(states.len() as u64, "state"),
        human_bytes(recording.beginning.bytes()),
        short(&root.root)
    );
    let all = root.count == states.len() as u64;
    let found = format!("a holds {}", count(root.count, "state"));
    stage.show.claim(all, &claim, &found)
}

/// Lets the other two learn everything from the first.
///
/// # Errors
/// [`DemoError`] when a session fails or the roots differ.
pub async fn first_replication(stage: &mut Stage) -> Result<(), DemoError> {
    stage.show.step(
        "First replication: b and c learn everything from a",
        "samestate sync --from A, once at b and once at c, which know nothing yet",
    )?;
    let measured = stage.measure("first replication");
    let from = stage.trio.a.url();
    stage.show.header(SESSIONS)?;
    for replica in [&stage.trio.b, &stage.trio.c] {
        let doing = format!("{} learns from a", replica.name);
        let session = waiting(&doing, replica.api.learn_from(&from)).await?;
        stage.show.row(SESSIONS, &session_row(&doing, &session))?;
    }
    stage.finish(measured).await?;
    let root = stage.agreement(&stage.trio.all()).await?;
    let claim = format!("equal roots on a, b and c: {}", short(&root.root));
    Ok(stage.show.held(&claim)?)
}

fn session_row(name: &str, session: &Session) -> [String; 7] {
    let traffic = session.traffic();
    [
        name.to_owned(),
        session.strategy.clone(),
        traffic.states.to_string(),
        human_bytes(traffic.bytes_on_the_wire),
        human_bytes(traffic.bytes_if_sent_whole),
        percent(traffic.ratio()),
        format!("{:.3}", session.seconds),
    ]
}

/// What one moment of the replay came to.
struct Replayed {
    size: u64,
    zstd: u64,
    traffic: Traffic,
    seconds_at_b: f64,
    seconds_at_c: f64,
}

/// Writes save after save; one replica fetches each by a session, the other one follows by itself.
///
/// # Errors
/// [`DemoError`] when a session fails, or deltas do not save anything.
pub async fn replay(stage: &mut Stage, recording: &Recording) -> Result<(), DemoError> {
    stage.show.step(
        "An hour of saves is replayed",
        "15 saves and two turns of single records: an hour at a save every four minutes\n\
         b fetches each in a session of its own, c follows by itself over a live link",
    )?;
    let measured = stage.measure("an hour of saves");
    let from = stage.trio.a.url();
    stage.trio.c.api.link("a", &from).await?;
    stage.show.header(SAVES)?;
    let mut sum = (0, 0, Traffic::default());
    for moment in &recording.later {
        let replayed = play(stage, moment, &from).await?;
        stage.show.row(SAVES, &replayed.row(&moment.name))?;
        sum.0 += replayed.size;
        sum.1 += replayed.zstd;
        sum.2 += replayed.traffic;
    }
    let (size, zstd, traffic) = sum;
    stage.show.total(SAVES, &sum_row(size, zstd, traffic))?;
    stage.finish(measured).await?;
    let root = stage.agreement(&stage.trio.all()).await?;
    let claim = format!("equal roots on a, b and c: {}", short(&root.root));
    stage.show.held(&claim)?;
    let wire = traffic.bytes_on_the_wire;
    let claim = format!(
        "{:.1} times fewer bytes than zstd of every save would have taken",
        zstd as f64 / wire.max(1) as f64
    );
    let found = format!("{wire} bytes for {zstd} bytes of zstd");
    stage.show.claim(wire < zstd, &claim, &found)
}

async fn play(stage: &mut Stage, moment: &Moment, from: &str) -> Result<Replayed, DemoError> {
    let mut zstd = 0;
    for state in &moment.states {
        zstd += compress(&state.bytes, ZSTD_LEVEL)?.len() as u64;
    }
    let (a, b, c) = (&stage.trio.a.api, &stage.trio.b.api, &stage.trio.c.api);
    let (a, b, c) = (a.clone(), b.clone(), c.clone());
    let root = stage.put_moment(&a, &moment.states).await?;
    let written = Instant::now();
    let at_b = async {
        let session = b.learn_from(from).await?;
        Ok::<_, DemoError>((session, written.elapsed().as_secs_f64()))
    };
    let at_c = async {
        until_root(&c, &root).await?;
        Ok(written.elapsed().as_secs_f64())
    };
    let ((session, seconds_at_b), seconds_at_c) =
        waiting("replicating", async { tokio::try_join!(at_b, at_c) }).await?;
    if !session.equal {
        return Err(DemoError::Untrue {
            claim: format!("\"b has {}\"", moment.name),
            found: format!("its roots differ after a {} session", session.strategy),
        });
    }
    Ok(Replayed {
        size: moment.bytes(),
        zstd,
        traffic: session.traffic(),
        seconds_at_b,
        seconds_at_c,
    })
}

/// Waits until a replica has arrived at a root.
async fn until_root(api: &Api, root: &str) -> Result<(), DemoError> {
    const PATIENCE_SECONDS: u64 = 30;
    let started = Instant::now();
    loop {
        let now = api.root().await?;
        if now.root == root {
            return Ok(());
        }
        if started.elapsed().as_secs() >= PATIENCE_SECONDS {
            return Err(DemoError::Waited {
                seconds: PATIENCE_SECONDS,
                event: "a write to arrive over the live link",
                instead: format!("the root is {} and not {root}", now.root),
            });
        }
        sleep(POLL).await;
    }
}

impl Replayed {
    fn row(&self, name: &str) -> [String; 7] {
        let millis = |seconds: f64| format!("{:.0} ms", seconds * 1000.0);
        [
            name.to_owned(),
            human_bytes(self.size),
            human_bytes(self.zstd),
            human_bytes(self.traffic.bytes_on_the_wire),
            percent(self.traffic.ratio()),
            millis(self.seconds_at_b),
            millis(self.seconds_at_c),
        ]
    }
}

fn sum_row(size: u64, zstd: u64, traffic: Traffic) -> [String; 7] {
    [
        "together".to_owned(),
        human_bytes(size),
        human_bytes(zstd),
        human_bytes(traffic.bytes_on_the_wire),
        percent(traffic.ratio()),
        String::new(),
        String::new(),
    ]
}
