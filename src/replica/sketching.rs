//! The sketch of a namespace's newest commit, and the way back from it to commits that are a little
//! older: what sessions with a pinned view work on.
//!
//! The writer only notes what a commit changes; whoever finds the sketch free takes the notes in.
//! Notes of the last changes are kept after that. To answer from an older commit, the cells that
//! are asked for are read from the newest sketch, and the few later changes are taken out of them.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::reconcile::view::SketchView;
use crate::replica::sketch_history::{Kept, Leaves, Noted, sketch_of};
use crate::sketch::cell::Cell;
use crate::sketch::estimator::Estimator;
use crate::sketch::key::{Secret, SketchKey};
use crate::sketch::table::{Change, PARTITION_CELLS, levels_for};
use crate::store::error::StoreError;
use crate::types::hash::{LeafDigest, StateKey};

/// Changes that wait for a sketch to be built: 100 MiB. With more it begins anew.
const WAITING_MAX: usize = 1 << 22;
/// A sketch is built anew with more partitions once there are so many times as many states as it
/// was built for.
const GROWTH: u64 = 2;
/// Fewest states that a sketch is built for.
const STATES_MIN: u64 = 1 << 12;
/// What stands in place of the number of partitions while there is no sketch.
const NONE: u8 = u8::MAX;

/// What a commit did to a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Which one.
    pub key: StateKey,
    /// Its digest before; `None` when it was not there.
    pub before: Option<LeafDigest>,
    /// Its digest afterwards.
    pub after: Option<LeafDigest>,
}

#[derive(Default)]
struct Waiting {
    notes: Vec<Noted>,
    /// True when there were too many to keep.
    lost: bool,
}

/// Keeps the sketch of one namespace.
pub struct Keeper {
    key: SketchKey,
    kept: Mutex<Option<Kept>>,
    /// Locked after `kept`, if both are, and only for a moment.
    waiting: Mutex<Waiting>,
    levels: AtomicU8,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Nothing is kept before [`Keeper::build`].
    pub fn new(secret: &Secret) -> Self {
        Self {
            key: SketchKey::new(secret),
            kept: Mutex::default(),
            waiting: Mutex::default(),
            levels: AtomicU8::new(NONE),
        }
    }

    /// True when there is a sketch.
    pub fn is_ready(&self) -> bool {
        self.levels.load(Ordering::Acquire) != NONE
    }

