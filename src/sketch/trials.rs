//! Trials with random sets: what is decoded is right, and what cannot be decoded ends.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::sketch::cell::{Cell, Told, to_bytes, told_all};
use crate::sketch::decoder::{BadCells, Decoder, Found, Partition, Theirs, tests_max};
use crate::sketch::field::{P, add, sub};
use crate::sketch::key::{Secret, SketchKey, place_of};
use crate::sketch::mapping::Walk;
use crate::sketch::table::{
    Change, PARTITION_CELLS, Sketch, apply_to_fold, levels_for, partition_of,
};
use crate::types::hash::{LeafDigest, StateKey, hex};

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes());
        }
        bytes
    }
}

type Set = BTreeMap<StateKey, LeafDigest>;

fn key() -> SketchKey {
    SketchKey::new(&Secret::of("trials"))
}

fn sketch_of(set: &Set, levels: u8) -> Sketch {
    let mut sketch = Sketch::new(key(), levels);
    for (state, digest) in set {
        sketch.apply(&Change::of(&key(), state, None, Some(digest)));
    }
    sketch
}

/// Two sets: of `differing` states half were updated, a quarter is on each side only.
fn pair(common: usize, differing: usize, random: &mut Random) -> (Set, Set) {
    let (mut ours, mut theirs) = (Set::new(), Set::new());
    for _ in 0..common {
        let (state, digest) = (StateKey(random.bytes()), LeafDigest(random.bytes()));
        ours.insert(state, digest);
        theirs.insert(state, digest);
    }
    for at in 0..differing {
        let state = StateKey(random.bytes());
        if at % 4 != 0 {
            ours.insert(state, LeafDigest(random.bytes()));
        }
        if at % 4 != 1 {
            theirs.insert(state, LeafDigest(random.bytes()));
        }
    }
    (ours, theirs)
}

fn values(set: &Set) -> BTreeMap<u32, u32> {
    let mut values = BTreeMap::new();
    for (state, digest) in set {
        let value = values.entry(place_of(state)).or_insert(0);
        *value = add(*value, key().value(state, digest));
    }
    values
}

/// The difference by comparing everything.
fn oracle(ours: &Set, theirs: &Set) -> BTreeMap<u32, u32> {
    let (here, there) = (values(ours), values(theirs));
    let places = here.keys().chain(there.keys());
    let value = |of: &BTreeMap<u32, u32>, place| of.get(place).copied().unwrap_or(0);
    let amounts = places.map(|place| (*place, sub(value(&here, place), value(&there, place))));
    amounts.filter(|(_, amount)| *amount != 0).collect()
}

fn as_map(found: Vec<Found>) -> BTreeMap<u32, u32> {
    found
        .into_iter()
        .map(|one| (one.place, one.amount))
        .collect()
}

type Decoded = Result<Option<Vec<Found>>, BadCells>;

fn fold(sketch: &Sketch, partition: Partition, cells: usize) -> Vec<Cell> {
    let folded = sketch.fold(partition.levels, &[partition.slot], &(0..cells));
    folded.unwrap()
}

fn told(sketch: &Sketch, partition: Partition, cells: usize) -> Vec<Told> {
    told_all(&fold(sketch, partition, cells), &(0..cells))
}

fn exactly(cells: &[Told]) -> Theirs<'_> {
    Theirs { cells, borrows: 0 }
}

