//! Taking over proven records: what is news here, which bytes are lacking, fetch, check, store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::merkle::update::LeafChange;
use crate::replica::command::{Incoming, Meeting, Refused};
use crate::replica::view::View;
use crate::store::body::Body;
use crate::sync::decode::{Decoder, decode_bodies};
use crate::sync::exchange::{Exchange, SessionError};
use crate::sync::fetch_chunks::fetch;
use crate::sync::news::{Beside, Collected, News, Wanted};
use crate::sync::sides::{OnlyOurs, Sides};
use crate::sync::together::{Shared, alone_bytes, ask_when_missed, hints, together_share};
use crate::sync::transfer::TransferError;
use crate::sync::transport::{Home, Merging};
use crate::types::hash::StateKey;
use crate::types::id::ReplicaId;
use crate::types::leaf::Leaf;
use crate::types::limits::Limits;
use crate::types::record::StateRecord;
use crate::wire::messages::{BodiesRequest, BodyHeads, Endpoint, Want};

/// States that one transfer message and one merge carry at most.
const BATCH_STATES: usize = 2048;
/// States that are let go of with one command.
const LET_GO_STATES: usize = 128;

/// Takes over records in batches. The next batch is fetched while the last one becomes durable.
pub struct Puller<'s> {
    home: &'s dyn Home,
    session: u64,
    peer: ReplicaId,
    takes: bool,
    decoder: Decoder,
    last: Option<Wanted>,
    merging: Option<Merging>,
    /// States that both will hold in the same form: 64 bits each of key and digest, so that a copy
    /// of millions takes tens of megabytes. A collision costs the next session a tree descent.
    agreed: HashMap<u64, u64>,
    /// Why states were left out: the peer could not read them, or they are refused here.
    left_out: Vec<String>,
    sides: Sides,
    /// What is to be let go of once everything of the peer's was taken over.
    going: Meeting,
    /// States that only one side holds, and that are over on both: with the peer's leaf in place of
    /// ours our tree is the peer's. `None` when there are too many to tell.
    over: Option<Vec<LeafChange>>,
    over_max: usize,
    /// States of which we hold something that the peer does not.
    pub ahead: Vec<StateKey>,
    /// States that we have collected and the peer has not, with its leaf where nobody is shown it.
    collected: Vec<(StateKey, Option<Leaf>)>,
}

impl<'s> Puller<'s> {
    /// A puller that fetches from `peer` within `session`. Unless it `takes` over, it only notes where we are
    /// ahead of the peer.
    pub fn new(
        home: &'s dyn Home,
        (session, peer): (u64, ReplicaId),
        takes: bool,
        sides: Sides,
        limits: &Limits,
    ) -> Self {
        Self {
            going: Meeting {
                seen: Arc::clone(&sides.theirs),
                ..Meeting::default()
            },
            sides,
            over: Some(Vec::new()),
            over_max: limits.session_states,
            collected: Vec::new(),
            home,
            session,
            peer,
            takes,
            decoder: Decoder::default(),
            last: None,
            merging: None,
            agreed: HashMap::new(),
            left_out: Vec::new(),
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
            let (mut batch, mut bytes, mut streamed) = (Vec::new(), 0, None);
            while batch.len() < BATCH_STATES && bytes < exchange.limits().transfer_bytes * 4 {
                let Some(record) = records.next() else {
                    break;
                };
                let beside = Beside::look_up(&view, &self.sides, record)?;
                self.note(&beside);
                if !self.takes || !beside.is_news() {
                    continue;
                }
                let news = match beside.lacking(&view, self.last.as_ref(), limit) {
                    Err(large @ TransferError::TooLarge { .. }) => {
                        self.left_out.push(large.to_string());
                        continue;
                    }
                    news => news?,
                };
                if news.is_streamed() {
                    streamed = Some(news);
                    break;
                }
                bytes += news.bytes();
                self.last = news.wanted.last().cloned().or(self.last.take());
                batch.push(news);
            }
            self.fetch_and_merge(exchange, &view, batch)?;
            if let Some(news) = streamed {
                // It may take long: what was fetched before is not to wait for it.
                self.settle()?;
                self.fetch_and_merge(exchange, &view, vec![news])?;
            }
        }
        Ok(())
    }

