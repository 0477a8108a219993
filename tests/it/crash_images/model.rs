//! What a store must hold: contents of every state by hash, worked out without the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use samestate::merkle::node::SUMMARY_BYTES;
use samestate::replica::check::check;
use samestate::replica::view::View;
use samestate::store::error::StoreError;
use samestate::store::rows::{Agreement, Placed};
use samestate::types::hash::{ContentHash, StateKey};
use samestate::types::id::{GameId, Namespace, ReplicaId};

use crate::merkle_vectors::model as naive;

/// Superseding changes that the stores of these tests remember of a state.
pub const HISTORY: usize = 3;

/// What a store must hold of one state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Position in the feed.
    pub seq: u64,
    /// Current contents, sorted; [`ContentHash::NONE`] for a deletion.
    pub current: Vec<ContentHash>,
    /// What each of the last changes superseded, newest change first, sorted.
    pub history: Vec<Vec<ContentHash>>,
}

impl State {
    fn is_live(&self) -> bool {
        self.current.iter().any(|hash| *hash != ContentHash::NONE)
    }
}

/// What a store must hold after one commit.
#[derive(Clone, Default)]
pub struct Model {
    /// The newest position of the feed.
    pub seq: u64,
    /// The root that the store had then, in hexadecimal; `None` when it was never asked.
    pub root: Option<String>,
    states: BTreeMap<String, Arc<State>>,
    agreements: BTreeMap<ReplicaId, Vec<Agreement>>,
}

impl Model {
    pub fn state(&self, id: &str) -> Option<&State> {
        self.states.get(id).map(Arc::as_ref)
    }

    /// True when reading the state finds something. Of several versions the newest is shown, so
    /// this knows an answer only while there is one, or none is a deletion.
    pub fn shows(&self, id: &str) -> Option<bool> {
        let Some(state) = self.state(id) else {
            return Some(false);
        };
        let deletions = state.current.contains(&ContentHash::NONE);
        (!deletions || !state.is_live()).then(|| state.is_live())
    }

    /// A write that has seen everything.
    pub fn replace(&mut self, id: &str, content: ContentHash) {
        self.seq += 1;
        let seq = self.seq;
        let state = self.state_mut(id);
        state.seq = seq;
        let before = std::mem::replace(&mut state.current, vec![content]);
        if !before.is_empty() {
            state.history.insert(0, before);
            state.history.truncate(HISTORY);
        }
    }

    /// A write that has seen nothing that is here.
    pub fn join(&mut self, id: &str, content: ContentHash) {
        self.seq += 1;
        let seq = self.seq;
        let state = self.state_mut(id);
        state.seq = seq;
        state.current.push(content);
        state.current.sort_unstable();
    }

    pub fn agree(&mut self, peer: ReplicaId, agreement: Agreement) {
        self.agreements.entry(peer).or_default().push(agreement);
    }

    fn state_mut(&mut self, id: &str) -> &mut State {
        let state = self.states.entry(id.to_owned()).or_default();
        Arc::make_mut(state)
    }

    /// What differs between the model and a view; and anything that is wrong with the view.
    pub fn compare(&self, view: &View) -> Result<(), String> {
        self.compare_view(view)
            .map_err(|error| format!("does not read: {error}"))?
    }

    /// What a view shows that is not so. What cannot be read shows nothing.
    pub fn contradict(&self, view: &View) -> Result<(), String> {
        for (id, state) in &self.states {
            let Ok(row) = view.row(&GameId::new(id).unwrap()) else {
                continue;
            };
            let row = row.ok_or_else(|| format!("{id} seems to be missing"))?;
            let current = row.placed().map(|(version, _)| version.content).collect();
            self.compare_record(id, row.seq, current)?;
            for (version, placement) in row.placed() {
                // What is read is held against its hash there.
                let read = view.snapshot().content(version, placement);
                if let Ok(None) = read
                    && state.is_live()
                    && !version.tombstone
                {
                    return Err(format!("{id} seems to have no bytes"));
                }
            }
        }
        Ok(())
    }

    fn compare_view(&self, view: &View) -> Result<Result<(), String>, StoreError> {
        let report = check(
            view.snapshot(),
            &Namespace::default_namespace(),
            &mut |_| {},
        )?;
        if !report.faults.is_empty() {
            return Ok(Err(format!("faults: {:?}", report.faults)));
        }
        let root = view.head().root.hash.to_hex();
        if report.root != root || self.root.as_ref().is_some_and(|known| *known != root) {
            let known = &self.root;
            let rebuilt = report.root;
            return Ok(Err(format!(
                "root {root}, rebuilt {rebuilt}, known as {known:?}"
            )));
        }
        let (mut held, mut leaves) = (BTreeSet::new(), Vec::new());
        let mut fault = Ok(());
        view.snapshot().visit_records(&mut |_, row| {
            let found = row.map_err(|error| error.to_string());
            let compared = found.and_then(|row| {
                leaves.push(naive::Leaf {
                    key: row.leaf.key.0.to_vec(),
                    digest: row.leaf.digest.0.to_vec(),
                    size: row.leaf.size,
                    updated_at: row.leaf.updated_at,
                });
                let id = row.record.id.to_string();
                let current = row.placed().map(|(version, _)| version.content);
                let compared = self.compare_record(&id, row.seq, current.collect());
                held.insert(id);
                compared
            });
            if fault.is_ok() {
                fault = compared;
            }
        })?;
        let mut root = vec![0; SUMMARY_BYTES];
        view.head().root.write(&mut root);
        if fault.is_ok() && naive::summary(&leaves, 0) != root {
            fault = Err("its root is not that of the naive tree".to_owned());
        }
        if let Some(lost) = self.states.keys().find(|id| !held.contains(*id)) {
            fault = Err(format!("{lost} is not there"));
        }
        for (id, state) in &self.states {
            let key = StateKey::of(&GameId::new(id).unwrap());
            let history = view.snapshot().history(&key)?;
            if fault.is_ok() && !is_same_history(&history, &state.history) {
                fault = Err(format!("{id} has history {history:?}, not {state:?}"));
            }
        }
        for (peer, agreements) in &self.agreements {
            let found = view.snapshot().agreement(*peer)?;
            if fault.is_ok() && found.is_some_and(|found| !agreements.contains(&found)) {
                fault = Err(format!("{found:?} was never agreed with {peer}"));
            }
        }
        Ok(fault)
    }

    fn compare_record(
        &self,
        id: &str,
        seq: u64,
        mut current: Vec<ContentHash>,
    ) -> Result<(), String> {
        current.sort_unstable();
        match self.state(id) {
            Some(state) if state.seq == seq && state.current == current => Ok(()),
            expected => Err(format!("{id} is {current:?} at {seq}, not {expected:?}")),
        }
    }
}

fn is_same_history(found: &[Placed], rows: &[Vec<ContentHash>]) -> bool {
    let mut rest = found;
    for row in rows {
        let Some((front, behind)) = rest.split_at_checked(row.len()) else {
            return false;
        };
        let mut hashes: Vec<_> = front.iter().map(|placed| placed.version.content).collect();
        hashes.sort_unstable();
        if hashes != *row {
            return false;
        }
        rest = behind;
    }
    rest.is_empty()
}
