//! Small states: all that changed in one turn as deltas in one frame, as a session sends them.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::cli::bench::delta::series::Record;
use crate::cli::bench::error::BenchError;
use crate::cli::bench::measure::{ratio, thread_ms};
use crate::cli::error::CliError;
use crate::cli::text::{Align, Table, grouped};
use crate::delta::codec::{Codec, Effort};
use crate::delta::compress::compress;
use crate::delta::copy::CopyDelta;
use crate::wire::messages::Endpoint;
use crate::wire::packing::level;

/// What the records of one kind came to.
#[derive(Debug, Serialize)]
pub struct SmallRow {
    kind: String,
    states: usize,
    /// Mean size of a state, in bytes.
    bytes_whole: f64,
    /// Mean, each compressed by itself.
    bytes_alone: f64,
    /// Mean, as deltas in one frame for each turn.
    bytes: f64,
    /// Mean time for that, in microseconds.
    micros: f64,
}

/// A version and the one before it.
type Pair<'a> = (&'a [u8], &'a [u8]);

#[derive(Default)]
struct Sum {
    states: usize,
    whole: usize,
    alone: usize,
    sent: usize,
    millis: f64,
}

/// Measures kind by kind, a kind being what stands before the slash of a key.
///
/// # Errors
/// [`CliError`] when a delta does not give back its state.
pub fn measure(records: &[Record]) -> Result<Vec<SmallRow>, CliError> {
    let mut last: HashMap<&str, &[u8]> = HashMap::new();
    let mut turns: BTreeMap<(&str, u32), Vec<Pair<'_>>> = BTreeMap::new();
    for record in records {
        let kind = record.key.split('/').next().unwrap_or_default();
        if let Some(base) = last.insert(&record.key, &record.bytes) {
            let turn = turns.entry((kind, record.turn)).or_default();
            turn.push((base, &record.bytes));
        }
    }
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for ((kind, _), pairs) in &turns {
        let sum = sums.entry(kind).or_default();
        sum.states += pairs.len();
        send(pairs, sum)?;
    }
    let rows = sums.into_iter().map(|(kind, sum)| {
        let each = |total: usize| ratio(total as f64, sum.states as f64);
        SmallRow {
            kind: kind.to_owned(),
            states: sum.states,
            bytes_whole: each(sum.whole),
            bytes_alone: each(sum.alone),
            bytes: each(sum.sent),
            micros: ratio(1e3 * sum.millis, sum.states as f64),
        }
    });
    Ok(rows.collect())
}

fn send(pairs: &[Pair<'_>], sum: &mut Sum) -> Result<(), CliError> {
    let begin = thread_ms();
    let (mut blob, mut parts) = (Vec::new(), Vec::new());
    for (base, new) in pairs {
        let delta = CopyDelta.encode(Some(base), new, Effort::Small);
        let delta = delta.map_err(BenchError::Delta)?;
        let from = blob.len();
        blob.extend_from_slice(delta.as_deref().unwrap_or(new));
        parts.push((from, delta.is_some()));
    }
    // As the message around them is compressed.
    let level = level(Endpoint::Bodies.kind(), &blob);
    let frame = compress(&blob, level).map_err(BenchError::Delta)?;
    sum.millis += thread_ms() - begin;
    sum.sent += frame.len();
    let ends = parts
        .iter()
        .skip(1)
        .map(|(from, _)| *from)
        .chain([blob.len()]);
    for (((base, new), (from, is_delta)), end) in pairs.iter().zip(&parts).zip(ends) {
        let payload = blob.get(*from..end).unwrap_or_default();
        let back = if *is_delta {
            CopyDelta.decode(Some(base), payload, new.len())
        } else {
            Ok(payload.to_vec())
        };
        if back.map_err(BenchError::Delta)? != *new {
            return Err(BenchError::WrongDelta("copy").into());
        }
        sum.whole += new.len();
        sum.alone += compress(new, 3).map_err(BenchError::Delta)?.len();
    }
    Ok(())
}

/// A table for people.
pub fn in_words(rows: &[SmallRow]) -> String {
    let mut table = Table::new(&[
        ("SMALL STATES", Align::Left),
        ("NUMBER", Align::Right),
        ("BYTES EACH", Align::Right),
        ("ZSTD 3 ALONE", Align::Right),
        ("DELTAS OF A TURN", Align::Right),
        ("US EACH", Align::Right),
    ]);
    for row in rows {
        table.row([
            row.kind.clone(),
            grouped(row.states as u64),
            format!("{:.0}", row.bytes_whole),
            format!("{:.1}", row.bytes_alone),
            format!("{:.1}", row.bytes),
            format!("{:.2}", row.micros),
        ]);
    }
    table.render()
}
