//! `/v1/admin`: long work on the replica as a whole, as jobs.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::backup::destination::folder;
use crate::http::app::{App, blocking};
use crate::http::body::receive_json;
use crate::http::extract::Name;
use crate::http::problem::Problem;
use crate::runtime::jobs::Job;
use crate::runtime::maintenance::{start_backup, start_compact, start_verify};

/// The answer of a listing.
#[derive(Debug, Serialize)]
pub struct JobsBody {
    jobs: Vec<Job>,
}

/// Lists running and recent jobs, newest first.
pub async fn list(State(app): State<App>) -> Json<JobsBody> {
    let jobs = app.replica.jobs().list();
    Json(JobsBody { jobs })
}

/// Tells how a job stands.
///
/// # Errors
/// [`Problem`] when there is no such job.
pub async fn get(State(app): State<App>, Name(id): Name) -> Result<Json<Job>, Problem> {
    let known = id.parse().ok().and_then(|id| app.replica.jobs().get(id));
    known.map(Json).ok_or_else(|| {
        let detail =
            format!("there is no job {id:?} (any more); list them with GET /v1/admin/jobs");
        Problem::new(StatusCode::NOT_FOUND, "unknown_job", detail)
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupOrder {
    to: String,
    #[serde(default)]
    full: bool,
}

/// Starts a backup of all namespaces.
///
/// # Errors
/// [`Problem`] when it may not go there, or one is running.
pub async fn backup(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let order: BackupOrder = receive_json(&app, &headers, body).await?;
    blocking(move || {
        let to = allowed(&app.backup_dirs, &order.to)?;
        Ok(accepted(start_backup(&app.replica, to, order.full)?))
    })
    .await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyOrder {}

/// Starts a full check of all namespaces.
///
/// # Errors
/// [`Problem`] when one is running.
pub async fn verify(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let VerifyOrder {} = receive_json(&app, &headers, body).await?;
    Ok(accepted(start_verify(&app.replica)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompactOrder {}

/// Starts a compaction of the files of all namespaces.
///
/// # Errors
/// [`Problem`] when one is running.
pub async fn compact(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let CompactOrder {} = receive_json(&app, &headers, body).await?;
    Ok(accepted(start_compact(&app.replica)?))
}

fn accepted(job: Job) -> Response {
    let location = format!("/v1/admin/jobs/{}", job.id);
    (StatusCode::ACCEPTED, [(LOCATION, location)], Json(job)).into_response()
}

/// The folder that a client named, if backups may go there. Whoever reaches this server may ask for
/// backups, so only folders that its settings name are written to.
fn allowed(folders: &[PathBuf], to: &str) -> Result<PathBuf, Problem> {
    let bad = |detail: String| Problem::bad_request("bad_destination", detail);
    let forbidden = |detail: String| Problem::new(StatusCode::FORBIDDEN, "forbidden", detail);
    let path = folder(to).map_err(|error| bad(error.to_string()))?;
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if climbs || !path.is_absolute() {
        let detail = format!("{to:?} is not the path of a folder from the root on, without '..'");
        return Err(bad(detail));
    }
    if folders.is_empty() {
        return Err(forbidden(
            "backups over HTTP are switched off here; name the folders that they may go to in the \
             setting backup_dirs (--backup-dir, SAMESTATE_BACKUP_DIRS)"
                .into(),
        ));
    }
    let real = real_path(&path).map_err(|error| bad(format!("cannot use {to:?}: {error}")))?;
    let within = |folder: &PathBuf| fs::canonicalize(folder).is_ok_and(|at| real.starts_with(at));
    if folders.iter().any(within) {
        return Ok(real);
    }
    let names: Vec<String> = folders.iter().map(|at| at.display().to_string()).collect();
    Err(forbidden(format!(
        "{to:?} is not below a folder that the setting backup_dirs names and that exists ({})",
        names.join(", ")
    )))
}

/// The path without symbolic links, as far as it exists.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(above) => {
                let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
                Ok(real_path(above)?.join(rest))
            }
            None => Err(error),
        },
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(folders: &[PathBuf], to: &Path) -> u16 {
        let refused = allowed(folders, to.to_str().unwrap()).unwrap_err();
        refused.into_response().status().as_u16()
    }

    #[test]
    fn backups_go_below_the_named_folders_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let (good, other) = (root.join("good"), root.join("other"));
        fs::create_dir_all(good.join("sub")).unwrap();
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, good.join("link")).unwrap();
        std::os::unix::fs::symlink(good.join("sub"), other.join("inward")).unwrap();
        let folders = [root.join("missing"), good.clone()];
        let may = |path: PathBuf| allowed(&folders, path.to_str().unwrap()).unwrap();
        assert_eq!(may(good.clone()), good);
        assert_eq!(may(good.join("sub/new/er")), good.join("sub/new/er"));
        assert_eq!(may(other.join("inward/x")), good.join("sub/x"));
        for (path, status) in [
            (other.clone(), 403),
            (root.clone(), 403),
            (good.join("link"), 403),
            (good.join("link/deeper"), 403),
            (root.join("goodness"), 403),
            (root.join("missing/x"), 403),
            (good.join("../other"), 400),
            (PathBuf::from("good"), 400),
            (PathBuf::from(""), 400),
            (PathBuf::from("s3://bucket/x"), 400),
        ] {
            assert_eq!(refusal(&folders, &path), status, "{}", path.display());
        }
        assert_eq!(refusal(&[], &good), 403);
    }
}
