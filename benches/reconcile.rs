//! Finding the difference between two sets, beside the crates `negentropy` and `riblt` on the same
//! sets: message bytes both ways, round trips, and milliseconds of the side that asks and of the one
//! that answers.
//!
//! `cargo bench --bench reconcile [STATES]`, a million unless given. Of the states that differ half
//! are updates and a quarter each exists on one side only. `negentropy` keeps sorted vectors that
//! are sealed before; `riblt` gets coded symbols until it has everything, and is not timed for
//! building them, which it does for each set anew.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints its table and stops at the first surprise"
)]

#[path = "support/arguments.rs"]
mod arguments;

use std::time::Instant;

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use riblt::{RatelessIBLT, Symbol, UnmanagedRatelessIBLT};
use samestate::reconcile::budget::Budget;
use samestate::reconcile::memory::{Pair, Random, Set, Shape};
use samestate::reconcile::registry::{answer, strategy};
use samestate::reconcile::strategy::{BloomSettings, Context, SessionLimits, Step, StrategyName};
use samestate::reconcile::view::SetView;
use samestate::types::leaf::Leaf;

use arguments::first_number;

const DIFFERING: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// `riblt` looks at every symbol again for each item: more takes minutes.
const RIBLT_MAX: usize = 1_000;
/// Bytes of a coded symbol: the item, its hash, and a count that is mostly small.
const RIBLT_SYMBOL: usize = ITEM + 8 + 1;
const ITEM: usize = 16;

/// What a comparison took.
#[derive(Default)]
struct Cost {
    bytes: usize,
    trips: u32,
    client_ms: f64,
    server_ms: f64,
}

fn main() {
    let states = first_number(1_000_000) as usize;
    println!("{states} states on each side");
    println!("differing  by                   bytes  trips   client ms   server ms");
    let mut random = Random(1);
    for differing in DIFFERING {
        let shape = Shape {
            common: states - differing / 4,
            only_ours: differing / 4,
            only_theirs: differing / 4,
            updated: differing - 2 * (differing / 4),
        };
        let pair = Pair::new(shape, &mut random);
        let _ = (pair.ours.sketch(), pair.theirs.sketch());
        for name in [StrategyName::Sketch, StrategyName::Merkle] {
            show(differing, name.as_str(), &ours(name, &pair, &mut random));
        }
        show(differing, "negentropy", &by_negentropy(&pair, differing));
        if differing <= RIBLT_MAX {
            show(differing, "riblt", &by_riblt(&pair, differing));
        }
    }
}

fn show(differing: usize, by: &str, cost: &Cost) {
    println!(
        "{differing:>9}  {by:<14} {:>11} {:>6} {:>11.2} {:>11.2}",
        cost.bytes, cost.trips, cost.client_ms, cost.server_ms
    );
}

fn timed<R>(total: &mut f64, work: impl FnOnce() -> R) -> R {
    let begin = Instant::now();
    let result = work();
    *total += begin.elapsed().as_secs_f64() * 1e3;
    result
}

fn ours(name: StrategyName, pair: &Pair, random: &mut Random) -> Cost {
    let context = Context {
        key: random.bytes(),
        theirs: pair.theirs.root().ok(),
        their_seq: pair.theirs.seq(),
        mark: None,
        limits: SessionLimits::default(),
        bloom: BloomSettings::default(),
        rest: None,
    };
    let mut machine = strategy(name, &context).expect("a strategy that compares");
    let (mut cost, mut reply) = (Cost::default(), None::<Vec<u8>>);
    loop {
        let step = timed(&mut cost.client_ms, || {
            machine.advance(&pair.ours, reply.as_deref())
        });
        let Step::Ask(question) = step.expect("an honest peer") else {
            return cost;
        };
        let answered = timed(&mut cost.server_ms, || {
            answer(name, &pair.theirs, &question, &Budget::default())
        });
        let answered = answered.expect("an honest question");
        cost.trips += 1;
        cost.bytes += question.len() + answered.len();
        reply = Some(answered);
    }
}

fn storage(set: &Set) -> NegentropyStorageVector {
    let mut storage = NegentropyStorageVector::with_capacity(set.all().len());
    for leaf in set.all() {
        let id = Id::from_byte_array(leaf.digest.0);
        storage.insert(leaf.updated_at, id).expect("room");
    }
    storage.seal().expect("items that can be sorted");
    storage
}

fn by_negentropy(pair: &Pair, differing: usize) -> Cost {
    let (ours, theirs) = (storage(&pair.ours), storage(&pair.theirs));
    let mut client = Negentropy::borrowed(&ours, 0).expect("a client");
    let mut server = Negentropy::borrowed(&theirs, 0).expect("a server");
    let (mut cost, mut have, mut need) = (Cost::default(), Vec::new(), Vec::new());
    let first = timed(&mut cost.client_ms, || client.initiate());
    let mut question = Some(first.expect("a first question"));
    while let Some(asked) = question.take() {
        let answered = timed(&mut cost.server_ms, || server.reconcile(&asked));
        let answered = answered.expect("an answer");
        cost.trips += 1;
        cost.bytes += asked.len() + answered.len();
        let next = timed(&mut cost.client_ms, || {
            client.reconcile_with_ids(&answered, &mut have, &mut need)
        });
        question = next.expect("an end");
    }
    assert!(
        have.len() + need.len() >= differing,
        "differences were missed"
    );
    cost
}

/// First halves of the hashes that stand for a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item([u8; ITEM]);

impl Symbol for Item {
    const BYTE_ARRAY_LENGTH: usize = ITEM;

    fn encode_to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn decode_from_bytes(bytes: &Vec<u8>) -> Self {
        Self(bytes[..ITEM].try_into().expect("an item"))
    }
}

fn items(set: &Set) -> Vec<Item> {
    let item = |leaf: &Leaf| {
        let mut bytes = [0; ITEM];
        bytes[..8].copy_from_slice(&leaf.key.0[..8]);
        bytes[8..].copy_from_slice(&leaf.digest.0[..8]);
        Item(bytes)
    };
    set.all().iter().map(item).collect()
}

fn by_riblt(pair: &Pair, differing: usize) -> Cost {
    let mut ours = RatelessIBLT::new(items(&pair.ours));
    let mut theirs = RatelessIBLT::new(items(&pair.theirs));
    let mut cost = Cost {
        trips: 1,
        ..Cost::default()
    };
    // As if the stream had stopped at the first moment when it told everything, up to a tenth.
    let mut symbols = differing.max(1);
    loop {
        let mut stream = UnmanagedRatelessIBLT::new();
        for at in 0..symbols {
            stream.add_coded_symbol(&theirs.get_coded_symbol(at));
        }
        ours.extend_coded_symbols(symbols);
        let mut client_ms = 0.0;
        let is_done = timed(&mut client_ms, || {
            let mut collapsed = ours.collapse(&stream);
            collapsed.coded_symbols.truncate(symbols);
            collapsed.peel_all_symbols();
            collapsed.is_empty()
        });
        if is_done {
            cost.bytes = symbols * RIBLT_SYMBOL;
            cost.client_ms = client_ms;
            return cost;
        }
        symbols += symbols.div_ceil(10);
    }
}
