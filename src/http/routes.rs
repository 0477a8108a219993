//! The router: one line an endpoint.

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, get, post, put};

use crate::http::app::App;
use crate::http::extract::refuse_query;
use crate::http::problem::Problem;
use crate::http::{
    admin, agreement, batch, changes, conflicts, health, history, listing, metrics, namespaces,
    patch, peers, proofs, root, roots, sessions, states, sync, tree,
};

/// Every endpoint, over the state of a replica. What is done for each request wherever it goes is in
/// [`Front`](crate::http::front::Front). Handlers that read no query are `bare`, but for those that may be asked with one by
/// a monitor, or by another build of samestate.
pub fn router(app: App) -> Router {
    let state = get(states::get)
        .head(states::head)
        .put(states::put)
        .patch(patch::patch)
        .delete(states::delete);
    Router::new()
        .route("/v1/ns", bare(get(namespaces::list)))
        .route(
            "/v1/ns/{ns}",
            bare(put(namespaces::create)).delete(namespaces::remove),
        )
        .route("/v1/ns/{ns}/states", get(listing::list))
        .route("/v1/ns/{ns}/states/{*id}", state)
        .route("/v1/ns/{ns}/batch", bare(post(batch::post)))
        .route("/v1/ns/{ns}/history/{*id}", bare(get(history::list)))
        .route("/v1/ns/{ns}/restore/{*id}", bare(post(history::restore)))
        .route("/v1/ns/{ns}/conflicts", get(conflicts::list))
        .route("/v1/ns/{ns}/changes", get(changes::get))
        .route("/v1/ns/{ns}/root", bare(get(root::get)))
        .route("/v1/ns/{ns}/tree", get(tree::get))
        .route("/v1/ns/{ns}/proofs", bare(post(proofs::post)))
        .route("/v1/ns/{ns}/agreement", bare(get(agreement::get)))
        .route("/v1/ns/{ns}/roots", get(roots::list))
        .route("/v1/ns/{ns}/roots/heads", bare(get(roots::heads)))
        .route("/v1/ns/{ns}/roots/inclusion", get(roots::inclusion))
        .route("/v1/ns/{ns}/roots/consistency", get(roots::consistency))
        .route("/v1/ns/{ns}/proofs/{*id}", bare(get(proofs::get)))
        .route("/v1/ns/{ns}/sync/run", bare(post(sync::run)))
        .route("/v1/ns/{ns}/sync/diff", bare(post(sync::diff)))
        .route("/v1/ns/{ns}/sync/{name}", post(sync::message))
        .route("/v1/peers", bare(get(peers::list)))
        .route(
            "/v1/peers/{name}",
            bare(put(peers::put).delete(peers::remove)),
        )
        .route("/v1/peers/{name}/sync", bare(post(peers::sync)))
        .route("/v1/sessions", bare(get(sessions::list)))
        .route("/v1/stats", bare(get(sessions::stats)))
        .route("/v1/admin/backup", bare(post(admin::backup)))
        .route("/v1/admin/verify", bare(post(admin::verify)))
        .route("/v1/admin/compact", bare(post(admin::compact)))
        .route("/v1/admin/jobs", bare(get(admin::list)))
        .route("/v1/admin/jobs/{name}", bare(get(admin::get)))
        .route("/metrics", get(metrics::get))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(app)
}

fn bare(route: MethodRouter<App>) -> MethodRouter<App> {
    route.route_layer(from_fn(refuse_query))
}

async fn unknown_path(uri: Uri) -> Problem {
    let path = uri.path();
    let detail = match path.strip_suffix('/') {
        Some(bare) if !bare.is_empty() => {
            format!("there is nothing at {path}; name a state behind it, or leave the last / out")
        }
        _ => format!("there is nothing at {path}; see /v1/ns for a start"),
    };
    Problem::new(StatusCode::NOT_FOUND, "unknown_path", detail)
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    let detail = format!(
        "{} does not take {method}; see the Allow header",
        uri.path()
    );
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
