//! One function for each program: it takes any bytes, and panics where a decoder does, takes too much
//! or contradicts what it said before.

mod deltas;
mod messages;
mod proofs;
pub mod seeds;
mod sketches;
mod stored;

/// A target.
pub type Target = fn(&[u8]);

/// Every target, with the name of its program and of its folder of seeds.
pub const TARGETS: [(&str, Target); 15] = [
    ("frames", messages::frames),
    ("questions", messages::questions),
    ("replies", messages::replies),
    ("cells", sketches::cells),
    ("encodings", sketches::encodings),
    ("deltas", deltas::deltas),
    ("archives", deltas::archives),
    ("proofs", proofs::proofs),
    ("proof_texts", proofs::proof_texts),
    ("root_logs", proofs::root_logs),
    ("log_segments", stored::log_segments),
    ("rows", stored::rows),
    ("backups", stored::backups),
    ("configs", stored::configs),
    ("names", stored::names),
];

/// The target of a program.
pub fn named(name: &str) -> Target {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    match found {
        Some((_, target)) => *target,
        None => panic!("no target {name}"),
    }
}
