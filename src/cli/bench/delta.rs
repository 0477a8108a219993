//! `bench delta`: bytes and processor time of deltas between versions of game states, beside what
//! else makes deltas.

mod dense;
mod first;
pub mod memory;
mod methods;
mod series;
mod small;
mod tools;

use std::process::ExitCode;

use serde::Serialize;

use crate::cli::bench::args::DeltaArgs;
use crate::cli::bench::delta::dense::DenseRow;
use crate::cli::bench::delta::first::FirstRow;
use crate::cli::bench::delta::memory::MemoryRow;
use crate::cli::bench::delta::methods::Method;
use crate::cli::bench::delta::series::{Series, read_all};
use crate::cli::bench::delta::small::SmallRow;
use crate::cli::bench::measure::{median, ratio};
use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::progress::Progress;
use crate::cli::text::{Align, Table, grouped};

/// All figures, for programs.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    series: Vec<Figures>,
    memory: Vec<MemoryRow>,
    small: Vec<SmallRow>,
    first: Vec<FirstRow>,
    dense: Vec<DenseRow>,
}

/// Figures of one series.
#[derive(Debug, Serialize)]
struct Figures {
    series: String,
    /// How many versions apart.
    apart: usize,
    pairs: usize,
    /// Bytes of all new versions together.
    bytes: usize,
    rows: Vec<Row>,
}

/// What one method came to.
#[derive(Debug, Serialize)]
struct Row {
    method: String,
    /// Bytes of all deltas together.
    bytes: usize,
    /// Median time to make one, in milliseconds.
    encode_ms: f64,
    /// Bytes of new versions decoded in a second, in millions; 0 where that was not measured.
    decode_mb_s: f64,
    /// True when the time is that on the wall, of a process of its own.
    process: bool,
}

/// Measures and prints.
///
/// # Errors
/// [`CliError`] when states cannot be read, or a method does not give back what it was given.
pub fn run(args: &DeltaArgs, json: bool) -> Result<ExitCode, CliError> {
    let input = read_all(args)?;
    let methods = methods::all(args.tools, &args.data);
    let steps: usize = input.series.iter().map(|one| one.pairs.len()).sum();
    let progress = Progress::of_rounds(steps as u64);
    let mut series = Vec::new();
    for one in &input.series {
        progress.say(format!("{}, {} apart", one.name, one.apart));
        series.push(figures(one, &methods, &progress)?);
    }
    progress.finish();
    let report = Report {
        bench: "delta",
        series,
        memory: memory::measure(&input.series, &args.data)?,
        small: small::measure(&input.records)?,
        first: first::measure(&input.records)?,
        dense: dense::measure(input.series.iter().flat_map(Series::states)),
    };
    if json {
        // Only strings, numbers and lists: this cannot fail.
        print(&serde_json::to_string(&report).unwrap_or_default())?;
    } else {
        print(&report.in_words())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn figures(series: &Series, methods: &[Method], progress: &Progress) -> Result<Figures, CliError> {
    let mut rows: Vec<(Row, Vec<f64>, f64)> = Vec::new();
    for method in methods {
        let row = Row {
            method: method.name.to_owned(),
            bytes: 0,
            encode_ms: 0.0,
            decode_mb_s: 0.0,
            process: method.is_process(),
        };
        rows.push((row, Vec::new(), 0.0));
    }
    let mut bytes = 0;
    for (base, new) in &series.pairs {
        bytes += new.len();
        for (method, (row, times, decoding)) in methods.iter().zip(&mut rows) {
            if new.len() > method.largest {
                continue;
            }
            let made = method.measure(base, new)?;
            row.bytes += made.bytes;
            times.push(made.encode_ms);
            *decoding += made.decode_ms;
        }
        progress.advance(1);
    }
    let rows = rows.into_iter().filter(|(_, times, _)| !times.is_empty());
    let rows = rows.map(|(row, times, decoding)| Row {
        encode_ms: median(times).unwrap_or(0.0),
        decode_mb_s: ratio(bytes as f64 / 1e3, decoding),
        ..row
    });
    Ok(Figures {
        series: series.name.clone(),
        apart: series.apart,
        pairs: series.pairs.len(),
        bytes,
        rows: rows.collect(),
    })
}

impl Report {
    fn in_words(&self) -> String {
        let mut text = String::new();
        for one in &self.series {
            let (bytes, pairs) = (grouped(one.bytes as u64), one.pairs);
            let title = format!(
                "{}, {} apart: {pairs} pairs, {bytes} bytes\n",
                one.series, one.apart
            );
            text.push_str(&title);
            let mut table = Table::new(&[
                ("METHOD", Align::Left),
                ("BYTES", Align::Right),
                ("OF NEW", Align::Right),
                ("MS EACH", Align::Right),
                ("DECODED MB/S", Align::Right),
            ]);
            for row in &one.rows {
                let share = 100.0 * ratio(row.bytes as f64, one.bytes as f64);
                let mark = if row.process { "*" } else { "" };
                table.row([
                    row.method.clone(),
                    grouped(row.bytes as u64),
                    format!("{share:.2}%"),
                    format!("{:.2}{mark}", row.encode_ms),
                    match row.decode_mb_s {
                        0.0 => "-".to_owned(),
                        speed => grouped(speed.round() as u64),
                    },
                ]);
            }
            text.push_str(&table.render());
            text.push('\n');
        }
        text.push_str(&memory::in_words(&self.memory));
        text.push_str(&small::in_words(&self.small));
        text.push('\n');
        text.push_str(&first::in_words(&self.first));
        text.push('\n');
        text.push_str(&dense::in_words(&self.dense));
        if self
            .series
            .iter()
            .flat_map(|one| &one.rows)
            .any(|row| row.process)
        {
            text.push_str("* time on the wall, of a process of its own\n");
        }
        text
    }
}
