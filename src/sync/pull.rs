//! Taking over proven records: what is news here, which bytes are lacking, fetch, check, store.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::merkle::prefix::leading_bits;
use crate::replica::command::Incoming;
use crate::replica::view::View;
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::transfer::{Decoder, News, TransferError, Wanted, decode_bodies, news};
use crate::sync::transport::{Home, Merging};
use crate::types::hash::{LeafDigest, StateKey};
use crate::types::leaf::Leaf;
use crate::types::record::StateRecord;
use crate::wire::messages::{BodiesRequest, BodyHeads, Endpoint, Want};

/// States that one transfer message and one merge carry at most.
const BATCH_STATES: usize = 2048;

/// Takes over records in batches. The next batch is fetched while the last one becomes durable.
pub struct Puller<'s> {
    home: &'s dyn Home,
    session: u64,
    takes: bool,
    decoder: Decoder,
    last: Option<Wanted>,
    merging: Option<Merging>,
    /// States that both will hold in the same form: 64 bits each of key and digest, so that a copy
    /// of millions takes tens of megabytes. A collision costs the next session a tree descent.
    agreed: HashMap<u64, u64>,
    /// States of which we hold something that the peer does not.
    pub ahead: Vec<StateKey>,
}

impl<'s> Puller<'s> {
    /// A puller that fetches within `session`. Unless it `takes` over, it only notes where we are
    /// ahead of the peer.
    pub fn new(home: &'s dyn Home, session: u64, takes: bool) -> Self {
        Self {
            home,
            session,
            takes,
            decoder: Decoder::default(),
            last: None,
            merging: None,
            agreed: HashMap::new(),
            ahead: Vec::new(),
        }
    }

    /// Takes over proven records, in order of id, so that the states of a series meet.
    ///
    /// # Errors
    /// [`SessionError`]; batches before the one that failed stay.
    pub fn take(
        &mut self,
        exchange: &mut Exchange<'_>,
        mut records: Vec<StateRecord>,
    ) -> Result<(), SessionError> {
        records.sort_by(|a, b| a.id.cmp(&b.id));
        let limit = exchange.limits().state_bytes;
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let view = self.home.view();
            let mut batch = Vec::new();
            let mut bytes = 0;
            while batch.len() < BATCH_STATES && bytes < exchange.limits().transfer_bytes * 4 {
                let Some(record) = records.next() else {
                    break;
                };
                self.note(&view, &record)?;
                if !self.takes {
                    continue;
                }
                let found = news(&view, &record, self.last.as_ref(), limit)?;
                let Some(found) = found else {
                    continue;
                };
                bytes += found.wanted.iter().map(|w| w.version.size).sum::<u64>();
                if let Some(last) = found.wanted.last() {
                    self.last = Some(last.clone());
                }
                batch.push(found);
            }
            self.fetch_and_merge(exchange, &view, batch)?;
        }
        Ok(())
    }

    /// The session within which this one fetches.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// True when this form of a state is one that the peer holds too.
    pub fn agrees(&self, leaf: &Leaf) -> bool {
        let taken = self.agreed.get(&leading_bits(&leaf.key));
        taken == Some(&digest_bits(&leaf.digest))
    }

    /// Notes whether we will hold exactly what the peer holds, or more.
    fn note(&mut self, view: &Arc<View>, record: &StateRecord) -> Result<(), SessionError> {
        let key = record.key();
        let held = view.snapshot().record(&key)?;
        let merged = held.map(|row| row.record.merge(record).0);
        if merged.as_ref().is_none_or(|merged| merged == record) {
            let digest = digest_bits(&record.digest());
            self.agreed.insert(leading_bits(&key), digest);
        } else {
            self.ahead.push(key);
        }
        Ok(())
    }

    fn fetch_and_merge(
        &mut self,
        exchange: &mut Exchange<'_>,
        view: &View,
        batch: Vec<News>,
    ) -> Result<(), SessionError> {
        let mut wanted: VecDeque<Wanted> = VecDeque::new();
        let mut incoming: Vec<Incoming> = Vec::with_capacity(batch.len());
        let mut places: HashMap<StateKey, usize> = HashMap::new();
        for news in batch {
            for lacking in news.wanted {
                places.insert(lacking.key, incoming.len());
                wanted.push_back(lacking);
            }
            incoming.push(news.incoming);
        }
        while !wanted.is_empty() {
            let bodies = self.fetch(exchange, view, wanted.make_contiguous())?;
            for bytes in bodies {
                let Some(lacking) = wanted.pop_front() else {
                    break;
                };
                exchange.report.bytes_if_sent_whole += bytes.len() as u64;
                let place = places
                    .get(&lacking.key)
                    .and_then(|at| incoming.get_mut(*at));
                if let Some(incoming) = place {
                    incoming.bodies.push((lacking.version.content, bytes));
                }
            }
        }
        self.merge(exchange, incoming)
    }

    fn fetch(
        &mut self,
        exchange: &mut Exchange<'_>,
        view: &View,
        wanted: &[Wanted],
    ) -> Result<Vec<Bytes>, SessionError> {
        let wants: Vec<Want> = wanted.iter().map(|lacking| lacking.want.clone()).collect();
        let head = BodiesRequest {
            session: self.session,
            wants,
        };
        let asked = exchange.ask("state_transfer", Endpoint::Bodies, &head, &[]);
        let (reply, blob): (BodyHeads, _) = asked?;
        let bodies = decode_bodies(view, wanted, &reply.heads, &blob, &mut self.decoder)?;
        if bodies.is_empty() {
            return Err(TransferError::Malformed("an answer without bodies").into());
        }
        Ok(bodies)
    }

    fn merge(
        &mut self,
        exchange: &mut Exchange<'_>,
        incoming: Vec<Incoming>,
    ) -> Result<(), SessionError> {
        self.settle()?;
        if incoming.is_empty() {
            return Ok(());
        }
        exchange.report.states_pulled += incoming.len() as u64;
        self.merging = Some(self.home.merge(incoming));
        self.home.progress(exchange.report);
        Ok(())
    }

    /// Waits until everything that was taken over is durable.
    ///
    /// # Errors
    /// [`SessionError`] when the last batch was not stored.
    pub fn settle(&mut self) -> Result<(), SessionError> {
        match self.merging.take() {
            Some(wait) => Ok(wait()?),
            None => Ok(()),
        }
    }
}

fn digest_bits(digest: &LeafDigest) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&digest.0[..8]);
    u64::from_be_bytes(eight)
}
