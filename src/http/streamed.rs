//! Large states as bodies of answers: read chunk by chunk while the client takes them.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc::{self, Sender};
use tokio::task;
use tokio::time::timeout;
use tracing::error;

use crate::http::budget::Reservation;
use crate::http::problem::Problem;
use crate::http::range::Span;
use crate::replica::view::View;
use crate::runtime::namespace::OpenNamespace;
use crate::store::error::StoreError;
use crate::store::rows::Placed;
use crate::store::stage::ChunkEntry;
use crate::types::hash::ContentHasher;
use crate::types::limits::STAGED_FROM;

/// States above this size are read while they are sent.
pub const STREAMED_FROM: u64 = STAGED_FROM;
/// Parts of states above this size are read while they are sent: the rest need not be read at all.
pub const PART_STREAMED_FROM: u64 = 256 << 10;

/// Bytes a piece. A client has to take one in the time of one pause.
const PIECE: usize = 256 << 10;
/// Pieces in memory at once: the one that is sent, the one that waits, the one that is read.
const PIECES: u64 = 3;
/// Bytes of memory a chunk in the list.
const ENTRY: u64 = 36;
/// No chunk but a state's last one is shorter.
const CHUNK_MIN: u64 = 2048;

/// Bytes of memory that streaming a state of this size takes, at most.
pub fn memory(size: u64) -> u64 {
    PIECES * PIECE as u64 + size / CHUNK_MIN * ENTRY
}

/// A state, or a part of one, that is read piece by piece.
pub struct Source {
    placed: Placed,
    list: std::vec::IntoIter<ChunkEntry>,
    /// Bytes in front of the part in the next chunk.
    skip: usize,
    /// Bytes of the part that were not read yet.
    left: u64,
    /// Of all bytes; none for a part.
    hasher: Option<ContentHasher>,
    /// What was read ahead.
    ready: Option<Vec<u8>>,
}

impl Source {
    /// The bytes of `span`, of which the first are read at once: `None` when they are not stored in
    /// chunks.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn open(view: &View, placed: Placed, span: &Span) -> Result<Option<Self>, StoreError> {
        let list = view
            .snapshot()
            .chunks_of(&placed.version, &placed.placement)?;
        let Some(list) = list else {
            return Ok(None);
        };
        let part = match span {
            Span::Part(part) => part.clone(),
            Span::Whole | Span::Outside => 0..placed.version.size,
        };
        let (first, before) = chunk_at(&list, part.start);
        let mut list = list.into_iter();
        if first > 0 {
            // Dropped one by one, which costs nothing for what is plain data.
            list.by_ref().take(first).for_each(drop);
        }
        let is_whole = *span == Span::Whole;
        let mut source = Self {
            placed,
            list,
            skip: before,
            left: part.end.saturating_sub(part.start),
            hasher: is_whole.then(ContentHasher::default),
            ready: None,
        };
        source.ready = source.read(view, None)?;
        Ok(Some(source))
    }

    /// Reads the next piece; `None` behind the last one. The last piece of a whole state is given
    /// only when all of them together have its hash. What `view` cannot read any more, because the
    /// file was opened anew, is read in the `newest` one.
    fn read(&mut self, view: &View, newest: Option<&View>) -> Result<Option<Vec<u8>>, StoreError> {
        if self.left == 0 {
            return Ok(None);
        }
        let hash = self.placed.version.content;
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE && self.left > 0 {
            let missing = || StoreError::damaged(format!("content {hash} lacks chunks"));
            let next = self.list.next().ok_or_else(missing)?;
            let chunk = match (view.snapshot().chunk_of(&hash, &next), newest) {
                (Ok(chunk), _) => chunk,
                (Err(error), Some(newest)) if !matches!(error, StoreError::Damaged(_)) => {
                    newest.snapshot().chunk_of(&hash, &next)?
                }
                (Err(error), _) => return Err(error),
            };
            let bytes = chunk
                .get(std::mem::take(&mut self.skip)..)
                .unwrap_or_default();
            let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
            let bytes = &bytes[..bytes.len().min(wanted)];
            self.left -= bytes.len() as u64;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(bytes);
            }
            piece.extend_from_slice(bytes);
        }
        if self.left == 0
            && let Some(hasher) = self.hasher.take()
            && !hasher.finish().matches(&hash)
        {
            let what = format!("content {hash} does not have its hash any more");
            return Err(StoreError::damaged(what));
        }
        Ok(Some(piece))
    }
}

/// The chunk with the byte at a place, and how many of its bytes stand in front of that.
fn chunk_at(list: &[ChunkEntry], place: u64) -> (usize, usize) {
    let mut before = place;
    for (index, (_, length)) in list.iter().enumerate() {
        if before < u64::from(*length) {
            return (index, before as usize);
        }
        before -= u64::from(*length);
    }
    (list.len(), 0)
}

/// A body that reads while it is sent. Damage on the way ends the connection, so that what came does
/// not pass for the whole; and so does a client that takes nothing for `idle`.
pub fn body(
    namespace: Arc<OpenNamespace>,
    view: Arc<View>,
    source: Source,
    share: Reservation,
    idle: Duration,
) -> Body {
    let (pieces, mut handed) = mpsc::channel(1);
    let mut left = source.left + source.ready.as_ref().map_or(0, |ready| ready.len() as u64);
    task::spawn(async move {
        hand_over(&namespace, view, source, idle, pieces).await;
        drop(share);
    });
    Body::from_stream(stream::poll_fn(move |context| {
        handed.poll_recv(context).map(|piece: Option<Bytes>| {
            let Some(piece) = piece else {
                let lacks = std::mem::take(&mut left) > 0;
                return lacks.then(|| Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
            };
            left = left.saturating_sub(piece.len() as u64);
            Some(Ok(piece))
        })
    }))
}

async fn hand_over(
    namespace: &OpenNamespace,
    view: Arc<View>,
    mut source: Source,
    idle: Duration,
    pieces: Sender<Bytes>,
) {
    let mut ready = source.ready.take();
    while let Some(piece) = ready {
        let Ok(Ok(())) = timeout(idle, pieces.send(piece.into())).await else {
            return;
        };
        let newest = namespace.view();
        let read = namespace.read_view(Arc::clone(&view), move |view| {
            let read = source.read(view, Some(&newest));
            Ok::<_, Problem>((read, source))
        });
        let Ok((read, rest)) = read.await else {
            return;
        };
        source = rest;
        ready = match read {
            Ok(piece) => piece,
            Err(error) => {
                let content = source.placed.version.content;
                error!(%content, error = %error.bare(), "broke off while a state was read");
                return;
            }
        };
    }
}

/// Which bytes a part has, for headers.
pub fn part_of(span: &Span) -> Option<&Range<u64>> {
    match span {
        Span::Part(part) => Some(part),
        Span::Whole | Span::Outside => None,
    }
}
