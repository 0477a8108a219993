//! A store that lives on a simulated disk, and what it promised when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use samestate::clock::WallClock;
use samestate::replica::solo::Solo;
use samestate::store::cut::Cut;
use samestate::store::disk::Disk;
use samestate::store::error::StoreError;
use samestate::store::options::StoreOptions;
use samestate::store::reshard::reshard;
use samestate::store::rows::Agreement;
use samestate::types::cursor::Epoch;
use samestate::types::id::ReplicaId;

use crate::crash_images::commands::{Draft, Drafter};
use crate::crash_images::model::{HISTORY, Model};
use crate::harness::Rng;
use crate::simulated_disk::RecordingDisk;

pub const PATH: &str = "/data/game.redb";
pub const REPLICA: ReplicaId = ReplicaId(7);
pub const EPOCH: Epoch = Epoch(0x5eed);

/// Little of everything, so that much happens in few steps.
pub const OPTIONS: StoreOptions = StoreOptions {
    cache_bytes: 64 << 10,
    inline_bytes: 200,
    // In one order, so that a seed tells all of it.
    flush_threads: 1,
    reserve_bytes: 0,
    compact_when_idle: false,
    history_versions: HISTORY,
    history_age: None,
    history_bytes: None,
    root_log_interval: None,
};

/// A clock that goes on by itself.
#[derive(Debug)]
struct Ticking(AtomicU64);

impl WallClock for Ticking {
    fn now_millis(&self) -> u64 {
        1_700_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Opens the store on a disk.
pub fn open(disk: Arc<dyn Disk>) -> Result<Solo, StoreError> {
    let wall = Arc::new(Ticking(AtomicU64::new(0)));
    Solo::open_on(disk, Path::new(PATH), REPLICA, EPOCH, OPTIONS, wall)
}

/// What a store does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Commit,
    Checkpoint,
    Compact,
    Reopen,
    /// Cuts the namespace into shards that so many bits tell apart.
    Shard(u8),
    /// Gives back what the log keeps to be written over.
    ShrinkLog,
}

impl Step {
    pub fn any(rng: &mut Rng) -> Self {
        match rng.below(22) {
            21 => Self::ShrinkLog,
            20 => Self::Shard(rng.below(3) as u8),
            0..=2 => Self::Checkpoint,
            3 => Self::Compact,
            4 => Self::Reopen,
            _ => Self::Commit,
        }
    }
}

/// Something that was promised at a position of the disk.
#[derive(Debug, Clone, Copy)]
struct Promise {
    position: usize,
    /// The newest model that was acknowledged.
    model: usize,
    /// The opening that the store counted.
    incarnation: u64,
}

/// A store on a disk, and what it promised when.
pub struct Life {
    pub recording: RecordingDisk,
    disk: Arc<dyn Disk>,
    rng: Rng,
    /// `None` while it is closed.
    pub solo: Option<Solo>,
    /// What the store holds after each batch, submitted or acknowledged; the first one is what it
    /// held in the beginning.
    pub models: Vec<Model>,
    promises: Vec<Promise>,
    foreign: u64,
    /// True while it is unknown whether the last model came to be.
    is_in_doubt: bool,
    /// Where it was last known what the store holds, after it was in doubt.
    settled: usize,
}

impl Life {
    /// A new store; `disk` is the recording one or stands in front of it.
    pub fn new(
        recording: RecordingDisk,
        disk: Arc<dyn Disk>,
        rng: Rng,
    ) -> Result<Self, StoreError> {
        let mut life = Self::closed(recording, disk, rng);
        life.reopen()?;
        Ok(life)
    }

    /// A store that was never opened.
    pub fn closed(recording: RecordingDisk, disk: Arc<dyn Disk>, rng: Rng) -> Self {
        let mut life = Self {
            recording,
            disk,
            rng,
            solo: None,
            models: vec![Model::default()],
            promises: Vec::new(),
            foreign: 0,
            is_in_doubt: false,
            settled: 0,
        };
        life.promise_at(0, 0);
        life
    }

    /// A store on a disk that somebody else has written to, and that was not opened since.
    pub fn kept(recording: RecordingDisk, model: Model, incarnation: u64) -> Self {
        let mut life = Self::closed(recording.clone(), Arc::new(recording), Rng::quiet(0));
        life.models = vec![model];
        life.promises.clear();
        life.promise_at(0, incarnation);
        life
    }

    /// A store that goes on after it was opened and found to hold what `model` says.
    pub fn go_on(recording: RecordingDisk, solo: Solo, model: Model, mut rng: Rng) -> Self {
        let incarnation = solo.view().identity().incarnation;
        let mut life = Self {
            disk: Arc::new(recording.clone()),
            recording,
            // Another life's foreign writers must not be met again.
            foreign: rng.next() >> 32 << 8,
            rng,
            solo: Some(solo),
            models: vec![model],
            promises: Vec::new(),
            is_in_doubt: false,
            settled: 0,
        };
        life.promise_at(life.recording.position(), incarnation);
        life
    }

    fn promise_at(&mut self, position: usize, incarnation: u64) {
        self.promises.push(Promise {
            position,
            model: self.models.len() - 1,
            incarnation,
        });
    }

    fn promise(&mut self) {
        if let Some(solo) = &self.solo {
            let incarnation = solo.view().identity().incarnation;
            self.promise_at(self.recording.position(), incarnation);
        }
    }

