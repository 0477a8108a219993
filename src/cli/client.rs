//! A small HTTP client: URLs with ids in them, tokens, and errors that say what to do.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, Url, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::cli::error::{CliError, Problem, UploadFault, causes, root_cause};
use crate::types::id::{GameId, Namespace};

/// The longest a replica may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a replica may take over a short answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How often an idle connection is probed, so that a vanished replica is noticed.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Largest JSON answer. A diff of 100,000 states takes about a fifth of it.
const JSON_BYTES_MAX: usize = 256 << 20;
/// Largest refusal.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// RFC 3986's unreserved characters stay as they are, and so does `/`.
const ID_ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Why a text is not the URL of a replica.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadServerUrl {
    /// Not a URL, or of another scheme.
    #[error("write it as http://HOST:PORT (for TLS, put a proxy in front of the replica)")]
    Form,
    /// A name or password would end up in logs.
    #[error("leave out the user name and password: give a token with --token")]
    Credentials,
    /// A replica has paths of its own.
    #[error("leave out everything from '?' or '#' on")]
    Query,
}

/// Where a replica listens: `http://HOST:PORT`, with the path it is mounted at, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl(Url);

impl ServerUrl {
    fn is_loopback(&self) -> bool {
        match self.0.host_str() {
            Some("localhost" | "[::1]") => true,
            Some(host) => host.starts_with("127."),
            None => false,
        }
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let base = self.0.path().trim_end_matches('/');
        url.set_path(&format!("{base}{path}"));
        url
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl FromStr for ServerUrl {
    type Err = BadServerUrl;

    fn from_str(text: &str) -> Result<Self, BadServerUrl> {
        let url = Url::parse(text).map_err(|_| BadServerUrl::Form)?;
        if url.scheme() != "http" || !url.has_host() {
            return Err(BadServerUrl::Form);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadServerUrl::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BadServerUrl::Query);
        }
        Ok(Self(url))
    }
}

/// Why a text is not a token.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a token has at least one character and only printable ASCII")]
pub struct BadToken;

/// A bearer token (RFC 6750), never shown.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BadToken);
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| BadToken)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Talks to one replica about one namespace.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: ServerUrl,
    namespace: Namespace,
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`CliError::Start`] when the system's resolver cannot be set up.
    pub fn new(
        server: ServerUrl,
        namespace: Namespace,
        token: Option<Token>,
    ) -> Result<Self, CliError> {
        let mut headers = HeaderMap::new();
        headers.extend(token.map(|token| (AUTHORIZATION, token.0)));
        let builder = reqwest::Client::builder()
            .user_agent(concat!("samestate/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            // A redirect would turn a POST into a GET and leave the token elsewhere.
            .redirect(redirect::Policy::none());
        let builder = if server.is_loopback() {
            builder.no_proxy()
        } else {
            builder
        };
        let http = builder
            .build()
            .map_err(|error| CliError::Start(root_cause(&error)))?;
        Ok(Self {
            http,
            server,
            namespace,
        })
    }

    /// The replica as it is shown to the user.
    pub fn server(&self) -> String {
        self.server.to_string()
    }

    /// A request about the namespace: `resource` is a path below `/v1/ns/{ns}/`.
    pub fn request(
        &self,
        method: Method,
        resource: &str,
        query: &[(&str, &str)],
    ) -> RequestBuilder {
        let mut url = self
            .server
            .at(&format!("/v1/ns/{}/{resource}", self.namespace));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url)
    }

    /// A request about the replica as a whole: `resource` is a path below `/v1/`.
    pub fn server_request(&self, method: Method, resource: &str) -> RequestBuilder {
        let url = self.server.at(&format!("/v1/{resource}"));
        self.http.request(method, url)
    }

    /// A request about one state: `resource` is `states`, `history` or `proofs`.
    ///
    /// # Errors
    /// [`CliError::NoUrl`] for the ids `.` and `..`.
    pub fn state_request(
        &self,
        method: Method,
        resource: &str,
        id: &GameId,
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, CliError> {
        let path = format!("{resource}/{}", encoded(id)?);
        Ok(self.request(method, &path, query))
    }

    /// Sends a request and returns its answer if it is a success, headers only.
    ///
    /// # Errors
    /// Whatever went wrong on the way, or the server's refusal.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request
            .send()
            .await
            .map_err(|error| self.transport_error(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// Sends a request whose answer is short and due soon, and returns its body.
    ///
    /// # Errors
    /// As [`Client::send`] and [`Client::text`].
    pub async fn ask(&self, request: RequestBuilder) -> Result<String, CliError> {
        let response = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        self.text(response).await
    }

    /// [`Client::ask`] for an answer in bytes.
    ///
    /// # Errors
    /// As [`Client::send`]; [`CliError::NotSamestate`] when it is too long.
    pub async fn ask_bytes(&self, request: RequestBuilder) -> Result<Vec<u8>, CliError> {
        let response = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        self.body(response, JSON_BYTES_MAX).await
    }

    /// The whole body of a JSON answer.
    ///
    /// # Errors
    /// [`CliError::NotSamestate`] when it is too long or not UTF-8.
    pub async fn text(&self, response: Response) -> Result<String, CliError> {
        let body = self.body(response, JSON_BYTES_MAX).await?;
        String::from_utf8(body).map_err(|_| self.not_samestate("an answer that is not UTF-8"))
    }

    /// The next piece of a streamed body; `None` at its end.
    ///
    /// # Errors
    /// [`CliError::BrokenOff`].
    pub async fn piece(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, CliError> {
        let piece = response.chunk().await;
        piece.map_err(|error| self.transport_error(&error))
    }

    /// Reads a JSON answer.
    ///
    /// # Errors
    /// [`CliError::NotSamestate`] when it has another form.
    pub fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, CliError> {
        serde_json::from_str(text).map_err(|error| self.not_samestate(&error.to_string()))
    }

    async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, CliError> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            if body.len() + piece.len() > limit {
                return Err(self.not_samestate("an answer that does not end"));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    async fn refusal(&self, response: Response) -> CliError {
        #[derive(Deserialize)]
        struct ProblemBody {
            code: String,
            detail: String,
        }
        let status = response.status();
        let is_problem = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/problem+json"));
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        if !is_problem {
            return self.not_samestate(&format!("it said {status}"));
        }
        let body = match self.body(response, PROBLEM_BYTES_MAX).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ProblemBody>(&body) {
            Ok(problem) => CliError::Problem(Problem {
                status: status.as_u16(),
                code: problem.code,
                detail: problem.detail,
                retry_after,
            }),
            Err(error) => self.not_samestate(&format!("it said {status}: {error}")),
        }
    }

    /// What this replica sent is none of a replica's answers.
    pub fn not_samestate(&self, what: &str) -> CliError {
        CliError::NotSamestate {
            server: self.server(),
            what: what.to_owned(),
        }
    }

    fn transport_error(&self, error: &reqwest::Error) -> CliError {
        if let Some(fault) = causes(error).find_map(|cause| cause.downcast_ref::<UploadFault>()) {
            return fault.to_cli_error();
        }
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let server = self.server();
        let mut io_causes = causes(error).filter_map(|cause| cause.downcast_ref());
        if error.is_connect() && io_causes.any(refused) {
            return CliError::NoServer { server };
        }
        let reason = root_cause(error);
        if error.is_connect() {
            CliError::Unreachable { server, reason }
        } else {
            CliError::BrokenOff { server, reason }
        }
    }
}

/// An id as a part of a path.
///
/// URLs give `.` and `..` between slashes a meaning of their own, even percent-encoded; an id with
/// such parts travels with its slashes encoded too.
fn encoded(id: &GameId) -> Result<String, CliError> {
    let text = id.as_str();
    if matches!(text, "." | "..") {
        return Err(CliError::NoUrl { id: text.into() });
    }
    let path = utf8_percent_encode(text, ID_ENCODED).to_string();
    if text.split('/').any(|part| matches!(part, "." | "..")) {
        return Ok(path.replace('/', "%2F"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn client(server: &str) -> Client {
        let namespace = Namespace::default_namespace();
        Client::new(server.parse().unwrap(), namespace, None).unwrap()
    }

    fn state_url(server: &str, id: &str) -> String {
        let id = GameId::new(id).unwrap();
        let request = client(server).state_request(Method::GET, "states", &id, &[]);
        request.unwrap().build().unwrap().url().to_string()
    }

    #[test]
    fn ids_become_paths() {
        let base = "http://h:1/v1/ns/default/states/";
        for (id, path) in [
            ("match/eu-1/42", "match/eu-1/42"),
            ("a b?c#d%41+&=", "a%20b%3Fc%23d%2541%2B%26%3D"),
            ("é\\~._-", "%C3%A9%5C~._-"),
            ("/a//b/", "/a//b/"),
            ("a/../b", "a%2F..%2Fb"),
            ("../b", "..%2Fb"),
            ("a/.", "a%2F."),
        ] {
            assert_eq!(state_url("http://h:1", id), format!("{base}{path}"));
        }
        for id in [".", ".."] {
            assert!(encoded(&GameId::new(id).unwrap()).is_err());
        }
    }

    proptest! {
        #[test]
        fn every_other_id_arrives_as_it_was(id in "[a./%\\\\ é?#]{1,12}") {
            prop_assume!(id != "." && id != "..");
            let url = state_url("http://h:1/mounted/", &id);
            let path = url.strip_prefix("http://h:1/mounted/v1/ns/default/states/").unwrap();
            let decoded = percent_decode_str(path).decode_utf8().unwrap();
            prop_assert_eq!(decoded.into_owned(), id);
        }
    }

    #[test]
    fn queries_are_encoded() {
        let query = [("prefix", "a b&c"), ("limit", "10")];
        let request = client("http://h:1").request(Method::GET, "states", &query);
        let url = request.build().unwrap().url().to_string();
        assert_eq!(
            url,
            "http://h:1/v1/ns/default/states?prefix=a+b%26c&limit=10"
        );
    }

    #[test]
    fn server_urls_are_checked() {
        let shown = |text: &str| text.parse::<ServerUrl>().map(|url| url.to_string());
        assert_eq!(shown("http://h:1/"), Ok("http://h:1".into()));
        assert_eq!(
            shown("http://[::1]:7400/x/"),
            Ok("http://[::1]:7400/x".into())
        );
        for bad in [
            "",
            "h:1",
            "127.0.0.1:7400",
            "https://h",
            "ftp://h",
            "http://",
        ] {
            assert_eq!(shown(bad), Err(BadServerUrl::Form), "{bad}");
        }
        assert_eq!(shown("http://u:p@h"), Err(BadServerUrl::Credentials));
        assert_eq!(shown("http://h/?x=1"), Err(BadServerUrl::Query));
    }

    #[test]
    fn tokens_are_checked_and_hidden() {
        let token: Token = "secret".parse().unwrap();
        assert!(!format!("{token:?}").contains("secret"));
        for bad in ["", "a b", "a\nb", "é"] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }
}
