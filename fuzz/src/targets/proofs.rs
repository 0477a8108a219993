//! Proofs of states in both forms, and entries, heads and proofs of logs of roots.

use std::sync::OnceLock;

use samestate::merkle::asked::ShownIds;
use samestate::merkle::proof_text::Kind;
use samestate::merkle::trie::root_of;
use samestate::merkle::{proof_bytes, proof_text};
use samestate::roots::entry::RootEntry;
use samestate::roots::head::SignedHead;
use samestate::roots::witness::{Accusation, Witnessed};
use samestate::types::binary::decode;
use samestate::types::hash::{LeafDigest, LogHash, NodeHash, StateKey};
use samestate::types::id::GameId;
use samestate::types::leaf::Leaf;
use samestate::wire::roots::{ConsistencyBody, EntryBody, HeadsBody, RootsBody};

/// The states of the tree that proofs are checked against.
pub fn leaves() -> &'static [Leaf] {
    static LEAVES: OnceLock<Vec<Leaf>> = OnceLock::new();
    LEAVES.get_or_init(|| {
        let ids = (0..40u64).filter_map(|number| {
            let id = GameId::new(&format!("match/{number}")).ok()?;
            Some(Leaf {
                key: StateKey::of(&id),
                digest: LeafDigest([number as u8; 32]),
                size: number,
                updated_at: 1000 + number,
            })
        });
        let mut leaves: Vec<Leaf> = ids.collect();
        leaves.sort_by_key(|leaf| leaf.key);
        leaves
    })
}

fn root() -> NodeHash {
    root_of(leaves()).hash
}

/// Nothing but the truth passes.
fn check(shown: Result<ShownIds, impl Sized>) {
    let Ok(shown) = shown else {
        return;
    };
    assert!(shown.whole.hash == root());
    for (id, proven) in shown.answers {
        let key = StateKey::of(&id);
        let held = leaves().iter().find(|leaf| leaf.key == key);
        let told = Kind::of(&proven);
        let is_held = told == Kind::Inclusion;
        assert_eq!(is_held, held.is_some(), "{id}");
    }
}

/// A proof in bytes.
pub fn proofs(input: &[u8]) {
    check(proof_bytes::verify_bytes(input, &root()));
}

/// A proof as JSON.
pub fn proof_texts(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        check(proof_text::verify_text(text, &root()));
    }
}

/// Entries and heads as they are stored and as peers tell them.
pub fn root_logs(input: &[u8]) {
    if let Some(entry) = RootEntry::from_bytes(input) {
        assert_eq!(entry.to_bytes().as_slice(), input);
        let body = EntryBody::from(&entry);
        assert_eq!(RootEntry::try_from(&body).ok(), Some(entry));
    }
    let _ = decode::<SignedHead>(input);
    let _ = decode::<Witnessed>(input);
    let _ = decode::<Vec<Accusation>>(input);
    let _ = decode::<Vec<LogHash>>(input);
    if let Ok(heads) = serde_json::from_slice::<HeadsBody>(input) {
        let _ = heads.read();
    }
    if let Ok(consistency) = serde_json::from_slice::<ConsistencyBody>(input) {
        let _ = consistency.hashes();
    }
    if let Ok(page) = serde_json::from_slice::<RootsBody>(input) {
        for placed in &page.roots {
            let _ = RootEntry::try_from(&placed.entry);
        }
    }
}
