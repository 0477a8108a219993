//! The router: one line an endpoint.

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post, put};

use crate::http::app::App;
use crate::http::problem::Problem;
use crate::http::{
    admin, agreement, batch, changes, conflicts, health, history, listing, metrics, namespaces,
    patch, peers, proofs, root, roots, sessions, states, sync, tree,
};

/// Every endpoint, over the state of a replica. What is done for each request wherever it goes is in
/// [`Front`](crate::http::front::Front).
pub fn router(app: App) -> Router {
    let state = get(states::get)
        .head(states::head)
        .put(states::put)
        .patch(patch::patch)
        .delete(states::delete);
    Router::new()
        .route("/v1/ns", get(namespaces::list))
        .route(
            "/v1/ns/{ns}",
            put(namespaces::create).delete(namespaces::remove),
        )
        .route("/v1/ns/{ns}/states", get(listing::list))
        .route("/v1/ns/{ns}/states/{*id}", state)
        .route("/v1/ns/{ns}/batch", post(batch::post))
        .route("/v1/ns/{ns}/history/{*id}", get(history::list))
        .route("/v1/ns/{ns}/restore/{*id}", post(history::restore))
        .route("/v1/ns/{ns}/conflicts", get(conflicts::list))
        .route("/v1/ns/{ns}/changes", get(changes::get))
        .route("/v1/ns/{ns}/root", get(root::get))
        .route("/v1/ns/{ns}/tree", get(tree::get))
        .route("/v1/ns/{ns}/proofs", post(proofs::post))
        .route("/v1/ns/{ns}/agreement", get(agreement::get))
        .route("/v1/ns/{ns}/roots", get(roots::list))
        .route("/v1/ns/{ns}/roots/heads", get(roots::heads))
        .route("/v1/ns/{ns}/roots/inclusion", get(roots::inclusion))
        .route("/v1/ns/{ns}/roots/consistency", get(roots::consistency))
        .route("/v1/ns/{ns}/proofs/{*id}", get(proofs::get))
        .route("/v1/ns/{ns}/sync/run", post(sync::run))
        .route("/v1/ns/{ns}/sync/diff", post(sync::diff))
        .route("/v1/ns/{ns}/sync/{name}", post(sync::message))
        .route("/v1/peers", get(peers::list))
        .route("/v1/peers/{name}", put(peers::put).delete(peers::remove))
        .route("/v1/peers/{name}/sync", post(peers::sync))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/stats", get(sessions::stats))
        .route("/v1/admin/backup", post(admin::backup))
        .route("/v1/admin/verify", post(admin::verify))
        .route("/v1/admin/compact", post(admin::compact))
        .route("/v1/admin/jobs", get(admin::list))
        .route("/v1/admin/jobs/{name}", get(admin::get))
        .route("/metrics", get(metrics::get))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(app)
}

async fn unknown_path(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; see /v1/ns for a start", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "unknown_path", detail)
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    let detail = format!(
        "{} does not take {method}; see the Allow header",
        uri.path()
    );
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
