//! `GET /v1/ns/{ns}/changes`: the change feed, by pages, long polls or as a stream of events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::HeaderName;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::http::app::App;
use crate::http::budget::Reservation;
use crate::http::extract::{InNamespace, Params, accepts, page_limit};
use crate::http::outgoing;
use crate::http::problem::Problem;
use crate::replica::view::View;
use crate::runtime::namespace::OpenNamespace;
use crate::store::rows::RecordRow;
use crate::types::cursor::{BadCursor, Cursor};
use crate::types::record::etag;

/// The longest a request is held while nothing changes.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a quiet stream shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Changes read at once for a stream.
const STREAM_PAGE: usize = 500;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The query of the feed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesQuery {
    since: Option<String>,
    limit: Option<usize>,
    wait: Option<String>,
}

/// One changed state.
#[derive(Debug, Serialize)]
struct ChangeItem {
    id: String,
    seq: u64,
    etag: String,
    deleted: bool,
    size: u64,
    content_hash: Option<String>,
    /// When its time is over, in milliseconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

impl ChangeItem {
    fn new(row: RecordRow, now: u64) -> Self {
        let shown = row.record.shown();
        Self {
            seq: row.seq,
            etag: etag(&row.leaf.digest),
            deleted: !row.is_shown(now),
            size: if row.is_shown(now) { shown.size } else { 0 },
            content_hash: row.is_shown(now).then(|| shown.content.to_hex()),
            expires_at: shown.expires_at,
            id: row.record.id.into(),
        }
    }
}

/// A page of the feed.
#[derive(Debug, Serialize)]
struct ChangesBody {
    changes: Vec<ChangeItem>,
    next: String,
}

/// Answers with what changed behind a cursor, each state once, oldest change first.
///
/// # Errors
/// [`Problem`] `cursor_expired` when the cursor is of another life of the feed; when it is
/// malformed; when changes cannot be read.
pub async fn get(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Params(query): Params<ChangesQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = page_limit(query.limit);
    let wait = query
        .wait
        .as_deref()
        .map_or(Ok(Duration::ZERO), parse_wait)?;
    let last = headers.get(LAST_EVENT_ID);
    let last = last
        .map(|value| value.to_str().map_err(|_| BadCursor))
        .transpose()?;
    let since = last
        .or(query.since.as_deref())
        .map(str::parse)
        .transpose()?;
    let since = position(&namespace.view(), since)?;
    if accepts(&headers, "text/event-stream") {
        return Ok(events(&app, namespace, since));
    }
    let (page, share) = poll(&app, &namespace, since, limit, wait).await?;
    outgoing::page(&app, share, &page).await
}

/// Where reading the feed begins.
///
/// # Errors
/// [`Problem`] `cursor_expired` when the cursor is not one of this feed's.
pub fn position(view: &View, cursor: Option<Cursor>) -> Result<Cursor, Problem> {
    let newest = view.cursor();
    match cursor {
        None => Ok(Cursor { seq: 0, ..newest }),
        Some(cursor) if cursor.epoch == newest.epoch && cursor.seq <= newest.seq => Ok(cursor),
        Some(_) => Err(Problem::new(
            StatusCode::GONE,
            "cursor_expired",
            "the cursor is of another life of this replica's feed; start over without a cursor",
        )),
    }
}

async fn read(
    namespace: &OpenNamespace,
    since: Cursor,
    limit: usize,
) -> Result<(Vec<ChangeItem>, Cursor), Problem> {
    let rows = namespace
        .read(move |view| view.changes(since.seq, limit))
        .await?;
    let seq = rows.last().map_or(since.seq, |row| row.seq);
    let now = namespace.now();
    let changes = rows.into_iter().map(|row| ChangeItem::new(row, now));
    let changes = changes.collect();
    Ok((changes, Cursor { seq, ..since }))
}

async fn poll(
    app: &App,
    namespace: &OpenNamespace,
    since: Cursor,
    limit: usize,
    wait: Duration,
) -> Result<(ChangesBody, Reservation), Problem> {
    let mut commits = namespace.subscribe();
    let mut timer = Box::pin(sleep(wait));
    loop {
        // Seen before reading, so that no commit in between is slept through.
        commits.mark_unchanged();
        let share = outgoing::page_share(app, limit).await?;
        let (changes, next) = read(namespace, since, limit).await?;
        // Whoever waits for changes holds none.
        let share = if changes.is_empty() {
            drop(share);
            app.downloads.reserve(0).await?
        } else {
            share
        };
        let is_over = !changes.is_empty()
            || wait.is_zero()
            || tokio::select! {
                biased;
                () = app.shutdown.cancelled() => true,
                () = &mut timer => true,
                commit = commits.changed() => commit.is_err(),
            };
        if is_over {
            let next = next.to_string();
            return Ok((ChangesBody { changes, next }, share));
        }
    }
}

/// Where a stream of events stands.
struct Following {
    namespace: Arc<OpenNamespace>,
    commits: watch::Receiver<Arc<View>>,
    at: Cursor,
    unsent: VecDeque<ChangeItem>,
}

fn events(app: &App, namespace: Arc<OpenNamespace>, since: Cursor) -> Response {
    let start = Following {
        commits: namespace.subscribe(),
        namespace,
        at: since,
        unsent: VecDeque::new(),
    };
    let events = stream::unfold(start, |mut following| async move {
        let event = following.next().await?;
        Some((event, following))
    });
    // An open stream must not keep the server from stopping.
    let events = events.take_until(app.shutdown.clone().cancelled_owned());
    sse(events)
}

fn sse(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let heartbeat = KeepAlive::new().interval(HEARTBEAT);
    Sse::new(events).keep_alive(heartbeat).into_response()
}

impl Following {
    /// The next event. `None` when the namespace is gone or cannot be read: the client connects
    /// again and is told why.
    async fn next(&mut self) -> Option<Result<Event, Infallible>> {
        while self.unsent.is_empty() {
            self.commits.mark_unchanged();
            let (changes, next) = read(&self.namespace, self.at, STREAM_PAGE).await.ok()?;
            self.unsent = changes.into();
            self.at = next;
            if self.unsent.is_empty() {
                self.commits.changed().await.ok()?;
            }
        }
        let change = self.unsent.pop_front()?;
        let seq = change.seq;
        let id = Cursor { seq, ..self.at }.to_string();
        let event = Event::default().event("change").id(id);
        event.json_data(change).ok().map(Ok)
    }
}

/// `30s`, `500ms` or `2m`; more than [`WAIT_MAX`] counts as that.
fn parse_wait(text: &str) -> Result<Duration, Problem> {
    let bad = || {
        let detail = format!("wait takes a time such as 30s, 500ms or 1m; got {text:?}");
        Problem::bad_query(detail)
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let number: u32 = number.parse().map_err(|_| bad())?;
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return Err(bad()),
    };
    Ok((unit * number).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("4294967295m", 60_000),
        ] {
            assert_eq!(
                parse_wait(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for bad in ["", "30", "s", "-1s", "1h", "1.5s", "4294967296s", "é"] {
            assert!(parse_wait(bad).is_err(), "{bad}");
        }
    }
}
