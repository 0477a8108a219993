//! `GET /v1/ns/{ns}/conflicts`: states with versions that did not see each other.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::http::app::App;
use crate::http::changes::position;
use crate::http::extract::{InNamespace, PageQuery, Params, page_limit};
use crate::http::history::VersionBody;
use crate::http::outgoing;
use crate::http::problem::Problem;
use crate::replica::view::View;
use crate::store::rows::RecordRow;
use crate::types::cursor::Cursor;
use crate::types::record::etag;

/// Rows looked at for one page. Conflicts are rare, and looking has to end.
const SCAN_MAX: usize = 50_000;
/// Rows held at once.
const SCAN_STEP: usize = 500;

#[derive(Debug, Serialize)]
struct ConflictItem {
    id: String,
    /// A PUT with this in `If-Match` resolves the conflict.
    etag: String,
    /// The shown one first.
    versions: Vec<VersionBody>,
}

impl ConflictItem {
    fn new(row: RecordRow) -> Self {
        let versions = row.record.versions().iter().map(VersionBody::new);
        Self {
            versions: versions.collect(),
            etag: etag(&row.leaf.digest),
            id: row.record.id.into(),
        }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct ConflictsBody {
    conflicts: Vec<ConflictItem>,
    next: Option<String>,
}

/// Lists conflicts in order of their last change. A page may be empty and still have a next one.
///
/// # Errors
/// [`Problem`] when they cannot be read, or `after` is of another life of the feed.
pub async fn list(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    let limit = page_limit(query.limit);
    let after = query.after.as_deref().map(str::parse).transpose()?;
    let share = outgoing::page_share(&app, limit).await?;
    let page = namespace.read(move |view| scan(view, after, limit)).await?;
    outgoing::page(&app, share, &page).await
}

fn scan(view: &View, after: Option<Cursor>, limit: usize) -> Result<ConflictsBody, Problem> {
    let mut at = position(view, after)?;
    let mut conflicts = Vec::new();
    for _ in 0..SCAN_MAX / SCAN_STEP {
        let rows = view.changes(at.seq, SCAN_STEP)?;
        let is_last = rows.len() < SCAN_STEP;
        for row in rows {
            at.seq = row.seq;
            if row.record.conflicts() > 0 {
                conflicts.push(ConflictItem::new(row));
            }
            if conflicts.len() == limit {
                return Ok(ConflictsBody {
                    conflicts,
                    next: Some(at.to_string()),
                });
            }
        }
        if is_last {
            return Ok(ConflictsBody {
                conflicts,
                next: None,
            });
        }
    }
    Ok(ConflictsBody {
        conflicts,
        next: Some(at.to_string()),
    })
}
