//! `GET /v1/ns/{ns}/tree`: what the records below a node of the tree, or in a range of keys, add up
//! to, with a proof if it is asked for.

use axum::Json;
use serde::Deserialize;

use crate::http::extract::{InNamespace, Params};
use crate::http::problem::Problem;
use crate::merkle::prefix::Prefix;
use crate::merkle::range::KeyRange;
use crate::merkle::range_text::RangeText;

/// Digits of a prefix at most: deeper nodes have no place in rows.
const PREFIX_DIGITS: usize = Prefix::DEPTH_MAX as usize / 4;

/// Which keys: all of them unless told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeQuery {
    /// Those that begin with these hexadecimal digits.
    prefix: Option<String>,
    /// Those from the first that begins so.
    from: Option<String>,
    /// Those up to the last that begins so.
    to: Option<String>,
    /// With the proof.
    #[serde(default)]
    proof: bool,
}

impl TreeQuery {
    /// The range, and the node whose keys it has when it was asked for by a prefix.
    fn range(&self) -> Result<(KeyRange, Option<Prefix>), Problem> {
        let bad = |detail: &str| Problem::bad_request("bad_range", detail);
        let ends = (self.from.as_deref(), self.to.as_deref());
        let (from, to) = match (self.prefix.as_deref(), ends) {
            (Some(prefix), (None, None)) => (prefix, prefix),
            (None, (from, to)) => (from.unwrap_or_default(), to.unwrap_or_default()),
            _ => return Err(bad("give either a prefix or from and to")),
        };
        let range = KeyRange::between(from, to).map_err(|error| bad(&error.to_string()))?;
        if self.prefix.is_none() && ends != (None, None) {
            return Ok((range, None));
        }
        if from.len() > PREFIX_DIGITS {
            let detail = format!("a prefix has at most {PREFIX_DIGITS} digits; give from and to");
            return Err(bad(&detail));
        }
        let depth = u8::try_from(4 * from.len()).map_err(|_| Problem::unexpected())?;
        Ok((range, Some(Prefix::of(&range.first, depth))))
    }
}

/// Tells what a range of keys adds up to in the tree of the newest commit.
///
/// # Errors
/// [`Problem`] `bad_range`, or when the tree cannot be read.
pub async fn get(
    InNamespace(namespace): InNamespace,
    Params(query): Params<TreeQuery>,
) -> Result<Json<RangeText>, Problem> {
    let (range, at) = query.range()?;
    let name = namespace.name().clone();
    let made = namespace.read(move |view| {
        let (root, proof) = (view.head().root.hash, view.prove_range(&range)?);
        let shown = proof.verify(&root, &range);
        let shown = shown.map_err(|_| Problem::unexpected())?;
        let node = at.map(|at| Ok::<_, Problem>((at.depth(), view.subtree(at)?)));
        let text = RangeText::new(name, root, &range, &shown.totals, node.transpose()?);
        Ok::<_, Problem>(if query.proof { text.with(&proof) } else { text })
    });
    Ok(Json(made.await?))
}
