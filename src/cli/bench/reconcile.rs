//! `bench reconcile`: what finding the difference between two sets costs, in this process: message
//! bytes, round trips and time of a processor core.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use tokio::task;

use crate::cli::bench::args::ReconcileArgs;
use crate::cli::bench::error::BenchError;
use crate::cli::bench::secrets::{Spread, Trial, table};
use crate::cli::bench::upkeep::{Upkeep, cpu_ms, upkeep};
use crate::cli::error::CliError;
use crate::cli::output::{note, print};
use crate::cli::text::{Align, Table, grouped};
use crate::cli::workspace::Workspace;
use crate::config::process::temporary_folder;
use crate::merkle::update::LeafChange;
use crate::reconcile::amended::{Amended, changes, join};
use crate::reconcile::budget::Budget;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::memory::{Pair, Random, Shape, told};
use crate::reconcile::planner::{Facts, after_failure, expected_rest, plan};
use crate::reconcile::registry::{answer, strategy};
use crate::reconcile::strategy::{
    BloomSettings, Context, Difference, Link, SessionLimits, Step, StrategyName,
};
use crate::reconcile::view::SetView;
use crate::sketch::key::Secret;
use crate::types::hash::StateKey;
use crate::types::leaf::Leaf;

/// States that differ and are all named: far more than a session handles.
const DIFFERING_MAX: usize = 1 << 24;
/// Fewest states of the sets of a trial, and how many of them differ at most: not so many that a list
/// is better.
const TRIAL_STATES: usize = 2000;
const TRIAL_DIFFERING: usize = 400;
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

impl Row {
    /// Nothing sent yet.
    fn of(pair: &Pair, differing: usize) -> Self {
        Self {
            states: pair.ours.all().len(),
            differing,
            strategy: String::new(),
            bytes_up: 0,
            bytes_down: 0,
            round_trips: 0,
            server_ms: 0.0,
            client_ms: 0.0,
            missed: 0,
        }
    }
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
    spreads: Vec<Spread>,
}

