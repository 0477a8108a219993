//! Large states that are stored while they arrive: cut into chunks, each kept before the next ones
//! are read, so that memory does not grow with the state.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use tokio::task;
use tokio::time::Instant;

use crate::delta::chunker::Cutter;
use crate::delta::compress::{decompress, pack as pack_chunk};
use crate::delta::error::DeltaError;
use crate::delta::inflate::Inflater;
use crate::http::app::{App, blocking};
use crate::http::body::{Bound, Pieces, Received, content_length, receive_pieces, refuse_declared};
use crate::http::budget::Reservation;
use crate::http::coding::Coding;
use crate::http::problem::Problem;
use crate::replica::staging::{Stager, StagingError, admit, give_up, grow};
use crate::replica::view::View;
use crate::runtime::namespace::OpenNamespace;
use crate::store::body::{Body as Packed, Form, StagedBody, WHOLE_BYTES_MAX};
use crate::store::directory::fresh_epoch;
use crate::store::stage::{STAGE_CHUNKS_MAX, Stage, StageKey, StagedChunk};
use crate::types::hash::{ChunkHash, ContentHash, ContentHasher};
use crate::types::limits::{Limits, WHOLE_STATE_MAX};

/// Bodies above this size are stored while they arrive.
pub const STAGED_FROM: u64 = 4 << 20;
/// Bytes that are packed without leaving the async thread: some dozen microseconds.
const PACK_INLINE: usize = 16 << 10;
/// Content is assumed to compress no better than this; what does is decompressed a second time.
const EXPANSION: u64 = 16;
/// Bytes that are taken from the client before they are cut.
const PIECE: usize = 1 << 20;
/// State bytes that are stored with one step.
const STEP: usize = 1 << 20;
/// Memory for all of that.
const MEMORY: u64 = 6 << 20;

/// A state that a client has sent.
pub struct Taken {
    /// The bytes, or what refers to them.
    pub body: Packed,
    /// What was set aside for it.
    pub reservation: Reservation,
    /// Where it was stored while it arrived, if it was large.
    pub stage: Option<StageKey>,
}

/// A large body: what has come, and where the rest comes from.
struct Begun {
    first: Vec<Bytes>,
    rest: Option<Pieces>,
    declared: Option<u64>,
    reservation: Reservation,
}

/// Takes the body of a request: a small state in memory, a large one into a stage.
///
/// # Errors
/// [`Problem`] when it is too long, too slow, ends early, does not decompress, or cannot be stored.
pub async fn take(
    app: &App,
    namespace: &Arc<OpenNamespace>,
    headers: &HeaderMap,
    body: Body,
    coding: Coding,
) -> Result<Taken, Problem> {
    let bound = Bound {
        bytes: app.replica.limits().state_bytes,
        exceeded: Problem::state_too_large,
    };
    let declared = content_length(headers);
    let is_large = declared.is_some_and(|length| length > STAGED_FROM);
    let begun = if is_large {
        let body = refuse_declared(app, headers, body, bound)?;
        Begun {
            first: Vec::new(),
            rest: Some(Pieces::new(headers, body, bound)),
            declared,
            reservation: app.uploads.reserve(0).await?,
        }
    } else {
        let body = refuse_declared(app, headers, body, bound)?;
        let mut pieces = Pieces::new(headers, body, bound);
        let Received { bytes, reservation } = receive_pieces(app, &mut pieces, STAGED_FROM).await?;
        let first = bytes.clone();
        if !pieces.is_over() {
            Begun {
                first: vec![first],
                rest: Some(pieces),
                declared,
                reservation,
            }
        } else {
            let whole = Received { bytes, reservation };
            match in_memory(whole, coding, bound.bytes).await? {
                Ok(taken) => return Ok(taken),
                Err(reservation) => Begun {
                    first: vec![first],
                    rest: None,
                    declared,
                    reservation,
                },
            }
        }
    };
    // Goes on to its end, or to its failure, when the client hangs up.
    let stored = store(app.clone(), Arc::clone(namespace), begun, coding);
    task::spawn(stored)
        .await
        .map_err(|_| Problem::unexpected())?
}

