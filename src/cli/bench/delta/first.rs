//! First transfers of small states, which have no base: the answers of a session, with a dictionary as
//! replicas train and pass it on, and without.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::bench::delta::series::Record;
use crate::cli::bench::error::BenchError;
use crate::cli::bench::measure::{ratio, thread_ms};
use crate::cli::error::CliError;
use crate::cli::text::{Align, Table, grouped};
use crate::delta::codec::CodecId;
use crate::delta::dictionary::{SAMPLE_MAX, retrain};
use crate::runtime::training::has_enough;
use crate::sync::dictionaries::Dictionaries;
use crate::sync::together::{TOGETHER_SHARE, alone_bytes, put_together};
use crate::sync::transfer::SMALL_STATE;
use crate::types::hash::StateKey;
use crate::wire::frame::seal_for;
use crate::wire::head::Head;
use crate::wire::messages::{BodyHead, BodyHeads, DictionaryRequest, Endpoint, Want};
use crate::wire::version::Protocol;

/// What first transfers came to, all answers together.
#[derive(Debug, Serialize)]
pub struct FirstRow {
    /// How many states one answer has.
    together: &'static str,
    states: usize,
    answers: usize,
    /// Bytes of the states.
    bytes_whole: usize,
    /// Bytes of the answers, their heads included, without dictionaries.
    bytes_without: usize,
    /// The same with dictionaries, and what it takes to ask for these and to send them.
    bytes_with: usize,
    /// Of these, what dictionaries took.
    bytes_of_dictionaries: usize,
    /// Bytes of the answers after the receiver had got its first dictionary, without dictionaries.
    later_without: usize,
    /// The same with.
    later_with: usize,
    /// Dictionaries that were sent.
    dictionaries: usize,
    /// Mean time to make an answer with a dictionary, in microseconds.
    micros: f64,
    /// Time to train, in milliseconds in all.
    training_ms: f64,
}

/// Two replicas, as far as dictionaries are concerned.
#[derive(Default)]
struct Pair<'r> {
    sender: Dictionaries,
    receiver: Dictionaries,
    /// The newest versions at the sender.
    held: BTreeMap<StateKey, &'r [u8]>,
    seq: u64,
    trained_at: Option<u64>,
}

/// Goes through the records turn by turn. What is in one answer: all states that are new in a turn, or
/// each alone.
///
/// # Errors
/// [`CliError`] when a peer would refuse a dictionary.
pub fn measure(records: &[Record]) -> Result<Vec<FirstRow>, CliError> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![
        go_through(records, "all of a turn", usize::MAX)?,
        go_through(records, "one", 1)?,
    ])
}

fn go_through(
    records: &[Record],
    together: &'static str,
    most: usize,
) -> Result<FirstRow, CliError> {
    let (mut pair, mut row) = (Pair::default(), FirstRow::new(together));
    for turn in records.chunk_by(|a, b| a.turn == b.turn) {
        let mut new = Vec::new();
        for record in turn {
            let key = StateKey::of_text(&record.key);
            pair.seq += 1;
            let is_short = (1..=SMALL_STATE).contains(&(record.bytes.len() as u64));
            if pair.held.insert(key, &record.bytes).is_none() && is_short {
                new.push((key, &record.bytes[..]));
            }
        }
        for states in new.chunks(most) {
            pair.send(states, &mut row)?;
        }
        pair.train(&mut row);
    }
    row.micros = ratio(row.micros, row.answers as f64);
    Ok(row)
}

impl FirstRow {
    fn new(together: &'static str) -> Self {
        Self {
            together,
            states: 0,
            answers: 0,
            bytes_whole: 0,
            bytes_without: 0,
            bytes_with: 0,
            bytes_of_dictionaries: 0,
            later_without: 0,
            later_with: 0,
            dictionaries: 0,
            micros: 0.0,
            training_ms: 0.0,
        }
    }
}