/// Measures and prints.
///
/// # Errors
/// [`CliError`] when a comparison fails, or a trial comes to a wrong result.
pub async fn run(args: &ReconcileArgs, json: bool) -> Result<ExitCode, CliError> {
    let args = args.clone();
    let workspace = Workspace::temporary(&temporary_folder(), "samestate-bench")?;
    let measured = task::spawn_blocking(move || measure(&args, &workspace.folder)).await;
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

fn measure(args: &ReconcileArgs, folder: &Path) -> Result<Report, BenchError> {
    let mut random = Random(args.seed);
    let mut report = Report {
        bench: "reconcile",
        seed: args.seed,
        upkeep: None,
        rows: Vec::new(),
        trials: None,
        spreads: Vec::new(),
    };
    if args.trials > 0 {
        report.trials = Some(trials(args.trials, &mut random)?);
        return Ok(report);
    }
    for differing in &args.differing {
        let states = args.states as usize;
        let pair = pair(states, (*differing).min(states), &mut random);
        if args.secrets > 0 {
            let secrets = 0..args.secrets;
            let spread = under_secrets(pair, *differing, secrets, &mut random)?;
            report.spreads.push(spread);
            continue;
        }
        if report.upkeep.is_none() {
            report.upkeep = Some(upkeep(&pair, &mut random, folder)?);
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
            let (mut row, changes) = compare(*name, &pair, &mut random)?;
            let changed = |key: &StateKey| changes.binary_search_by_key(key, |one| one.key).is_ok();
            row.missed = oracle(&pair).iter().filter(|key| !changed(key)).count();
            report.rows.push(row);
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
        rest: None,
    })
}

/// Runs a strategy, or what the planner chooses, and what goes on with what it cannot decide, as a
/// session does.
fn compare(
    forced: Option<StrategyName>,
    pair: &Pair,
    random: &mut Random,
) -> Result<(Row, Vec<LeafChange>), BenchError> {
    let mut context = context(pair, random)?;
    let mut facts = Facts {
        ours: pair.ours.root()?,
        theirs: pair.theirs.root()?,
        our_seq: pair.ours.seq(),
        their_seq: pair.theirs.seq(),
        mark: None,
        has_sketch: true,
        link: Link::default(),
    };
    let mut row = Row::of(pair, oracle(pair).len());
    let (mut name, mut tried) = (forced.unwrap_or_else(|| plan(&facts).strategy), Vec::new());
    let (mut names, mut taken, mut known) = (Vec::new(), Vec::new(), None);
    loop {
        tried.push(name);
        names.push(name.as_str());
        context.rest = Some(expected_rest(&facts, known));
        let amended = Amended::new(&pair.ours, &taken)?;
        let (found, estimate) = exchange(name, (&amended, &pair.theirs), &context, &mut row)?;
        if let Some(found) = found {
            let later = changes(&amended, &found, told(&pair.theirs, &found))?;
            taken = join(taken, later);
            facts.ours = Amended::new(&pair.ours, &taken)?.root()?;
            if facts.ours == facts.theirs {
                row.strategy = names.join(", ");
                if forced.is_none() {
                    row.strategy = format!("auto ({})", row.strategy);
                }
                return Ok((row, taken));
            }
            known = None;
            tried.retain(|tried| *tried != StrategyName::Sketch || name == *tried);
        }
        known = estimate.or(known);
        name = after_failure(&facts, &tried, known).ok_or(BenchError::Unfinished)?;
    }
}

/// Runs one strategy to its end: what it found, or how much it says to differ.
fn exchange(
    name: StrategyName,
    (ours, theirs): (&dyn SetView, &dyn SetView),
    context: &Context,
    row: &mut Row,
) -> Result<(Option<Difference>, Option<u64>), BenchError> {
    let mut machine = strategy(name, context).ok_or(BenchError::Unfinished)?;
    let (budget, mut reply) = (Budget::default(), None::<Vec<u8>>);
    loop {
        let begin = cpu_ms();
        let step = machine.advance(ours, reply.as_deref())?;
        row.client_ms += cpu_ms() - begin;
        match step {
            Step::Found(found) => return Ok((Some(found), None)),
            Step::CannotDecide(_) => return Ok((None, machine.estimate())),
            Step::Ask(question) => {
                row.round_trips += 1;
                row.bytes_up += question.len();
                let begin = cpu_ms();
                let answered = answer(name, theirs, &question, &budget)?;
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

/// The same sets under one secret after the other.
fn under_secrets(
    mut pair: Pair,
    differing: usize,
    secrets: Range<u64>,
    random: &mut Random,
) -> Result<Spread, BenchError> {
    let states = pair.ours.all().len();
    let mut trials = Vec::new();
    for number in secrets {
        note(&format!(
            "{} of {} states differ: secret {number}",
            grouped(differing as u64),
            grouped(states as u64)
        ));
        let secret = Secret::of(&number.to_string());
        pair.ours.keep_under(&secret);
        pair.theirs.keep_under(&secret);
        let mut row = Row::of(&pair, differing);
        let context = context(&pair, random)?;
        let (found, _) = exchange(
            StrategyName::Sketch,
            (&pair.ours, &pair.theirs),
            &context,
            &mut row,
        )?;
        trials.push(found.map(|_| Trial {
            bytes: row.bytes_up + row.bytes_down,
            trips: row.round_trips,
        }));
    }
    Ok(Spread::of(states, differing, &trials))
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
        let mut row = Row::of(&pair, differing);
        let (found, _) = exchange(
            StrategyName::Sketch,
            (&pair.ours, &pair.theirs),
            &context,
            &mut row,
        )?;
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
    if !report.spreads.is_empty() {
        return print(&table(&report.spreads));
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
        text.push_str(&format!("\n{upkeep}"));
    }
    print(&text)
}
