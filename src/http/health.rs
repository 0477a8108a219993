//! `/healthz` and `/readyz`, for whoever supervises the process.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::http::app::App;
use crate::http::problem::Problem;

/// The process is alive.
pub async fn alive() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// The replica takes requests. It does from the moment it listens until it is told to stop, unless
/// the store of a namespace fails.
///
/// # Errors
/// [`Problem`] `shutting_down` or `storage_failed`.
pub async fn ready(State(app): State<App>) -> Result<Json<Value>, Problem> {
    if app.shutdown.is_cancelled() {
        return Err(Problem::shutting_down());
    }
    let namespaces = app.replica.namespaces();
    if let Some(failed) = namespaces.iter().find(|namespace| namespace.has_failed()) {
        let detail = format!(
            "the store of namespace {} failed and takes no writes; restart samestate",
            failed.name()
        );
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Problem::new(status, "storage_failed", detail));
    }
    Ok(Json(json!({"status": "ready"})))
}
