//! `bench reconcile`: what finding the difference between two sets costs, in this process: message
//! bytes, round trips and time of a processor core.

use std::collections::BTreeSet;
use std::process::ExitCode;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::task;

use crate::cli::bench::args::ReconcileArgs;
use crate::cli::bench::error::BenchError;
use crate::cli::error::CliError;
use crate::cli::output::{note, print};
use crate::cli::text::{Align, Table, grouped};
use crate::reconcile::budget::Budget;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::memory::{Pair, Random, Shape};
use crate::reconcile::planner::{Facts, after_failure, plan};
use crate::reconcile::registry::{answer, strategy};
use crate::reconcile::sizing::{Precision, size_for};
use crate::reconcile::strategy::{
    BloomSettings, Context, Difference, Link, SessionLimits, Step, StrategyName,
};
use crate::reconcile::view::SetView;
use crate::sketch::decoder::{Decoder, Partition};
use crate::sketch::key::{Secret, SketchKey};
use crate::sketch::table::{Change, Sketch, levels_for};
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// States that differ and are all named: far more than a session handles.
const DIFFERING_MAX: usize = 1 << 24;
/// Fewest states of the sets of a trial, and how many of them differ at most: not so many that a list
/// is better.
const TRIAL_STATES: usize = 2000;
const TRIAL_DIFFERING: usize = 400;
/// Changes of which the time is taken.
const UPKEEP_CHANGES: u64 = 200_000;
/// Differences that are solved for, and how often.
const DECODED: usize = 1000;
const DECODE_ROUNDS: usize = 50;

/// What one comparison took.
#[derive(Debug, Clone, Serialize)]
struct Row {
    states: usize,
    differing: usize,
    strategy: String,
    bytes_up: usize,
    bytes_down: usize,
    round_trips: u32,
    /// Time of the side that answers, and of the side that asks, in milliseconds.
    server_ms: f64,
    client_ms: f64,
    /// Differences that were not named.
    missed: usize,
}

/// What keeping a sketch takes.
#[derive(Debug, Clone, Serialize)]
struct Upkeep {
    nanos_per_put: f64,
    bytes: usize,
    partitions: usize,
    build_ms: f64,
    /// To solve cells for 1,000 differences, for each of them.
    decode_nanos: f64,
}

/// What many small comparisons came to.
#[derive(Debug, Clone, Default, Serialize)]
struct Trials {
    trials: u64,
    /// Differences that are not there, or are and were not named.
    wrong: u64,
    /// Trials that ended without a result, which another strategy goes on from.
    undecided: u64,
    /// Trials that took one round trip.
    one_round_trip: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    seed: u64,
    upkeep: Option<Upkeep>,
    rows: Vec<Row>,
    trials: Option<Trials>,
}

