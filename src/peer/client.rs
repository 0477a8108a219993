//! The HTTP client side of the replication protocol.

use std::time::{Duration, Instant};

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
/// An answer has to come at least this fast, in bytes a second, once [`GRACE`] is over: one that
/// drips would hold its session's thread and turn for hours.
const PACE: f64 = 16.0 * 1024.0;
const GRACE: Duration = Duration::from_secs(30);
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
    stops: [CancellationToken; 2],
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
    /// A client for a namespace of the peer at `address`; each of `stops` breaks off what it is doing.
    pub fn new(
        http: Client,
        address: PeerAddress,
        namespace: Namespace,
        stops: [CancellationToken; 2],
    ) -> Self {
        Self {
            http,
            address,
            namespace,
            stops,
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

    /// Reads what is at a path below the namespace, at most `limit` bytes.
    ///
    /// # Errors
    /// [`TransportError`] when the peer cannot be asked or refuses.
    pub async fn get(&self, path: &str, limit: usize) -> Result<Vec<u8>, TransportError> {
        let url = self.address.within(&self.namespace, path);
        let response = self.guarded(self.http.get(url).send()).await?;
        self.guarded_body(response, limit).await
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

    async fn stopped(&self) {
        let [one, other] = &self.stops;
        tokio::select! {
            () = one.cancelled() => {}
            () = other.cancelled() => {}
        }
    }

    async fn guarded(
        &self,
        request: impl Future<Output = Result<Response, reqwest::Error>>,
    ) -> Result<Response, TransportError> {
        tokio::select! {
            () = self.stopped() => Err(TransportError::Cancelled),
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
            () = self.stopped() => return Err(TransportError::Cancelled),
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
    let (mut body, begin) = (Vec::new(), Instant::now());
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| unreachable(&error))?
    {
        if body.len() + chunk.len() > limit {
            return Err(TransportError::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
        if !keeps_pace(body.len(), begin.elapsed()) {
            let error = "its answer comes too slowly".to_owned();
            return Err(TransportError::Unreachable(error));
        }
    }
    Ok(body)
}

/// True when as much of an answer has come as may be asked for after `elapsed`.
fn keeps_pace(bytes: usize, elapsed: Duration) -> bool {
    bytes as f64 >= PACE * elapsed.saturating_sub(GRACE).as_secs_f64()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_drips_is_given_up_and_a_slow_one_is_not() {
        let after = Duration::from_secs;
        assert!(keeps_pace(1, after(30)));
        assert!(!keeps_pace(15, after(31)));
        assert!(keeps_pace(16 << 10, after(31)));
        assert!(!keeps_pace(1800, after(3600)));
        assert!(keeps_pace(64 << 20, after(3600)));
    }
}
