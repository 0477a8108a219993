//! What handlers take from a request's path and query, with problems instead of axum's rejections.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::http::app::App;
use crate::http::members::from_query;
use crate::http::problem::Problem;
use crate::runtime::namespace::OpenNamespace;
use crate::types::id::{GameId, Namespace};

/// The namespace named by `{ns}`, which must exist.
pub struct InNamespace(pub Arc<OpenNamespace>);

/// The name in `{ns}`, whether there is such a namespace or not.
pub struct NamespaceName(pub Namespace);

/// The state named by `{*id}` in an existing namespace.
pub struct Target {
    /// Where.
    pub namespace: Arc<OpenNamespace>,
    /// Which.
    pub id: GameId,
}

/// The headers, taken out of the request: only what its body is read from may stand behind it.
pub struct Headers(pub HeaderMap);

/// The text in `{name}`.
pub struct Name(pub String);

/// The query as `T`, which should deny unknown fields.
pub struct Params<T>(pub T);

/// The query of a page of anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Where the page before ended.
    pub after: Option<String>,
    /// Most items wanted.
    pub limit: Option<usize>,
}

/// How many items a page gets: more than the most is no mistake, since pages go on.
pub fn page_limit(wanted: Option<usize>) -> usize {
    wanted.unwrap_or(1000).clamp(1, 10_000)
}

/// True when the client asks for answers of this media type.
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter();
    accepted.any(|accept| accept.to_str().is_ok_and(|text| text.contains(media_type)))
}

/// Parts of the path, percent-decoded.
async fn parts<const N: usize>(
    request: &mut Parts,
    app: &App,
    names: [&str; N],
) -> Result<[String; N], Problem> {
    let params = RawPathParams::from_request_parts(request, app).await;
    let params = params.map_err(|_| {
        Problem::bad_request("bad_id", "the path is not UTF-8 once percent-decoded")
    })?;
    let found = names.map(|name| params.iter().find(|(key, _)| *key == name));
    if found.iter().any(Option::is_none) {
        return Err(Problem::unexpected());
    }
    Ok(found.map(|part| part.map_or_else(String::new, |(_, value)| value.to_owned())))
}

fn open(app: &App, name: &str) -> Result<Arc<OpenNamespace>, Problem> {
    let name = Namespace::new(name)?;
    let open = app.replica.namespace(&name);
    open.ok_or_else(|| Problem::no_namespace(&name))
}

impl FromRequestParts<App> for NamespaceName {
    type Rejection = Problem;

    async fn from_request_parts(request: &mut Parts, app: &App) -> Result<Self, Problem> {
        let [name] = parts(request, app, ["ns"]).await?;
        Ok(Self(Namespace::new(&name)?))
    }
}

impl FromRequestParts<App> for InNamespace {
    type Rejection = Problem;

    async fn from_request_parts(request: &mut Parts, app: &App) -> Result<Self, Problem> {
        let [name] = parts(request, app, ["ns"]).await?;
        open(app, &name).map(Self)
    }
}

impl FromRequestParts<App> for Target {
    type Rejection = Problem;

    async fn from_request_parts(request: &mut Parts, app: &App) -> Result<Self, Problem> {
        let [name, id] = parts(request, app, ["ns", "id"]).await?;
        let namespace = open(app, &name)?;
        let id = GameId::new(&id)?;
        Ok(Self { namespace, id })
    }
}

impl FromRequestParts<App> for Name {
    type Rejection = Problem;

    async fn from_request_parts(request: &mut Parts, app: &App) -> Result<Self, Problem> {
        let [name] = parts(request, app, ["name"]).await?;
        Ok(Self(name))
    }
}

impl<S: Sync> FromRequestParts<S> for Headers {
    type Rejection = Infallible;

    async fn from_request_parts(request: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(std::mem::take(&mut request.headers)))
    }
}

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        query(&parts.uri).map(Self)
    }
}

fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let read = from_query(uri.query().unwrap_or_default());
    read.map_err(|mistake| Problem::bad_query(mistake.told("parameter", "this request")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

/// Stands in front of handlers that read no query: what such a request asks for would be overlooked.
///
/// # Errors
/// [`Problem`] `bad_query` when there is a parameter.
pub async fn refuse_query(request: Request, next: Next) -> Result<Response, Problem> {
    let NoQuery {} = query(request.uri())?;
    Ok(next.run(request).await)
}
