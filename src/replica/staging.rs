//! Bringing large contents in chunk by chunk: room for them, each step of a stage, the check of the
//! whole, and what becomes of stages that nobody goes on with.

use std::sync::Arc;

use thiserror::Error;

use crate::replica::command::{Command, Step};
use crate::replica::view::View;
use crate::store::body::{Body, Form, StagedBody};
use crate::store::error::StoreError;
use crate::store::read::Snapshot;
use crate::store::rows::Placed;
use crate::store::stage::{ChunkEntry, STAGE_CHUNKS_MAX, Stage, StageKey, StagedChunk, Staging};
use crate::types::hash::{ContentHash, ContentHasher};
use crate::types::limits::Limits;

/// Most stages at a time.
const STAGES_MAX: usize = 64;
/// Stages together may become this many times as large as the largest state.
const STAGED_STATES: u64 = 8;
/// Within this time after its last step nobody else takes a stage's room, in milliseconds.
const BUSY_MILLIS: u64 = 60 * 1000;
/// For this long what is left of a transfer waits to be gone on with, in milliseconds.
const TRANSFER_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// For this long after its last step an upload is taken for running, in milliseconds.
const UPLOAD_MILLIS: u64 = 60 * 60 * 1000;
/// How often a step is tried again that others got in the way of.
const TRIES: usize = 8;

/// Why a content could not be brought in.
#[derive(Debug, Error, Clone)]
pub enum StagingError {
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The replica is stopping, or cannot take more writes.
    #[error("{0}")]
    Unavailable(String),
    /// There are too many, or too large ones.
    #[error(
        "too many large states are on their way into this replica; try again when some of them \
         have arrived"
    )]
    Full,
    /// Others went on with the same stage, or it was given up.
    #[error("a large state was taken over by another session at the same time; sync again")]
    Disturbed,
}

impl From<StoreError> for StagingError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Where stages are: an open namespace, for threads that may block.
pub trait Stager {
    /// The newest commit.
    fn newest(&self) -> Arc<View>;

    /// The clock on the wall, in milliseconds since 1970-01-01 UTC.
    fn millis(&self) -> u64;

    /// Has a command carried out, and waits until its effects are durable.
    ///
    /// # Errors
    /// [`StagingError`] when they are not.
    fn carry_out(&self, command: Command) -> Result<(), StagingError>;
}

/// How far a stage has come, once there is room for all of it. Stages that nobody went on with for a
/// while make room, those that wait for longest first.
///
/// # Errors
/// [`StagingError::Full`] when there is none.
pub fn admit(
    stager: &dyn Stager,
    key: StageKey,
    content: ContentHash,
    size: u64,
    limits: &Limits,
) -> Result<Stage, StagingError> {
    let now = stager.millis();
    for _ in 0..=STAGES_MAX {
        let view = stager.newest();
        match view.snapshot().stage(key)? {
            Some(stage) if (stage.content, stage.size) == (content, size) => return Ok(stage),
            Some(_) => give_up(stager, key)?,
            None => {}
        }
        let stages = view.snapshot().stages()?.into_iter();
        let stages: Vec<(StageKey, Stage)> = stages
            .filter_map(|(other, stage)| Some((other, stage.ok()?)))
            .filter(|(other, _)| *other != key)
            .collect();
        let sizes = stages.iter().map(|(_, stage)| stage.size);
        let bytes = sizes.fold(size, u64::saturating_add);
        let room = limits.state_bytes.saturating_mul(STAGED_STATES);
        if stages.len() < STAGES_MAX && bytes <= room {
            return Ok(Stage::new(content, size, now));
        }
        let oldest = stages.iter().min_by_key(|(_, stage)| stage.touched_at);
        match oldest {
            Some((oldest, stage)) if stage.touched_at.saturating_add(BUSY_MILLIS) < now => {
                give_up(stager, *oldest)?;
            }
            _ => return Err(StagingError::Full),
        }
    }
    Err(StagingError::Full)
}

/// Adds chunks to a stage, and returns how far it is then. Whether they are among what is there the
/// caller sees from that: others may have been faster.
///
/// # Errors
/// [`StagingError`] when nothing is durable.
pub fn grow(
    stager: &dyn Stager,
    key: StageKey,
    stage: &Stage,
    chunks: Vec<StagedChunk>,
) -> Result<Stage, StagingError> {
    stager.carry_out(Command::Stage(Staging {
        key,
        content: stage.content,
        size: stage.size,
        from: stage.chunks,
        chunks,
        at: stager.millis(),
    }))?;
    let grown = stager.newest().snapshot().stage(key)?;
    Ok(grown.unwrap_or_else(|| Stage::new(stage.content, stage.size, stager.millis())))
}

/// Gives a stage up, all of it.
///
/// # Errors
/// [`StagingError`]; the rest goes when it is old enough.
pub fn give_up(stager: &dyn Stager, key: StageKey) -> Result<(), StagingError> {
    while stager.newest().snapshot().stage(key)?.is_some() {
        stager.carry_out(Command::Collect(vec![Step::Unstage(key)]))?;
    }
    Ok(())
}

