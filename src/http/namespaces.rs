//! `/v1/ns`: the namespaces themselves.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::http::app::{App, blocking};
use crate::http::extract::{NamespaceName, Params};
use crate::http::problem::Problem;
use crate::runtime::namespace::OpenNamespace;

#[derive(Debug, Serialize)]
struct NamespaceItem {
    name: String,
    count: u64,
    total_size: u64,
    root: String,
    seq: u64,
}

impl NamespaceItem {
    fn new(namespace: &OpenNamespace) -> Self {
        let view = namespace.view();
        let head = view.head();
        Self {
            name: namespace.name().to_string(),
            count: head.live,
            total_size: head.root.size,
            root: head.root.hash.to_hex(),
            seq: head.seq,
        }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct NamespacesBody {
    namespaces: Vec<NamespaceItem>,
}

/// Lists them in order of name.
pub async fn list(State(app): State<App>) -> Json<NamespacesBody> {
    let open = app.replica.namespaces();
    let namespaces = open.iter().map(|namespace| NamespaceItem::new(namespace));
    Json(NamespacesBody {
        namespaces: namespaces.collect(),
    })
}

/// Creates one, or finds it there already.
///
/// # Errors
/// [`Problem`] when there are too many or the disk does not take it.
pub async fn create(
    State(app): State<App>,
    NamespaceName(name): NamespaceName,
) -> Result<Response, Problem> {
    let replica = Arc::clone(&app.replica);
    let wanted = name.clone();
    let is_new = blocking(move || Ok(replica.create_namespace(&wanted)?)).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let open = app.replica.namespace(&name);
    let open = open.ok_or_else(|| Problem::no_namespace(&name))?;
    Ok((status, Json(NamespaceItem::new(&open))).into_response())
}

/// The query of a drop.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropQuery {
    confirm: Option<String>,
}

/// Drops one with everything in it.
///
/// # Errors
/// [`Problem`] when it is not confirmed, does not exist, or is the default one.
pub async fn remove(
    State(app): State<App>,
    NamespaceName(name): NamespaceName,
    Params(query): Params<DropQuery>,
) -> Result<StatusCode, Problem> {
    if query.confirm.as_deref() != Some(name.as_str()) {
        return Err(Problem::bad_request(
            "confirmation_required",
            format!("this deletes every state in {name} here; to do so, add ?confirm={name}"),
        ));
    }
    let replica = Arc::clone(&app.replica);
    blocking(move || Ok(replica.drop_namespace(&name)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