    /// The session within which this one fetches.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// True when this form of a state is one that the peer holds too.
    pub fn agrees(&self, leaf: &Leaf) -> bool {
        let taken = self.agreed.get(&leaf.key.prefix64());
        taken == Some(&leaf.digest.prefix64())
    }

    /// Notes whether we will hold exactly what the peer holds, or more.
    fn note(&mut self, beside: &Beside) {
        let key = beside.key();
        if let Some(record) = beside.lets_go() {
            self.going.incoming.push(Incoming {
                record: record.clone(),
                bodies: Vec::new(),
            });
        }
        match beside.agreed() {
            Some(digest) => {
                self.agreed.insert(key.prefix64(), digest.prefix64());
            }
            None => match beside.collected() {
                None => self.ahead.push(key),
                Some(Collected::Departed(leaf)) => self.note_over(key, Some(leaf)),
                Some(Collected::Dead(leaf)) => self.collected.push((key, Some(leaf))),
                Some(Collected::Shown) => self.collected.push((key, None)),
            },
        }
    }

    /// Notes states of ours that the peer does not hold.
    ///
    /// # Errors
    /// [`SessionError`] when the store fails.
    pub fn note_absent(
        &mut self,
        view: &View,
        keys: impl IntoIterator<Item = StateKey>,
    ) -> Result<(), SessionError> {
        for key in keys {
            let Some(row) = view.snapshot().record(&key)? else {
                continue;
            };
            let what = self.sides.only_ours(&row.record);
            match what {
                OnlyOurs::Ahead => self.ahead.push(key),
                OnlyOurs::Departed => self.note_over(key, None),
                OnlyOurs::PartlyCollected => {
                    self.ahead.push(key);
                    self.going.absent.push(key);
                }
                OnlyOurs::Collected if self.takes => self.going.absent.push(key),
                OnlyOurs::Collected if row.record.is_dead(self.sides.now) => {
                    self.note_over(key, None);
                }
                OnlyOurs::Collected => self.over = None,
            }
        }
        Ok(())
    }

    /// Notes a state that is over although the peer's `leaf` is not ours.
    pub fn note_over(&mut self, key: StateKey, leaf: Option<Leaf>) {
        drop(self.over.take_if(|over| over.len() >= self.over_max));
        if let Some(over) = &mut self.over {
            over.push(LeafChange { key, leaf });
        }
    }

    /// Notes which of the states that we have collected the peer keeps.
    pub fn note_kept(&mut self, kept: &[StateKey]) {
        let kept: HashSet<&StateKey> = kept.iter().collect();
        for (key, leaf) in std::mem::take(&mut self.collected) {
            match leaf {
                _ if !kept.contains(&key) => {}
                Some(leaf) => self.note_over(key, Some(leaf)),
                None => self.over = None,
            }
        }
    }

    /// What turns our tree into one that says the same as the peer's, sorted; `None` when nothing
    /// short of equal roots shows that they do.
    pub fn over(&mut self) -> Option<&[LeafChange]> {
        let over = self.over.as_mut()?;
        over.sort_by_key(|change| change.key);
        over.dedup_by_key(|change| change.key);
        Some(over)
    }

    /// States that we have collected and the peer has not.
    pub fn collected(&self) -> Vec<StateKey> {
        self.collected.iter().map(|(key, _)| *key).collect()
    }

    /// True when everything that the peer holds is held here now, or over.
    pub fn is_complete(&self) -> bool {
        self.takes && self.left_out.is_empty()
    }

    /// Once everything was taken over, takes note of what the peer has seen, and lets go of what
    /// it has collected.
    ///
    /// # Errors
    /// [`SessionError`] when the writer fails.
    pub fn let_go(&mut self) -> Result<(), SessionError> {
        let Meeting {
            mut incoming,
            mut absent,
            seen,
        } = std::mem::take(&mut self.going);
        if !self.is_complete() {
            if !absent.is_empty() {
                self.over = None;
            }
            return Ok(());
        }
        let is_due = !incoming.is_empty() || !absent.is_empty();
        self.home.note_seen(&seen, is_due);
        while !incoming.is_empty() || !absent.is_empty() {
            let meeting = Meeting {
                incoming: incoming.split_off(incoming.len().saturating_sub(LET_GO_STATES)),
                absent: absent.split_off(absent.len().saturating_sub(LET_GO_STATES)),
                seen: Arc::clone(&seen),
            };
            let refused = self.home.merge(meeting)()?;
            self.left_out.extend(refused.iter().map(Refused::to_string));
        }
        Ok(())
    }

