//! What a range of keys adds up to, as JSON: what replicas answer, with a proof or without, and
//! `samestate verify-proof` reads.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::merkle::node::Summary;
use crate::merkle::proof_text::{BadProofText, NodeText, PROOF_TEXT_MAX, check_root};
use crate::merkle::range::{KeyRange, RangeProof, ShownRange, Totals};
use crate::types::hash::{NodeHash, StateKey};
use crate::types::id::Namespace;

/// What the records of a range of keys add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeText {
    /// Where it was made. No root covers the name.
    pub namespace: Namespace,
    /// The root of the tree.
    #[serde(with = "crate::types::as_text")]
    pub root: NodeHash,
    /// The lowest key.
    #[serde(with = "crate::types::as_text")]
    pub from: StateKey,
    /// The highest key.
    #[serde(with = "crate::types::as_text")]
    pub to: StateKey,
    /// Records, those of deleted states included.
    pub records: u64,
    /// Bytes of their shown versions.
    pub total_size: u64,
    /// Newest version, in milliseconds since 1970-01-01 UTC; 0 without any.
    pub updated_at: u64,
    /// The node over them, when they were asked for by a prefix. Nothing proves it but being
    /// asked for with the levels above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<PlaceText>,
    /// Each parent before its children, left before right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<NodeText>>,
}

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceText {
    /// How many bits of the keys lead to it.
    pub depth: u8,
    /// Its hash.
    #[serde(with = "crate::types::as_text")]
    pub hash: NodeHash,
}

impl RangeText {
    /// Writes down what a range adds up to in the tree with this root.
    pub fn new(
        namespace: Namespace,
        root: NodeHash,
        range: &KeyRange,
        totals: &Totals,
        node: Option<(u8, Summary)>,
    ) -> Self {
        Self {
            namespace,
            root,
            from: range.first,
            to: range.last,
            records: totals.leaves,
            total_size: totals.size,
            updated_at: totals.updated_at,
            node: node.map(|(depth, summary)| PlaceText {
                depth,
                hash: summary.hash,
            }),
            nodes: None,
        }
    }

    /// Adds the proof.
    pub fn with(mut self, proof: &RangeProof) -> Self {
        self.nodes = Some(proof.nodes.iter().map(NodeText::of).collect());
        self
    }

    /// True when a text is about a range, and not about states.
    pub fn is_one(text: &str) -> bool {
        #[derive(Deserialize)]
        struct Form {
            #[serde(rename = "from")]
            _from: IgnoredAny,
        }
        text.len() <= PROOF_TEXT_MAX && serde_json::from_str::<Form>(text).is_ok()
    }

    /// Checks a proof against a root. What the text says of the root and of the totals has to
    /// agree; the namespace is not covered.
    ///
    /// # Errors
    /// [`BadProofText`] when it proves nothing.
    pub fn verify(text: &str, root: &NodeHash) -> Result<(KeyRange, ShownRange), BadProofText> {
        if text.len() > PROOF_TEXT_MAX {
            return Err(BadProofText::TooLong);
        }
        let text: Self = serde_json::from_str(text)?;
        check_root(&text.root, root)?;
        let range = KeyRange {
            first: text.from,
            last: text.to,
        };
        let nodes = text.nodes.ok_or(BadProofText::Unproven)?;
        let nodes = nodes.iter().map(NodeText::node).collect();
        let shown = RangeProof { nodes }.verify(root, &range)?;
        let said = Totals {
            leaves: text.records,
            size: text.total_size,
            updated_at: text.updated_at,
        };
        if said != shown.totals {
            return Err(BadProofText::OtherTotals);
        }
        Ok((range, shown))
    }
}
