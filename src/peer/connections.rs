//! HTTP/1.1 connections to peers. A connection carries one request at a time, so that every byte
//! that passes through its socket belongs to somebody, and is counted for them.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::runtime::lock::lock;
use crate::runtime::traffic::Counter;
use crate::sync::report::Passed;
use crate::sync::transport::TransportError;

/// Time to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to wait for the next bytes to move, either way.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection is kept for another request; peers keep theirs twice as long.
const KEPT: Duration = Duration::from_secs(60);
/// Connections that wait for another request, for one peer.
const KEPT_MAX: usize = 8;
/// Servers whose bytes are counted apart.
const HOSTS_MAX: usize = 1024;

/// The connections that wait for another request, by `host:port`.
#[derive(Debug, Default)]
struct Pool(Mutex<HashMap<String, Vec<(Connection, Instant)>>>);

/// Opens connections, and keeps them for the next request.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    pool: Arc<Pool>,
    all: Arc<Counter>,
    hosts: Arc<Mutex<HashMap<String, Arc<Counter>>>>,
}

#[derive(Debug)]
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    counter: Arc<Counter>,
}

/// A connection in use. When it is dropped, what has passed is counted for whoever used it.
#[derive(Debug)]
pub struct Lease {
    /// `None` once the connection can take another request.
    connection: Option<Connection>,
    host: String,
    pool: Arc<Pool>,
    before: Passed,
    meter: Arc<Counter>,
}

/// A request as text and bytes.
#[derive(Debug, Clone)]
pub struct Call {
    /// `GET` or `POST`.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// The body; none for `GET`.
    pub body: Bytes,
}

impl Connections {
    /// No connections yet; `all` counts what passes through any of them.
    pub fn new(all: Arc<Counter>) -> Self {
        Self {
            pool: Arc::default(),
            all,
            hosts: Arc::default(),
        }
    }

    /// Sends a request and waits for the head of the answer. Bytes are counted in `meter` when the
    /// lease ends, which must be kept until the body is read.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`] when there is no answer.
    pub async fn send(
        &self,
        call: &Call,
        meter: &Arc<Counter>,
    ) -> Result<(Lease, Response<Incoming>), TransportError> {
        let uri: Uri = call.url.parse().map_err(|_| unreachable("a bad URL"))?;
        let host = uri.authority().ok_or_else(|| unreachable("no host"))?;
        while let Some(kept) = self.pool.take(host.as_str()) {
            let mut lease = self.lease(host.as_str(), kept, meter);
            // The peer may have closed it in the meantime, and another one is tried then. Should it have
            // read the request nevertheless: every message may come twice.
            if let Some(response) = lease.send(call, &uri).await? {
                return Ok((lease, response));
            }
        }
        let connection = self.connect(&uri).await?;
        let mut lease = self.lease(host.as_str(), connection, meter);
        let response = lease.send(call, &uri).await?;
        let response = response.ok_or_else(|| unreachable("the connection was closed"))?;
        Ok((lease, response))
    }

    /// What has passed through connections to the server of a URL.
    pub fn passed(&self, url: &str) -> Passed {
        let uri: Option<Uri> = url.parse().ok();
        let hosts = lock(&self.hosts);
        let counter = uri
            .as_ref()
            .and_then(|uri| hosts.get(uri.authority()?.as_str()));
        counter.map(|counter| counter.passed()).unwrap_or_default()
    }

    /// The counter of a server; one that nobody reads when there are too many.
    fn counter(&self, host: &str) -> Arc<Counter> {
        let mut hosts = lock(&self.hosts);
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(host) {
            return Arc::default();
        }
        Arc::clone(hosts.entry(host.to_owned()).or_default())
    }

    fn lease(&self, host: &str, connection: Connection, meter: &Arc<Counter>) -> Lease {
        Lease {
            before: connection.counter.passed(),
            connection: Some(connection),
            host: host.to_owned(),
            pool: Arc::clone(&self.pool),
            meter: Arc::clone(meter),
        }
    }

