//! Which versions deltas are made between: a folder of series, or the recording that ships with the
//! program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::bench::args::DeltaArgs;
use crate::cli::bench::error::BenchError;
use crate::cli::error::{CliError, file_error};
use crate::delta::archive::{Entry, read};

const INDEX: &str = include_str!("../../../../tests/fixtures/game-states.tsv");
const PACK: &[u8] = include_bytes!("../../../../tests/fixtures/game-states.pack");

/// How far versions are apart.
const APART: [usize; 2] = [1, 10];
/// Size of the large state that is put together, in bytes.
const LARGE: usize = 50_000_000;

/// Pairs of versions, the earlier one first.
pub struct Series {
    /// Which game.
    pub name: String,
    /// How many versions apart they are.
    pub apart: usize,
    /// The versions.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Series {
    /// All versions; some of them twice.
    pub fn states(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.pairs.iter().flat_map(|(base, new)| [base, new])
    }
}

/// A version of a small state.
pub struct Record {
    /// Which one.
    pub key: String,
    /// When it was made.
    pub turn: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Everything that is measured.
#[derive(Default)]
pub struct Input {
    /// Large states.
    pub series: Vec<Series>,
    /// Small ones, in order of turns.
    pub records: Vec<Record>,
}

/// Reads what the arguments name.
///
/// # Errors
/// [`CliError`] when it cannot be read.
pub fn read_all(args: &DeltaArgs) -> Result<Input, CliError> {
    let Some(folder) = &args.corpus else {
        return recording(args.pairs);
    };
    let mut input = Input::default();
    let (mut odd, mut even) = (Vec::new(), Vec::new());
    for path in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        if path.join("index.tsv").exists() {
            input.records.extend(records(&path)?);
            continue;
        }
        let mut versions = Vec::new();
        for file in entries(&path)? {
            versions.push(fs::read(&file).map_err(file_error("read", &file))?);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        add(&mut input.series, &name, &versions, args.pairs);
        for pair in versions.chunks_exact(2) {
            odd.extend_from_slice(&pair[0]);
            even.extend_from_slice(&pair[1]);
        }
    }
    if odd.len().min(even.len()) >= LARGE {
        odd.truncate(LARGE);
        even.truncate(LARGE);
        input.series.push(Series {
            name: "50 MB of them: 1st, 3rd, ... against 2nd, 4th, ...".to_owned(),
            apart: 1,
            pairs: vec![(odd, even)],
        });
    }
    Ok(input)
}

/// The pairs of a series, spread evenly over it.
fn add(all: &mut Vec<Series>, name: &str, versions: &[Vec<u8>], pairs_max: usize) {
    for apart in APART {
        let firsts = versions.len().saturating_sub(apart);
        let step = firsts.div_ceil(pairs_max.max(1)).max(1);
        let pairs: Vec<_> = (0..firsts)
            .step_by(step)
            .filter_map(|first| {
                Some((
                    versions.get(first)?.clone(),
                    versions.get(first + apart)?.clone(),
                ))
            })
            .collect();
        if !pairs.is_empty() {
            all.push(Series {
                name: name.to_owned(),
                apart,
                pairs,
            });
        }
    }
}

fn recording(pairs: usize) -> Result<Input, CliError> {
    let entries = read(INDEX, PACK).map_err(BenchError::Recording)?;
    let mut input = Input::default();
    let mut games: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for Entry {
        series,
        name,
        bytes,
    } in entries
    {
        if series != "records" {
            games.entry(series).or_default().push(bytes);
        } else if let Some((key, turn)) = name.rsplit_once('@') {
            input.records.push(Record {
                key: key.to_owned(),
                turn: turn.parse().unwrap_or(0),
                bytes,
            });
        }
    }
    input.records.sort_by_key(|record| record.turn);
    for (name, versions) in &games {
        add(&mut input.series, name, versions, pairs);
    }
    Ok(input)
}

/// `states.pack` with `index.tsv`: key, turn, offset and length in each line.
fn records(folder: &Path) -> Result<Vec<Record>, CliError> {
    let (pack_path, index_path) = (folder.join("states.pack"), folder.join("index.tsv"));
    let pack = fs::read(&pack_path).map_err(file_error("read", &pack_path))?;
    let index = fs::read_to_string(&index_path).map_err(file_error("read", &index_path))?;
    let record = |line: &str| {
        let mut fields = line.split('\t');
        let (key, turn) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
        let from: usize = fields.next()?.parse().ok()?;
        let len: usize = fields.next()?.parse().ok()?;
        let bytes = pack.get(from..from.checked_add(len)?)?.to_vec();
        Some(Record { key, turn, bytes })
    };
    let mut records: Vec<Record> = index
        .lines()
        .map(|line| record(line).ok_or_else(|| BenchError::Index(line.to_owned()).into()))
        .collect::<Result<_, CliError>>()?;
    records.sort_by_key(|record| record.turn);
    Ok(records)
}

/// What is in a folder, in order of names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let listed = fs::read_dir(folder).map_err(file_error("list", folder))?;
    let paths = listed.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths
        .collect::<Result<_, _>>()
        .map_err(file_error("list", folder))?;
    paths.sort();
    Ok(paths)
}