    /// Notes what a commit changes, before anybody sees it.
    pub fn note(&self, commit: u64, moved: &[Moved]) {
        if moved.is_empty() {
            return;
        }
        let changes = moved.iter().map(|moved| {
            let (before, after) = (moved.before.as_ref(), moved.after.as_ref());
            let change = Change::of(&self.key, &moved.key, before, after);
            Noted { commit, change }
        });
        let notes: Vec<Noted> = changes.collect();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.notes.len() + notes.len() > WAITING_MAX {
                waiting.notes = Vec::new();
                waiting.lost = true;
            }
            if !waiting.lost {
                waiting.notes.extend(notes);
            }
        }
        // Whoever has it now takes the notes in before reading.
        if let Ok(mut kept) = self.kept.try_lock() {
            self.take_in(&mut kept);
        }
    }

    fn take_in(&self, kept: &mut Option<Kept>) {
        let Some(sketch) = kept.as_mut() else {
            return;
        };
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        if waiting.lost {
            *kept = None;
            self.levels.store(NONE, Ordering::Release);
            return;
        }
        for noted in waiting.notes {
            sketch.take_in(noted);
        }
    }

    /// Goes back to a commit: what was noted of later ones has not happened.
    pub fn go_back_to(&self, commit: u64) {
        let mut kept = lock(&self.kept);
        lock(&self.waiting)
            .notes
            .retain(|noted| noted.commit <= commit);
        let Some(sketch) = kept.as_mut() else {
            return;
        };
        if !sketch.go_back_to(commit) {
            *kept = None;
            self.levels.store(NONE, Ordering::Release);
        }
    }

    /// True when a sketch has to be built: there is none, or it has become too small.
    pub fn wants_building(&self, states: u64) -> bool {
        let kept = lock(&self.kept);
        kept.as_ref().is_none_or(|kept| states > kept.states())
    }

    /// Builds the sketch of a commit, and takes in what was noted meanwhile. Blocks for as long as it
    /// takes to read all leaves, unless `go_on` says to stop; until it is done there may be none.
    ///
    /// # Errors
    /// [`StoreError`] when the leaves cannot be read.
    pub fn build(&self, of: Leaves<'_>, go_on: &dyn Fn() -> bool) -> Result<(), StoreError> {
        let commit = of.commit;
        {
            let mut kept = lock(&self.kept);
            self.levels.store(NONE, Ordering::Release);
            let recent = kept.take().map(Kept::into_recent).unwrap_or_default();
            let mut waiting = lock(&self.waiting);
            let notes = recent.into_iter().chain(std::mem::take(&mut waiting.notes));
            waiting.notes = notes.filter(|noted| noted.commit > commit).collect();
            waiting.lost = false;
        }
        let room = of.states.saturating_mul(GROWTH).max(STATES_MIN);
        let Some(sketch) = sketch_of(&self.key, levels_for(room), of, go_on)? else {
            return Ok(());
        };
        let levels = sketch.levels();
        let mut kept = lock(&self.kept);
        *kept = Some(Kept::new(sketch, room, commit));
        self.levels.store(levels, Ordering::Release);
        self.take_in(&mut kept);
        Ok(())
    }

    /// Compares the sketch with one built from a commit. `None` when there is none that goes back so
    /// far, or `go_on` said to stop.
    ///
    /// # Errors
    /// [`StoreError`] when the leaves cannot be read.
    pub fn is_right(
        &self,
        of: Leaves<'_>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<bool>, StoreError> {
        let levels = self.levels.load(Ordering::Acquire);
        if levels == NONE {
            return Ok(None);
        }
        let slots: Vec<u32> = (0..1 << levels).collect();
        let range = 0..PARTITION_CELLS;
        let read = |kept: &Kept, commit| {
            let cells = kept.fold(&self.key, commit, (levels, &slots, &range));
            cells.zip(kept.estimator(&self.key, commit))
        };
        let Some(kept) = self.at(of.commit, read) else {
            return Ok(None);
        };
        let built = sketch_of(&self.key, levels, of, go_on)?;
        Ok(built.map(|built| {
            let cells = built.fold(levels, &slots, &range);
            cells.is_some_and(|cells| kept == (cells, built.estimator().clone()))
        }))
    }

    /// Reads from the sketch, if it goes back to a commit.
    fn at<R>(&self, commit: u64, read: impl FnOnce(&Kept, u64) -> Option<R>) -> Option<R> {
        let mut kept = lock(&self.kept);
        self.take_in(&mut kept);
        let kept = kept.as_ref().filter(|kept| kept.reaches(commit))?;
        read(kept, commit)
    }
}

/// The sketch as it was at a commit.
pub struct SketchAt {
    keeper: Arc<Keeper>,
    commit: u64,
}

impl SketchAt {
    /// Of `keeper`, at `commit`.
    pub fn new(keeper: Arc<Keeper>, commit: u64) -> Self {
        Self { keeper, commit }
    }

    /// True when there may be one.
    pub fn is_ready(&self) -> bool {
        self.keeper.is_ready()
    }

    /// Who keeps it.
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }
}

impl SketchView for SketchAt {
    fn key(&self) -> &SketchKey {
        &self.keeper.key
    }

    fn levels(&self) -> u8 {
        match self.keeper.levels.load(Ordering::Acquire) {
            NONE => 0,
            levels => levels,
        }
    }

    fn estimator(&self) -> Option<Estimator> {
        let keeper = &self.keeper;
        keeper.at(self.commit, |kept, commit| {
            kept.estimator(&keeper.key, commit)
        })
    }

