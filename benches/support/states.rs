//! States as games have them, made from a number: about 1 KiB of text that zstd brings to about
//! two fifths.

use std::fmt::Write;

use samestate::types::id::GameId;

/// The id of a state.
pub fn id(number: u64) -> GameId {
    GameId::new(&format!("match/{number:08}")).expect("a valid id")
}

/// The bytes of a state in a round; about a quarter of its entities move from one to the next.
pub fn state(number: u64, round: u64) -> Vec<u8> {
    let mut text = format!("{{\"match\":{number:08},\"round\":{round:06},\"entities\":[");
    for entity in 0..15 {
        let moved = round.saturating_sub((entity + number) % 4) / 4;
        let mut random = mix(number << 20 | entity << 12 | moved);
        let kind = ["archer", "knight", "wizard", "healer"][(mix(number ^ entity) % 4) as usize];
        let _ = write!(text, "{{\"k\":\"{kind}\"");
        for field in ["x", "y", "hp", "mp"] {
            let _ = write!(text, ",\"{field}\":{:05}", random % 100_000);
            random = mix(random);
        }
        text.push_str("},");
    }
    text.push_str("null]}");
    text.into_bytes()
}

/// Steele, Lea and Flood's SplitMix64 (2014), one step.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