/// Decodes the first cells of two sketches.
fn decoded(ours: &Sketch, theirs: &Sketch, partition: Partition, cells: usize) -> Decoded {
    let told = told(theirs, partition, cells);
    let mut own = fold(ours, partition, cells);
    Decoder::new(ours.key()).decode(partition, &mut own, exactly(&told))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn everything_that_differs_is_found(
        seed in any::<u64>(),
        common in 0usize..400,
        differing in 0usize..500,
        our_levels in 0u8..7,
        their_levels in 0u8..7,
    ) {
        let (ours, theirs) = pair(common, differing, &mut Random(seed));
        let (here, there) = (sketch_of(&ours, our_levels), sketch_of(&theirs, their_levels));
        for levels in [0, our_levels.min(their_levels)] {
            let mut found = BTreeMap::new();
            for slot in 0..1 << levels {
                let partition = Partition { levels, slot };
                let decoded = decoded(&here, &there, partition, PARTITION_CELLS);
                found.extend(as_map(decoded.unwrap().unwrap()));
            }
            prop_assert_eq!(found, oracle(&ours, &theirs), "{} levels", levels);
        }
    }

    #[test]
    fn a_sketch_that_was_kept_up_is_one_that_was_built(
        seed in any::<u64>(),
        steps in prop::collection::vec((0u8..40, any::<bool>()), 0..200),
        levels in 0u8..7,
    ) {
        let mut random = Random(seed);
        let states: Vec<StateKey> = (0..40).map(|_| StateKey(random.bytes())).collect();
        let (mut set, mut kept) = (Set::new(), Sketch::new(key(), levels));
        let mut changes = Vec::new();
        for (state, is_there) in steps {
            let state = states[usize::from(state)];
            let after = is_there.then(|| LeafDigest(random.bytes()));
            let before = match after {
                Some(digest) => set.insert(state, digest),
                None => set.remove(&state),
            };
            let change = Change::of(&key(), &state, before.as_ref(), after.as_ref());
            kept.apply(&change);
            changes.push(change);
        }
        let built = sketch_of(&set, levels);
        for slots in [vec![0], (0..1 << levels).collect::<Vec<u32>>()] {
            let at_levels = if slots.len() > 1 { levels } else { 0 };
            let range = 0..PARTITION_CELLS;
            let folded = kept.fold(at_levels, &slots, &range);
            prop_assert_eq!(&folded, &built.fold(at_levels, &slots, &range));
            // Taken back one by one, nothing is left.
            let mut cells = folded.unwrap();
            for change in &changes {
                apply_to_fold(&mut cells, &key(), &change.reversed(), (at_levels, &slots, &range));
            }
            prop_assert!(cells.iter().all(Cell::is_empty));
        }
        prop_assert_eq!(kept.estimator(), built.estimator());
    }

    #[test]
    fn random_cells_end_within_the_bounds(seed in any::<u64>(), count in 0usize..300) {
        let mut random = Random(seed);
        let mut lane = || (random.next() % u64::from(P)) as u32;
        let cells: Vec<Cell> = (0..count).map(|_| Cell([lane(), lane(), lane()])).collect();
        let told = told_all(&cells, &(0..count));
        let mut own = vec![Cell::default(); count];
        let mut decoder = Decoder::new(&key());
        let decoded = decoder.decode(Partition::WHOLE, &mut own, exactly(&told));
        prop_assert!(decoded == Ok(None) || count == 0 && decoded == Ok(Some(Vec::new())));
        prop_assert!(decoder.effort().tests <= tests_max(count));
    }
}

#[test]
fn too_few_cells_tell_nothing_wrong() {
    let mut random = Random(3);
    let (ours, theirs) = pair(0, 300, &mut random);
    let (here, there) = (sketch_of(&ours, 0), sketch_of(&theirs, 0));
    for cells in [0, 1, 20, 100, 250] {
        let decoded = decoded(&here, &there, Partition::WHOLE, cells).unwrap();
        assert_eq!(decoded, (cells == 0).then(Vec::new));
    }
}

#[test]
fn differences_take_as_many_cells_as_were_measured() {
    let mut random = Random(4);
    for (differing, mean_max) in [(1usize, 1.1), (10, 1.6), (100, 1.5), (600, 1.45)] {
        let runs = 30;
        let mut cells_taken = 0;
        for _ in 0..runs {
            let (ours, theirs) = pair(0, differing, &mut random);
            let (here, there) = (sketch_of(&ours, 0), sketch_of(&theirs, 0));
            let decodes = |cells: &usize| {
                let decoded = decoded(&here, &there, Partition::WHOLE, *cells);
                decoded.unwrap().is_some()
            };
            let step = (differing / 50).max(1);
            cells_taken += (differing..=PARTITION_CELLS)
                .step_by(step)
                .find(decodes)
                .unwrap();
        }
        let mean = cells_taken as f64 / f64::from(runs) / differing as f64;
        assert!(
            (1.0..mean_max).contains(&mean),
            "{differing}: {mean} cells each"
        );
    }
}

