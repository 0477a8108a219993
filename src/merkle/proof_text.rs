//! Proofs as JSON, as replicas give them out and `samestate verify-proof` reads them.

use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::merkle::asked::{Asked, ShownIds};
use crate::merkle::multiproof::{MultiProof, ProofNode};
use crate::merkle::node::Summary;
use crate::merkle::proof::{BadProof, Proof, Proven};
use crate::types::hash::{LeafDigest, NodeHash, StateKey};
use crate::types::id::{GameId, Namespace};
use crate::types::leaf::Leaf;

/// Longest text that is read: about five times that of a thousand ids among a million.
pub const PROOF_TEXT_MAX: usize = 8 << 20;

/// Why a text proves nothing.
#[derive(Debug, Error)]
pub enum BadProofText {
    /// Not a proof in JSON.
    #[error("it is not a proof in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Longer than any proof.
    #[error("it has more than {PROOF_TEXT_MAX} bytes")]
    TooLong,
    /// What is proven.
    #[error(transparent)]
    Proof(#[from] BadProof),
    /// Made for another root than the one to check against.
    #[error("it was made for the root {0}")]
    OtherRoot(NodeHash),
    /// Totals without the nodes that prove them.
    #[error("it has no proof; ask for one with `samestate tree --proof`")]
    Unproven,
    /// Totals that are not those of the nodes.
    #[error("its nodes add up to something else than it says")]
    OtherTotals,
    /// The nodes show something else than the text around them says.
    #[error("it says {said} of {id}, but its nodes show the opposite")]
    OtherKind {
        /// The id.
        id: GameId,
        /// What the text says.
        said: Kind,
    },
}

/// Whether a state is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is.
    Inclusion,
    /// It is not.
    Absence,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inclusion => "inclusion",
            Self::Absence => "absence",
        })
    }
}

impl Kind {
    /// What was proven.
    pub fn of(proven: &Proven) -> Self {
        match proven {
            Proven::Included(_) => Self::Inclusion,
            Proven::Absent => Self::Absence,
        }
    }
}

/// A proof about one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofText {
    /// Where it was made. No root covers the name.
    namespace: Namespace,
    id: GameId,
    #[serde(with = "crate::types::as_text")]
    root: NodeHash,
    kind: Kind,
    /// The leaf at the end of the path: the state's own, or the one that stands in its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaf: Option<LeafText>,
    /// The subtrees passed by, the root's child first.
    path: Vec<SubtreeText>,
}

