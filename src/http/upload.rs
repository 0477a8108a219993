//! Large states that are stored while they arrive: cut into chunks, each kept before the next ones
//! are read, so that memory does not grow with the state.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task;
use tokio::time::Instant;

use crate::delta::compress::decompress;
use crate::delta::error::DeltaError;
use crate::delta::inflate::Inflater;
use crate::http::app::{App, blocking, blocking_holding};
use crate::http::body::{Bound, Pieces, Received, content_length, receive_pieces, refuse_declared};
use crate::http::budget::Reservation;
use crate::http::coding::Coding;
use crate::http::problem::Problem;
use crate::replica::stage_writer::{STEP, StageWriter};
use crate::replica::staging::give_up;
use crate::runtime::namespace::OpenNamespace;
use crate::store::body::Body as Packed;
use crate::store::random::random_u64;
use crate::store::stage::StageKey;
use crate::types::limits::{Limits, STAGED_FROM, WHOLE_STATE_MAX};

/// Bytes that are packed without leaving the async thread: some dozen microseconds.
const PACK_INLINE: usize = 16 << 10;
/// Content is assumed to compress no better than this; what does is decompressed a second time.
const EXPANSION: u64 = 16;
/// Bytes that are taken from the client before they are cut.
const PIECE: usize = 1 << 20;
/// Memory for all of that.
pub const MEMORY: u64 = 6 << 20;

/// A state that a client has sent.
pub struct Taken {
    /// The bytes, or what refers to them.
    pub body: Packed,
    /// What was set aside for it.
    pub reservation: Reservation,
    /// Where it was stored while it arrived, if it was large. To be held until the state is written.
    pub stage: Option<Staged>,
}

/// A stage of a write. What no record refers to is given up when this is dropped: when the write is
/// done or refused, or when its client hung up and nobody goes on with it.
pub struct Staged {
    namespace: Arc<OpenNamespace>,
    key: StageKey,
    runtime: Handle,
}

impl Staged {
    /// A stage that has no other owner, under a key of its own.
    ///
    /// # Errors
    /// [`Problem`] when the machine gives no random numbers.
    pub fn new(namespace: Arc<OpenNamespace>) -> Result<Self, Problem> {
        let number = random_u64().map_err(|error| Problem::from(&error))?;
        Ok(Self {
            namespace,
            key: StageKey::of_upload(number),
            runtime: Handle::current(),
        })
    }

    /// Its key.
    pub fn key(&self) -> StageKey {
        self.key
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let (namespace, key) = (Arc::clone(&self.namespace), self.key);
        // What is left after a failure is collected when it is old enough.
        self.runtime
            .spawn_blocking(move || give_up(&*namespace, key));
    }
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
    let (body, reservation) = pack(received).await?;
    Ok(Ok(Taken {
        body,
        reservation,
        stage: None,
    }))
}

/// Hashes and packs a state, whose share of the memory comes back with it.
///
/// # Errors
/// [`Problem::unexpected`] when the thread that does it fails.
pub async fn pack(received: Received) -> Result<(Packed, Reservation), Problem> {
    let Received { bytes, reservation } = received;
    if bytes.len() <= PACK_INLINE {
        return Ok((Packed::new(&bytes), reservation));
    }
    blocking_holding(reservation, move || Ok(Packed::new(&bytes))).await
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
        let work = move || Ok(decompress(&compressed, bound));
        let (content, share) = blocking_holding(reservation, work).await?;
        reservation = share;
        match content {
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

/// Stores a large body as it arrives. Unless all of it is stored nothing is.
async fn store(
    app: App,
    namespace: Arc<OpenNamespace>,
    begun: Begun,
    coding: Coding,
) -> Result<Taken, Problem> {
    let limits = *app.replica.limits();
    let stage = Staged::new(Arc::clone(&namespace))?;
    let size = begun.declared.filter(|_| coding == Coding::Identity);
    let size = size.unwrap_or(limits.state_bytes);
    let begin = move || Upload::begin(namespace, stage, size, coding, &limits);
    let upload = blocking(begin).await?;
    take_in(&app, upload, begun).await
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
    let (body, stage) = blocking(move || upload.finish()).await?;
    Ok(Taken {
        body,
        reservation,
        stage: Some(stage),
    })
}

/// A state on its way into its stage. Its methods block.
struct Upload {
    namespace: Arc<OpenNamespace>,
    stage: Staged,
    limit: u64,
    inflater: Option<Inflater>,
    writer: StageWriter,
}

impl Upload {
    fn begin(
        namespace: Arc<OpenNamespace>,
        stage: Staged,
        size: u64,
        coding: Coding,
        limits: &Limits,
    ) -> Result<Self, Problem> {
        let writer = StageWriter::begin(&*namespace, stage.key(), size, limits)?;
        let inflater = (coding == Coding::Zstd).then(Inflater::new);
        Ok(Self {
            namespace,
            stage,
            limit: limits.state_bytes,
            inflater: inflater.transpose()?,
            writer,
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
            if self.writer.length() + part.len() as u64 > self.limit {
                return Err(Problem::state_too_large(self.limit));
            }
            self.writer.push(&*self.namespace, part)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Packed, Staged), Problem> {
        if let Some(inflater) = self.inflater.take() {
            inflater.finish()?;
        }
        Ok((self.writer.finish(&*self.namespace)?, self.stage))
    }
}
