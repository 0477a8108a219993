//! `/v1/ns/{ns}/roots`: which root this replica held when, with proofs to a signed head.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::http::app::App;
use crate::http::extract::{InNamespace, Params, page_limit};
use crate::http::problem::Problem;
use crate::replica::view::View;
use crate::roots::entry::RootEntry;
use crate::roots::mountains;
use crate::runtime::namespace::OpenNamespace;
use crate::store::error::StoreError;
use crate::types::hash::LogHash;
use crate::wire::roots::{ConsistencyBody, EntryBody, HeadBody, HeadsBody, InclusionBody};

/// Which entries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootsQuery {
    /// The place of the first one, counted from 0.
    from: Option<u64>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
struct PlacedBody {
    place: u64,
    #[serde(flatten)]
    entry: EntryBody,
}

/// A page of the log.
#[derive(Debug, Serialize)]
pub struct RootsBody {
    roots: Vec<PlacedBody>,
    /// Place behind the last one, when there are more.
    next: Option<u64>,
    /// Over all entries; absent before the first.
    head: Option<HeadBody>,
}

/// Lists entries, oldest first, with the signed head.
///
/// # Errors
/// [`Problem`] when the log cannot be read.
pub async fn list(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Params(query): Params<RootsQuery>,
) -> Result<Json<RootsBody>, Problem> {
    let (first, limit) = (query.from.unwrap_or(0), page_limit(query.limit));
    read(&app, &namespace, move |view, head| {
        let entries = view.snapshot().root_entries(first, limit)?;
        let behind = entries.last().map(|(place, _)| place + 1);
        let size = head.as_ref().map_or(0, |head| head.size);
        Ok(RootsBody {
            next: behind.filter(|behind| *behind < size),
            roots: entries.iter().map(PlacedBody::from).collect(),
            head,
        })
    })
    .await
}

impl From<&(u64, RootEntry)> for PlacedBody {
    fn from((place, entry): &(u64, RootEntry)) -> Self {
        Self {
            place: *place,
            entry: entry.into(),
        }
    }
}

/// The signed head of this replica, and those that it has seen of others.
///
/// # Errors
/// [`Problem`] when they cannot be read.
pub async fn heads(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
) -> Result<Json<HeadsBody>, Problem> {
    read(&app, &namespace, |view, own| {
        let seen = view.snapshot().witnessed()?;
        let seen = seen.iter().map(|seen| HeadBody::from(&seen.head)).collect();
        Ok(HeadsBody { own, seen })
    })
    .await
}

/// Which entry: by its place, or the one that was the newest at a moment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionQuery {
    place: Option<u64>,
    /// In milliseconds since 1970-01-01 UTC.
    at: Option<u64>,
}

/// Proves that an entry is in the log.
///
/// # Errors
/// [`Problem`] `root_not_found` when there is no such entry.
pub async fn inclusion(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Params(query): Params<InclusionQuery>,
) -> Result<Json<InclusionBody>, Problem> {
    if query.place.is_some() == query.at.is_some() {
        return Err(Problem::bad_query("give either a place or a time, at"));
    }
    read(&app, &namespace, move |view, head| {
        let head = head.ok_or_else(not_found)?;
        let place = match query.at {
            Some(at) => newest_at(view, head.size, at)?,
            None => query.place,
        };
        let place = place.filter(|place| *place < head.size);
        let place = place.ok_or_else(not_found)?;
        let entry = view.snapshot().root_entry(place)?.ok_or_else(not_found)?;
        let proof = mountains::inclusion(view.snapshot(), place, head.size)?;
        Ok(InclusionBody {
            place,
            entry: (&entry).into(),
            proof: in_hex(&proof.ok_or_else(not_found)?),
            head,
        })
    })
    .await
}

/// The last entry that was made at a moment or before. Times do not fall along the log.
fn newest_at(view: &View, size: u64, at: u64) -> Result<Option<u64>, StoreError> {
    let (mut low, mut high) = (0, size);
    while low < high {
        let middle = low + (high - low) / 2;
        match view.snapshot().root_entry(middle)? {
            Some(entry) if entry.time <= at => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low.checked_sub(1))
}

/// Two sizes of the log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyQuery {
    from: u64,
    /// That of the newest head unless told.
    to: Option<u64>,
}

/// Proves that the log as it was is a prefix of what it became.
///
/// # Errors
/// [`Problem`] `root_not_found` when the log has never been that long.
pub async fn consistency(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Params(query): Params<ConsistencyQuery>,
) -> Result<Json<ConsistencyBody>, Problem> {
    read(&app, &namespace, move |view, head| {
        let size = head.map_or(0, |head| head.size);
        let to = query.to.unwrap_or(size);
        if to > size {
            return Err(not_found());
        }
        let proof = mountains::consistency(view.snapshot(), query.from, to)?;
        Ok(ConsistencyBody {
            from: query.from,
            to,
            proof: in_hex(&proof.ok_or_else(not_found)?),
        })
    })
    .await
}

fn in_hex(hashes: &[LogHash]) -> Vec<String> {
    hashes.iter().map(LogHash::to_hex).collect()
}

fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "root_not_found",
        "the log of roots has no such entry, or has never been of that size; GET .../roots tells its \
         size",
    )
}

/// Reads from the newest durable view together with its signed head.
async fn read<R: Send + 'static>(
    app: &App,
    namespace: &OpenNamespace,
    work: impl FnOnce(&View, Option<HeadBody>) -> Result<R, Problem> + Send + 'static,
) -> Result<Json<R>, Problem> {
    let (app, name) = (app.clone(), namespace.name().clone());
    let made = namespace.read(move |view| {
        let head = app.replica.signed_head(&name, view)?;
        work(view, head.as_ref().map(HeadBody::from))
    });
    Ok(Json(made.await?))
}
