//! An engine and its log in the hands of one thread: what benchmarks, restores and simulations use.
//! The writer of a running replica does the same steps on several threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::clock::WallClock;
use crate::merkle::update::Work;
use crate::replica::command::Command;
use crate::replica::engine::{Engine, Opened, Outcomes};
use crate::replica::view::View;
use crate::store::compaction::CompactionProgress;
use crate::store::disk::{Disk, MachineDisk};
use crate::store::engine_files::EngineFiles;
use crate::store::error::StoreError;
use crate::store::log::appender::Log;
use crate::store::log::group::Entry;
use crate::store::options::StoreOptions;
use crate::store::rows::Agreement;
use crate::types::cursor::Epoch;
use crate::types::id::ReplicaId;

/// A namespace open for writing by one thread.
pub struct Solo {
    engine: Engine,
    log: Log,
    file: EngineFiles,
}

impl Solo {
    /// Opens a namespace's file on the machine's disk.
    ///
    /// # Errors
    /// As for [`Engine::open_on`].
    pub fn open(
        path: &Path,
        replica: ReplicaId,
        epoch: Epoch,
        options: StoreOptions,
        wall: Arc<dyn WallClock>,
    ) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(MachineDisk), path, replica, epoch, options, wall)
    }

    /// Opens a namespace's file on any disk.
    ///
    /// # Errors
    /// As for [`Engine::open_on`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        replica: ReplicaId,
        epoch: Epoch,
        options: StoreOptions,
        wall: Arc<dyn WallClock>,
    ) -> Result<Self, StoreError> {
        let Opened {
            engine, log, file, ..
        } = Engine::open_on(disk, path, replica, epoch, options, wall)?;
        Ok(Self { engine, log, file })
    }

    /// The newest commit.
    pub fn view(&self) -> Arc<View> {
        self.engine.view()
    }

    /// Tree work done since opening.
    pub fn work(&self) -> Work {
        self.engine.work()
    }

    /// Decides the commands in order, makes them durable and carries them out: when this returns,
    /// every accepted command is in the log and in [`Solo::view`]. Makes a checkpoint when enough
    /// has piled up.
    ///
    /// # Errors
    /// [`StoreError`] when nothing could be made durable, or its outcome is unknown.
    pub fn commit(
        &mut self,
        commands: Vec<Command>,
        agreements: BTreeMap<ReplicaId, Agreement>,
    ) -> Result<Outcomes, StoreError> {
        let outcomes = self.commit_logged(commands, agreements)?;
        if self.engine.checkpoint_load() >= 1.0 {
            self.checkpoint()?;
        }
        Ok(outcomes)
    }

    /// As [`Solo::commit`], without a checkpoint.
    ///
    /// # Errors
    /// As for [`Solo::commit`].
    pub fn commit_logged(
        &mut self,
        commands: Vec<Command>,
        agreements: BTreeMap<ReplicaId, Agreement>,
    ) -> Result<Outcomes, StoreError> {
        let decided = self.engine.decide(commands, agreements);
        let decided = self.or_reopened(decided)?;
        if decided.is_empty() {
            return Ok(decided.outcomes);
        }
        let (before, commit) = (self.view(), self.engine.commit_number());
        let applied = self.engine.apply(&decided);
        self.or_reopened(applied)?;
        let entries: Vec<Entry> = decided.entry.into_iter().collect();
        if let Err(error) = self.log.append(&entries) {
            self.engine.go_back_to(&before, commit);
            return Err(error);
        }
        Ok(decided.outcomes)
    }

    /// Writes the root of now down in the log of roots. False when it says so already.
    ///
    /// # Errors
    /// As for [`Solo::commit`].
    pub fn seal(&mut self) -> Result<bool, StoreError> {
        let seals = self.engine.seal();
        let seals = self.or_reopened(seals)?;
        if seals {
            self.commit_logged(Vec::new(), BTreeMap::new())?;
        }
        Ok(seals)
    }

    /// Moves everything that only the log holds into the engine's file.
    ///
    /// # Errors
    /// [`StoreError`] when the engine or the disk fails; the log has everything still.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        // Without space for a new segment the log goes on in the old one.
        let rotated = self.log.rotate();
        if let Some(mut frozen) = self.engine.freeze().or_else(|| self.engine.frozen()) {
            frozen.ends_before(self.log.segment());
            let flushed = self.file.flush(&frozen);
            let flushed = self.or_reopened(flushed)?;
            self.engine.flushed(&flushed);
            self.log.shelf().tidy(flushed.commit())?;
        }
        rotated
    }

    /// Gives back the space that the log keeps to be written over.
    ///
    /// # Errors
    /// As for [`Log::shrink`].
    pub fn shrink_log(&mut self) -> Result<(), StoreError> {
        self.log.shrink()
    }

    /// Opens the file again if a failure has closed it, so that reads go on.
    fn or_reopened<R>(&mut self, done: Result<R, StoreError>) -> Result<R, StoreError> {
        if done.is_err()
            && self.file.is_closed()
            && let Ok(reopened) = self.file.reopen()
        {
            self.engine.flushed(&reopened);
        }
        done
    }
}

