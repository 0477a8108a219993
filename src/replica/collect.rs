//! Finding what is to be collected: a page of a view at a time, as steps small enough that none of
//! the commands made of them holds up the writer.

use std::sync::Arc;

use crate::replica::command::{Command, Meeting, Step};
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::placement::RELEASE_CHUNKS;
use crate::store::read::{HistoryRow, Snapshot};
use crate::store::rows::{Placed, Placement, RecordRow, STRIP_GRACE_MILLIS};
use crate::types::hash::{ContentHash, StateKey};
use crate::types::record::meet;
use crate::types::seen::Seen;

/// Rows that one command touches at most, unless its only step touches more by itself: a step that
/// gives up [`RELEASE_CHUNKS`] chunks does, by a few.
pub const COMMAND_ROWS: usize = 2 * RELEASE_CHUNKS;
/// Rows that removing a record touches apart from its history and contents: its own, its id, its
/// place in the feed, its deadline, and about a dozen in the tree.
const DEPART_ROWS: usize = 16;
/// Rows that giving up bytes touches apart from contents.
const STRIP_ROWS: usize = 4;
/// Deadlines that are looked at for one command.
const PAGE: usize = 256;
/// Changes in history that are looked at for one command, more than any one state may have.
const HISTORY_PAGE: usize = 2048;

/// What the next command is to do, and where to go on behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<P> {
    /// The command's steps; there may be none in a page.
    pub steps: Vec<Step>,
    /// Rows that they touch, about.
    pub rows: usize,
    /// Where the next page begins; `None` when this was the last one.
    pub next: Option<P>,
}

/// Steps of one command in the making.
#[derive(Default)]
struct Draft {
    steps: Vec<Step>,
    rows: usize,
}

impl Draft {
    /// Takes steps over, each with the rows that it touches. False when there was no room for all
    /// of them: the rest is for a later command.
    fn take(&mut self, steps: Vec<(Step, usize)>) -> bool {
        for (step, rows) in steps {
            if !self.steps.is_empty() && self.rows + rows > COMMAND_ROWS {
                return false;
            }
            self.push(step);
            self.rows += rows;
        }
        true
    }

    /// A state's changes are forgotten in one go: each step goes over those before it again.
    fn push(&mut self, step: Step) {
        match (self.steps.last_mut(), step) {
            (Some(Step::Trim(last, through)), Step::Trim(key, seq)) if *last == key => {
                *through = seq;
            }
            _ => self.steps.push(step),
        }
    }

    fn plan<P>(self, next: Option<P>) -> Plan<P> {
        Plan {
            steps: self.steps,
            rows: self.rows,
            next,
        }
    }
}

/// A place in the list of what is to be collected when.
pub type Deadline = (u64, [u8; 32]);

/// What is due at `now`: expired bytes, departed records and contents on their way out. `seen` is
/// what this replica has taken in: a record that it does not cover must stay, or nothing would keep
/// what it deleted from coming back.
///
/// # Errors
/// [`StoreError`] when the view cannot be read.
pub fn due(
    view: &View,
    seen: &Seen,
    now: u64,
    after: Option<Deadline>,
) -> Result<Plan<Deadline>, StoreError> {
    let snapshot = view.snapshot();
    let (mut draft, mut last) = (Draft::default(), after);
    let page = snapshot.due(now, after, PAGE)?;
    let is_last = page.len() < PAGE;
    for (at, key) in page {
        let steps = if at == 0 {
            free(snapshot, ContentHash(key))
        } else {
            steps(snapshot, StateKey(key), seen, now)
        };
        let steps = match steps {
            // `samestate verify` names it.
            Err(StoreError::Damaged(_)) => Vec::new(),
            steps => steps?,
        };
        if !draft.take(steps) {
            // Seen from the beginning of the list the rest of this one comes first again.
            return Ok(draft.plan(Some(last.unwrap_or((0, [0; 32])))));
        }
        last = Some((at, key));
    }
    Ok(draft.plan(last.filter(|_| !is_last)))
}

fn free(snapshot: &Snapshot, hash: ContentHash) -> Result<Vec<(Step, usize)>, StoreError> {
    let chunks = snapshot.chunks_to_free(&hash)?;
    let pieces = chunks.div_ceil(RELEASE_CHUNKS);
    Ok(vec![(Step::Free(hash), 1 + 2 * RELEASE_CHUNKS); pieces])
}