    /// The oldest model that an image at this position may be at, and the opening that has been
    /// counted by then.
    pub fn promised(&self, position: usize) -> (usize, u64) {
        let until = self.promises.partition_point(|p| p.position <= position);
        let promise = &self.promises[until.saturating_sub(1)];
        (promise.model, promise.incarnation)
    }

    /// The first position at which this life knows what it promised.
    pub fn first_position(&self) -> usize {
        self.promises[0].position
    }

    /// The model that a store with this position of the feed is at, and its place.
    pub fn model_at(&self, seq: u64) -> Option<usize> {
        self.models.iter().rposition(|model| model.seq == seq)
    }

    /// True while it is unknown whether the last batch took place.
    pub fn is_in_doubt(&self) -> bool {
        self.is_in_doubt
    }

    /// From where on nothing is in doubt.
    pub fn settled_position(&self) -> usize {
        self.settled
    }

    /// Compares what is acknowledged with what is read, as far as it can be read.
    pub fn check_reads(&self) -> Result<(), String> {
        let acknowledged = self.models.len() - 1 - usize::from(self.is_in_doubt);
        match &self.solo {
            Some(solo) => self.models[acknowledged].contradict(&solo.view()),
            None => Ok(()),
        }
    }

    /// Compares everything with what is read. The store must be open and not in doubt.
    pub fn check_all(&self) -> Result<(), String> {
        let solo = self.solo.as_ref().ok_or("the store is closed")?;
        self.models[self.models.len() - 1].compare(&solo.view())
    }

    pub fn live(&mut self, steps: usize) -> Result<(), StoreError> {
        for _ in 0..steps {
            let step = Step::any(&mut self.rng);
            self.step(step)?;
        }
        Ok(())
    }

    /// Does one thing. Opens the store first when it is closed.
    pub fn step(&mut self, step: Step) -> Result<(), StoreError> {
        if let Step::Shard(bits) = step {
            self.shard(bits)?;
        }
        if step == Step::Reopen || self.solo.is_none() {
            self.reopen()?;
        }
        let Some(solo) = &mut self.solo else {
            return Ok(());
        };
        match step {
            Step::Reopen | Step::Shard(_) => Ok(()),
            Step::Commit => self.commit(),
            Step::Checkpoint => solo.checkpoint(),
            Step::Compact => solo.compact().map(drop),
            Step::ShrinkLog => solo.shrink_log(),
        }
    }

    fn shard(&mut self, bits: u8) -> Result<(), StoreError> {
        self.close();
        let (path, set) = (Path::new(PATH), self.rng.next());
        let cut = Cut::of_bits(bits).expect("few enough");
        reshard(&self.disk, path, cut, set, OPTIONS, &mut |_, _| {}).map(drop)
    }

    pub fn close(&mut self) {
        self.solo = None;
    }

    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.close();
        let solo = open(Arc::clone(&self.disk))?;
        if self.is_in_doubt {
            self.settle(&solo);
        }
        self.solo = Some(solo);
        self.promise();
        Ok(())
    }

    /// Finds out what became of a batch whose commit failed.
    fn settle(&mut self, solo: &Solo) {
        let (seq, root) = (solo.view().head().seq, solo.view().head().root);
        if self.models.last().is_some_and(|model| model.seq == seq) {
            let last = self.models.last_mut();
            last.expect("there is one").root = Some(root.hash.to_hex());
        } else {
            self.models.pop();
        }
        self.is_in_doubt = false;
        self.settled = self.recording.position();
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let (drafts, agreements) = self.draft();
        let commands = drafts.iter().map(|draft| draft.command.clone()).collect();
        let solo = self.solo.as_mut().expect("the store is open");
        let outcomes = match solo.commit_logged(commands, agreements) {
            Ok(outcomes) => outcomes,
            Err(StoreError::Full) => {
                self.models.pop();
                return Err(StoreError::Full);
            }
            Err(error) => {
                // Behind a failure nothing is taken; the first batch is in doubt, this one is not.
                if self.is_in_doubt {
                    self.models.pop();
                }
                self.is_in_doubt = true;
                return Err(error);
            }
        };
        if std::mem::take(&mut self.is_in_doubt) {
            // The store has gone on, so it was sure of having failed before anything was written.
            self.models.remove(self.models.len() - 2);
        }
        for (draft, outcome) in drafts.iter().zip(&outcomes) {
            draft.judge(outcome).unwrap();
        }
        let root = solo.view().head().root.hash.to_hex();
        self.models.last_mut().expect("there is one").root = Some(root);
        self.promise();
        Ok(())
    }

    /// A batch, whose model becomes the last one.
    fn draft(&mut self) -> (Vec<Draft>, BTreeMap<ReplicaId, Agreement>) {
        let view = self.solo.as_ref().expect("the store is open").view();
        let acknowledged = self.models.len() - 1 - usize::from(self.is_in_doubt);
        let mut model = self.models[acknowledged].clone();
        let mut drafter = Drafter {
            rng: &mut self.rng,
            view: &view,
            model: &mut model,
            touched: BTreeSet::new(),
            foreign: &mut self.foreign,
        };
        let only_agrees = drafter.rng.one_in(12);
        let count = if only_agrees {
            0
        } else {
            1 + drafter.rng.below(3)
        };
        let drafts = (0..count).map(|_| drafter.command()).collect();
        let agrees = only_agrees || drafter.rng.one_in(6);
        let agreements = agrees.then(|| drafter.agreement()).into_iter().collect();
        model.root = None;
        self.models.push(model);
        (drafts, agreements)
    }
}