#[test]
fn pairs_of_cells_help_where_no_cell_has_one_place() {
    // Ten places in 20 cells: without pairs three of four times.
    let mut random = Random(7);
    let mut solved = 0;
    for _ in 0..200 {
        let (ours, theirs) = pair(0, 10, &mut random);
        let (here, there) = (sketch_of(&ours, 0), sketch_of(&theirs, 0));
        let found = decoded(&here, &there, Partition::WHOLE, 20);
        if let Some(found) = found.unwrap() {
            assert_eq!(as_map(found), oracle(&ours, &theirs));
            solved += 1;
        }
    }
    assert!(solved >= 170, "{solved} of 200");
}

#[test]
fn a_decode_bomb_is_bounded() {
    // Half of the cells say a lie: taking a place away makes it come up elsewhere, with the other
    // sign, and so on for ever.
    let mut random = Random(5);
    let (ours, _) = pair(0, 200, &mut random);
    let here = sketch_of(&ours, 0);
    let mut told = told(&here, Partition::WHOLE, PARTITION_CELLS);
    for cell in told.iter_mut().skip(1).step_by(2) {
        *cell = Told::default();
    }
    let mut decoder = Decoder::new(&key());
    let mut own = vec![Cell::default(); PARTITION_CELLS];
    let decoded = decoder.decode(Partition::WHOLE, &mut own, exactly(&told));
    assert_eq!(decoded, Err(BadCells::Repeats));
    assert!(decoder.effort().peels <= PARTITION_CELLS);
    assert!(decoder.effort().tests <= tests_max(PARTITION_CELLS));
}

#[test]
fn what_seems_to_be_one_place_and_is_none_is_put_back() {
    // Two of a thousand tests of the last cells are passed by chance.
    let mut random = Random(8);
    let (mut peels, mut places, mut failed) = (0, 0, 0);
    for _ in 0..12 {
        let (ours, theirs) = pair(0, 5000, &mut random);
        let (here, there) = (sketch_of(&ours, 0), sketch_of(&theirs, 0));
        let told = told(&there, Partition::WHOLE, PARTITION_CELLS);
        let mut own = fold(&here, Partition::WHOLE, PARTITION_CELLS);
        let mut decoder = Decoder::new(&key());
        let found = decoder.decode(Partition::WHOLE, &mut own, exactly(&told));
        let Some(found) = found.unwrap() else {
            failed += 1;
            continue;
        };
        let expected = oracle(&ours, &theirs);
        peels += decoder.effort().peels;
        places += expected.len();
        assert_eq!(as_map(found), expected);
    }
    assert!(
        failed <= 1 && peels > places,
        "{failed} failed; {peels} for {places}"
    );
}

#[test]
fn lowest_bits_that_were_subtracted_serve_too() {
    // What the whole holds and its first halves do not, twice.
    let mut random = Random(9);
    let (ours, theirs) = pair(300, 2000, &mut random);
    let (here, there) = (sketch_of(&ours, 2), sketch_of(&theirs, 2));
    let part = |levels, slot| Partition { levels, slot };
    let cells = 1500;
    let mut rest = told(&there, Partition::WHOLE, cells);
    for half in [part(1, 0), part(2, 2)] {
        for (at, (cell, first)) in rest.iter_mut().zip(told(&there, half, cells)).enumerate() {
            cell.subtract(&first, at);
        }
    }
    let last = part(2, 3);
    let of = |borrows| {
        let theirs = Theirs {
            cells: &rest,
            borrows,
        };
        let mut own = fold(&here, last, cells);
        Decoder::new(&key()).decode(last, &mut own, theirs).unwrap()
    };
    let whole = decoded(&here, &there, last, cells).unwrap().unwrap();
    assert_eq!(of(2).map(as_map), Some(as_map(whole)));
    assert_eq!(of(0), None);
}

