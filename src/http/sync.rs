//! `/v1/ns/{ns}/sync`: the replication protocol, and sessions that users ask for.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::task;

use crate::http::app::App;
use crate::http::body::{Bound, Received, receive, receive_json};
use crate::http::extract::{Headers, InNamespace, Name};
use crate::http::outgoing;
use crate::http::problem::Problem;
use crate::reconcile::strategy::StrategyName;
use crate::runtime::answer_memory::answer_memory;
use crate::runtime::peering::{DiffReport, DiffRequest, SyncRequest};
use crate::runtime::sync_service::answer;
use crate::sync::exchange::reply_limit;
use crate::sync::report::Report;
use crate::wire::frame::plain_length;
use crate::wire::messages::Endpoint;

/// Answers one message of another replica's session.
///
/// # Errors
/// [`Problem`] when the message is not one, or cannot be answered.
pub async fn message(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Name(name): Name,
    Headers(headers): Headers,
    body: Body,
) -> Result<Response, Problem> {
    let endpoint = Endpoint::named(&name).ok_or_else(|| {
        let detail = format!("there is no sync message {name:?}");
        Problem::new(StatusCode::NOT_FOUND, "unknown_message", detail)
    })?;
    let limit = reply_limit(app.replica.limits(), endpoint) as u64;
    let bound = Bound {
        bytes: limit,
        exceeded: Problem::body_too_large,
    };
    let received = receive(&app, &headers, body, bound).await?;
    let Received {
        bytes,
        mut reservation,
    } = received;
    // What a frame decodes to comes on top of it; one that announces more is refused unread.
    let plain = (plain_length(&bytes) as u64).min(limit);
    reservation.cover(bytes.len() as u64 + plain).await?;
    let needed = answer_memory(&namespace, endpoint, &bytes, app.replica.limits()).await?;
    let (place, share) = match needed {
        Some(needed) => (
            Some(app.place().await?),
            app.downloads.reserve(needed).await?,
        ),
        None => (None, app.downloads.reserve(0).await?),
    };
    let replica = Arc::clone(&app.replica);
    // Question and answer stay accounted for until it is made, even when the peer hangs up.
    let answered = task::spawn(async move {
        let reply = answer(&replica, &namespace, endpoint, bytes).await;
        drop((reservation, place));
        reply.map(|reply| (reply, share))
    });
    let (reply, mut share) = answered.await.map_err(|_| Problem::unexpected())??;
    share.cover(reply.len() as u64).await?;
    share.shrink(reply.len());
    let media_type = [(CONTENT_TYPE, "application/octet-stream")];
    let length = [(CONTENT_LENGTH, reply.len().to_string())];
    let body = outgoing::body(reply.into(), share, app.idle);
    Ok((media_type, length, body).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunOrder {
    from: String,
    #[serde(default)]
    pull: bool,
    #[serde(default)]
    push: bool,
    strategy: Option<String>,
}

/// Runs one session with a peer, named or by URL, to its end.
///
/// # Errors
/// [`Problem`] when it could not start. One that failed on the way is reported as such.
pub async fn run(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Headers(headers): Headers,
    body: Body,
) -> Result<Json<Report>, Problem> {
    let order: RunOrder = receive_json(&app, &headers, body).await?;
    let request = SyncRequest {
        namespace: namespace.name().clone(),
        peer: order.from,
        // Who names no direction wants what the peer has.
        pull: order.pull || !order.push,
        push: order.push,
        strategy: strategy(order.strategy.as_deref())?,
    };
    Ok(Json(app.peering.sync(request).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffOrder {
    peer: String,
    strategy: Option<String>,
}

/// Finds what differs from a peer, named or by URL, and changes nothing.
///
/// # Errors
/// [`Problem`] when the comparison failed.
pub async fn diff(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Headers(headers): Headers,
    body: Body,
) -> Result<Json<DiffReport>, Problem> {
    let order: DiffOrder = receive_json(&app, &headers, body).await?;
    let request = DiffRequest {
        namespace: namespace.name().clone(),
        peer: order.peer,
        strategy: strategy(order.strategy.as_deref())?,
    };
    Ok(Json(app.peering.diff(request).await?))
}

/// A strategy by name; none or `auto` leaves the choice to the planner.
///
/// # Errors
/// [`Problem`] `bad_strategy`.
pub fn strategy(name: Option<&str>) -> Result<Option<StrategyName>, Problem> {
    match name {
        None | Some("auto") => Ok(None),
        Some(name) => Ok(Some(name.parse()?)),
    }
}
