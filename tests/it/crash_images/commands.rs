//! Commands at random, with what they must come to.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use samestate::replica::command::{
    Accepted, Change, Command, Content, Incoming, Precondition, Refused, Write,
};
use samestate::replica::view::View;
use samestate::store::body::Body;
use samestate::store::rows::{Agreement, RecordRow};
use samestate::types::cursor::Epoch;
use samestate::types::hash::ContentHash;
use samestate::types::id::{GameId, ReplicaId, WriterId};
use samestate::types::record::{StateRecord, etag};
use samestate::types::version::{Stamp, Version, VersionVector};

use crate::crash_images::model::Model;
use crate::harness::Rng;

const IDS: usize = 12;
/// Versions of one state that conflict, at most.
const CONFLICTS: usize = 3;

/// A command and whether it must be taken.
pub struct Draft {
    pub command: Command,
    pub is_taken: bool,
}

impl Draft {
    /// Tells what is wrong with what became of it.
    pub fn judge(&self, outcome: &Result<Accepted, Refused>) -> Result<(), String> {
        match outcome {
            Ok(accepted) if self.is_taken && accepted.refused.is_empty() => Ok(()),
            Err(_) if !self.is_taken => Ok(()),
            _ => Err(format!("{:?} came to {outcome:?}", self.command)),
        }
    }
}

/// Makes the commands of one batch, on top of what a view shows.
pub struct Drafter<'d> {
    pub rng: &'d mut Rng,
    pub view: &'d View,
    pub model: &'d mut Model,
    /// States that this batch has touched: the view does not show them as they are by now.
    pub touched: BTreeSet<String>,
    /// Writers of other replicas so far.
    pub foreign: &'d mut u64,
}