/// A proof about a set of states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultiProofText {
    /// Where it was made. No root covers the name.
    namespace: Namespace,
    #[serde(with = "crate::types::as_text")]
    root: NodeHash,
    /// In the order of their keys.
    states: Vec<StateText>,
    /// Each parent before its children, left before right.
    nodes: Vec<NodeText>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StateText {
    id: GameId,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeafText {
    #[serde(with = "crate::types::as_text")]
    key: StateKey,
    #[serde(with = "crate::types::as_text")]
    digest: LeafDigest,
    size: u64,
    updated_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubtreeText {
    #[serde(with = "crate::types::as_text")]
    hash: NodeHash,
    leaves: u64,
    size: u64,
    updated_at: u64,
}

/// A node: `"inner"`, `null` for nothing, a leaf, or a subtree passed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum NodeText {
    Empty,
    Inner(InnerText),
    Leaf(LeafText),
    Subtree(SubtreeText),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InnerText {
    #[serde(rename = "inner")]
    Inner,
}

impl ProofText {
    /// Writes down a proof for `id` that was made in a tree with this root.
    pub fn new(namespace: Namespace, root: NodeHash, id: GameId, proof: &Proof) -> Self {
        let key = StateKey::of(&id);
        let included = proof.terminal.is_some_and(|leaf| leaf.key == key);
        Self {
            namespace,
            id,
            root,
            kind: match included {
                true => Kind::Inclusion,
                false => Kind::Absence,
            },
            leaf: proof.terminal.as_ref().map(LeafText::of),
            path: proof.siblings.iter().map(SubtreeText::of).collect(),
        }
    }

    fn verify(self, root: &NodeHash) -> Result<ShownIds, BadProofText> {
        check_root(&self.root, root)?;
        let proof = Proof {
            siblings: self.path.iter().map(SubtreeText::summary).collect(),
            terminal: self.leaf.as_ref().map(LeafText::leaf),
        };
        let (proven, whole) = proof.verify_whole(root, &StateKey::of(&self.id))?;
        check_kind(&self.id, self.kind, &proven)?;
        let answers = vec![(self.id, proven)];
        Ok(ShownIds { answers, whole })
    }
}

impl MultiProofText {
    /// Writes down a proof that was made in a tree with this root.
    ///
    /// # Errors
    /// [`BadProof`] when the proof is not about those ids.
    pub fn new(
        namespace: Namespace,
        root: NodeHash,
        asked: &Asked,
        proof: &MultiProof,
    ) -> Result<Self, BadProof> {
        let shown = asked.clone().name(proof.verify(&root, asked.keys())?);
        let state = |(id, proven): (GameId, Proven)| {
            let kind = Kind::of(&proven);
            StateText { id, kind }
        };
        Ok(Self {
            namespace,
            root,
            states: shown.answers.into_iter().map(state).collect(),
            nodes: proof.nodes.iter().map(NodeText::of).collect(),
        })
    }

    fn verify(self, root: &NodeHash) -> Result<ShownIds, BadProofText> {
        check_root(&self.root, root)?;
        let kinds: Vec<Kind> = self.states.iter().map(|state| state.kind).collect();
        let asked = Asked::in_order(self.states.into_iter().map(|state| state.id).collect())?;
        let proof = MultiProof {
            nodes: self.nodes.iter().map(NodeText::node).collect(),
        };
        let shown = proof.verify(root, asked.keys())?;
        let shown = asked.name(shown);
        for ((id, proven), kind) in shown.answers.iter().zip(kinds) {
            check_kind(id, kind, proven)?;
        }
        Ok(shown)
    }
}

/// Checks a proof in JSON, about one id or several, against a root and says what it shows. What
/// the text says of the root and of each state has to agree; the namespace is not covered.
///
/// # Errors
/// [`BadProofText`] when it proves nothing.
pub fn verify_text(text: &str, root: &NodeHash) -> Result<ShownIds, BadProofText> {
    #[derive(Deserialize)]
    struct Form {
        nodes: Option<IgnoredAny>,
    }
    if text.len() > PROOF_TEXT_MAX {
        return Err(BadProofText::TooLong);
    }
    match serde_json::from_str::<Form>(text)?.nodes {
        Some(_) => serde_json::from_str::<MultiProofText>(text)?.verify(root),
        None => serde_json::from_str::<ProofText>(text)?.verify(root),
    }
}

pub(crate) fn check_root(said: &NodeHash, root: &NodeHash) -> Result<(), BadProofText> {
    match said.matches(root) {
        true => Ok(()),
        false => Err(BadProofText::OtherRoot(*said)),
    }
}

fn check_kind(id: &GameId, said: Kind, proven: &Proven) -> Result<(), BadProofText> {
    if said == Kind::of(proven) {
        return Ok(());
    }
    let id = id.clone();
    Err(BadProofText::OtherKind { id, said })
}

impl LeafText {
    fn of(leaf: &Leaf) -> Self {
        Self {
            key: leaf.key,
            digest: leaf.digest,
            size: leaf.size,
            updated_at: leaf.updated_at,
        }
    }

    fn leaf(&self) -> Leaf {
        Leaf {
            key: self.key,
            digest: self.digest,
            size: self.size,
            updated_at: self.updated_at,
        }
    }
}

impl SubtreeText {
    fn of(node: &Summary) -> Self {
        Self {
            hash: node.hash,
            leaves: node.leaves,
            size: node.size,
            updated_at: node.updated_at,
        }
    }

    fn summary(&self) -> Summary {
        Summary {
            hash: self.hash,
            leaves: self.leaves,
            size: self.size,
            updated_at: self.updated_at,
        }
    }
}

impl NodeText {
    pub(crate) fn of(node: &ProofNode) -> Self {
        match node {
            ProofNode::Inner => Self::Inner(InnerText::Inner),
            ProofNode::Empty => Self::Empty,
            ProofNode::Leaf(leaf) => Self::Leaf(LeafText::of(leaf)),
            ProofNode::Subtree(summary) => Self::Subtree(SubtreeText::of(summary)),
        }
    }

    pub(crate) fn node(&self) -> ProofNode {
        match self {
            Self::Inner(InnerText::Inner) => ProofNode::Inner,
            Self::Empty => ProofNode::Empty,
            Self::Leaf(leaf) => ProofNode::Leaf(leaf.leaf()),
            Self::Subtree(summary) => ProofNode::Subtree(summary.summary()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::merkle::memory::leaf;
    use crate::merkle::trie::{descend, root_of};

    fn id(n: u64) -> GameId {
        GameId::new(&format!("match/{n}")).unwrap()
    }

    fn leaves() -> Vec<Leaf> {
        let one = |n| leaf(StateKey::of(&id(n)), n * 1000);
        let mut leaves: Vec<Leaf> = (0..40).map(one).collect();
        leaves.sort_by_key(|leaf| leaf.key);
        leaves
    }

    fn single(n: u64) -> String {
        let (leaves, id) = (leaves(), id(n));
        let mut siblings = Vec::new();
        let terminal = descend(&leaves, 0, &StateKey::of(&id), &mut siblings);
        let (proof, root) = (Proof { siblings, terminal }, root_of(&leaves).hash);
        let namespace = Namespace::new("default").unwrap();
        serde_json::to_string(&ProofText::new(namespace, root, id, &proof)).unwrap()
    }

    fn several(ids: impl Iterator<Item = u64>) -> String {
        let (leaves, asked) = (leaves(), Asked::new(ids.map(id).collect()).unwrap());
        let proof = MultiProof::among(&leaves, asked.keys());
        let root = root_of(&leaves).hash;
        let namespace = Namespace::new("default").unwrap();
        let text = MultiProofText::new(namespace, root, &asked, &proof).unwrap();
        serde_json::to_string(&text).unwrap()
    }

    /// Every way to reach a value in a document that is no object and no list.
    fn places(value: &Value, at: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    places(value, &format!("{at}/{name}"), out);
                }
            }
            Value::Array(items) => {
                for (n, value) in items.iter().enumerate() {
                    places(value, &format!("{at}/{n}"), out);
                }
            }
            _ => out.push(at.to_owned()),
        }
    }

    fn changes(value: &Value) -> Vec<Value> {
        match value {
            Value::String(text) if text.len() == 64 => {
                let last = if text.ends_with('0') { '1' } else { '0' };
                vec![
                    json!(format!("{}{last}", &text[..63])),
                    json!("00".repeat(32)),
                    json!("x"),
                ]
            }
            Value::String(text) => {
                let other = if text == "inclusion" {
                    "absence"
                } else {
                    "inclusion"
                };
                vec![json!(format!("{text}0")), json!(other), Value::Null]
            }
            Value::Number(number) => {
                let number = number.as_u64().unwrap();
                vec![
                    json!(number ^ 1),
                    json!(number + 1000),
                    json!(-1),
                    json!(u64::MAX),
                ]
            }
            _ => vec![json!("inner"), json!({}), json!(0)],
        }
    }

    fn claimed(shown: &ShownIds) -> Vec<&GameId> {
        shown.answers.iter().map(|(id, _)| id).collect()
    }

    fn check_truth(shown: &ShownIds) {
        let leaves = leaves();
        assert_eq!(shown.whole, root_of(&leaves));
        for (id, proven) in &shown.answers {
            let held = leaves.iter().find(|leaf| leaf.key == StateKey::of(id));
            assert_eq!(
                *proven,
                held.map_or(Proven::Absent, |l| Proven::Included(*l))
            );
        }
    }

    #[test]
    fn no_field_can_be_changed_dropped_or_moved() {
        let root = root_of(&leaves()).hash;
        for text in [single(3), single(77), several(36..46)] {
            let sound: Value = serde_json::from_str(&text).unwrap();
            let true_shown = verify_text(&text, &root).unwrap();
            check_truth(&true_shown);
            let refused = |mutated: &Value, what: &str| {
                let Ok(shown) = verify_text(&mutated.to_string(), &root) else {
                    return;
                };
                // Of other ids it may tell the truth, of those asked about nothing else.
                let same = *mutated == sound || claimed(&shown) != claimed(&true_shown);
                assert!(same, "{what}: {shown:?}");
                check_truth(&shown);
            };
            let mut found = Vec::new();
            places(&sound, "", &mut found);
            assert!(found.len() > 20);
            for at in found.iter().filter(|at| *at != "/namespace") {
                for change in changes(sound.pointer(at).unwrap()) {
                    let mut mutated = sound.clone();
                    *mutated.pointer_mut(at).unwrap() = change;
                    refused(&mutated, at);
                }
                let (parent, name) = at.rsplit_once('/').unwrap();
                let mut mutated = sound.clone();
                match mutated.pointer_mut(parent).unwrap() {
                    Value::Object(members) => drop(members.remove(name)),
                    Value::Array(items) => drop(items.remove(name.parse().unwrap())),
                    other => panic!("{other}"),
                }
                refused(&mutated, at);
            }
            for list in ["/path", "/nodes", "/states"] {
                let length = sound
                    .pointer(list)
                    .and_then(Value::as_array)
                    .map_or(0, Vec::len);
                for at in 0..length {
                    let mutate = |change: &dyn Fn(&mut Vec<Value>)| {
                        let mut mutated = sound.clone();
                        change(mutated.pointer_mut(list).unwrap().as_array_mut().unwrap());
                        refused(&mutated, &format!("{list} {at}"));
                    };
                    mutate(&|items| drop(items.remove(at)));
                    mutate(&|items| items.truncate(at));
                    mutate(&|items| items.insert(at, items[at].clone()));
                    mutate(&|items| items.swap(0, at));
                }
            }
        }
    }

    #[test]
    fn every_byte_counts_but_those_of_the_namespace() {
        let root = root_of(&leaves()).hash;
        for text in [single(3), several(38..41)] {
            let sound: Value = serde_json::from_str(&text).unwrap();
            for at in 0..text.len() {
                for value in [
                    b'0',
                    b'1',
                    b'f',
                    b' ',
                    b'"',
                    b',',
                    b'}',
                    b']',
                    text.as_bytes()[at] ^ 1,
                ] {
                    let mut bytes = text.clone().into_bytes();
                    bytes[at] = value;
                    let Ok(mutated) = String::from_utf8(bytes) else {
                        continue;
                    };
                    let Ok(shown) = verify_text(&mutated, &root) else {
                        continue;
                    };
                    check_truth(&shown);
                    if claimed(&shown) == claimed(&verify_text(&text, &root).unwrap()) {
                        let mut same: Value = serde_json::from_str(&mutated).unwrap();
                        same["namespace"] = sound["namespace"].clone();
                        assert_eq!(same, sound, "byte {at}: {mutated}");
                    }
                }
            }
        }
    }

    #[test]
    fn only_the_given_root_counts() {
        let other = NodeHash([1; 32]);
        for text in [single(3), several(0..3)] {
            let mut forged: Value = serde_json::from_str(&text).unwrap();
            assert!(matches!(
                verify_text(&text, &other),
                Err(BadProofText::OtherRoot(_))
            ));
            forged["root"] = json!(other.to_hex());
            let answer = verify_text(&forged.to_string(), &other);
            assert!(matches!(
                answer,
                Err(BadProofText::Proof(BadProof::OtherRoot))
            ));
        }
        let long = " ".repeat(PROOF_TEXT_MAX + 1);
        assert!(matches!(
            verify_text(&long, &other),
            Err(BadProofText::TooLong)
        ));
        assert!(matches!(
            verify_text("{}", &other),
            Err(BadProofText::Json(_))
        ));
    }
}