    fn fetch_and_merge(
        &mut self,
        exchange: &mut Exchange<'_>,
        view: &View,
        batch: Vec<News>,
    ) -> Result<(), SessionError> {
        let wanted: Vec<Wanted> = batch
            .iter()
            .flat_map(|n| n.wanted.iter())
            .filter(|wanted| !wanted.is_streamed())
            .cloned()
            .collect();
        let mut fetched = self.fetch_all(exchange, view, &wanted)?.into_iter();
        let mut incoming: Vec<Incoming> = Vec::with_capacity(batch.len());
        for news in batch {
            let mut bodies = news.bytes_of_twins(view, self.home, exchange.limits())?;
            let mut complete = true;
            for wanted in &news.wanted {
                let body = if wanted.is_streamed() {
                    fetch(exchange, self.home, (self.session, self.peer), wanted)?
                } else {
                    let bytes = fetched.next().flatten();
                    bytes.map(|bytes| Body::of_hashed(wanted.version.content, &bytes))
                };
                complete &= body.is_some();
                bodies.extend(body);
            }
            let record = news.record;
            if complete {
                incoming.push(Incoming { record, bodies });
            } else {
                self.agreed.remove(&record.key().prefix64());
                let unreadable = TransferError::Unreadable(record.id);
                self.left_out.push(unreadable.to_string());
            }
        }
        self.merge(exchange, incoming)
    }

    /// Fetches in as many messages as it takes; `None` for what the peer cannot read.
    fn fetch_all(
        &mut self,
        exchange: &mut Exchange<'_>,
        view: &View,
        wanted: &[Wanted],
    ) -> Result<Vec<Option<Bytes>>, SessionError> {
        let mut fetched = Vec::with_capacity(wanted.len());
        while fetched.len() < wanted.len() {
            let rest = &wanted[fetched.len()..];
            let dictionaries = self.home.dictionaries();
            let mut wants: Vec<Want> = rest.iter().map(|lacking| lacking.want.clone()).collect();
            dictionaries.announce(&mut wants, rest.iter().any(Wanted::is_alone));
            let head = BodiesRequest {
                session: self.session,
                wants,
            };
            let asked = exchange.ask("state_transfer", Endpoint::Bodies, &head, &[]);
            let (reply, blob): (BodyHeads, _) = asked?;
            let shared = Shared {
                dictionaries: &dictionaries,
                hints: hints(&head.wants),
            };
            let (heads, decoder) = (&reply.heads, &mut self.decoder);
            let bodies = decode_bodies(view, rest, heads, &blob, shared, decoder)?;
            let missed = alone_bytes(&head.wants, heads, exchange.last.received)
                + together_share(rest, heads);
            ask_when_missed(exchange, &dictionaries, missed)?;
            let whole: usize = bodies.iter().flatten().map(Bytes::len).sum();
            exchange.report.bytes_if_sent_whole += whole as u64;
            fetched.extend(bodies);
        }
        Ok(fetched)
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
        self.merging = Some(self.home.merge(Meeting {
            incoming,
            absent: Vec::new(),
            seen: Arc::clone(&self.sides.theirs),
        }));
        self.home.progress(exchange.report);
        Ok(())
    }

    /// Waits until everything that was handed to the writer is durable.
    ///
    /// # Errors
    /// [`SessionError`] when the last batch was not stored.
    pub fn settle(&mut self) -> Result<(), SessionError> {
        if let Some(wait) = self.merging.take() {
            let refused = wait()?;
            self.left_out.extend(refused.iter().map(Refused::to_string));
        }
        Ok(())
    }

    /// Says whether everything that was to be taken over could be.
    ///
    /// # Errors
    /// [`SessionError`] when the peer could not read some of its states or our writer refused
    /// some; all others are stored.
    pub fn finish(&self) -> Result<(), SessionError> {
        match self.left_out.first() {
            None => Ok(()),
            Some(first) => Err(SessionError::LeftOut {
                count: self.left_out.len(),
                first: first.clone(),
            }),
        }
    }
}
