//! The states that are written: JSON of entities that move, fight and trade.
//!
//! A state's bytes follow from the seed, its number and its version, so that whatever is read back
//! can be compared without keeping it. From one version to the next a quarter of the entities
//! change, as they do from one save of a game to the next.

/// Smallest state in bytes: what stands around the entities and the chat.
pub const VALUE_BYTES_MIN: usize = 64;

/// Bytes behind the entities, without the words of the chat.
const TAIL_BYTES: usize = 12;
/// Bytes of an entity with the comma behind it.
const ENTITY_BYTES: usize = 76;
/// An entity changes every so many versions.
const CHANGED_EVERY: u64 = 4;

const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const KINDS: [&[u8; 6]; 8] = [
    b"archer", b"dragon", b"healer", b"knight", b"miners", b"trader", b"wizard", b"wolves",
];
const DOINGS: [&[u8; 6]; 8] = [
    b"attack", b"defend", b"follow", b"gather", b"patrol", b"repair", b"retire", b"wander",
];
const WORDS: [&[u8; 5]; 8] = [
    b"gold ", b"here ", b"left ", b"need ", b"ogre ", b"over ", b"push ", b"wait ",
];

/// Makes states.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    /// Other seeds give other states.
    pub seed: u64,
    /// Size of each state, at least [`VALUE_BYTES_MIN`].
    pub bytes: usize,
}

impl Values {
    /// Puts a version of a state into `out`, in place of what is there.
    pub fn fill(&self, state: u64, version: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(b"{\"match\":\"");
        push_digits::<8>(out, state);
        out.extend_from_slice(b"\",\"save\":\"");
        push_digits::<10>(out, version);
        out.extend_from_slice(b"\",\"entities\":[");
        let own = mix(self.seed ^ mix(state));
        let room = self.bytes.saturating_sub(out.len() + TAIL_BYTES);
        let entities = (room / ENTITY_BYTES) as u64;
        for number in 0..entities {
            // Those that change together stand together.
            let group = number * CHANGED_EVERY / entities;
            let changes = (version + group) / CHANGED_EVERY;
            push_entity(out, mix(own ^ number), changes);
        }
        if entities > 0 {
            out.pop();
        }
        out.extend_from_slice(b"],\"chat\":\"");
        let end = self.bytes.saturating_sub(2);
        let mut said = own;
        while out.len() < end {
            said = mix(said);
            out.extend(one_of(&WORDS, said).iter().take(end - out.len()));
        }
        out.extend_from_slice(b"\"}");
    }

    /// A version of a state.
    pub fn make(&self, state: u64, version: u64) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.bytes);
        self.fill(state, version, &mut value);
        value
    }
}

/// `own` says who it is, `changes` how often it has moved.
fn push_entity(out: &mut Vec<u8>, own: u64, changes: u64) {
    let now = mix(own ^ changes);
    out.extend_from_slice(b"{\"id\":\"");
    for letter in 0..4 {
        out.push(LETTERS[(own >> (5 * letter)) as usize % LETTERS.len()]);
    }
    out.extend_from_slice(b"\",\"is\":\"");
    out.extend_from_slice(one_of(&KINDS, own >> 40));
    out.extend_from_slice(b"\",\"x\":");
    push_place(out, now);
    out.extend_from_slice(b",\"y\":");
    push_place(out, now >> 20);
    out.extend_from_slice(b",\"hp\":");
    push_digits::<3>(out, 100 + (now >> 40) % 900);
    out.extend_from_slice(b",\"do\":\"");
    out.extend_from_slice(one_of(&DOINGS, now >> 50));
    out.extend_from_slice(b"\"},");
}

/// From `1000.0` to `9999.9`, as JSON has numbers: without leading zeros.
fn push_place(out: &mut Vec<u8>, random: u64) {
    let tenths = 10_000 + (random & 0xf_ffff) % 90_000;
    push_digits::<4>(out, tenths / 10);
    out.push(b'.');
    push_digits::<1>(out, tenths);
}

/// The last `N` decimal digits of a number.
fn push_digits<const N: usize>(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; N];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits);
}

fn one_of<const N: usize>(words: &[&'static [u8; N]; 8], random: u64) -> &'static [u8; N] {
    words[random as usize % words.len()]
}

/// Spreads a number's bits over all 64 (the finalizer of SplitMix64, Steele et al. 2014).
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::delta::compress::pack;

    fn share(one: &[u8], other: &[u8]) -> f64 {
        let differ = one.iter().zip(other).filter(|(one, other)| one != other);
        differ.count() as f64 / one.len() as f64
    }

    #[test]
    fn states_are_json_of_exactly_their_size() {
        for bytes in (VALUE_BYTES_MIN..600).chain([1024, 65_536]) {
            let value = Values { seed: 1, bytes }.make(7, 3);
            assert_eq!(value.len(), bytes);
            let parsed: Value = serde_json::from_slice(&value).unwrap();
            let entities = parsed["entities"].as_array().unwrap();
            let expected = bytes.saturating_sub(VALUE_BYTES_MIN) / ENTITY_BYTES;
            assert_eq!(entities.len(), expected, "of {bytes} bytes");
            assert_eq!(parsed["match"], "00000007");
        }
    }

    #[test]
    fn states_compress_as_game_states_do() {
        for (bytes, expected) in [(1024, 0.40), (16_384, 0.27)] {
            let values = Values { seed: 5, bytes };
            let packed: usize = (0..100).map(|n| pack(&values.make(n, n)).len()).sum();
            let share = packed as f64 / (100 * bytes) as f64;
            assert!((share - expected).abs() < 0.03, "{bytes} bytes: {share}");
        }
    }

    #[test]
    fn no_two_states_or_versions_are_the_same_and_versions_differ_a_little() {
        let values = Values {
            seed: 9,
            bytes: 2048,
        };
        let all = (0..50).flat_map(|state| (0..50).map(move |version| (state, version)));
        let distinct: BTreeSet<Vec<u8>> = all.map(|(s, v)| values.make(s, v)).collect();
        assert_eq!(distinct.len(), 50 * 50);
        for version in 0..8 {
            let (before, after) = (values.make(3, version), values.make(3, version + 1));
            let changed = share(&before, &after);
            assert!((0.02..0.12).contains(&changed), "{changed}");
        }
        assert!(share(&values.make(3, 0), &values.make(4, 0)) > 0.2);
        assert_eq!(values.make(3, 5), values.make(3, 5));
        let other = Values { seed: 10, ..values };
        assert!(share(&values.make(3, 0), &other.make(3, 0)) > 0.2);
    }
}