    async fn connect(&self, uri: &Uri) -> Result<Connection, TransportError> {
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = (host, uri.port_u16().unwrap_or(80));
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = stream
            .map_err(|_| unreachable("it does not take the connection"))?
            .map_err(|error| broken(&error))?;
        // Requests are short, and their answers are waited for.
        stream.set_nodelay(true).map_err(|error| broken(&error))?;
        let counter = Arc::<Counter>::default();
        let counted = Counted {
            stream,
            counters: [
                Arc::clone(&counter),
                Arc::clone(&self.all),
                self.counter(uri.authority().map_or("", |host| host.as_str())),
            ],
        };
        let (requests, connection) = handshake(TokioIo::new(counted))
            .await
            .map_err(|error| cause(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to a peer broke");
            }
        });
        Ok(Connection { requests, counter })
    }
}

impl Lease {
    /// `None` when a connection that was used before was closed before anything was answered.
    async fn send(
        &mut self,
        call: &Call,
        uri: &Uri,
    ) -> Result<Option<Response<Incoming>>, TransportError> {
        let Some(connection) = &mut self.connection else {
            return Ok(None);
        };
        if connection.requests.ready().await.is_err() {
            return Ok(None);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::builder()
            .method(call.method.clone())
            .uri(target)
            .header(HOST, authority)
            .body(Full::new(call.body.clone()))
            .map_err(|_| unreachable("a bad URL"))?;
        let answer = connection.requests.try_send_request(request);
        tokio::pin!(answer);
        let mut moved = connection.counter.passed();
        let answered = moved.received;
        let is_used = answered > 0;
        loop {
            tokio::select! {
                answer = &mut answer => return match answer {
                    Ok(response) => Ok(Some(response)),
                    // Given back unsent.
                    Err(error) if error.message().is_some() => Ok(None),
                    Err(_) if is_used && connection.counter.passed().received == answered => Ok(None),
                    Err(error) => Err(cause(&error.into_error())),
                },
                () = sleep(IDLE_TIMEOUT) => {
                    let passed = connection.counter.passed();
                    if passed == moved {
                        return Err(unreachable("it does not answer"));
                    }
                    moved = passed;
                }
            }
        }
    }

    /// Keeps the connection for another request; to be called when the answer has been read.
    pub fn give_back(mut self) {
        self.count();
        if let Some(connection) = self.connection.take() {
            self.pool.put(&self.host, connection);
        }
    }

    fn count(&mut self) {
        if let Some(connection) = &self.connection {
            let passed = connection.counter.passed();
            self.meter.add(passed.since(self.before));
            self.before = passed;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.count();
    }
}

impl Pool {
    fn take(&self, host: &str) -> Option<Connection> {
        let mut hosts = lock(&self.0);
        let kept = hosts.get_mut(host)?;
        while let Some((connection, since)) = kept.pop() {
            if since.elapsed() < KEPT && !connection.requests.is_closed() {
                return Some(connection);
            }
        }
        hosts.remove(host);
        None
    }

    fn put(&self, host: &str, connection: Connection) {
        let mut hosts = lock(&self.0);
        // Whoever comes along closes what nobody uses any more, of other peers too.
        hosts.retain(|_, kept| {
            kept.retain(|(connection, since)| {
                since.elapsed() < KEPT && !connection.requests.is_closed()
            });
            !kept.is_empty()
        });
        let kept = hosts.entry(host.to_owned()).or_default();
        if kept.len() < KEPT_MAX {
            kept.push((connection, Instant::now()));
        }
    }
}

fn unreachable(cause: &str) -> TransportError {
    TransportError::Unreachable(cause.to_owned())
}

fn broken(error: &io::Error) -> TransportError {
    TransportError::Unreachable(error.to_string())
}

/// The innermost cause says most: "connection reset" rather than "connection error".
pub fn cause(error: &hyper::Error) -> TransportError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    TransportError::Unreachable(cause.to_string())
}

/// A socket that counts what passes.
#[derive(Debug)]
struct Counted {
    stream: TcpStream,
    counters: [Arc<Counter>; 3],
}

impl Counted {
    fn after_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.counters
                .iter()
                .for_each(|counter| counter.sent(*bytes));
        }
        written
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        self.counters
            .iter()
            .for_each(|counter| counter.received(bytes));
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.after_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