    fn fold(&self, levels: u8, slots: &[u32], range: &Range<usize>) -> Option<Vec<Cell>> {
        let keeper = &self.keeper;
        keeper.at(self.commit, |kept, commit| {
            kept.fold(&keeper.key, commit, (levels, slots, range))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::SystemClock;
    use crate::replica::command::{Change as StateChange, Command, Content, Precondition, Write};
    use crate::replica::engine::{Engine, Opened};
    use crate::replica::sketch_history::RECENT_MAX;
    use crate::replica::view::View;
    use crate::sketch::table::Sketch;
    use crate::store::options::StoreOptions;
    use crate::types::cursor::Epoch;
    use crate::types::id::{GameId, ReplicaId};

    fn opened() -> (Opened, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.redb");
        let (options, wall) = (StoreOptions::default(), Arc::new(SystemClock));
        let opened = Engine::open(&path, ReplicaId(1), Epoch(1), options, wall).unwrap();
        (opened, folder)
    }

    fn write(number: usize, text: Option<&str>) -> Write {
        Write {
            id: GameId::new(&format!("match/{number}")).unwrap(),
            precondition: Precondition::None,
            change: match text {
                Some(text) => StateChange::Put(Content::new(text.as_bytes(), None)),
                None => StateChange::Delete,
            },
        }
    }

    fn commit(engine: &mut Engine, writes: Vec<Write>) {
        let decided = engine.decide(vec![Command::Write(writes)], BTreeMap::new());
        engine.apply(&decided.unwrap()).unwrap();
    }

    fn is_right(view: &View) -> Option<bool> {
        view.is_sketch_right(&|| true).unwrap()
    }

    #[test]
    fn older_views_have_the_sketch_of_their_commit() {
        let (mut opened, _folder) = opened();
        let engine = &mut opened.engine;
        engine.keep_sketch(Arc::new(Keeper::new(&Secret::default())));
        // Before there is one, and while one is built, changes wait.
        commit(engine, (0..50).map(|n| write(n, Some("first"))).collect());
        let early = engine.view();
        commit(engine, vec![write(1, Some("second"))]);
        assert_eq!(is_right(&early), None);
        early.build_sketch(&|| true).unwrap();
        assert_eq!(is_right(&early), Some(true));
        let mut views = vec![early, engine.view()];
        for round in 0..20 {
            let text = format!("round {round}");
            let puts = (0..5).map(|n| write(n * round, Some(&text)));
            let both = puts.chain([write(round, None), write(round, Some("again"))]);
            commit(engine, both.collect());
            views.push(engine.view());
        }
        for view in &views {
            assert_eq!(is_right(view), Some(true), "commit {}", view.commit());
        }
    }

    #[test]
    fn what_did_not_become_durable_is_taken_back() {
        let (mut opened, _folder) = opened();
        let engine = &mut opened.engine;
        let keeper = Arc::new(Keeper::new(&Secret::default()));
        engine.keep_sketch(Arc::clone(&keeper));
        commit(engine, vec![write(1, Some("a")), write(2, Some("b"))]);
        let (before, number) = (engine.view(), engine.commit_number());
        before.build_sketch(&|| true).unwrap();
        for _ in 0..3 {
            commit(engine, vec![write(1, Some("c")), write(3, None)]);
        }
        engine.go_back_to(&before, number);
        assert_eq!(is_right(&engine.view()), Some(true));
        commit(engine, vec![write(2, Some("d"))]);
        assert_eq!(is_right(&engine.view()), Some(true));
        // A commit that the sketch was built on cannot be taken back.
        engine.view().build_sketch(&|| true).unwrap();
        assert!(keeper.is_ready());
        engine.go_back_to(&before, number);
        assert_eq!((is_right(&engine.view()), keeper.is_ready()), (None, false));
        assert!(engine.view().wants_sketch());
    }

    #[test]
    fn a_wrong_sketch_is_found_out() {
        let (mut opened, _folder) = opened();
        let engine = &mut opened.engine;
        let keeper = Arc::new(Keeper::new(&Secret::default()));
        engine.keep_sketch(Arc::clone(&keeper));
        commit(engine, vec![write(1, Some("a"))]);
        engine.view().build_sketch(&|| true).unwrap();
        let forged = Moved {
            key: StateKey([7; 32]),
            before: None,
            after: Some(LeafDigest([7; 32])),
        };
        keeper.note(engine.commit_number(), &[forged]);
        assert_eq!(is_right(&engine.view()), Some(false));
        // Stopped half-way there is none, and it is wanted.
        engine.view().build_sketch(&|| false).unwrap();
        assert!(!keeper.is_ready() && engine.view().wants_sketch());
    }

    #[test]
    fn a_view_of_too_long_ago_has_none() {
        let keeper = Keeper::new(&Secret::default());
        let kept = Kept::new(Sketch::new(keeper.key, 0), 10, 1);
        *lock(&keeper.kept) = Some(kept);
        keeper.levels.store(0, Ordering::Release);
        let moved = |number: usize| Moved {
            key: StateKey(std::array::from_fn(|at| (number >> (8 * (at % 4))) as u8)),
            before: None,
            after: Some(LeafDigest([1; 32])),
        };
        let many: Vec<Moved> = (0..RECENT_MAX).map(moved).collect();
        keeper.note(2, &many);
        let readable = |commit| keeper.at(commit, |_, _| Some(())).is_some();
        assert!(readable(1) && readable(2));
        keeper.note(3, &[moved(RECENT_MAX)]);
        assert!(!readable(1) && readable(2) && readable(3));
    }
}
