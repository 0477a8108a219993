//! Proofs that states are in the tree, or are not: `GET /v1/ns/{ns}/proofs/{id}` for one,
//! `POST /v1/ns/{ns}/proofs` for several.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::http::app::App;
use crate::http::body::{Bound, receive};
use crate::http::extract::{InNamespace, Target, accepts};
use crate::http::members::from_json;
use crate::http::problem::Problem;
use crate::merkle::asked::Asked;
use crate::merkle::multiproof::MultiProof;
use crate::merkle::proof_bytes::encode;
use crate::merkle::proof_text::{MultiProofText, ProofText};
use crate::runtime::namespace::OpenNamespace;
use crate::types::hash::{NodeHash, StateKey};
use crate::types::id::GameId;

/// What a client that wants bytes accepts.
const BYTES: &str = "application/octet-stream";
/// The root that a proof in bytes was made for, which does not name it itself.
const ROOT: HeaderName = HeaderName::from_static("samestate-root");
/// Largest list of ids: a thousand of the longest, with room for JSON's escapes.
const IDS_BYTES_MAX: u64 = 4 << 20;

/// Which states to prove.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    ids: Vec<GameId>,
}

/// Makes a proof for one id against the root of the newest commit.
///
/// # Errors
/// [`Problem`] when the tree cannot be read.
pub async fn get(target: Target, headers: HeaderMap) -> Result<Response, Problem> {
    let Target { namespace, id } = target;
    if accepts(&headers, BYTES) {
        let asked = Asked::new(vec![id]).map_err(|_| Problem::unexpected())?;
        let (asked, proof, root) = prove(&namespace, asked).await?;
        return in_bytes(&asked, &proof, &root);
    }
    let key = StateKey::of(&id);
    let made =
        namespace.read(move |view| Ok::<_, Problem>((view.prove(&key)?, view.head().root.hash)));
    let (proof, root) = made.await?;
    let body = ProofText::new(namespace.name().clone(), root, id, &proof);
    Ok(([(VARY, "accept")], Json(body)).into_response())
}

/// Makes one proof for several ids against the root of the newest commit.
///
/// # Errors
/// [`Problem`] when the request is malformed or the tree cannot be read.
pub async fn post(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let bound = Bound {
        bytes: IDS_BYTES_MAX,
        exceeded: Problem::body_too_large,
    };
    let received = receive(&app, &headers, body, bound).await?;
    let wanted: Wanted =
        from_json(&received.bytes).map_err(|mistake| Problem::bad_json(&mistake))?;
    drop(received);
    if wanted.ids.is_empty() {
        return Err(Problem::bad_request(
            "bad_ids",
            "ids is empty; name at least one",
        ));
    }
    let asked = Asked::new(wanted.ids)
        .map_err(|error| Problem::bad_request("bad_ids", error.to_string()))?;
    let (asked, proof, root) = prove(&namespace, asked).await?;
    if accepts(&headers, BYTES) {
        return in_bytes(&asked, &proof, &root);
    }
    let body = MultiProofText::new(namespace.name().clone(), root, &asked, &proof);
    let body = body.map_err(|_| Problem::unexpected())?;
    Ok(([(VARY, "accept")], Json(body)).into_response())
}

async fn prove(
    namespace: &OpenNamespace,
    asked: Asked,
) -> Result<(Asked, MultiProof, NodeHash), Problem> {
    let made = namespace.read(move |view| {
        let proof = view.prove_all(asked.keys())?;
        Ok::<_, Problem>((asked, proof, view.head().root.hash))
    });
    made.await
}

fn in_bytes(asked: &Asked, proof: &MultiProof, root: &NodeHash) -> Result<Response, Problem> {
    let bytes = encode(asked, proof).map_err(|_| Problem::unexpected())?;
    let headers = [
        (CONTENT_TYPE, BYTES.to_owned()),
        (VARY, "accept".to_owned()),
        (ROOT, root.to_hex()),
    ];
    Ok((headers, bytes).into_response())
}
