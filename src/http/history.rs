//! `/v1/ns/{ns}/history/{id}` and `/v1/ns/{ns}/restore/{id}`: what a state was before.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::http::app::{App, blocking, commit};
use crate::http::body::receive_json;
use crate::http::conditions;
use crate::http::extract::Target;
use crate::http::problem::Problem;
use crate::http::states::stored;
use crate::http::upload::{self, Staged};
use crate::replica::command::{Change, Command, Content, Write};
use crate::replica::staging::from_held;
use crate::replica::view::View;
use crate::store::body::Body as Packed;
use crate::store::error::StoreError;
use crate::types::hash::{ContentHash, StateKey};
use crate::types::limits::STAGED_FROM;
use crate::types::version::Version;

/// One version as clients see it.
#[derive(Debug, Serialize)]
pub struct VersionBody {
    /// Names it in `?version=`; absent for a deletion.
    content_hash: Option<String>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    updated_at: u64,
    deleted: bool,
    /// When its time is over, in milliseconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// The replica that wrote it.
    replica: String,
}

impl VersionBody {
    /// What clients see of a version.
    pub fn new(version: &Version) -> Self {
        Self {
            content_hash: (!version.tombstone).then(|| version.content.to_hex()),
            size: version.size,
            content_type: version.content_type.clone(),
            updated_at: version.stamp.millis,
            deleted: version.tombstone,
            expires_at: version.expires_at,
            replica: version.stamp.replica.to_string(),
        }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct HistoryBody {
    id: String,
    versions: Vec<VersionBody>,
}

/// Lists the versions that are still held, newest first, the current ones among them.
///
/// # Errors
/// [`Problem`] when there is no such state, or it cannot be read.
pub async fn list(target: Target) -> Result<Json<HistoryBody>, Problem> {
    let key = StateKey::of(&target.id);
    let held = target
        .namespace
        .read(move |view| view.versions(&key))
        .await?;
    if held.is_empty() {
        return Err(Problem::not_found(format!(
            "there is no state {:?}",
            target.id
        )));
    }
    Ok(Json(HistoryBody {
        id: target.id.into(),
        versions: held
            .iter()
            .map(|placed| VersionBody::new(&placed.version))
            .collect(),
    }))
}

/// Which version becomes the newest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreOrder {
    version: String,
}

/// Writes an old version's bytes anew.
///
/// # Errors
/// [`Problem`] when there is no such version, or nothing was stored.
pub async fn restore(
    State(app): State<App>,
    target: Target,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let precondition = conditions::of_write(&headers)?;
    let order: RestoreOrder = receive_json(&app, &headers, body).await?;
    let hash: ContentHash = order.version.parse()?;
    let (key, view) = (StateKey::of(&target.id), target.namespace.view());
    let now = target.namespace.now();
    let found = target
        .namespace
        .read_view(view.clone(), move |view| view.version(&key, &hash, now))
        .await?;
    let placed = found.ok_or_else(|| {
        let detail = format!(
            "{:?} has no such version (any more); see its history",
            target.id
        );
        Problem::not_found(detail)
    })?;
    let is_large = placed.version.size > STAGED_FROM;
    let memory = if is_large {
        upload::MEMORY
    } else {
        placed.version.size
    };
    let reservation = app.uploads.reserve(memory).await?;
    let content_type = placed.version.content_type.clone();
    // The share goes with the work, which goes on when the client hangs up.
    let (body, held) = if is_large {
        let stage = Staged::new(Arc::clone(&target.namespace))?;
        let (namespace, limits) = (Arc::clone(&target.namespace), *app.replica.limits());
        let work = move || {
            let body = from_held(&*namespace, stage.key(), &placed, &limits)?;
            Ok((body, (reservation, Some(stage))))
        };
        blocking(work).await?
    } else {
        let packed = move |view: &View| {
            let bytes = view.content(&placed)?.unwrap_or_default();
            Ok::<_, StoreError>((Packed::of_hashed(hash, &bytes), (reservation, None)))
        };
        target.namespace.read_view(view, packed).await?
    };
    let content = Content {
        body,
        content_type,
        ttl: None,
    };
    let write = Write {
        id: target.id,
        precondition,
        change: Change::Put(content),
    };
    stored(commit(target.namespace, Command::Write(vec![write]), held).await?)
}
