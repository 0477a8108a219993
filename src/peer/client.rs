//! The HTTP client side of the replication protocol.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::peer::address::PeerAddress;
use crate::peer::connections::{Call, Connections, IDLE_TIMEOUT, cause};
use crate::runtime::traffic::Counter;
use crate::sync::report::Passed;
use crate::sync::transport::{Transport, TransportError};
use crate::types::cursor::Cursor;
use crate::types::id::Namespace;
use crate::wire::messages::Endpoint;

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
    connections: Connections,
    address: PeerAddress,
    namespace: Namespace,
    stops: [CancellationToken; 2],
    /// The bytes that this client has cost.
    meter: Arc<Counter>,
}

/// The part of a problem document (RFC 9457) that is of use here.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

impl PeerClient {
    /// A client for a namespace of the peer at `address`; each of `stops` breaks off what it is doing.
    pub fn new(
        connections: Connections,
        address: PeerAddress,
        namespace: Namespace,
        stops: [CancellationToken; 2],
    ) -> Self {
        Self {
            connections,
            address,
            namespace,
            stops,
            meter: Arc::default(),
        }
    }

    /// Waits until the peer has a change behind `cursor`; false when it had none for a while.
    ///
    /// # Errors
    /// [`TransportError`] when the peer cannot be asked.
    pub async fn wait_for_change(&self, cursor: &Cursor) -> Result<bool, TransportError> {
        let url = self.address.changes(&self.namespace);
        let query = format!("{url}?since={cursor}&limit=1&wait={POLL_SECONDS}s");
        let body = self.read(query, PROBLEM_BYTES).await?;
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
        self.read(url, limit).await
    }

    async fn read(&self, url: String, limit: usize) -> Result<Vec<u8>, TransportError> {
        let (method, body) = (Method::GET, Bytes::new());
        self.call(&Call { method, url, body }, limit).await
    }

    async fn post(
        &self,
        endpoint: Endpoint,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let call = Call {
            method: Method::POST,
            url: self.address.sync(&self.namespace, endpoint.name()),
            body: body.into(),
        };
        self.call(&call, limit).await
    }

    async fn stopped(&self) {
        let [one, other] = &self.stops;
        tokio::select! {
            () = one.cancelled() => {}
            () = other.cancelled() => {}
        }
    }

    async fn call(&self, call: &Call, limit: usize) -> Result<Vec<u8>, TransportError> {
        let answered = async {
            let (lease, response) = self.connections.send(call, &self.meter).await?;
            let status = response.status();
            let limit = if status.is_success() {
                limit
            } else {
                PROBLEM_BYTES
            };
            let body = read_up_to(response.into_body(), limit).await?;
            lease.give_back();
            Ok((status, body))
        };
        let answered: Result<_, TransportError> = tokio::select! {
            () = self.stopped() => Err(TransportError::Cancelled),
            answered = answered => answered,
        };
        let (status, body) = answered?;
        if status.is_success() {
            return Ok(body);
        }
        Err(refusal(status, &body))
    }
}

/// What the peer says about its refusal.
fn refusal(status: StatusCode, body: &[u8]) -> TransportError {
    let problem: Problem = serde_json::from_slice(body).unwrap_or(Problem {
        code: format!("http_{}", status.as_u16()),
        detail: status.to_string(),
    });
    TransportError::Refused {
        code: problem.code,
        detail: problem.detail,
    }
}

async fn read_up_to(mut incoming: Incoming, limit: usize) -> Result<Vec<u8>, TransportError> {
    let (mut body, begin) = (Vec::new(), Instant::now());
    let unreachable = |why: &str| TransportError::Unreachable(why.to_owned());
    loop {
        let frame = timeout(IDLE_TIMEOUT, incoming.frame()).await;
        let frame = frame.map_err(|_| unreachable("its answer stopped coming"))?;
        let Some(frame) = frame.transpose().map_err(|error| cause(&error))? else {
            return Ok(body);
        };
        let chunk = frame.data_ref().map_or(&[][..], |data| &data[..]);
        if body.len() + chunk.len() > limit {
            return Err(TransportError::TooLong(limit));
        }
        body.extend_from_slice(chunk);
        if !keeps_pace(body.len(), begin.elapsed()) {
            return Err(unreachable("its answer comes too slowly"));
        }
    }
}

/// True when as much of an answer has come as may be asked for after `elapsed`.
fn keeps_pace(bytes: usize, elapsed: Duration) -> bool {
    bytes as f64 >= PACE * elapsed.saturating_sub(GRACE).as_secs_f64()
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

    fn passed(&self) -> Option<Passed> {
        Some(self.client.meter.passed())
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