#[test]
fn wrong_lowest_bits_hide_places_and_end() {
    let mut random = Random(10);
    let (ours, theirs) = pair(0, 100, &mut random);
    let (here, there) = (sketch_of(&ours, 0), sketch_of(&theirs, 0));
    let honest = told(&there, Partition::WHOLE, 400);
    for lies in [1, 2, 7] {
        let mut told = honest.clone();
        for cell in told.iter_mut().step_by(lies) {
            cell.low ^= 1;
        }
        let mut own = fold(&here, Partition::WHOLE, 400);
        let mut decoder = Decoder::new(&key());
        let found = decoder.decode(Partition::WHOLE, &mut own, exactly(&told));
        // Not even all sums being explained makes up for them.
        assert!(!matches!(found, Ok(Some(_))), "one in {lies}: {found:?}");
        assert!(decoder.effort().tests <= tests_max(400));
    }
}

#[test]
fn places_of_another_partition_are_not_believed() {
    let place = 12_345;
    let spot = key().spot(place);
    let right = partition_of(&spot, 3) as u32;
    for slot in 0..8 {
        let mut own = vec![Cell::default(); 64];
        let change = Change {
            place,
            amount: 9,
            steps: [1, 0],
        };
        apply_to_fold(&mut own, &key(), &change, (3, &[right], &(0..64)));
        let partition = Partition { levels: 3, slot };
        let nothing = [Told::default(); 64];
        let decoded = Decoder::new(&key()).decode(partition, &mut own, exactly(&nothing));
        let found = vec![Found { place, amount: 9 }];
        assert_eq!(decoded, Ok((slot == right).then_some(found)), "{slot}");
    }
}

#[test]
fn ids_that_were_ground_for_one_place_are_one_place() {
    // Whoever finds two ids with equal first bits gains nothing: the place is named, and everything
    // there is compared.
    let mut random = Random(6);
    let first = StateKey(random.bytes());
    let mut second = first;
    second.0[20] ^= 1;
    let (mut ours, mut theirs) = (Set::new(), Set::new());
    ours.insert(first, LeafDigest(random.bytes()));
    ours.insert(second, LeafDigest(random.bytes()));
    theirs.insert(second, LeafDigest(random.bytes()));
    let (here, there) = (sketch_of(&ours, 0), sketch_of(&theirs, 0));
    let decoded = decoded(&here, &there, Partition::WHOLE, 32);
    assert_eq!(as_map(decoded.unwrap().unwrap()), oracle(&ours, &theirs));
}

#[test]
fn partitions_follow_the_number_of_states() {
    let levels = [0, 1000, 5851, 5855, 100_000, 1_000_000, u64::MAX].map(levels_for);
    assert_eq!(levels, [0, 0, 0, 0, 3, 6, 9]);
    let million = Sketch::new(key(), levels_for(1_000_000));
    assert!(million.bytes() < 8 << 20, "{}", million.bytes());
}

#[test]
fn vectors_are_those_of_the_reference() {
    // docs/reference/reconciliation.md, "Test vectors".
    let key = SketchKey::new(&Secret::of("correct horse"));
    let spot = key.spot(7);
    let value = key.value(&StateKey([0x11; 32]), &LeafDigest([0x22; 32]));
    let walk: Vec<usize> = Walk::new(spot.seed).below(PARTITION_CELLS).collect();
    let cell = Cell::of(7, spot.check, value);
    let told = [0, 3, 8191].map(|at| hex(&to_bytes(&[cell.told(at)], &(at..at + 1))));
    let vectors = format!(
        "{} {:016x} {:08x} {:04x} {} {} {} {} {:08x} {:?} {}",
        hex(&key.fingerprint()),
        spot.seed,
        spot.check,
        spot.partition,
        spot.tallies[0].counter,
        spot.tallies[0].negative,
        spot.tallies[1].counter,
        spot.tallies[1].negative,
        value,
        walk,
        told.join(" ")
    );
    assert_eq!(vectors, VECTORS);
}

/// Fingerprint; seed, check, partition, and twice counter and sign of place 7; a value; the cells of
/// the place; a cell with that value alone as cells 0, 3 and 8,191.
const VECTORS: &str = "2e18b679 2743e7266c11a46b 1deb2ee5 a82c 514 false 411 true 077c74c2 \
    [0, 3, 8, 53, 61, 184, 217, 251, 268, 616, 788, 899, 1014, 1203, 1221, 3263] c2747c272ae68c42e7 c2747c272ae68c4267 \
    c2747c272ae68c02";
