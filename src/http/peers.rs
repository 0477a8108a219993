//! `/v1/peers`: the replicas that this one keeps in step with.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::http::app::App;
use crate::http::body::receive_json;
use crate::http::extract::Name;
use crate::http::problem::Problem;
use crate::http::sync::strategy;
use crate::runtime::peering::{PeerStatus, SyncRequest};
use crate::sync::report::Report;
use crate::types::id::Namespace;

/// The answer.
#[derive(Debug, Serialize)]
pub struct PeersBody {
    peers: Vec<PeerStatus>,
}

/// Lists them in order of name.
pub async fn list(State(app): State<App>) -> Json<PeersBody> {
    let peers = app.peering.list();
    Json(PeersBody { peers })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerOrder {
    url: String,
}

/// Adds a peer, or changes where it is.
///
/// # Errors
/// [`Problem`] when its name or URL is unusable, or there are too many.
pub async fn put(
    State(app): State<App>,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<PeerStatus>), Problem> {
    let order: PeerOrder = receive_json(&app, &headers, body).await?;
    let is_new = app.peering.put(&name, &order.url)?;
    let mut peers = app.peering.list().into_iter();
    let status = peers.find(|peer| peer.name == name);
    let status = status.ok_or_else(Problem::unexpected)?;
    let code = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((code, Json(status)))
}

/// Forgets a peer.
///
/// # Errors
/// [`Problem`] when there is none of that name.
pub async fn remove(State(app): State<App>, Name(name): Name) -> Result<StatusCode, Problem> {
    app.peering.remove(&name)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a session is to do; both directions unless told otherwise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SyncOrder {
    #[serde(default = "Namespace::default_namespace")]
    namespace: Namespace,
    #[serde(default = "yes")]
    pull: bool,
    #[serde(default = "yes")]
    push: bool,
    strategy: Option<String>,
}

fn yes() -> bool {
    true
}

/// Runs a session with a configured peer now.
///
/// # Errors
/// [`Problem`] when it could not start. One that failed on the way is reported as such.
pub async fn sync(
    State(app): State<App>,
    Name(peer): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Report>, Problem> {
    let order: SyncOrder = receive_json(&app, &headers, body).await?;
    if !app.peering.list().iter().any(|known| known.name == peer) {
        return Err(crate::runtime::peering::PeeringError::UnknownPeer(peer).into());
    }
    let request = SyncRequest {
        namespace: order.namespace,
        peer,
        pull: order.pull,
        push: order.push,
        strategy: strategy(order.strategy.as_deref())?,
    };
    Ok(Json(app.peering.sync(request).await?))
}
