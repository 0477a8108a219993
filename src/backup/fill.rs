//! Filling a new namespace with what a backup holds of it: many short versions in one commit, and
//! each large one by itself, chunk by chunk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::backup::chain::{CONTENT_MAX, Contents};
use crate::backup::entry::Held;
use crate::backup::error::BackupError;
use crate::clock::WallClock;
use crate::replica::command::{Command, Incoming};
use crate::replica::solo::Solo;
use crate::replica::stage_writer::StageWriter;
use crate::replica::staging::{Stager, StagingError, give_up};
use crate::replica::view::View;
use crate::store::body::Body;
use crate::store::directory::fresh_epoch;
use crate::store::options::StoreOptions;
use crate::store::random::random_u64;
use crate::store::stage::StageKey;
use crate::types::id::{GameId, ReplicaId};
use crate::types::limits::{Limits, STAGED_FROM};
use crate::types::record::StateRecord;

/// Versions that one commit takes.
const BATCH_VERSIONS: usize = 4096;
/// Bytes of states that one commit takes.
const BATCH_BYTES: usize = 16 << 20;
/// Superseding changes that are kept of a state: as many as any replica may be set to keep. What is
/// too much for this one's settings goes at the state's next change.
const HISTORY_MAX: usize = 1000;

/// A namespace that nobody else knows of yet.
struct Fresh {
    solo: RefCell<Solo>,
    wall: Arc<dyn WallClock>,
}

impl Stager for Fresh {
    fn newest(&self) -> Arc<View> {
        self.solo.borrow().view()
    }

    fn millis(&self) -> u64 {
        self.wall.now_millis()
    }

    fn carry_out(&self, command: Command) -> Result<(), StagingError> {
        let mut solo = self.solo.borrow_mut();
        for outcome in solo.commit(vec![command], BTreeMap::new())? {
            outcome.map_err(|refused| StagingError::Unavailable(refused.to_string()))?;
        }
        Ok(())
    }
}

/// Puts versions into a new namespace.
pub struct Filler {
    fresh: Fresh,
    limits: Limits,
    batch: Vec<Incoming>,
    bytes: usize,
    versions: u64,
}

impl Filler {
    /// Makes the namespace's file.
    ///
    /// # Errors
    /// [`BackupError`] when it cannot be made.
    pub fn create(
        path: &Path,
        replica: ReplicaId,
        wall: &Arc<dyn WallClock>,
    ) -> Result<Self, BackupError> {
        let options = StoreOptions {
            history_versions: HISTORY_MAX,
            ..StoreOptions::default()
        };
        let solo = Solo::open(path, replica, fresh_epoch()?, options, Arc::clone(wall))?;
        Ok(Self {
            fresh: Fresh {
                solo: RefCell::new(solo),
                wall: Arc::clone(wall),
            },
            limits: Limits {
                state_bytes: CONTENT_MAX,
                ..Limits::default()
            },
            batch: Vec::new(),
            bytes: 0,
            versions: 0,
        })
    }

    /// Adds one version of a state, after those that it superseded, with its bytes from the backup.
    ///
    /// # Errors
    /// [`BackupError`] when the bytes are missing or wrong, or cannot be stored.
    pub fn add(
        &mut self,
        id: &GameId,
        held: &Held,
        contents: &mut Contents,
    ) -> Result<(), BackupError> {
        self.versions += 1;
        if held.version.size > STAGED_FROM {
            return self.add_large(id, held, contents);
        }
        let bytes = contents.read(id, held)?;
        self.bytes += bytes.as_ref().map_or(0, Vec::len);
        let content = held.version.content;
        let body = bytes.map(|bytes| Body::of_hashed(content, &bytes));
        self.push(id, held, body);
        if self.batch.len() < BATCH_VERSIONS && self.bytes < BATCH_BYTES {
            return Ok(());
        }
        self.commit()
    }

    /// Stores the bytes in a stage before the version refers to them.
    fn add_large(
        &mut self,
        id: &GameId,
        held: &Held,
        contents: &mut Contents,
    ) -> Result<(), BackupError> {
        self.commit()?;
        let key = StageKey::of_upload(random_u64()?);
        let fresh = &self.fresh;
        let mut writer = StageWriter::begin(fresh, key, held.version.size, &self.limits)?;
        let is_there = contents.visit(id, held, &mut |piece| Ok(writer.push(fresh, piece)?))?;
        let body = if is_there {
            Some(writer.finish(fresh)?)
        } else {
            None
        };
        self.push(id, held, body);
        self.commit()?;
        // When the content was there already, nobody took the stage.
        Ok(give_up(&self.fresh, key)?)
    }

    fn push(&mut self, id: &GameId, held: &Held, body: Option<Body>) {
        self.batch.push(Incoming {
            bodies: body.into_iter().collect(),
            record: StateRecord::new(id.clone(), held.version.clone()),
        });
    }

    fn commit(&mut self) -> Result<(), BackupError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let merge = Command::Merge(std::mem::take(&mut self.batch));
        self.bytes = 0;
        let mut solo = self.fresh.solo.borrow_mut();
        for outcome in solo.commit(vec![merge], BTreeMap::new())? {
            let accepted = outcome.map_err(BackupError::Refused)?;
            if let Some(refused) = accepted.refused.into_iter().next() {
                return Err(BackupError::Refused(refused));
            }
        }
        Ok(())
    }

    /// Writes the rest into the file, and returns what is there and how many versions were added.
    ///
    /// # Errors
    /// [`BackupError`] when it cannot be written.
    pub fn finish(mut self) -> Result<(Arc<View>, u64), BackupError> {
        self.commit()?;
        let mut solo = self.fresh.solo.into_inner();
        solo.checkpoint()?;
        Ok((solo.view(), self.versions))
    }
}
