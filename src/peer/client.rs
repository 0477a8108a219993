//! The HTTP client side of the replication protocol.

use std::time::Duration;

use reqwest::{Client, Response};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::peer::address::PeerAddress;
use crate::sync::transport::{Transport, TransportError};
use crate::types::cursor::Cursor;
use crate::types::id::Namespace;
use crate::wire::messages::Endpoint;

/// Time to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to wait for the next bytes of an answer; a large one may take longer in all.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the peer holds a poll for changes open.
const POLL_SECONDS: u64 = 25;
/// Longest error document that is read.
const PROBLEM_BYTES: usize = 16 << 10;

/// Speaks to one namespace of one peer.
#[derive(Debug, Clone)]
pub struct PeerClient {
    http: Client,
    address: PeerAddress,
    namespace: Namespace,
    shutdown: CancellationToken,
}

/// The part of a problem document (RFC 9457) that is of use here.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

/// A connection pool for all peers.
///
/// # Errors
/// [`TransportError::Unreachable`] when the HTTP client cannot be set up.
pub fn http_client() -> Result<Client, TransportError> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        // Replicas speak to each other directly, whatever proxy the environment names for browsing.
        .no_proxy()
        .build()
        .map_err(|error| TransportError::Unreachable(error.to_string()))
}

impl PeerClient {
    /// A client for a namespace of the peer at `address`; `shutdown` breaks off what it is doing.
    pub fn new(
        http: Client,
        address: PeerAddress,
        namespace: Namespace,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            http,
            address,
            namespace,
            shutdown,
        }
    }

    /// Waits until the peer has a change behind `cursor`; false when it had none for a while.
    ///
    /// # Errors
    /// [`TransportError`] when the peer cannot be asked.
    pub async fn wait_for_change(&self, cursor: &Cursor) -> Result<bool, TransportError> {
        let url = self.address.changes(&self.namespace);
        let query = format!("{url}?since={cursor}&limit=1&wait={POLL_SECONDS}s");
        let request = self.http.get(query).send();
        let response = self.guarded(request).await?;
        let body = self.guarded_body(response, PROBLEM_BYTES).await?;
        #[derive(Deserialize)]
        struct Changes {
            changes: Vec<serde::de::IgnoredAny>,
        }
        serde_json::from_slice::<Changes>(&body)
            .map(|page| !page.changes.is_empty())
            .map_err(|_| TransportError::Unreachable("its change feed is malformed".to_owned()))
    }

    async fn post(
        &self,
        endpoint: Endpoint,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let url = self.address.sync(&self.namespace, endpoint.name());
        let response = self.guarded(self.http.post(url).body(body).send()).await?;
        self.guarded_body(response, limit).await
    }

    async fn guarded(
        &self,
        request: impl Future<Output = Result<Response, reqwest::Error>>,
    ) -> Result<Response, TransportError> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(TransportError::Cancelled),
            response = request => response.map_err(|error| unreachable(&error)),
        }
    }

    async fn guarded_body(
        &self,
        response: Response,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let status = response.status();
        let limit = if status.is_success() {
            limit
        } else {
            PROBLEM_BYTES
        };
        let body = tokio::select! {
            () = self.shutdown.cancelled() => return Err(TransportError::Cancelled),
            body = read_up_to(response, limit) => body?,
        };
        if status.is_success() {
            return Ok(body);
        }
        let problem: Problem = serde_json::from_slice(&body).unwrap_or(Problem {
            code: format!("http_{}", status.as_u16()),
            detail: status.to_string(),
        });
        Err(TransportError::Refused {
            code: problem.code,
            detail: problem.detail,
        })
    }
}

async fn read_up_to(mut response: Response, limit: usize) -> Result<Vec<u8>, TransportError> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| unreachable(&error))?
    {
        if body.len() + chunk.len() > limit {
            return Err(TransportError::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause says most: "connection refused" rather than "error sending request".
fn unreachable(error: &reqwest::Error) -> TransportError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    TransportError::Unreachable(cause.to_string())
}

/// A client as seen from a session's thread, which may block.
pub struct BlockingClient {
    client: PeerClient,
    handle: Handle,
}

impl BlockingClient {
    /// Lets a blocking thread use `client` on the runtime behind `handle`.
    pub fn new(client: PeerClient, handle: Handle) -> Self {
        Self { client, handle }
    }
}

impl Transport for BlockingClient {
    fn call(
        &mut self,
        endpoint: Endpoint,
        request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        self.handle
            .block_on(self.client.post(endpoint, request, limit))
    }
}