fn steps(
    snapshot: &Snapshot,
    key: StateKey,
    seen: &Seen,
    now: u64,
) -> Result<Vec<(Step, usize)>, StoreError> {
    let Some(row) = snapshot
        .record(&key)?
        .filter(|row| row.due().is_some_and(|at| at <= now))
    else {
        return Ok(Vec::new());
    };
    if row.record.has_departed(now) && row.record.is_covered(seen) {
        return removal(snapshot, &row);
    }
    let by = now.saturating_sub(STRIP_GRACE_MILLIS);
    let expired = |placed: &Placed| placed.version.has_expired(by);
    let has_bytes = |placed: &Placed| placed.placement != Placement::Nothing;
    let mut bytes = placed(&row);
    bytes.retain(|placed| expired(placed) && has_bytes(placed));
    if bytes.is_empty() {
        // All that is left to do is to remove the record, which has to stay.
        return Ok(Vec::new());
    }
    let own = STRIP_ROWS + cost(snapshot, &bytes)?;
    let history = whole_history(snapshot, key)?;
    let over = history
        .iter()
        .take_while(|row| row.entries.iter().all(expired));
    let over: Vec<HistoryRow> = over.cloned().collect();
    in_pieces(snapshot, Step::Strip(key), own, &over)
}

/// What removing a state takes.
fn removal(snapshot: &Snapshot, row: &RecordRow) -> Result<Vec<(Step, usize)>, StoreError> {
    let key = row.leaf.key;
    let own = DEPART_ROWS + cost(snapshot, &placed(row))?;
    let history = whole_history(snapshot, key)?;
    in_pieces(snapshot, Step::Depart(key), own, &history)
}

fn whole_history(snapshot: &Snapshot, key: StateKey) -> Result<Vec<HistoryRow>, StoreError> {
    let rows = snapshot.history_rows(&key)?.into_iter();
    let rows = rows.map(|(seq, entries)| HistoryRow { key, seq, entries });
    Ok(rows.collect())
}

/// Letting go of what the other side of a meeting has collected, as commands of which none holds up
/// the writer: a state with a long history loses that first. `seen` is what this replica will have
/// taken in by then.
///
/// # Errors
/// [`StoreError`] when the view cannot be read.
pub fn let_go(view: &View, seen: &Seen, meeting: Meeting) -> Result<Vec<Command>, StoreError> {
    let (snapshot, theirs) = (view.snapshot(), meeting.seen);
    let (mut commands, mut absent, mut rows) = (Vec::new(), Vec::new(), 0);
    let of = |absent: &mut Vec<StateKey>| {
        Command::Meet(Meeting {
            incoming: Vec::new(),
            absent: std::mem::take(absent),
            seen: Arc::clone(&theirs),
        })
    };
    for key in meeting.absent {
        let steps = match steps_to_let_go(snapshot, key, seen, &theirs) {
            // It stays, and `samestate verify` names it.
            Err(StoreError::Damaged(_)) => continue,
            steps => steps?,
        };
        let Some(((_, own), trims)) = steps.split_last() else {
            continue;
        };
        if rows + own > COMMAND_ROWS && !absent.is_empty() {
            commands.push(of(&mut absent));
            rows = 0;
        }
        let mut first = Draft::default();
        for trim in trims {
            if !first.take(vec![*trim]) {
                commands.push(Command::Collect(std::mem::take(&mut first).steps));
                first.take(vec![*trim]);
            }
        }
        if !first.steps.is_empty() {
            commands.push(Command::Collect(first.steps));
        }
        absent.push(key);
        rows += own;
    }
    if !absent.is_empty() {
        commands.push(of(&mut absent));
    }
    if !meeting.incoming.is_empty() {
        commands.push(Command::Meet(Meeting {
            incoming: meeting.incoming,
            absent: Vec::new(),
            seen: theirs,
        }));
    }
    Ok(commands)
}

/// Nothing for a state that is not there. The last step stands for what becomes of the record.
fn steps_to_let_go(
    snapshot: &Snapshot,
    key: StateKey,
    seen: &Seen,
    theirs: &Seen,
) -> Result<Vec<(Step, usize)>, StoreError> {
    let Some(row) = snapshot.record(&key)? else {
        return Ok(Vec::new());
    };
    match meet(Some(&row.record), seen, None, theirs) {
        None => removal(snapshot, &row),
        Some(_) => Ok(vec![(Step::Depart(key), DEPART_ROWS)]),
    }
}

