//! States that nothing makes smaller: what it costs to find that out, beside sending them as they are.

use std::time::Instant;

use serde::Serialize;

use crate::cli::bench::measure::{median, ratio};
use crate::cli::text::{Align, Table, grouped};
use crate::delta::codec::{CodecId, Effort, Encoded};
use crate::delta::compress::compress;
use crate::delta::registry::encode_smallest;
use crate::types::hash::ContentHash;
use crate::wire::frame::{open, seal_for};
use crate::wire::messages::{BodyHead, BodyHeads, Endpoint};
use crate::wire::version::Protocol;

/// Bytes of a state.
const STATE: usize = 1 << 20;
/// How often both are done, in turn.
const ROUNDS: usize = 25;
/// Longest message.
const LIMIT: usize = 4 << 20;

/// What one kind of input came to.
#[derive(Debug, Serialize)]
pub struct DenseRow {
    input: &'static str,
    bytes: usize,
    /// Median time from the state to its checked bytes at the receiver, in milliseconds, without trying
    /// anything: message, hash.
    raw_ms: f64,
    /// The same when the smallest way is looked for.
    samestate_ms: f64,
    /// Median of the quotients of the two, round by round.
    ratio: f64,
}

/// Measures random bytes, and zstd frames of `states` one behind the other, each alone and with a base that it has nothing in
/// common with.
pub fn measure<'s>(states: impl Iterator<Item = &'s Vec<u8>>) -> Vec<DenseRow> {
    let (random, other) = (noise(STATE, 1), noise(STATE, 2));
    let frames = states.map(|state| compress(state, 3).unwrap_or_default());
    let mut packed = Vec::new();
    for frame in frames {
        packed.extend_from_slice(&frame);
        if packed.len() >= STATE {
            break;
        }
    }
    vec![
        row("random, no base", &random, &[]),
        row("random, other base", &random, &[&other]),
        row("zstd frames, no base", &packed, &[]),
        row("zstd frames, other base", &packed, &[&other]),
    ]
}

fn row(input: &'static str, state: &[u8], bases: &[&[u8]]) -> DenseRow {
    let (mut raw, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let plain = transfer(state, || Encoded {
            codec: CodecId::RAW,
            base: None,
            payload: state.to_vec(),
        });
        let sought = transfer(state, || encode_smallest(bases, state, Effort::Small));
        raw.push(plain);
        ours.push(sought);
        ratios.push(ratio(sought, plain));
    }
    DenseRow {
        input,
        bytes: state.len(),
        raw_ms: median(raw).unwrap_or_default(),
        samestate_ms: median(ours).unwrap_or_default(),
        ratio: median(ratios).unwrap_or_default(),
    }
}

/// Time to bring a state across, without a network between, in milliseconds.
fn transfer(state: &[u8], encode: impl FnOnce() -> Encoded) -> f64 {
    let (kind, begin) = (Endpoint::Bodies.kind(), Instant::now());
    let encoded = encode();
    let head = BodyHead {
        codec: encoded.codec.0,
        base: None,
        length: encoded.payload.len() as u32,
    };
    let message = seal_for(
        Protocol::V4,
        kind,
        &BodyHeads { heads: vec![head] },
        &encoded.payload,
    );
    let opened = open::<BodyHeads>(kind, &message, LIMIT);
    let blob = opened.map(|(_, blob)| blob).unwrap_or_default();
    let same = ContentHash::of(&blob).matches(&ContentHash::of(state));
    let millis = begin.elapsed().as_secs_f64() * 1e3;
    // What did not come across as it is has been made smaller: no input for this table.
    if same { millis } else { f64::NAN }
}

/// Random bytes, the same ones for a seed (xorshift64).
fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let next = |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) as u8
    };
    (0..len).map(next).collect()
}

/// A table for people.
pub fn in_words(rows: &[DenseRow]) -> String {
    let mut table = Table::new(&[
        ("NOTHING HELPS", Align::Left),
        ("BYTES", Align::Right),
        ("SENT RAW, MS", Align::Right),
        ("SAMESTATE, MS", Align::Right),
        ("RATIO", Align::Right),
    ]);
    for row in rows {
        table.row([
            row.input.to_owned(),
            grouped(row.bytes as u64),
            format!("{:.2}", row.raw_ms),
            format!("{:.2}", row.samestate_ms),
            format!("{:.3}", row.ratio),
        ]);
    }
    table.render()
}
