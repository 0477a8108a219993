//! How many sessions run at once: each takes a thread for as long as its peer answers, and peers that do
//! not answer must neither take the threads of reads and writes nor keep other peers waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::peer::address::PeerAddress;
use crate::peer::remembered::Remembered;
use crate::runtime::lock::lock;
use crate::sync::report::Passed;
use crate::sync::transport::{Transport, TransportError};
use crate::wire::messages::Endpoint;

/// Sessions at once with one peer that answers. With one that does not, or was not asked yet, there is
/// one: it finds out.
const EACH: usize = 4;
/// Sessions at once with peers that answer.
pub const ANSWERING: usize = 128;
/// Sessions at once with all others: as many as peers may be configured unless set otherwise, so that
/// none of these keeps another waiting.
pub const SILENT: usize = 64;

/// The places for sessions.
pub struct Places {
    answering: Arc<Semaphore>,
    silent: Arc<Semaphore>,
    peers: Mutex<Remembered<PeerAddress, Arc<Peer>>>,
}

#[derive(Default)]
struct Peer {
    running: Mutex<usize>,
    answers: AtomicBool,
    /// Tells of places that may have become free.
    freed: Notify,
}

/// A session's place, given back when it is dropped.
pub struct Place {
    peer: Arc<Peer>,
    /// Whether the peer answered in this session.
    answered: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            answering: Arc::new(Semaphore::new(ANSWERING)),
            silent: Arc::new(Semaphore::new(SILENT)),
            peers: Mutex::default(),
        }
    }
}

impl Places {
    /// Waits for a place for a session with a peer. Those that wait for the same peer come in turn.
    pub async fn take(&self, address: &PeerAddress) -> Place {
        let is_idle = |peer: &Arc<Peer>| Arc::strong_count(peer) == 1;
        let peer = Arc::clone(lock(&self.peers).of(address, is_idle));
        let mut place = peer.enter().await;
        let all = if place.peer.answers.load(Ordering::Relaxed) {
            &self.answering
        } else {
            &self.silent
        };
        // The semaphores are never closed.
        place._permit = Arc::clone(all).acquire_owned().await.ok();
        place
    }
}

impl Peer {
    async fn enter(self: Arc<Self>) -> Place {
        loop {
            let freed = self.freed.notified();
            {
                let mut running = lock(&self.running);
                let most = if self.answers.load(Ordering::Relaxed) {
                    EACH
                } else {
                    1
                };
                if *running < most {
                    *running += 1;
                    break;
                }
            }
            freed.await;
        }
        Place {
            peer: self,
            answered: false,
            _permit: None,
        }
    }
}

impl Place {
    /// Takes note of whether the peer answered a question.
    pub fn note<T>(&mut self, answer: &Result<T, TransportError>) {
        match answer {
            Err(TransportError::Unreachable(_)) => {
                self.answered = false;
                self.peer.answers.store(false, Ordering::Relaxed);
            }
            Err(TransportError::Cancelled) => {}
            _ if self.answered => {}
            _ => {
                self.answered = true;
                self.peer.answers.store(true, Ordering::Relaxed);
                self.peer.freed.notify_waiters();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&self.peer.running) -= 1;
        self.peer.freed.notify_one();
    }
}

/// A transport whose answers are taken note of.
pub struct Noted<'a, T> {
    transport: &'a mut T,
    place: &'a mut Place,
}

impl<'a, T: Transport> Noted<'a, T> {
    /// A session's transport, and its place.
    pub fn new(transport: &'a mut T, place: &'a mut Place) -> Self {
        Self { transport, place }
    }
}

impl<T: Transport> Transport for Noted<'_, T> {
    fn call(
        &mut self,
        endpoint: Endpoint,
        request: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let answer = self.transport.call(endpoint, request, limit);
        self.place.note(&answer);
        answer
    }

    fn passed(&self) -> Option<Passed> {
        self.transport.passed()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn address(port: u16) -> PeerAddress {
        PeerAddress::parse(&format!("http://127.0.0.1:{port}")).unwrap()
    }

    #[tokio::test]
    async fn a_peer_has_one_place_until_it_answers_and_again_when_it_stops_to() {
        let (places, silent, live) = (Places::default(), address(1), address(2));
        let now = |peer: &PeerAddress| places.take(peer).now_or_never();
        let mut first = now(&silent).unwrap();
        assert!(now(&silent).is_none(), "it has not answered yet");
        let _live = now(&live).expect("another peer waits for none");
        first.note(&Ok(()));
        let more: Vec<Place> = (1..EACH).map(|_| now(&silent).unwrap()).collect();
        assert!(now(&silent).is_none(), "they are a few");
        first.note::<()>(&Err(TransportError::Unreachable("gone".into())));
        drop(more);
        assert!(now(&silent).is_none(), "it does not answer any more");
        drop(first);
        assert!(now(&silent).is_some());
    }

    #[tokio::test]
    async fn silent_peers_take_no_place_of_those_that_answer() {
        let places = Places::default();
        let live = address(9_999);
        places.take(&live).await.note(&Ok(()));
        let mut silent = Vec::new();
        for port in 1..=SILENT as u16 {
            silent.push(places.take(&address(port)).await);
        }
        assert!(places.take(&address(1000)).now_or_never().is_none());
        assert!(places.take(&live).now_or_never().is_some());
        silent.pop();
        assert!(places.take(&address(1000)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn those_who_wait_come_in_when_the_peer_answers() {
        let (places, peer) = (Arc::new(Places::default()), address(1));
        let mut first = places.take(&peer).await;
        let waiting = (1..EACH).map(|_| {
            let (places, peer) = (Arc::clone(&places), peer.clone());
            tokio::spawn(async move { places.take(&peer).await })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::task::yield_now().await;
        first.note(&Ok(()));
        let mut came = Vec::new();
        for place in waiting {
            came.push(place.await.unwrap());
        }
        assert_eq!(*lock(&first.peer.running), EACH);
    }
}