/// A step with the history that goes with it, which is forgotten first, change by change, when all
/// of it would be too much at once.
fn in_pieces(
    snapshot: &Snapshot,
    step: Step,
    own: usize,
    history: &[HistoryRow],
) -> Result<Vec<(Step, usize)>, StoreError> {
    let trims = trims(snapshot, history)?;
    let all = own + trims.iter().map(|(_, rows)| rows).sum::<usize>();
    if all <= COMMAND_ROWS {
        return Ok(vec![(step, all)]);
    }
    Ok(trims.into_iter().chain([(step, own)]).collect())
}

/// A step for each change in history, oldest first.
fn trims(snapshot: &Snapshot, history: &[HistoryRow]) -> Result<Vec<(Step, usize)>, StoreError> {
    let trim = |row: &HistoryRow| {
        let rows = 1 + cost(snapshot, &row.entries)?;
        Ok((Step::Trim(row.key, row.seq), rows))
    };
    history.iter().map(trim).collect()
}

fn placed(row: &RecordRow) -> Vec<Placed> {
    let placed = row.placed().map(|(version, placement)| Placed {
        version: version.clone(),
        placement: placement.clone(),
    });
    placed.collect()
}

fn cost(snapshot: &Snapshot, placed: &[Placed]) -> Result<usize, StoreError> {
    let mut placed = placed.iter();
    placed.try_fold(0, |rows, placed| Ok(rows + snapshot.release_cost(placed)?))
}

/// What was superseded at `before` or earlier, by the stamps of what took its place. Looks at one
/// page of the history behind the state `after`.
///
/// # Errors
/// [`StoreError`] when the view cannot be read.
pub fn too_old(
    view: &View,
    before: u64,
    after: Option<StateKey>,
) -> Result<Plan<StateKey>, StoreError> {
    let snapshot = view.snapshot();
    let first = after.map_or((StateKey([0; 32]), 0), |key| (key, u64::MAX));
    let last = (StateKey([u8::MAX; 32]), u64::MAX);
    let mut page = snapshot.history_between(first, last, HISTORY_PAGE)?;
    let is_last = page.len() < HISTORY_PAGE;
    if !is_last && let Some(cut_off) = page.last().map(|(key, _)| *key) {
        let whole = page.iter().take_while(|(key, _)| *key != cut_off).count();
        // The bound on a state's history may have been lowered: then its oldest part is looked at.
        if whole > 0 {
            page.truncate(whole);
        }
    }
    let (mut draft, mut done) = (Draft::default(), after);
    let mut page = page.into_iter().peekable();
    while let Some((key, first)) = page.next() {
        let mut state = vec![first];
        while let Some((_, row)) = page.next_if(|(next, _)| *next == key) {
            state.push(row);
        }
        let steps = match trims_of_old(snapshot, key, state, before) {
            // `samestate verify` names it.
            Err(StoreError::Damaged(_)) => Vec::new(),
            steps => steps?,
        };
        if !draft.take(steps) {
            return Ok(draft.plan(Some(done.unwrap_or(StateKey([0; 32])))));
        }
        done = Some(key);
    }
    Ok(draft.plan(done.filter(|_| !is_last)))
}

fn trims_of_old(
    snapshot: &Snapshot,
    key: StateKey,
    history: Vec<Result<HistoryRow, StoreError>>,
    before: u64,
) -> Result<Vec<(Step, usize)>, StoreError> {
    let history: Vec<HistoryRow> = history.into_iter().collect::<Result<_, _>>()?;
    let newest = snapshot.leaf(&key)?.map_or(0, |(leaf, _)| leaf.updated_at);
    let over = superseded_at(&history, newest)
        .take_while(|at| *at <= before)
        .count();
    trims(snapshot, history.get(..over).unwrap_or_default())
}

/// When each change of a state took place: the newest stamp of what was current after it, which
/// the next change superseded or which is current still.
fn superseded_at(state: &[HistoryRow], newest: u64) -> impl Iterator<Item = u64> + '_ {
    let stamp = |row: &HistoryRow| {
        let stamps = row.entries.iter().map(|entry| entry.version.stamp.millis);
        stamps.max().unwrap_or(0)
    };
    let after = state.iter().skip(1).map(stamp);
    after.chain([newest])
}
