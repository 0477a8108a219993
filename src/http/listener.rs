//! The listener: bounds how many connections there are, and ends those that nobody uses.

use std::convert::Infallible;
use std::fs;
use std::future::Ready;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::Request;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;
use tracing::warn;

use crate::runtime::traffic::Counter;

/// Connections at once, where the operating system allows as many open files.
const CONNECTIONS_MAX: usize = 4096;
/// Bytes a second that a client has to take of answers, once it used up [`Patience::stalled`].
const PACE: u32 = 8 << 10;
/// Pause after a failure to accept, which is as a rule a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long connections are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the first request to be complete but for its body.
    pub first: Duration,
    /// For another request.
    pub next: Duration,
    /// For a client that does not take what it asked for.
    pub stalled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(30),
            // Longer than clients commonly keep connections, so that none is ended under a request.
            next: Duration::from_secs(120),
            stalled: Duration::from_secs(60),
        }
    }
}

/// A listener of [`Connection`]s.
#[derive(Debug)]
pub struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    patience: Patience,
    traffic: Arc<Counter>,
}

impl BoundedListener {
    /// Has at most `places` connections at once; others wait until there is a place. `traffic` counts
    /// what passes through all of them.
    pub fn new(
        listener: TcpListener,
        places: usize,
        patience: Patience,
        traffic: Arc<Counter>,
    ) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(places)),
            patience,
            traffic,
        }
    }
}

/// How many connections this process can have: half of the files it may open are for the store,
/// for peers and for whatever else.
pub fn places() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|values| values.split_whitespace().next()?.parse::<usize>().ok());
    soft.map_or(CONNECTIONS_MAX, |soft| (soft / 2).clamp(1, CONNECTIONS_MAX))
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // The semaphore is never closed; without a permit the connection merely is not counted.
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Answers are short, and clients wait for them: they must not wait for company.
                    if let Err(error) = stream.set_nodelay(true) {
                        warn!(%error, "cannot turn off Nagle's algorithm for a connection");
                    }
                    let traffic = Arc::clone(&self.traffic);
                    let connection = Connection::new(stream, place, self.patience, traffic);
                    return (connection, address);
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// How many requests of one connection are being worked on.
#[derive(Debug, Clone, Default)]
struct Running(Arc<AtomicUsize>);

struct Begun(Running);

impl Begun {
    fn new(running: Running) -> Self {
        running.0.fetch_add(1, Ordering::Relaxed);
        Self(running)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives every connection a service of its own, which knows that the connection is in use while a
/// request is worked on, even when nothing is sent.
#[derive(Debug, Clone)]
pub struct PerConnection<S>(pub S);

impl<S: Clone> Service<IncomingStream<'_, BoundedListener>> for PerConnection<S> {
    type Response = InUse<S>;
    type Error = Infallible;
    type Future = Ready<Result<InUse<S>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, BoundedListener>) -> Self::Future {
        let (service, running) = (self.0.clone(), stream.io().running.clone());
        std::future::ready(Ok(InUse { service, running }))
    }
}

/// The service of one connection.
#[derive(Debug, Clone)]
pub struct InUse<S> {
    service: S,
    running: Running,
}

impl<S> Service<Request> for InUse<S>
where
    S: Service<Request>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Answering {
            _begun: Begun::new(self.running.clone()),
            answer: self.service.call(request),
        }
    }
}

/// An answer on its way.
pub struct Answering<F> {
    answer: F,
    _begun: Begun,
}

impl<F: Future + Unpin> Future for Answering<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut self.answer).poll(context)
    }
}

/// A connection that fails when it is not used, or its client does not take what it is sent.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    patience: Patience,
    running: Running,
    /// Bytes sent in all, and how many it were when somebody last looked.
    sent: u64,
    sent_before: u64,
    look: Pin<Box<Sleep>>,
    /// How long the client may still stall; what it takes earns it more.
    credit: Duration,
    stall: Option<(Instant, Pin<Box<Sleep>>)>,
    traffic: Arc<Counter>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn new(
        stream: TcpStream,
        place: Option<OwnedSemaphorePermit>,
        patience: Patience,
        traffic: Arc<Counter>,
    ) -> Self {
        Self {
            stream,
            patience,
            running: Running::default(),
            sent: 0,
            sent_before: 0,
            look: Box::pin(sleep(patience.first)),
            credit: patience.stalled,
            stall: None,
            traffic,
            _place: place,
        }
    }

    /// Ready when nothing was asked for long. What comes in does not count: a request could be
    /// sent a byte now and then for ever. All that is asked is answered, so what goes out does.
    fn poll_unused(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.look.as_mut().poll(context));
            let is_running = self.running.0.load(Ordering::Relaxed) > 0;
            if !is_running && self.sent == self.sent_before {
                return Poll::Ready(());
            }
            self.sent_before = self.sent;
            let next = Instant::now() + self.patience.next;
            self.look.as_mut().reset(next);
        }
    }

    fn after_write(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => {
                let credit = self.credit;
                let begin = || (Instant::now(), Box::pin(sleep(credit)));
                let (_, alarm) = self.stall.get_or_insert_with(begin);
                ready!(alarm.as_mut().poll(context));
                Poll::Ready(Err(ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Ok(bytes)) => {
                self.traffic.sent(*bytes);
                if let Some((since, _)) = self.stall.take() {
                    self.credit = self.credit.saturating_sub(since.elapsed());
                }
                let bytes = u32::try_from(*bytes).unwrap_or(u32::MAX);
                let earned = Duration::from_secs(1) * bytes / PACE;
                self.credit = (self.credit + earned).min(self.patience.stalled);
                self.sent += u64::from(bytes);
                written
            }
            Poll::Ready(Err(_)) => written,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.traffic.received(buffer.filled().len() - before);
        if read.is_pending() {
            ready!(self.poll_unused(context));
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.after_write(context, written)
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