impl Pair<'_> {
    /// Sends states as a pull does, in one answer.
    fn send(&self, states: &[(StateKey, &[u8])], row: &mut FirstRow) -> Result<(), CliError> {
        let want = |(key, _): &(StateKey, &[u8])| Want {
            state: key.prefix64(),
            version: 0,
            bases: Vec::new(),
        };
        let mut wants: Vec<Want> = states.iter().map(want).collect();
        self.receiver.announce(&mut wants, true);
        let raw = |(_, bytes): &(StateKey, &[u8])| BodyHead {
            codec: CodecId::RAW.0,
            base: None,
            length: bytes.len() as u32,
        };
        let mut heads: Vec<BodyHead> = states.iter().map(raw).collect();
        let blob: Vec<u8> = states
            .iter()
            .flat_map(|(_, bytes)| *bytes)
            .copied()
            .collect();
        let answer = |heads: &[BodyHead], blob: &[u8]| {
            let heads = heads.to_vec();
            length(Endpoint::Bodies, &BodyHeads { heads }, blob)
        };
        row.states += states.len();
        row.answers += 1;
        let (whole, without) = (blob.len() as u64, answer(&heads, &blob));
        row.bytes_whole += blob.len();
        row.bytes_without += without;
        let begin = thread_ms();
        let blob = put_together(&self.sender, &wants, &mut heads, blob);
        let with = answer(&heads, &blob);
        row.bytes_with += with;
        if self.receiver.current().is_some() {
            row.later_without += without;
            row.later_with += with;
        }
        row.micros += 1e3 * (thread_ms() - begin);
        let together = heads.iter().any(|head| head.codec == CodecId::TOGETHER.0);
        let share = if together { whole / TOGETHER_SHARE } else { 0 };
        if self
            .receiver
            .missed(alone_bytes(&wants, &heads, with as u64) + share)
        {
            self.pass_on(row)?;
        }
        Ok(())
    }

    /// The receiver asks for the sender's dictionary.
    fn pass_on(&self, row: &mut FirstRow) -> Result<(), CliError> {
        let held = self.receiver.names();
        let (reply, bytes) = self.sender.give(&held);
        let asked = length(Endpoint::Dictionary, &DictionaryRequest { held }, &[]);
        let sent = asked + length(Endpoint::Dictionary, &reply, &bytes);
        row.dictionaries += usize::from(reply.hash.is_some());
        row.bytes_of_dictionaries += sent;
        row.bytes_with += sent;
        let taken = self.receiver.take(&reply, bytes);
        taken.map_err(|error| BenchError::Dictionary(error).into())
    }

    /// Trains when a replica would; that a training follows the one before in half a minute at the
    /// earliest is no hindrance to games with turns.
    fn train(&mut self, row: &mut FirstRow) {
        let live = self.held.len() as u64;
        if !has_enough(live, self.seq, self.trained_at, self.sender.is_poor()) {
            return;
        }
        self.trained_at = Some(self.seq);
        let begin = thread_ms();
        let mut room = SAMPLE_MAX;
        let short = self
            .held
            .values()
            .filter(|state| state.len() as u64 <= SMALL_STATE);
        let sample: Vec<&[u8]> = short
            .take_while(|state| {
                let fits = state.len() <= room;
                room = room.saturating_sub(state.len());
                fits
            })
            .copied()
            .collect();
        if let Some(trained) = retrain(&sample, self.sender.current().as_deref()) {
            self.sender.replace(trained);
        }
        row.training_ms += thread_ms() - begin;
    }
}

/// Bytes of a message.
fn length(endpoint: Endpoint, head: &impl Head, blob: &[u8]) -> usize {
    seal_for(Protocol::V4, endpoint.kind(), head, blob).len()
}

/// A table for people.
pub fn in_words(rows: &[FirstRow]) -> String {
    let mut table = Table::new(&[
        ("FIRST TRANSFERS, IN AN ANSWER", Align::Left),
        ("STATES", Align::Right),
        ("ANSWERS", Align::Right),
        ("BYTES", Align::Right),
        ("WITHOUT", Align::Right),
        ("WITH DICTIONARY", Align::Right),
        ("OF WITHOUT", Align::Right),
        ("DICTIONARIES", Align::Right),
        ("LATER, WITHOUT", Align::Right),
        ("WITH", Align::Right),
        ("OF WITHOUT", Align::Right),
        ("US EACH", Align::Right),
    ]);
    for row in rows {
        let share = 100.0 * ratio(row.bytes_with as f64, row.bytes_without as f64);
        let later = 100.0 * ratio(row.later_with as f64, row.later_without as f64);
        let of_dictionaries = grouped(row.bytes_of_dictionaries as u64);
        table.row([
            row.together.to_owned(),
            grouped(row.states as u64),
            grouped(row.answers as u64),
            grouped(row.bytes_whole as u64),
            grouped(row.bytes_without as u64),
            grouped(row.bytes_with as u64),
            format!("{share:.1}%"),
            format!("{} in {of_dictionaries}", row.dictionaries),
            grouped(row.later_without as u64),
            grouped(row.later_with as u64),
            format!("{later:.1}%"),
            format!("{:.0}", row.micros),
        ]);
    }
    table.render()
}
