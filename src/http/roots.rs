//! `/v1/ns/{ns}/roots`: which root this replica held when, with proofs to a signed head.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::http::app::App;
use crate::http::extract::{InNamespace, Params, page_limit};
use crate::http::outgoing;
use crate::http::problem::Problem;
use crate::replica::view::View;
use crate::roots::mountains;
use crate::runtime::namespace::OpenNamespace;
use crate::store::error::StoreError;
use crate::types::hash::LogHash;
use crate::wire::roots::{
    ConsistencyBody, HeadBody, HeadsBody, InclusionBody, PlacedBody, RootsBody,
};

/// Entries of one page, when there is a proof for each.
const PROOFS_MAX: usize = 1000;

/// Which entries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootsQuery {
    /// The place of the first one, counted from 0.
    from: Option<u64>,
    limit: Option<usize>,
    /// With the proof for each.
    #[serde(default)]
    proofs: bool,
    /// A size that the log had, to be shown that it is the beginning of what the log is now.
    since: Option<u64>,
}

/// Lists entries, oldest first, with the signed head.
///
/// # Errors
/// [`Problem`] `root_not_found` when the log has never been as long as asked about.
pub async fn list(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Params(query): Params<RootsQuery>,
) -> Result<Response, Problem> {
    let mut limit = page_limit(query.limit);
    if query.proofs {
        limit = limit.min(PROOFS_MAX);
    }
    let share = outgoing::page_share(&app, limit).await?;
    let page = read(&app, &namespace, move |view, head| {
        let size = head.as_ref().map_or(0, |head| head.size);
        let entries = view.snapshot();
        let entries = entries.root_entries(query.from.unwrap_or(0), limit)?;
        let behind = entries.last().map(|(place, _)| place + 1);
        let roots = entries.iter().map(|(place, entry)| {
            let proof = query
                .proofs
                .then(|| prove(view, *place, size))
                .transpose()?;
            Ok(PlacedBody {
                place: *place,
                entry: entry.into(),
                proof,
            })
        });
        let roots = roots.collect::<Result<Vec<_>, Problem>>()?;
        let since = query.since.map(|since| lead(view, since, size));
        Ok(RootsBody {
            next: behind.filter(|behind| *behind < size),
            roots,
            consistency: since.transpose()?,
            head,
        })
    });
    let Json(page) = page.await?;
    outgoing::page(&app, share, &page).await
}

/// The proof that there is an entry at a place.
fn prove(view: &View, place: u64, size: u64) -> Result<Vec<String>, Problem> {
    let proof = mountains::inclusion(view.snapshot(), place, size)?;
    Ok(in_hex(&proof.ok_or_else(not_found)?))
}

/// The proof that the log of `from` entries is the beginning of that of `to`.
fn lead(view: &View, from: u64, to: u64) -> Result<ConsistencyBody, Problem> {
    let proof = mountains::consistency(view.snapshot(), from, to)?;
    Ok(ConsistencyBody {
        from,
        to,
        proof: in_hex(&proof.ok_or_else(not_found)?),
        head: None,
    })
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
        return Err(Problem::bad_query(
            "give one of place and at (a time in milliseconds since 1970)",
        ));
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
        Ok(InclusionBody {
            place,
            entry: (&entry).into(),
            proof: prove(view, place, head.size)?,
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
        let size = head.as_ref().map_or(0, |head| head.size);
        let to = query.to.unwrap_or(size);
        if to > size {
            return Err(not_found());
        }
        Ok(ConsistencyBody {
            head: head.filter(|_| to == size),
            ..lead(view, query.from, to)?
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
