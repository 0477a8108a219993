//! What every request passes through on its way to its endpoint. One service around the router does
//! all of it: a layer of the router's would be cloned and boxed for each request.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::http::header::ORIGIN;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tower_service::Service;
use tracing::{Level, debug, enabled};

use crate::http::app::App;
use crate::http::browsers;
use crate::http::hosts::{Hosts, authority};
use crate::http::problem::Problem;
use crate::http::requests::Target;
use crate::http::routes::router;

/// The HTTP face of a replica: refuses pages of other sites and names of others, routes, counts, and logs.
#[derive(Clone)]
pub struct Front {
    app: App,
    router: Router,
    hosts: Hosts,
}

impl Front {
    /// The face of a replica, by whatever name it is called.
    pub fn new(app: App) -> Self {
        let router = router(app.clone());
        let hosts = Hosts::default();
        Self { app, router, hosts }
    }

    /// The same for requests that call it by these names; others are refused.
    #[must_use]
    pub fn known_as(self, hosts: Hosts) -> Self {
        Self { hosts, ..self }
    }
}

impl Service<Request> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let asked = Asked::new(&request);
        let app = self.app.clone();
        if let Some(detail) = refusal(&request, &self.hosts) {
            let refusal = Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response();
            asked.answered(&app, &refusal);
            return Box::pin(std::future::ready(Ok(refusal)));
        }
        let is_read = asked.target == Target::State && asked.method == Method::GET;
        let dictionary = is_read.then(|| browsers::pattern(request.uri())).flatten();
        let answer = self.router.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            if let Some(pattern) = dictionary {
                browsers::offer_dictionary(&mut response, pattern);
            }
            asked.answered(&app, &response);
            Ok(response)
        })
    }
}

/// What is told of a request when it has been answered.
struct Asked {
    method: Method,
    target: Target,
    /// When it came and its path, when somebody wants to read that.
    log: Option<(Instant, String)>,
}

impl Asked {
    fn new(request: &Request) -> Self {
        let path = request.uri().path();
        Self {
            method: request.method().clone(),
            target: Target::of(path),
            log: enabled!(Level::DEBUG).then(|| (Instant::now(), path.to_owned())),
        }
    }

    fn answered(&self, app: &App, response: &Response) {
        let status = response.status();
        app.requests.add(self.target, &self.method, status);
        if let Some((start, path)) = &self.log {
            let (status, micros) = (status.as_u16(), start.elapsed().as_micros() as u64);
            debug!(method = %self.method, path, status, micros, "request");
        }
    }
}

/// Why a request is refused before it is looked at, if it is.
fn refusal(request: &Request, hosts: &Hosts) -> Option<&'static str> {
    if !hosts.take(request) {
        return Some(
            "this replica does not go by that name: call it by its address or as localhost, or add \
             the name to its setting allowed_hosts",
        );
    }
    is_of_another_site(request).then_some("requests from pages of other sites may only read")
}

/// A page of another site that a browser shows must not write here in its user's name, least of
/// all on a server that trusts whoever reaches it. Browsers say where a request comes from, in one way or,
/// to addresses without TLS, in the other; other clients send neither of these headers.
fn is_of_another_site(request: &Request) -> bool {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return false;
    }
    let headers = request.headers();
    match (headers.get("sec-fetch-site"), headers.get(ORIGIN)) {
        (Some(site), _) => site != "same-origin" && site != "none",
        (None, Some(origin)) => !is_origin_of(origin, request),
        (None, None) => false,
    }
}

/// True when a page of this origin came from where the request goes.
fn is_origin_of(origin: &HeaderValue, request: &Request) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let site = origin.strip_prefix("http://");
    let site = site.or_else(|| origin.strip_prefix("https://"));
    let asked = authority(request);
    site.is_some_and(|site| asked.is_some_and(|asked| asked.eq_ignore_ascii_case(site)))
}