impl Solo {
    /// Copies the live rows into a new file, which takes the place of the old one.
    ///
    /// # Errors
    /// [`StoreError`] when either file fails.
    pub fn compact(&mut self) -> Result<CompactionProgress, StoreError> {
        self.checkpoint()?;
        let mut progress = CompactionProgress::default();
        let begun = self.file.begin_compaction();
        self.or_reopened(begun)?;
        while self.file.is_compacting() {
            let sliced = self.file.compact_slice(&mut progress);
            if let Some(flushed) = self.or_reopened(sliced)? {
                self.engine.flushed(&flushed);
            }
            self.file.close_unread();
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::replica::command::{Change, Content, Incoming, Precondition, Write};
    use crate::store::body::Body;
    use crate::types::id::GameId;

    fn open(folder: &Path, name: &str, replica: u64, epoch: u64) -> Solo {
        let (path, wall) = (folder.join(name), Arc::new(SystemClock));
        let options = StoreOptions::default();
        Solo::open(&path, ReplicaId(replica), Epoch(epoch), options, wall).unwrap()
    }

    fn put(solo: &mut Solo, bytes: &'static [u8]) {
        let write = Command::Write(vec![Write {
            id: GameId::new("match").unwrap(),
            precondition: Precondition::None,
            change: Change::Put(Content::new(bytes, None)),
        }]);
        assert!(solo.commit(vec![write], BTreeMap::new()).unwrap()[0].is_ok());
    }

    /// A clock that stands.
    struct At(u64);

    impl WallClock for At {
        fn now_millis(&self) -> u64 {
            self.0
        }
    }

    /// When the newest version of the state was written, by the clock of who wrote it.
    fn written(solo: &Solo) -> u64 {
        let row = solo.view().row(&GameId::new("match").unwrap());
        let record = row.unwrap().unwrap().record;
        let stamps = record.versions().iter().map(|version| version.stamp.millis);
        stamps.max().unwrap()
    }

    /// Everything that `from` shows of the state, as it would come out of a session.
    fn hand_over(from: &Solo, to: &mut Solo) {
        let view = from.view();
        let row = view.row(&GameId::new("match").unwrap()).unwrap().unwrap();
        let (_, bytes) = view.shown_content(&row).unwrap().unwrap();
        let incoming = Incoming {
            record: row.record,
            bodies: vec![Body::new(&bytes)],
        };
        let merge = Command::Merge(vec![incoming]);
        assert!(to.commit(vec![merge], BTreeMap::new()).unwrap()[0].is_ok());
    }

    #[test]
    fn a_namespace_made_anew_does_not_repeat_what_its_peers_remember() {
        let folder = tempfile::tempdir().unwrap();
        let mut peer = open(folder.path(), "peer.redb", 2, 20);
        let mut before = open(folder.path(), "before.redb", 1, 10);
        for bytes in [b"one", b"two"] {
            put(&mut before, bytes);
        }
        hand_over(&before, &mut peer);
        let mut anew = open(folder.path(), "anew.redb", 1, 11);
        put(&mut anew, b"new");
        hand_over(&anew, &mut peer);
        hand_over(&before, &mut anew);
        for solo in [&peer, &anew] {
            let row = solo.view().row(&GameId::new("match").unwrap());
            let record = row.unwrap().unwrap().record;
            assert_eq!((record.versions().len(), record.conflicts()), (2, 1));
        }
        assert_eq!(peer.view().head().root, anew.view().head().root);
    }

    #[test]
    fn a_start_follows_no_clock_that_is_years_ahead_but_its_own() {
        const NOW: u64 = 1_800_000_000_000;
        const YEARS_AHEAD: u64 = NOW + 300_000_000_000;
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, replica: u64, now: u64| {
            let (path, wall) = (folder.path().join(name), Arc::new(At(now)));
            let options = StoreOptions::default();
            Solo::open(&path, ReplicaId(replica), Epoch(replica), options, wall).unwrap()
        };
        let mut astray = open("astray.redb", 2, YEARS_AHEAD);
        put(&mut astray, b"from the future");
        let mut solo = open("solo.redb", 1, NOW);
        hand_over(&astray, &mut solo);
        drop(solo);
        let mut solo = open("solo.redb", 1, NOW);
        assert_eq!(written(&solo), YEARS_AHEAD);
        put(&mut solo, b"here and now");
        assert_eq!(written(&solo), NOW, "a peer's clock was followed");
        // Its own stamps go on growing after its clock was put right.
        drop(astray);
        let mut astray = open("astray.redb", 2, NOW);
        put(&mut astray, b"again");
        assert!(written(&astray) > YEARS_AHEAD);
    }

    #[test]
    fn views_of_before_a_compaction_are_read_to_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut solo = open(folder.path(), "compact.redb", 1, 1);
        put(&mut solo, b"before");
        solo.checkpoint().unwrap();
        let old = solo.view();
        for bytes in [b"after 1", b"after 2"] {
            put(&mut solo, bytes);
            solo.compact().unwrap();
        }
        let row = old.row(&GameId::new("match").unwrap()).unwrap().unwrap();
        assert_eq!(old.shown_content(&row).unwrap().unwrap().1, &b"before"[..]);
        assert!(solo.file.keeps_old_files());
        drop(old);
        solo.compact().unwrap();
        assert!(!solo.file.keeps_old_files());
    }

    #[test]
    fn one_put_among_many_touches_few_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let mut solo = open(folder.path(), "one.redb", 1, 1);
        put(&mut solo, b"one");
        let before = solo.work();
        put(&mut solo, b"two");
        let work = solo.work();
        assert!(work.hashes - before.hashes <= 20, "{work:?}");
        assert_eq!(work.rows_written - before.rows_written, 1);
    }

    #[test]
    fn starts_without_writes_leave_no_pile_of_segments() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..10 {
            drop(open(folder.path(), "idle.redb", 1, 1));
        }
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert!(files <= 4, "{files}");
    }

    #[test]
    fn what_only_the_log_holds_is_back_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut solo = open(folder.path(), "log.redb", 1, 1);
        put(&mut solo, b"in the file");
        solo.checkpoint().unwrap();
        put(&mut solo, b"in the log");
        put(&mut solo, b"at its end");
        let head = *solo.view().head();
        drop(solo);
        for _ in 0..2 {
            let mut again = open(folder.path(), "log.redb", 1, 1);
            assert_eq!(again.view().head().root, head.root);
            assert_eq!(again.view().head().seq, head.seq);
            again.checkpoint().unwrap();
            assert_eq!(again.view().head().root, head.root);
        }
    }
}