impl Drafter<'_> {
    pub fn command(&mut self) -> Draft {
        match self.rng.below(10) {
            0..=4 => self.writes(1),
            5 | 6 => {
                let count = 2 + self.rng.below(4);
                self.writes(count)
            }
            _ => self.merge(),
        }
    }

    /// All of them or none.
    fn writes(&mut self, count: usize) -> Draft {
        let before = self.model.clone();
        let (mut writes, mut is_taken) = (Vec::new(), true);
        for _ in 0..count {
            let (write, taken) = self.write();
            writes.push(write);
            is_taken &= taken;
        }
        if !is_taken {
            *self.model = before;
        }
        let command = Command::Write(writes);
        Draft { command, is_taken }
    }

    fn write(&mut self) -> (Write, bool) {
        let name = any_name(self.rng);
        let shows = self.model.shows(&name);
        let (precondition, holds) = self.precondition(&name, shows);
        let deletes = self.rng.one_in(5) && shows.is_some();
        let change = if deletes {
            Change::Delete
        } else {
            let content_type = self.rng.one_in(4).then(|| "application/json".to_owned());
            let body = any_body(self.rng);
            let ttl = None;
            Change::Put(Content {
                body,
                content_type,
                ttl,
            })
        };
        let content = match &change {
            Change::Put(content) => content.body.hash,
            Change::Delete => ContentHash::NONE,
        };
        let is_taken = holds && !(deletes && shows == Some(false));
        if is_taken {
            self.model.replace(&name, content);
        }
        self.touched.insert(name.clone());
        let write = Write {
            id: id(&name),
            precondition,
            change,
        };
        (write, is_taken)
    }

    fn precondition(&mut self, name: &str, shows: Option<bool>) -> (Precondition, bool) {
        let Some(shows) = shows.filter(|_| self.rng.one_in(4)) else {
            return (Precondition::None, true);
        };
        let row = self.row(name);
        let row = row.filter(|_| shows && !self.touched.contains(name));
        match (row, self.rng.below(3)) {
            (_, 0) => (Precondition::Absent, !shows),
            (Some(row), 1) => {
                let tag = etag(&row.record.digest());
                (Precondition::Matches(vec![tag]), true)
            }
            (Some(_), _) => (Precondition::Matches(vec!["\"another\"".into()]), false),
            (None, _) => (Precondition::Exists, shows),
        }
    }

    /// A state as it was before this batch, if it can be read.
    fn row(&self, name: &str) -> Option<RecordRow> {
        self.view.row(&id(name)).ok().flatten()
    }

    /// Records of other replicas, which have seen everything here or nothing.
    fn merge(&mut self) -> Draft {
        let count = 1 + self.rng.below(3);
        let incoming = (0..count).map(|_| self.incoming()).collect();
        Draft {
            command: Command::Merge(incoming),
            is_taken: true,
        }
    }

    fn incoming(&mut self) -> Incoming {
        let mut name = any_name(self.rng);
        let crowded = |model: &Model, name: &str| {
            let state = model.state(name);
            state.is_some_and(|state| state.current.len() >= CONFLICTS)
        };
        if crowded(self.model, &name) && self.touched.contains(&name) {
            name = format!("foreign/{}", *self.foreign);
        }
        let mut vector = VersionVector::default();
        let knows =
            !self.touched.contains(&name) && (self.rng.one_in(2) || crowded(self.model, &name));
        let row = self.row(&name).filter(|_| knows);
        for version in row.iter().flat_map(|row| row.record.versions()) {
            vector.join(&version.vector);
        }
        *self.foreign += 1;
        vector.set(WriterId(1 << 40 | *self.foreign), 1);
        let body = (!self.rng.one_in(6)).then(|| any_body(self.rng));
        let content = body.as_ref().map_or(ContentHash::NONE, |body| body.hash);
        let version = Version {
            vector,
            stamp: any_stamp(self.rng, *self.foreign),
            content,
            size: body.as_ref().map_or(0, |body| body.size),
            content_type: None,
            expires_at: None,
            tombstone: body.is_none(),
            lease_epoch: 0,
        };
        if row.is_some() {
            self.model.replace(&name, content);
        } else {
            self.model.join(&name, content);
        }
        self.touched.insert(name.clone());
        Incoming {
            record: StateRecord::new(id(&name), version),
            bodies: body.into_iter().collect(),
        }
    }

    /// What was agreed with some peer after this batch.
    pub fn agreement(&mut self) -> (ReplicaId, Agreement) {
        let peer = ReplicaId(900 + self.rng.below(2) as u64);
        let agreement = Agreement {
            their_epoch: Epoch(peer.0),
            their_seq: self.rng.below(1000) as u64,
            their_incarnation: 1,
            our_seq: self.model.seq,
        };
        self.model.agree(peer, agreement);
        (peer, agreement)
    }
}

fn id(name: &str) -> GameId {
    GameId::new(name).unwrap()
}

fn any_name(rng: &mut Rng) -> String {
    format!("match/{}", rng.below(IDS))
}

fn any_stamp(rng: &mut Rng, foreign: u64) -> Stamp {
    Stamp {
        millis: 1_700_000_000_000 + rng.below(2_000) as u64,
        logical: 0,
        replica: ReplicaId(1000 + foreign),
    }
}

/// Contents that several states have: in the row, packed, in chunks, and in chunks shared with
/// another content.
fn shared_bodies() -> &'static [Body] {
    static BODIES: OnceLock<Vec<Body>> = OnceLock::new();
    BODIES.get_or_init(|| {
        let large = Rng::quiet(1).bytes(40_000);
        let longer = [&large[..], &Rng::quiet(2).bytes(9_000)].concat();
        let contents = [
            Vec::new(),
            b"the same".to_vec(),
            Rng::quiet(3).bytes(2_500),
            large,
            longer,
        ];
        contents.iter().map(|bytes| Body::new(bytes)).collect()
    })
}

fn any_body(rng: &mut Rng) -> Body {
    if rng.one_in(4) {
        let shared = shared_bodies();
        return shared[rng.below(shared.len())].clone();
    }
    let length = match rng.below(12) {
        0 => 16_000 + rng.below(30_000),
        1 | 2 => 300 + rng.below(4_000),
        _ => rng.below(120),
    };
    Body::new(&rng.bytes(length))
}
