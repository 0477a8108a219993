//! What `bench` is told.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::bench::values::VALUE_BYTES_MIN;
use crate::reconcile::strategy::{BadStrategy, StrategyName};

/// Most states; their versions are counted in memory.
const STATES_MAX: u64 = 10_000_000;
/// Largest state.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Measure what a replica does on this machine
///
/// Starts a replica of its own on the loopback interface, drives it over HTTP, and lets the storage
/// engine alone do the same work in turn, so that what slows the machine slows both.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  samestate bench put\n  samestate bench recover --json")]
pub struct BenchArgs {
    /// What is measured
    #[command(subcommand)]
    pub what: What,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Durable writes: PUTs over HTTP, beside the storage engine alone
    ///
    /// Overwrites states at random over connections with one request each in flight. The engine
    /// alone (redb) gets the same states, uncompressed, in batches as large as the number of
    /// clients, each in one durable commit; only the commits are timed. One thread of this process
    /// sends the load; GENERATOR says how much of a processor core that took, which the server did
    /// not have. A server may put work off: --seconds 60 shows what it keeps up.
    #[command(after_help = "Examples:
  samestate bench put
  samestate bench put --clients 1,256 --value-bytes 65536 --data /var/lib")]
    Put(ThroughputArgs),
    /// Reads: GETs over HTTP, beside the storage engine alone
    ///
    /// Reads loaded states at random over connections with one request each in flight, and compares
    /// every byte. The engine alone (redb) reads the same states in this process, uncompressed,
    /// each in a transaction of its own, with one thread for each client but not more than there
    /// are cores. One thread of this process sends the load; GENERATOR says how much of a processor
    /// core that took, which the server did not have.
    #[command(after_help = "Example:\n  samestate bench get --states 1000000 --clients 64")]
    Get(ThroughputArgs),
    /// Crashes: how fast a killed replica is back, and whether it lost anything
    ///
    /// While 64 clients overwrite states, the server is killed (SIGKILL) and started again. Every
    /// state is read then and compared with the last write that was acknowledged. READY and FIRST
    /// READ count from the start of the process. REDB is the same for the engine alone: a process
    /// that overwrites the same states in one redb file, 64 in each commit, is killed and started
    /// again; the time is from its start to its first read. A kill is not a power cut: what the
    /// system has taken reaches the disk.
    #[command(after_help = "Example:\n  samestate bench recover --states 1000000 --rounds 1")]
    Recover(RecoverArgs),
    /// Comparisons: bytes, round trips and time to find out what differs between two sets
    ///
    /// Both sides are random sets in this process; of the states that differ half are updates, and
    /// a quarter each exists on one side only. SERVER and CLIENT are time of a processor core, of
    /// the side that answers and the one that asks. Requests for the states, and what HTTP and
    /// frames add, are not counted.
    #[command(after_help = "Examples:
  samestate bench reconcile
  samestate bench reconcile --states 100000 --differing 1000 --strategy auto,bloom
  samestate bench reconcile --trials 10000
  samestate bench reconcile --secrets 100")]
    Reconcile(ReconcileArgs),
    /// Deltas: bytes and processor time beside zstd with the previous version as prefix, and others
    ///
    /// All methods make a delta of each pair of versions in turn, in this process, on one thread; its
    /// processor time counts, medians are shown. What ours and zstd make is undone and compared.
    /// Without --corpus the game states that ship with the program are taken; a corpus is a folder
    /// with a folder for each series (files in order of their names), or with states.pack and
    /// index.tsv for small states.
    #[command(after_help = "Example:\n  samestate bench delta --corpus DIR --tools")]
    Delta(DeltaArgs),
    /// The engine's side of `recover`, which starts it
    #[command(hide = true)]
    Engine(EngineArgs),
    /// One delta in a process of its own, for `delta`
    #[command(hide = true)]
    Peak(PeakArgs),
}

/// Options of `put` and `get`.
#[derive(Debug, Args)]
pub struct ThroughputArgs {
    /// States that are loaded first
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = states())]
    pub states: u64,
    /// Connections; one row of results for each number
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,16,64",
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub clients: Vec<u16>,
    /// What all measurements are told
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `recover`.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// States that are loaded first
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = states())]
    pub states: u64,
    /// What all measurements are told
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `reconcile`.
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    /// States on each side
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = states())]
    pub states: u64,
    /// States that differ; one pair of sets for each number
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,10,100,1000,10000,100000"
    )]
    pub differing: Vec<usize>,
    /// How to compare: names of strategies, or auto for what the planner chooses
    #[arg(
        long = "strategy",
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "auto,sketch,merkle,list",
        value_parser = choice
    )]
    pub strategies: Vec<Option<StrategyName>>,
    /// Number that the sets are made from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Instead: so many comparisons of small sets by sketch, each checked against the truth
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub trials: u64,
    /// Instead: each pair of sets by sketch, under so many cluster secrets: mean and most of the bytes
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "trials")]
    pub secrets: u64,
}

/// Options of `delta`.
#[derive(Debug, Args)]
pub struct DeltaArgs {
    /// Folder of series of game states
    #[arg(long, value_name = "DIR")]
    pub corpus: Option<PathBuf>,
    /// Pairs of versions taken from each series, at most
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub pairs: usize,
    /// Also run xdelta3, bsdiff, rdiff and zstd, as far as they are installed
    #[arg(long)]
    pub tools: bool,
    /// Where these programs get a temporary folder for their files
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub data: PathBuf,
}

/// Options of all measurements.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Size of a state, a JSON text; zstd brings one of 1 KiB to about 40%
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = value_bytes)]
    pub value_bytes: usize,
    /// How long each side works in each round
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..=600)
    )]
    pub seconds: u64,
    /// Rounds, of which medians are shown
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..=100)
    )]
    pub rounds: u64,
    /// Number that the states are made from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Where a temporary folder for all files is made, which decides what disk is measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub data: PathBuf,
}

/// Options of the engine's side of `recover`.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// The file
    #[arg(long)]
    pub file: PathBuf,
    /// States in it
    #[arg(long, value_parser = states())]
    pub states: u64,
    /// Size of each
    #[arg(long, value_parser = value_bytes)]
    pub value_bytes: usize,
    /// Number that they are made from
    #[arg(long)]
    pub seed: u64,
    /// States in each commit
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
}

/// Options of a process that makes one delta.
#[derive(Debug, Args)]
pub struct PeakArgs {
    /// The version before
    #[arg(long)]
    pub old: PathBuf,
    /// The version that the delta is for
    #[arg(long)]
    pub new: PathBuf,
    /// What makes it
    #[arg(long, value_enum)]
    pub of: PeakOf,
}

/// What makes a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PeakOf {
    /// Our codecs, `fast`.
    Fast,
    /// zstd 3 with the version before as prefix, and long-distance matching.
    Patch,
}

impl PeakOf {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Patch => "patch",
        }
    }
}

fn states() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=STATES_MAX)
}

fn choice(text: &str) -> Result<Option<StrategyName>, String> {
    match text.parse() {
        _ if text == "auto" => Ok(None),
        Ok(StrategyName::Cursor | StrategyName::Full) => {
            Err("it compares nothing without a past, or at all".to_owned())
        }
        Ok(name) => Ok(Some(name)),
        Err(error) => Err(BadStrategy::to_string(&error)),
    }
}

fn value_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (VALUE_BYTES_MIN..=VALUE_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "give a number from {VALUE_BYTES_MIN} to {VALUE_BYTES_MAX}"
        )),
    }
}