/// Measures and prints.
///
/// # Errors
/// [`CliError`] when a comparison fails, or a trial comes to a wrong result.
pub async fn run(args: &ReconcileArgs, json: bool) -> Result<ExitCode, CliError> {
    let args = args.clone();
    let measured = task::spawn_blocking(move || measure(&args)).await;
    let report = measured.unwrap_or(Err(BenchError::Unfinished))?;
    let wrong = report.trials.as_ref().map_or(0, |trials| trials.wrong);
    if json {
        let text = serde_json::to_string(&report).map_err(|_| BenchError::Unfinished)?;
        print(&text)?;
    } else {
        show(&report)?;
    }
    if wrong > 0 {
        return Err(BenchError::WrongDifferences(wrong).into());
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &ReconcileArgs) -> Result<Report, BenchError> {
    let mut random = Random(args.seed);
    let mut report = Report {
        bench: "reconcile",
        seed: args.seed,
        upkeep: None,
        rows: Vec::new(),
        trials: None,
    };
    if args.trials > 0 {
        report.trials = Some(trials(args.trials, &mut random)?);
        return Ok(report);
    }
    for differing in &args.differing {
        let states = args.states as usize;
        let pair = pair(states, (*differing).min(states), &mut random);
        if report.upkeep.is_none() {
            report.upkeep = Some(upkeep(&pair, &mut random));
        }
        // Both sides keep theirs.
        let _ = (pair.ours.sketch(), pair.theirs.sketch());
        for name in &args.strategies {
            let named = name.map_or("auto", StrategyName::as_str);
            note(&format!(
                "{} of {} states differ: {named}",
                grouped(*differing as u64),
                grouped(args.states)
            ));
            let mut measured = compare(*name, &pair, &mut random)?;
            measured.0.missed = missed(&pair, &measured.1);
            report.rows.push(measured.0);
        }
    }
    Ok(report)
}

/// Half of the differences are updates, a quarter each exists on one side only.
fn pair(states: usize, differing: usize, random: &mut Random) -> Pair {
    let shape = Shape {
        common: states - differing / 4,
        only_ours: differing / 4,
        only_theirs: differing / 4,
        updated: differing - 2 * (differing / 4),
    };
    Pair::new(shape, random)
}

fn context(pair: &Pair, random: &mut Random) -> Result<Context, ReconcileError> {
    Ok(Context {
        key: random.bytes(),
        theirs: Some(pair.theirs.root()?),
        their_seq: pair.theirs.seq(),
        mark: None,
        limits: SessionLimits {
            differing: DIFFERING_MAX,
            ..SessionLimits::default()
        },
        bloom: BloomSettings::default(),
    })
}

/// Runs a strategy, or what the planner chooses and goes on with.
fn compare(
    forced: Option<StrategyName>,
    pair: &Pair,
    random: &mut Random,
) -> Result<(Row, Difference), BenchError> {
    let context = context(pair, random)?;
    let facts = Facts {
        ours: pair.ours.root()?,
        theirs: pair.theirs.root()?,
        our_seq: pair.ours.seq(),
        their_seq: pair.theirs.seq(),
        mark: None,
        has_sketch: true,
        link: Link::default(),
    };
    let mut row = Row {
        states: pair.ours.all().len(),
        differing: oracle(pair).len(),
        strategy: String::new(),
        bytes_up: 0,
        bytes_down: 0,
        round_trips: 0,
        server_ms: 0.0,
        client_ms: 0.0,
        missed: 0,
    };
    let (mut name, mut tried) = (forced.unwrap_or_else(|| plan(&facts).strategy), Vec::new());
    loop {
        tried.push(name);
        let (found, estimate) = exchange(name, pair, &context, &mut row)?;
        if let Some(found) = found {
            let names: Vec<&str> = tried.iter().map(|name| name.as_str()).collect();
            row.strategy = names.join(", ");
            if forced.is_none() {
                row.strategy = format!("auto ({})", row.strategy);
            }
            return Ok((row, found));
        }
        name = after_failure(&facts, &tried, estimate).ok_or(BenchError::Unfinished)?;
    }
}

/// Runs one strategy to its end: what it found, or how much it says to differ.
fn exchange(
    name: StrategyName,
    pair: &Pair,
    context: &Context,
    row: &mut Row,
) -> Result<(Option<Difference>, Option<u64>), BenchError> {
    let mut machine = strategy(name, context).ok_or(BenchError::Unfinished)?;
    let (budget, mut reply) = (Budget::default(), None::<Vec<u8>>);
    loop {
        let begin = cpu_ms();
        let step = machine.advance(&pair.ours, reply.as_deref())?;
        row.client_ms += cpu_ms() - begin;
        match step {
            Step::Found(found) => return Ok((Some(found), None)),
            Step::CannotDecide(_) => return Ok((None, machine.estimate())),
            Step::Ask(question) => {
                row.round_trips += 1;
                row.bytes_up += question.len();
                let begin = cpu_ms();
                let answered = answer(name, &pair.theirs, &question, &budget)?;
                row.server_ms += cpu_ms() - begin;
                row.bytes_down += answered.len();
                reply = Some(answered);
            }
        }
    }
}

fn oracle(pair: &Pair) -> BTreeSet<StateKey> {
    let leaves =
        |of: &[Leaf]| -> BTreeSet<_> { of.iter().map(|leaf| (leaf.key, leaf.digest)).collect() };
    let (ours, theirs) = (leaves(pair.ours.all()), leaves(pair.theirs.all()));
    ours.symmetric_difference(&theirs)
        .map(|(key, _)| *key)
        .collect()
}

fn missed(pair: &Pair, found: &Difference) -> usize {
    let is_named = |key: &StateKey| found.names(key) || found.absent.binary_search(key).is_ok();
    oracle(pair).iter().filter(|key| !is_named(key)).count()
}

/// Small sets, many times: everything that a sketch names must differ, and be all that does.
fn trials(trials: u64, random: &mut Random) -> Result<Trials, BenchError> {
    let mut sums = Trials {
        trials,
        ..Trials::default()
    };
    for _ in 0..trials {
        let differing = random.below(TRIAL_DIFFERING);
        let states = TRIAL_STATES + random.below(TRIAL_STATES);
        let pair = pair(states, differing, random);
        let context = context(&pair, random)?;
        let mut row = Row {
            states,
            differing,
            strategy: String::new(),
            bytes_up: 0,
            bytes_down: 0,
            round_trips: 0,
            server_ms: 0.0,
            client_ms: 0.0,
            missed: 0,
        };
        let (found, _) = exchange(StrategyName::Sketch, &pair, &context, &mut row)?;
        let Some(found) = found else {
            sums.undecided += 1;
            continue;
        };
        let named = found.differing.len() + found.absent.len();
        sums.wrong += u64::from(missed(&pair, &found) > 0 || named > oracle(&pair).len());
        sums.one_round_trip += u64::from(row.round_trips == 1);
    }
    Ok(sums)
}

fn upkeep(pair: &Pair, random: &mut Random) -> Upkeep {
    let key = SketchKey::new(&Secret::of("bench"));
    let leaves = pair.ours.all();
    let begin = cpu_ms();
    let mut sketch = Sketch::new(key, levels_for(leaves.len() as u64));
    for leaf in leaves {
        sketch.apply(&Change::of(&key, &leaf.key, None, Some(&leaf.digest)));
    }
    let build_ms = cpu_ms() - begin;
    let mut versions = Vec::new();
    for _ in 0..UPKEEP_CHANGES {
        if let Some(leaf) = leaves.get(random.below(leaves.len())) {
            versions.push((*leaf, random.version_of(leaf.key)));
        }
    }
    let begin = cpu_ms();
    for (before, after) in &versions {
        let digests = (Some(&before.digest), Some(&after.digest));
        sketch.apply(&Change::of(&key, &before.key, digests.0, digests.1));
    }
    let nanos_per_put = (cpu_ms() - begin) * 1e6 / versions.len().max(1) as f64;
    Upkeep {
        decode_nanos: decode_nanos(&key, leaves, &versions),
        nanos_per_put,
        bytes: sketch.bytes(),
        partitions: 1 << sketch.levels(),
        build_ms,
    }
}

/// Time to solve the cells of differences, for each of them.
fn decode_nanos(key: &SketchKey, leaves: &[Leaf], versions: &[(Leaf, Leaf)]) -> f64 {
    let mut begun = 0.0;
    let mut found = 0;
    for changes in versions.chunks_exact(DECODED).take(DECODE_ROUNDS) {
        let mut sketch = Sketch::new(*key, levels_for(leaves.len() as u64));
        for (before, after) in changes {
            let digests = (Some(&before.digest), Some(&after.digest));
            sketch.apply(&Change::of(key, &before.key, digests.0, digests.1));
        }
        // As many as such a difference is sent.
        let size = size_for(DECODED as u64, Precision::Rough, sketch.levels());
        let folded = size.and_then(|size| sketch.fold(0, &[0], &(0..size.cells)));
        let mut cells = folded.unwrap_or_default();
        let begin = cpu_ms();
        let decoded = Decoder::new(key).decode(Partition::WHOLE, &mut cells);
        begun += cpu_ms() - begin;
        found += decoded.ok().flatten().map_or(0, |found| found.len());
    }
    begun * 1e6 / found.max(1) as f64
}

/// Time that this thread has had of a core.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn show(report: &Report) -> Result<(), CliError> {
    if let Some(trials) = &report.trials {
        return print(&format!(
            "{} trials: {} wrong, {} undecided, {} in one round trip",
            grouped(trials.trials),
            trials.wrong,
            trials.undecided,
            grouped(trials.one_round_trip),
        ));
    }
    let columns = [
        ("STATES", Align::Right),
        ("DIFFERING", Align::Right),
        ("STRATEGY", Align::Left),
        ("BYTES UP", Align::Right),
        ("BYTES DOWN", Align::Right),
        ("ROUND TRIPS", Align::Right),
        ("SERVER MS", Align::Right),
        ("CLIENT MS", Align::Right),
        ("MISSED", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for row in &report.rows {
        table.row([
            grouped(row.states as u64),
            grouped(row.differing as u64),
            row.strategy.clone(),
            grouped(row.bytes_up as u64),
            grouped(row.bytes_down as u64),
            row.round_trips.to_string(),
            format!("{:.2}", row.server_ms),
            format!("{:.2}", row.client_ms),
            row.missed.to_string(),
        ]);
    }
    let mut text = table.render();
    if let Some(upkeep) = &report.upkeep {
        text.push_str(&format!(
            "\nupkeep: {:.0} ns a put, {} bytes in {} partitions, built in {:.0} ms; solving 1,000: {:.0} ns each",
            upkeep.nanos_per_put,
            grouped(upkeep.bytes as u64),
            upkeep.partitions,
            upkeep.build_ms,
            upkeep.decode_nanos,
        ));
    }
    print(&text)
}
