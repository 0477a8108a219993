//! `/healthz` and `/readyz`, for whoever supervises the process.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::http::app::App;
use crate::http::problem::Problem;

/// The process is alive.
pub async fn alive() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// The replica takes requests. It does from the moment it listens until it is told to stop.
///
/// # Errors
/// [`Problem`] `shutting_down`.
pub async fn ready(State(app): State<App>) -> Result<Json<Value>, Problem> {
    if app.shutdown.is_cancelled() {
        return Err(Problem::shutting_down());
    }
    Ok(Json(json!({"status": "ready"})))
}