/// Packs a body that has come as a whole; what was set aside for it when it decompresses to more
/// than may be in memory.
async fn in_memory(
    received: Received,
    coding: Coding,
    limit: u64,
) -> Result<Result<Taken, Reservation>, Problem> {
    let received = match coding {
        Coding::Zstd => match decoded(received, limit.min(WHOLE_STATE_MAX)).await? {
            Ok(received) => received,
            Err(reservation) if limit > WHOLE_STATE_MAX => return Ok(Err(reservation)),
            Err(_) => return Err(Problem::state_too_large(limit)),
        },
        Coding::Identity | Coding::Dcz => received,
    };
    Ok(Ok(Taken {
        body: pack(received.bytes).await?,
        reservation: received.reservation,
        stage: None,
    }))
}

/// Hashes and packs a state.
///
/// # Errors
/// [`Problem::unexpected`] when the thread that does it fails.
pub async fn pack(bytes: Bytes) -> Result<Packed, Problem> {
    if bytes.len() <= PACK_INLINE {
        return Ok(Packed::new(&bytes));
    }
    blocking(move || Ok(Packed::new(&bytes))).await
}

/// Decompresses a body. Memory is set aside before it is taken; it is given back when the content
/// has more bytes than the limit.
async fn decoded(received: Received, limit: u64) -> Result<Result<Received, Reservation>, Problem> {
    let Received {
        bytes,
        mut reservation,
    } = received;
    let length = bytes.len() as u64;
    let likely = (length * EXPANSION).min(limit);
    for bound in [likely, limit] {
        reservation.cover(length + bound).await?;
        let compressed = bytes.clone();
        let bound = usize::try_from(bound).unwrap_or(usize::MAX);
        match blocking(move || Ok(decompress(&compressed, bound))).await? {
            Err(DeltaError::TooLarge { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(content) => {
                let bytes = content.into();
                return Ok(Ok(Received { bytes, reservation }));
            }
        }
    }
    Ok(Err(reservation))
}

/// Gives up what no record refers to, when a write is done or refused.
pub fn clean_up(namespace: Arc<OpenNamespace>, stage: StageKey) {
    // What is left after a failure is collected when it is old enough.
    task::spawn_blocking(move || give_up(&*namespace, stage));
}

/// Stores a large body as it arrives. Unless all of it is stored nothing is.
async fn store(
    app: App,
    namespace: Arc<OpenNamespace>,
    begun: Begun,
    coding: Coding,
) -> Result<Taken, Problem> {
    let limits = *app.replica.limits();
    let number = fresh_epoch().map_err(|error| Problem::from(&error))?;
    let key = StageKey::of_upload(number.0);
    let size = begun.declared.filter(|_| coding == Coding::Identity);
    let size = size.unwrap_or(limits.state_bytes);
    let begin = Arc::clone(&namespace);
    let begin = move || Upload::begin(begin, key, size, coding, &limits);
    let upload = blocking(begin).await?;
    let taken = take_in(&app, upload, begun).await;
    if taken.is_err() {
        clean_up(namespace, key);
    }
    taken
}

async fn take_in(app: &App, mut upload: Upload, begun: Begun) -> Result<Taken, Problem> {
    let Begun {
        first: mut waiting,
        mut rest,
        mut reservation,
        ..
    } = begun;
    reservation.cover(MEMORY + STAGED_FROM).await?;
    let mut length = 0;
    loop {
        let next = match &mut rest {
            Some(pieces) => pieces.next(app).await?,
            None => None,
        };
        let is_last = next.is_none();
        length += next.as_ref().map_or(0, Bytes::len);
        waiting.extend(next);
        if !is_last && length < PIECE {
            continue;
        }
        let (parts, asked) = (std::mem::take(&mut waiting), Instant::now());
        length = 0;
        upload = blocking(move || {
            parts.iter().try_for_each(|part| upload.take(part))?;
            Ok(upload)
        })
        .await?;
        if is_last {
            break;
        }
        if let Some(pieces) = &mut rest {
            // The client waited for the disk.
            pieces.paused(asked.elapsed());
        }
    }
    let stage = Some(upload.key);
    let body = blocking(move || upload.finish()).await?;
    Ok(Taken {
        body,
        reservation,
        stage,
    })
}

/// A state on its way into its stage. Its methods block.
struct Upload {
    namespace: Arc<OpenNamespace>,
    key: StageKey,
    stage: Stage,
    limit: u64,
    inflater: Option<Inflater>,
    sink: Sink,
}

/// What was cut and is not stored yet.
#[derive(Default)]
struct Sink {
    length: u64,
    hasher: ContentHasher,
    cutter: Cutter,
    chunks: Vec<(ChunkHash, Vec<u8>)>,
    bytes: usize,
}

impl Sink {
    fn take(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
        let (chunks, waiting) = (&mut self.chunks, &mut self.bytes);
        let cut = self
            .cutter
            .push(bytes, |chunk| keep(chunks, waiting, chunk));
        cut.unwrap_or_else(|never| match never {});
    }
}

fn keep(
    chunks: &mut Vec<(ChunkHash, Vec<u8>)>,
    waiting: &mut usize,
    chunk: &[u8],
) -> Result<(), std::convert::Infallible> {
    chunks.push((ChunkHash::of(chunk), chunk.to_vec()));
    *waiting += chunk.len();
    Ok(())
}

impl Upload {
    fn begin(
        namespace: Arc<OpenNamespace>,
        key: StageKey,
        size: u64,
        coding: Coding,
        limits: &Limits,
    ) -> Result<Self, Problem> {
        let stage = admit(&*namespace, key, ContentHash::NONE, size, limits)?;
        let inflater = (coding == Coding::Zstd).then(Inflater::new);
        Ok(Self {
            namespace,
            key,
            stage,
            limit: limits.state_bytes,
            inflater: inflater.transpose()?,
            sink: Sink::default(),
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let Some(mut inflater) = self.inflater.take() else {
            return self.take_plain(bytes);
        };
        inflater.push(bytes, |plain| self.take_plain(plain))?;
        self.inflater = Some(inflater);
        Ok(())
    }

    fn take_plain(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        for part in bytes.chunks(STEP) {
            if self.sink.length + part.len() as u64 > self.limit {
                return Err(Problem::state_too_large(self.limit));
            }
            self.sink.take(part);
            if self.sink.bytes >= STEP {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Stores what was cut.
    fn step(&mut self) -> Result<(), Problem> {
        let chunks = std::mem::take(&mut self.sink.chunks);
        self.sink.bytes = 0;
        for part in chunks.chunks(STAGE_CHUNKS_MAX) {
            let due = self.stage.chunks + part.len() as u32;
            // What the store has need not be written again, unless it is given up just now.
            for is_whole in [false, true] {
                if self.stage.chunks != due {
                    let view = self.namespace.newest();
                    let part = part.iter().map(|chunk| staged(&view, chunk, is_whole));
                    let part = part.collect::<Result<_, StagingError>>()?;
                    self.stage = grow(&*self.namespace, self.key, &self.stage, part)?;
                }
            }
            if self.stage.chunks != due {
                return Err(StagingError::Disturbed.into());
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Packed, Problem> {
        if let Some(inflater) = self.inflater.take() {
            inflater.finish()?;
        }
        let (chunks, waiting) = (&mut self.sink.chunks, &mut self.sink.bytes);
        let cutter = std::mem::take(&mut self.sink.cutter);
        let cut = cutter.finish(|chunk| keep(chunks, waiting, chunk));
        cut.unwrap_or_else(|never| match never {});
        if self.sink.length <= WHOLE_BYTES_MAX as u64 {
            // Much that decompresses to little.
            let whole: Vec<u8> = self.sink.chunks.into_iter().flat_map(|(_, b)| b).collect();
            return Ok(Packed::new(&whole));
        }
        self.step()?;
        let (hasher, size) = (self.sink.hasher, self.sink.length);
        Ok(Packed {
            hash: hasher.finish(),
            size,
            form: Form::Staged(StagedBody {
                stage: self.key,
                mark: self.stage.mark,
            }),
        })
    }
}

fn staged(
    view: &View,
    (hash, bytes): &(ChunkHash, Vec<u8>),
    is_whole: bool,
) -> Result<StagedChunk, StagingError> {
    let length = bytes.len() as u32;
    let is_here = !is_whole && view.snapshot().plain_chunk(&(*hash, length))?.is_some();
    Ok(StagedChunk {
        hash: *hash,
        length,
        packed: (!is_here).then(|| pack_chunk(bytes).into()),
    })
}