/// The content of a stage, once its chunks are read back and have the hash. `None` when they have
/// another one: then whoever sent them did not send what it said.
///
/// # Errors
/// [`StoreError`] when the chunks cannot be read, or are not what was written.
pub fn checked(
    snapshot: &Snapshot,
    key: StageKey,
    hash: &ContentHash,
) -> Result<Option<Body>, StoreError> {
    let missing = || StoreError::damaged(format!("what arrived of content {hash} is lost"));
    let stage = snapshot.stage(key)?.ok_or_else(missing)?;
    let mut hasher = ContentHasher::default();
    for row in 1..=stage.rows {
        for chunk in snapshot.stage_row(key, row)? {
            let bytes = snapshot.plain_chunk(&chunk)?.ok_or_else(missing)?;
            hasher.update(&bytes);
        }
    }
    Ok(hasher.finish().matches(hash).then_some(Body {
        hash: *hash,
        size: stage.bytes,
        form: Form::Staged(StagedBody {
            stage: key,
            mark: stage.mark,
        }),
    }))
}

/// The content of a stage that has all chunks, as [`checked`] finds it. What is not the content, or is
/// damaged, is given up, so that it can be brought in anew.
///
/// # Errors
/// [`StagingError`] when it cannot be read.
pub fn completed(
    stager: &dyn Stager,
    key: StageKey,
    hash: &ContentHash,
) -> Result<Option<Body>, StagingError> {
    let found = checked(stager.newest().snapshot(), key, hash);
    if matches!(found, Ok(None) | Err(StoreError::Damaged(_))) {
        give_up(stager, key)?;
    }
    Ok(found?)
}

/// The content of a version that is stored in chunks, as a stage that has all of them: so that
/// another version can refer to them whatever becomes of the first one. Its hash is checked.
///
/// # Errors
/// [`StagingError`] when it cannot be read, or there is no room.
pub fn from_held(
    stager: &dyn Stager,
    key: StageKey,
    placed: &Placed,
    limits: &Limits,
) -> Result<Body, StagingError> {
    let version = &placed.version;
    let list = stager
        .newest()
        .snapshot()
        .chunks_of(version, &placed.placement)?;
    let damaged = |what: &str| {
        let what = format!("content {} {what}", version.content);
        StagingError::from(StoreError::damaged(what))
    };
    let list: Vec<ChunkEntry> = list.ok_or_else(|| damaged("is not stored in chunks"))?;
    let mut stage = admit(stager, key, version.content, version.size, limits)?;
    for _ in 0..TRIES {
        while let Some(rest) = list
            .get(stage.chunks as usize..)
            .filter(|rest| !rest.is_empty())
        {
            let part = &rest[..rest.len().min(STAGE_CHUNKS_MAX)];
            let chunk = |(hash, length): &ChunkEntry| StagedChunk {
                hash: *hash,
                length: *length,
                packed: None,
            };
            let grown = grow(stager, key, &stage, part.iter().map(chunk).collect())?;
            if grown.chunks <= stage.chunks {
                return Err(StagingError::Disturbed);
            }
            stage = grown;
        }
        if let Some(body) = completed(stager, key, &version.content)? {
            return Ok(body);
        }
        stage = Stage::new(version.content, version.size, stager.millis());
    }
    Err(damaged("does not have its hash any more"))
}

/// How many large contents are on their way in, and how many of their bytes are here. What cannot be
/// read does not count.
pub fn staged(view: &View) -> (usize, u64) {
    let stages = view.snapshot().stages().unwrap_or_default();
    let stages = stages.iter().filter_map(|(_, stage)| stage.as_ref().ok());
    stages.fold((0, 0), |(count, bytes), stage| {
        (count + 1, bytes + stage.bytes)
    })
}

/// A step for each stage that nobody goes on with.
///
/// # Errors
/// [`StoreError`] when the view cannot be read.
pub fn abandoned(view: &View, now: u64) -> Result<Vec<Step>, StoreError> {
    let mut steps = Vec::new();
    for (key, stage) in view.snapshot().stages()? {
        // A damaged one is named by `samestate verify`.
        let Ok(stage) = stage else {
            continue;
        };
        let is_upload = stage.content == ContentHash::NONE;
        let patience = if is_upload {
            UPLOAD_MILLIS
        } else {
            TRANSFER_MILLIS
        };
        let is_old = stage.touched_at.saturating_add(patience) < now;
        if is_old || (!is_upload && is_here(view, &stage, now)?) {
            steps.push(Step::Unstage(key));
        }
    }
    Ok(steps)
}

/// True when a content has come in some other way, and nobody is at it.
fn is_here(view: &View, stage: &Stage, now: u64) -> Result<bool, StoreError> {
    if stage.touched_at.saturating_add(BUSY_MILLIS) >= now {
        return Ok(false);
    }
    match view.snapshot().content_row(&stage.content) {
        Ok(row) => Ok(row.is_some_and(|row| row.references > 0)),
        Err(StoreError::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
